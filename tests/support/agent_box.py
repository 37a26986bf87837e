"""Runs the real agent as a process against a real store, and looks at the shelf as the server would."""

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

import forked

Tree = Mapping[str, bytes]


def tar_gz_of(tree: Tree, root: str, *, is_random: bool = False) -> bytes:
    """Pack a tree as `tar -czf` does, below one folder `root`.

    Of random bytes gzip stores every block after it has tried in vain: here it does not try.
    """
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=0 if is_random else 1) as tar:
        for name, data in tree.items():
            member = tarfile.TarInfo(f"{root}/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return packed.getvalue()


def digests(tree: Tree) -> dict[str, str]:
    """Return the SHA-256 of every file of a tree."""
    return {name: hashlib.sha256(data).hexdigest() for name, data in tree.items()}


def digests_on_disk(root: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below `root`."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob("*")
        if path.is_file()
    }


@dataclass
class AgentBox:
    """One models directory with its settings, and the store that they point to."""

    folder: Path
    endpoint_url: str
    bucket: str
    access_key: str
    secret_key: str
    overrides: dict[str, dict[str, Any]] = field(default_factory=dict)
    models: list[dict[str, Any]] = field(default_factory=lambda: [{"name": "m", "versions": {"latest": 1}}])
    _events: list[dict[str, Any]] = field(default_factory=list)
    _read_bytes: int = 0
    _reading: threading.Lock = field(default_factory=threading.Lock)

    @property
    def models_dir(self) -> Path:
        """Where the shelves are."""
        return self.folder / "models"

    @property
    def shelf(self) -> Path:
        """The shelf of model `m`."""
        return self.models_dir / "m"

    @property
    def workspace(self) -> Path:
        """The hidden directory beside the shelves."""
        return self.models_dir / ".servesync"

    @property
    def log(self) -> Path:
        """What a running agent has written."""
        return self.folder / "agent.log"

    def settings(self) -> dict[str, Any]:
        """Return the settings as they will be written."""
        found: dict[str, Any] = {
            "store": {
                "url": f"s3://{self.bucket}/prod",
                "endpoint_url": self.endpoint_url,
                "region": "us-east-1",
                "settle_seconds": 1,
            },
            "serving": {"models_dir": str(self.models_dir), "rest_url": None},
            "models": self.models,
            "poll": {"interval_seconds": 1, "jitter_seconds": 0},
            "limits": {"disk_reserve_bytes": 0},
            "admin": {"port": None},
        }
        for section, keys in self.overrides.items():
            found.setdefault(section, {}).update(keys)
        return found

    def write_settings(self) -> Path:
        """Write the settings file, as an editor would: aside, then renamed."""
        path = self.folder / "servesync.yaml"
        aside = self.folder / ".servesync.yaml.new"
        aside.write_text(yaml.safe_dump(self.settings()))
        aside.replace(path)
        return path

    def environment(self) -> dict[str, str]:
        """Return this process's environment with the store's credentials."""
        own = {"AWS_ACCESS_KEY_ID": self.access_key, "AWS_SECRET_ACCESS_KEY": self.secret_key}
        return {name: value for name, value in os.environ.items() if not name.startswith("AWS_")} | own

    def command(self, *arguments: str) -> list[str]:
        """Return a command line of servesync with these settings."""
        name, *rest = arguments
        return [sys.executable, "-m", "servesync", name, "-c", str(self.write_settings()), *rest]

    def call(self, *arguments: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return forked.call(self.command(*arguments), self.environment(), timeout)

    def plan(self) -> Any:
        """Return what `servesync plan --json` says."""
        done = self.call("plan", "--json")
        return json.loads(done.stdout)

    @contextmanager
    def running(self) -> Iterator["subprocess.Popen[bytes]"]:
        """Run the daemon; it is killed at the end if it still lives."""
        with self.log.open("ab") as log:
            process = forked.start(self.command("run"), self.environment(), stdout=log, stderr=log)
        try:
            yield process
        finally:
            process.kill()
            process.wait()
        assert self.is_log_all_json(), self.log.read_text()[-3000:]

    def is_log_all_json(self) -> bool:
        """Whether every line is an event, or a message of the command about its own end."""
        lines = self.log.read_text().splitlines()
        return all(line.startswith(("{", "servesync: ", "  ")) for line in lines)

    def events(self, name: str | None = None) -> list[dict[str, Any]]:
        """Return the complete lines of the log, or those of one event."""
        if not self.log.exists():
            return []
        with self._reading, self.log.open("rb") as log:
            log.seek(self._read_bytes)
            new = log.read()
            whole = new[: new.rfind(b"\n") + 1]
            self._read_bytes += len(whole)
            self._events += [json.loads(line) for line in whole.splitlines() if line.startswith(b"{")]
            return [line for line in self._events if name is None or line["event"] == name]

    def until(self, happened: Callable[[], object], what: str = "", seconds: float = 120) -> None:
        """Wait for something, and fail with the log if it does not come."""
        deadline = time.monotonic() + seconds
        while not happened():
            if time.monotonic() > deadline:
                text = self.log.read_text()[-4000:] if self.log.exists() else ""
                raise AssertionError(f"waited in vain: {what}\n{text}")
            time.sleep(0.02)

    def numbers(self) -> list[str]:
        """Return the names on the shelf of `m`, sorted."""
        return sorted(path.name for path in self.shelf.iterdir()) if self.shelf.exists() else []

    def leftovers(self) -> list[str]:
        """Return what lies in staging and trash."""
        return [
            str(path.relative_to(self.workspace))
            for folder in ("staging", "trash")
            for path in (self.workspace / folder).glob("*")
        ]
