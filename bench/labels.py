"""How long until a label, and a new model, are live: `python bench/labels.py [ROUNDS]`.

A real store, a real agent that polls every second, and a model server (the real one if it is on PATH, else
the stand-in) that reads its configuration every 30 s, as the documents say. Each round moves a channel whose
label a client asks for all the time, and the label follows once the version has answered. It is done with the
file alone, and with `serving.grpc_target`. Printed: seconds from the write of the file until the label
answers with the other version, and from a new model's coming to the disk until the model answers.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import boto3
import httpx
import yaml

from servesync.demo.seaweed import Seaweed
from servesync.demo.server import FLAGS, ModelServer

PATIENCE_SECONDS = 180.0
LABELS = "allow_version_labels_for_unavailable_models"


class Bench:
    """One agent beside one server; `rpc`: the agent has the server's gRPC interface, too."""

    def __init__(self, folder: Path, store: Seaweed, *, rpc: bool) -> None:
        self._log = folder / "log"
        self._settings = folder / "servesync.yaml"
        self._keys = {"AWS_ACCESS_KEY_ID": store.access_key, "AWS_SECRET_ACCESS_KEY": store.secret_key}
        config = folder / "models.config"
        flags = (*FLAGS, "--model_config_file_poll_wait_seconds=30", f"--{LABELS}")
        self.server = ModelServer(config, folder / "server.log", flags=flags)
        settings = {
            "store": {
                "url": f"s3://{folder.name}",
                "endpoint_url": store.endpoint_url,
                "region": "us-east-1",
            },
            "serving": {
                "models_dir": str(folder / "models"),
                "rest_url": self.server.url,
                "grpc_target": self.server.grpc_target if rpc else None,
                "config_file": str(config),
                LABELS: True,
            },
            "models": [
                {"name": "m", "versions": {"channel": "stable"}},
                {"name": "later", "versions": {"latest": 1}, "required": False},
            ],
            "poll": {"interval_seconds": 1, "jitter_seconds": 0},
            "admin": {"port": None},
        }
        self._settings.write_text(yaml.safe_dump(settings))

    def call(self, name: str, *arguments: str) -> None:
        """Run a command to its end."""
        command = [sys.executable, "-m", "servesync", name, *arguments, "-c", str(self._settings)]
        subprocess.run(command, check=True, env=os.environ | self._keys, capture_output=True)

    def run(self) -> "subprocess.Popen[bytes]":
        """Start the agent."""
        command = [sys.executable, "-m", "servesync", "run", "-c", str(self._settings)]
        with self._log.open("wb") as out:
            return subprocess.Popen(command, env=os.environ | self._keys, stdout=out, stderr=out)

    def last(self, name: str, **facts: str) -> float | None:
        """Return when the last event of this name, with these facts, was written; None if none was."""
        lines = self._log.read_text().splitlines()
        found = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]
        times = [
            datetime.fromisoformat(line["timestamp"]).timestamp()
            for line in found
            if line["event"] == name and all(line.get(key) == value for key, value in facts.items())
        ]
        return times[-1] if times else None

    def until(self, happened: Callable[[], object]) -> float:
        """Wait for something; return when it was seen, in seconds since 1970."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not happened():
            if time.monotonic() > deadline:
                raise SystemExit(f"waited in vain; the log:\n{self._log.read_text()[-3000:]}")
            time.sleep(0.02)
        return time.time()

    def says(self, path: str) -> object:
        """Return what a model answers, or None."""
        try:
            answer = httpx.post(f"{self.server.url}/v1/models/{path}:predict", json={"instances": [[1.0]]})
        except httpx.HTTPError:
            return None
        return answer.json() if answer.is_success else None

    def moves(self, exported: Path, rounds: int) -> tuple[list[float], float]:
        """Return the seconds of each move of the label, and of the new model."""
        for number in ("1", "2"):
            self.call("publish", str(exported / number), "--model", "m", "--version", number)
        self.call("promote", "m", "1", "--channel", "stable")
        agent = self.run()
        try:
            self.until(lambda: self.last("version_installed"))
            self.server.start()
            self.until(lambda: self.says("m/labels/stable"))
            seconds = [self._move(str(2 - turn % 2)) for turn in range(rounds)]
            self.call("publish", str(exported / "1"), "--model", "later", "--version", "1")
            done = self.until(lambda: self.says("later"))
            self.until(lambda: self.last("version_installed", model="later"))
            return seconds, done - (self.last("version_installed", model="later") or done)
        finally:
            agent.terminate()
            agent.wait()
            self.server.kill()

    def _move(self, number: str) -> float:
        before, written = self.says("m/labels/stable"), self.last("models_config_written") or 0.0
        self.call("promote", "m", number, "--channel", "stable")
        self.until(lambda: (self.last("models_config_written") or 0.0) > written)
        written = self.last("models_config_written") or 0.0
        return self.until(lambda: self.says("m/labels/stable") not in (before, None)) - written


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("rounds", type=int, nargs="?", default=4)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as name, Seaweed(Path(name, "seaweed")) as store:
        exported = Path(name, "exported")
        make = [sys.executable, "-m", "servesync.demo.models", str(exported)]
        subprocess.run(make, check=True, capture_output=True)
        client = boto3.client(
            "s3",
            endpoint_url=store.endpoint_url,
            region_name="us-east-1",
            aws_access_key_id=store.access_key,
            aws_secret_access_key=store.secret_key,
        )
        for what, rpc in (("file", False), ("grpc", True)):
            folder = Path(name, what)
            folder.mkdir()
            client.create_bucket(Bucket=what)
            seconds, model = Bench(folder, store, rpc=rpc).moves(exported, rounds)
            middle, most = statistics.median(seconds), max(seconds)
            print(
                f"{what}: a label moves {middle:.2f} s after the write of the file (median; longest "
                f"{most:.2f} s, of {rounds}); a new model answers {model:.2f} s after it came to the disk"
            )


if __name__ == "__main__":
    main()
