"""An agent beside a model server and a store: what the measurements of their dealings share."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import yaml

from servesync.demo.seaweed import Seaweed

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

PATIENCE_SECONDS = 180.0


def s3_client(store: Seaweed) -> "S3Client":
    """Return a client of the store that may do everything."""
    return boto3.client(
        "s3",
        endpoint_url=store.endpoint_url,
        region_name="us-east-1",
        aws_access_key_id=store.access_key,
        aws_secret_access_key=store.secret_key,
    )


def keys_of(store: Seaweed) -> dict[str, str]:
    """Return the environment by which programs of AWS's kind know the store's keys."""
    return {"AWS_ACCESS_KEY_ID": store.access_key, "AWS_SECRET_ACCESS_KEY": store.secret_key}


def at(line: Mapping[str, Any]) -> float:
    """Return when a line of the log was written, in seconds since 1970."""
    return datetime.fromisoformat(line["timestamp"]).timestamp()


def export_models(folder: Path) -> None:
    """Export the demo's two versions to `folder/1` and `folder/2`."""
    command = [sys.executable, "-m", "servesync.demo.models", str(folder)]
    subprocess.run(command, check=True, capture_output=True)


class Beside:
    """Runs agents and commands with one settings file in `folder`, and reads the agent's log.

    It makes the bucket. `endpoint_url` is where agents find the store, if they do not reach it directly.
    """

    def __init__(self, folder: Path, store: Seaweed, bucket: str, *, endpoint_url: str | None = None) -> None:
        self.folder = folder
        self._log = folder / "log"
        self._environment = os.environ | keys_of(store)
        self._store = {
            "url": f"s3://{bucket}",
            "endpoint_url": endpoint_url or store.endpoint_url,
            "region": "us-east-1",
        }
        self.client = s3_client(store)
        self.client.create_bucket(Bucket=bucket)

    @property
    def settings(self) -> Path:
        """The settings file, once `configure` has written it."""
        return self.folder / "servesync.yaml"

    def configure(self, sections: Mapping[str, object]) -> None:
        """Write the settings as an editor does: the store, a poll each second, and the sections given."""
        common = {"poll": {"interval_seconds": 1, "jitter_seconds": 0}, "admin": {"port": None}}
        aside = self.folder / "new.yaml"
        aside.write_text(yaml.safe_dump({"store": self._store} | common | dict(sections)))
        aside.replace(self.settings)

    def call(self, name: str, *arguments: str) -> None:
        """Run a command to its end."""
        command = [sys.executable, "-m", "servesync", name, *arguments, "-c", str(self.settings)]
        subprocess.run(command, check=True, env=self._environment, capture_output=True)

    @contextmanager
    def running(self) -> Iterator["subprocess.Popen[bytes]"]:
        """Run the agent with a new log; SIGTERM ends it, and SIGKILL if that is in vain."""
        command = [sys.executable, "-m", "servesync", "run", "-c", str(self.settings)]
        with self._log.open("wb") as out:
            agent = subprocess.Popen(command, env=self._environment, stdout=out, stderr=out)
        try:
            yield agent
        finally:
            agent.terminate()
            try:
                agent.wait(PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                agent.kill()
                agent.wait()

    def events(self, name: str, **facts: object) -> list[dict[str, Any]]:
        """Return the lines of one event so far, of those that have these facts."""
        lines = self._log.read_text().splitlines()
        found = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]
        return [
            line
            for line in found
            if line["event"] == name and all(line.get(key) == value for key, value in facts.items())
        ]

    def until(self, happened: Callable[[], object]) -> float:
        """Wait for something; return when it was seen, in seconds since 1970."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not happened():
            if time.monotonic() > deadline:
                raise SystemExit(f"waited in vain; the log:\n{self._log.read_text()[-3000:]}")
            time.sleep(0.01)
        return time.time()
