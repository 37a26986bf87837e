"""How long others wait while a version comes: `python bench/rollback_during_fetch.py [MB] [MB_PER_SECOND]`.

A real store, a real agent that polls every second, and a model server (the real one if it is on PATH, else
the stand-in). While version 3 of model `a` is on its way (slow bytes, dripping bytes, behind a listing that
drips, beside a server that accepts and never answers, or in a trial load that hangs), model `b` is rolled
back, then `a` itself, and then the agent gets SIGTERM while 3 comes again. Printed: seconds from the poll
move until the old version was in place, and from SIGTERM until the process had ended. Behind a dripping
listing no poll sees anything: there the settings pin the old version, and seconds count from SIGHUP.
"""

import argparse
import io
import json
import os
import secrets
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import boto3
import psutil
import yaml

from servesync.demo.seaweed import Seaweed
from servesync.demo.server import ModelServer
from servesync.publishing import promote, store_at

SUPPORT = Path(__file__).parents[1] / "tests/support"
sys.path.append(str(SUPPORT))
from faulty_proxy import FaultyProxy, HeldBack, drip, listings, reads_of  # noqa: E402 (lies among the tests)

PATIENCE_SECONDS = 180.0
MODELS = ("a", "b")
CASES = ("slow bytes", "dripping bytes", "dripping listing", "silent server", "hanging trial")


@dataclass
class Releases:
    """Archives by what they are for; each takes the number of the version."""

    small: Callable[[int], bytes]
    coming: Callable[[int], bytes]
    hanging: Callable[[int], bytes]


def packed(root: Path, number: int, extra_bytes: int = 0) -> bytes:
    """Pack a model, with an asset that cannot be compressed."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        tar.add(root, arcname=f"{number:07}")
        if extra_bytes:
            member = tarfile.TarInfo(f"{number:07}/assets/weights")
            member.size = extra_bytes
            tar.addfile(member, io.BytesIO(secrets.token_bytes(extra_bytes)))
    return out.getvalue()


class Bench:
    """One agent beside one server, and the store that they get models from."""

    def __init__(self, folder: Path, store: Seaweed, proxy: FaultyProxy, case: str, rate: int) -> None:
        self.folder = folder
        self.proxy = proxy
        self._keys = {"AWS_ACCESS_KEY_ID": store.access_key, "AWS_SECRET_ACCESS_KEY": store.secret_key}
        self._bucket = case.replace(" ", "-")
        self._client = boto3.client(
            "s3",
            endpoint_url=store.endpoint_url,
            region_name="us-east-1",
            aws_access_key_id=store.access_key,
            aws_secret_access_key=store.secret_key,
        )
        self._client.create_bucket(Bucket=self._bucket)
        self._store = store_at(
            url=f"s3://{self._bucket}", endpoint_url=store.endpoint_url, region="us-east-1"
        )
        entries = [
            f'config {{ name: "{model}" base_path: "{folder}/models/{model}" model_platform: "tensorflow" '
            "model_version_policy { all {} } }"
            for model in MODELS
        ]
        (folder / "models.config").write_text(f"model_config_list {{ {' '.join(entries)} }}\n")
        self.server = ModelServer(folder / "models.config", folder / "server.log")
        self.versions: dict[str, dict[str, object]] = {model: {"channel": "stable"} for model in MODELS}
        self._settings: dict[str, Any] = {
            "store": {
                "url": f"s3://{self._bucket}",
                "endpoint_url": proxy.endpoint_url,
                "region": "us-east-1",
            },
            "serving": {"models_dir": str(folder / "models"), "rest_url": self.server.url},
            "poll": {"interval_seconds": 1, "jitter_seconds": 0},
            "limits": {"disk_reserve_bytes": 0},
            "fetch": {"max_bytes_per_second": rate},
            "verify": {"level": "load" if case == "hanging trial" else "checksum"},
            "admin": {"port": None},
            "log": {"level": "debug"},
        }

    @property
    def settings(self) -> Path:
        """The settings file, as an editor would have written it just now."""
        path, aside = self.folder / "servesync.yaml", self.folder / "new.yaml"
        models = [{"name": model, "versions": wanted} for model, wanted in self.versions.items()]
        aside.write_text(yaml.safe_dump(self._settings | {"models": models}))
        aside.replace(path)
        return path

    @contextmanager
    def running(self) -> Iterator["subprocess.Popen[bytes]"]:
        """Run the agent."""
        command = [sys.executable, "-m", "servesync", "run", "-c", str(self.settings)]
        with (self.folder / "log").open("wb") as out:
            agent = subprocess.Popen(command, env=os.environ | self._keys, stdout=out, stderr=out)
        try:
            yield agent
        finally:
            agent.kill()
            agent.wait()

    def put(self, model: str, number: int, body: bytes) -> None:
        """Upload a version, and move the channel there."""
        self._client.put_object(Bucket=self._bucket, Key=f"{model}/{number}.tar", Body=body)
        self.move(model, number)

    def move(self, model: str, number: int) -> None:
        """Move the channel."""
        promote(self._store, (model, str(number), "stable"), "bench", "bench")

    def events(self, name: str, model: str = "", version: int = -1) -> list[dict[str, Any]]:
        """Return the lines of one event so far; of one version, or of all."""
        lines = (self.folder / "log").read_text().splitlines()
        found = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]
        return [
            line
            for line in found
            if line["event"] == name
            and (not model or (line.get("model"), line.get("version")) == (model, version))
        ]

    def until(self, happened: Callable[[], object]) -> None:
        """Wait for something."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not happened():
            if time.monotonic() > deadline:
                raise SystemExit(f"waited in vain; the log:\n{(self.folder / 'log').read_text()[-3000:]}")
            time.sleep(0.01)

    def lead(self, releases: Releases) -> None:
        """Let the server serve version 2 of both models, with 1 in the reserve."""
        for number in (1, 2):
            for model in MODELS:
                self.put(model, number, releases.small(number))
            if number == 1:
                self.until(lambda: all(self.events("version_installed", model, 1) for model in MODELS))
                self.server.start()
        self.until(lambda: all(self.events("version_pruned", model, 1) for model in MODELS))

    def roll_back(self, model: str, agent: "subprocess.Popen[bytes]", *, pin: bool) -> float:
        """Bring version 1 back; return the seconds from the poll, or from SIGHUP, that made it known."""
        if pin:
            self.versions[model] = {"pin": [1]}
            _ = self.settings
            since = time.time()
            agent.send_signal(signal.SIGHUP)
            self.until(lambda: self.events("version_restored", model, 1))
        else:
            self.move(model, 1)
            self.until(lambda: self.events("version_restored", model, 1))
            moved = at(self.events("channel_moved", model, 1)[-1])
            since = max(seen for line in self.events("poll_finished") if (seen := at(line)) <= moved)
        return at(self.events("version_restored", model, 1)[-1]) - since


def at(line: dict[str, Any]) -> float:
    """Return when a line was written, in seconds since 1970."""
    return datetime.fromisoformat(line["timestamp"]).timestamp()


def disturb(bench: Bench, case: str, releases: Releases) -> None:
    """Let version 3 of `a` be on its way, in trouble."""
    if case == "dripping bytes":
        bench.proxy.matches, bench.proxy.fault = reads_of("/a/3."), HeldBack()
    bench.put("a", 3, (releases.hanging if case == "hanging trial" else releases.coming)(3))
    if case == "hanging trial":
        bench.until(lambda: bench.events("version_fetched", "a", 3))
    staging = bench.folder / "models/.servesync/staging"
    bench.until(lambda: list(staging.glob("*")))
    if case == "dripping listing":
        bench.proxy.matches, bench.proxy.fault = listings, drip
        seen = bench.proxy.requests
        bench.until(lambda: bench.proxy.requests > seen)
    if case == "silent server":
        for child in psutil.Process().children():
            if any("standin" in word or "tensorflow_model_server" in word for word in child.cmdline()):
                child.suspend()  # its port goes on accepting
    time.sleep(2.0)


def measure(bench: Bench, case: str, releases: Releases) -> tuple[float, float, float]:
    """Return seconds for a rollback of `b`, for one of `a`, and for the end."""
    drips = case == "dripping listing"
    with bench.running() as agent:
        bench.lead(releases)
        disturb(bench, case, releases)
        other = bench.roll_back("b", agent, pin=drips)
        same = bench.roll_back("a", agent, pin=drips)
        bench.until(lambda: bench.events("fetch_cancelled", "a", 3))
        if drips:
            bench.versions["a"] = {"channel": "stable"}
            _ = bench.settings
            agent.send_signal(signal.SIGHUP)
        else:
            begun = len(bench.events("version_fetched", "a", 3))
            bench.move("a", 3)
            staging = bench.folder / "models/.servesync/staging"
            bench.until(lambda: list(staging.glob("*")))
            if case == "hanging trial":
                bench.until(lambda: len(bench.events("version_fetched", "a", 3)) > begun)
        time.sleep(2.0)
        began = time.monotonic()
        agent.send_signal(signal.SIGTERM)
        agent.wait()
        return other, same, time.monotonic() - began


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("mb", type=int, nargs="?", default=300)
    parser.add_argument("mb_per_second", type=float, nargs="?", default=6.0)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=CASES)
    asked = parser.parse_args()
    rate = int(asked.mb_per_second * 1e6)
    with tempfile.TemporaryDirectory(prefix="servesync-bench-") as name, Seaweed(Path(name, "s3")) as store:
        folder = Path(name)
        os.environ.update({"AWS_ACCESS_KEY_ID": store.access_key, "AWS_SECRET_ACCESS_KEY": store.secret_key})
        exported, hanging, pipe = folder / "exported", folder / "hanging", folder / "pipe"
        os.mkfifo(pipe)
        for command in (
            ["-m", "servesync.demo.models", str(exported)],
            [str(SUPPORT / "make_hanging.py"), str(hanging), str(pipe)],
        ):
            subprocess.run([sys.executable, *command], check=True, capture_output=True)
        releases = Releases(
            lambda number: packed(exported / "1", number),
            lambda number: packed(exported / "1", number, asked.mb * 1_000_000),
            lambda number: packed(hanging, number),
        )
        print(f"version 3 of `a`: {asked.mb} MB at {asked.mb_per_second:g} MB/s")
        print("| meanwhile | rollback of `b` | rollback of `a` | SIGTERM to the end |")
        print("|---|---|---|---|", flush=True)
        for case in asked.cases:
            place = folder / case.replace(" ", "-")
            place.mkdir()
            with FaultyProxy(store.port) as proxy:
                bench = Bench(place, store, proxy, case, rate)
                try:
                    found = measure(bench, case, releases)
                finally:
                    bench.server.kill()
            print(f"| {case} | " + " | ".join(f"{seconds:.2f} s" for seconds in found) + " |", flush=True)


if __name__ == "__main__":
    main()
