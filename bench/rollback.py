"""How long a rollback takes: `python bench/rollback.py [ROUNDS]`.

A real store, a real agent that polls every second, and a model server (the real one if it is on PATH, else
the stand-in) with a scan a second. Each round moves a channel back to the version in the reserve, and again
to the other one. The store is stopped the moment the agent has seen the channel move, and started again for
the next move. Printed: the time from the command's start, and from the agent's seeing it, until AVAILABLE;
and what was fetched, which is nothing.
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
from typing import Any

import boto3
import yaml

from servesync.demo.seaweed import Seaweed
from servesync.demo.server import ModelServer

PATIENCE_SECONDS = 120.0


class Bench:
    """One agent beside one server, and the store that they get models from."""

    def __init__(self, folder: Path, store: Seaweed) -> None:
        self._store = store
        self._log = folder / "log"
        self._settings = folder / "servesync.yaml"
        self._keys = {"AWS_ACCESS_KEY_ID": store.access_key, "AWS_SECRET_ACCESS_KEY": store.secret_key}
        self.server = ModelServer(folder / "models.config", folder / "server.log")
        client = boto3.client(
            "s3",
            endpoint_url=store.endpoint_url,
            region_name="us-east-1",
            aws_access_key_id=store.access_key,
            aws_secret_access_key=store.secret_key,
        )
        client.create_bucket(Bucket="rollback")
        shelf = folder / "models" / "m"
        (folder / "models.config").write_text(
            f'model_config_list {{ config {{ name: "m" base_path: "{shelf}" model_platform: "tensorflow" '
            "model_version_policy { all {} } } }\n"
        )
        settings = {
            "store": {"url": "s3://rollback", "endpoint_url": store.endpoint_url, "region": "us-east-1"},
            "serving": {"models_dir": str(folder / "models"), "rest_url": self.server.url},
            "models": [{"name": "m", "versions": {"channel": "stable"}}],
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

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return the lines of one event so far."""
        lines = self._log.read_text().splitlines()
        found = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]
        return [line for line in found if line["event"] == name]

    def until(self, happened: Callable[[], object]) -> None:
        """Wait for something."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not happened():
            if time.monotonic() > deadline:
                raise SystemExit(f"waited in vain; the log:\n{self._log.read_text()[-3000:]}")
            time.sleep(0.01)

    def move(self, *command: str) -> tuple[float, float]:
        """Move the channel; return the seconds from the command's start, and from its being seen."""
        moved, available = len(self.events("channel_moved")), len(self.events("version_available"))
        pruned = len(self.events("version_pruned"))
        begin = time.time()
        self.call(*command, "--channel", "stable")
        self.until(lambda: len(self.events("channel_moved")) > moved)
        self._store.stop()
        self.until(lambda: len(self.events("version_available")) > available)
        seen = datetime.fromisoformat(self.events("channel_moved")[-1]["timestamp"]).timestamp()
        done = datetime.fromisoformat(self.events("version_available")[-1]["timestamp"]).timestamp()
        self.until(lambda: len(self.events("version_pruned")) > pruned)
        self._store.start_again()
        return done - begin, done - seen


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("rounds", type=int, nargs="?", default=5)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as name, Seaweed(Path(name, "seaweed")) as store:
        folder = Path(name)
        bench = Bench(folder, store)
        exported = folder / "exported"
        make = [sys.executable, "-m", "servesync.demo.models", str(exported)]
        subprocess.run(make, check=True, capture_output=True)
        for number in ("1", "2"):
            bench.call("publish", str(exported / number), "--model", "m", "--version", number)
        bench.call("promote", "m", "1", "--channel", "stable")
        agent = bench.run()
        try:
            bench.until(lambda: bench.events("version_installed"))
            bench.server.start()
            bench.until(lambda: bench.events("version_available"))
            bench.call("promote", "m", "2", "--channel", "stable")
            bench.until(lambda: bench.events("version_pruned"))
            fetched = len(bench.events("version_fetched"))
            moves = [bench.move("promote", "m", str(1 + turn % 2)) for turn in range(rounds * 2)]
            fetched = len(bench.events("version_fetched")) - fetched
        finally:
            agent.terminate()
            agent.wait()
            bench.server.kill()
    for what, seconds in zip(
        ("from the command", "from its being seen"), zip(*moves, strict=True), strict=True
    ):
        middle, most = statistics.median(seconds), max(seconds)
        print(f"{what} until AVAILABLE: median {middle:.2f} s, longest {most:.2f} s, of {len(moves)}")
    print(f"versions fetched meanwhile, with the store switched off: {fetched}")


if __name__ == "__main__":
    main()
