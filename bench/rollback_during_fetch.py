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
import os
import secrets
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from beside import Beside, at, export_models, keys_of
from servesync.demo.seaweed import Seaweed
from servesync.demo.server import ModelServer
from servesync.publishing import promote, store_at

SUPPORT = Path(__file__).parents[1] / "tests/support"
sys.path.append(str(SUPPORT))
from faulty_proxy import FaultyProxy, HeldBack, drip, listings, reads_of  # noqa: E402 (lies among the tests)

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


class Bench(Beside):
    """One agent beside one server, and the store that they get models from."""

    def __init__(self, folder: Path, store: Seaweed, proxy: FaultyProxy, case: str, rate: int) -> None:
        self._bucket = case.replace(" ", "-")
        super().__init__(folder, store, self._bucket, endpoint_url=proxy.endpoint_url)
        self.proxy = proxy
        self._writes_to = store_at(
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
        self._sections: dict[str, object] = {
            "serving": {"models_dir": str(folder / "models"), "rest_url": self.server.url},
            "limits": {"disk_reserve_bytes": 0},
            "fetch": {"max_bytes_per_second": rate},
            "verify": {"level": "load" if case == "hanging trial" else "checksum"},
            "log": {"level": "debug"},
        }
        self.edit()

    def edit(self) -> None:
        """Write the settings, with `versions` as they are now."""
        models = [{"name": model, "versions": wanted} for model, wanted in self.versions.items()]
        self.configure(self._sections | {"models": models})

    def put(self, model: str, number: int, body: bytes) -> None:
        """Upload a version, and move the channel there."""
        self.client.put_object(Bucket=self._bucket, Key=f"{model}/{number}.tar", Body=body)
        self.move(model, number)

    def move(self, model: str, number: int) -> None:
        """Move the channel."""
        promote(self._writes_to, (model, str(number), "stable"), "bench", "bench")

    def lead(self, releases: Releases) -> None:
        """Let the server serve version 2 of both models, with 1 in the reserve."""
        for number in (1, 2):
            for model in MODELS:
                self.put(model, number, releases.small(number))
            if number == 1:
                self.until(
                    lambda: all(self.events("version_installed", model=model, version=1) for model in MODELS)
                )
                self.server.start()
        self.until(lambda: all(self.events("version_pruned", model=model, version=1) for model in MODELS))

    def roll_back(self, model: str, agent: "subprocess.Popen[bytes]", *, pin: bool) -> float:
        """Bring version 1 back; return the seconds from the poll, or from SIGHUP, that made it known."""
        if pin:
            self.versions[model] = {"pin": [1]}
            self.edit()
            since = time.time()
            agent.send_signal(signal.SIGHUP)
            self.until(lambda: self.events("version_restored", model=model, version=1))
        else:
            self.move(model, 1)
            self.until(lambda: self.events("version_restored", model=model, version=1))
            moved = at(self.events("channel_moved", model=model, version=1)[-1])
            since = max(seen for line in self.events("poll_finished") if (seen := at(line)) <= moved)
        return at(self.events("version_restored", model=model, version=1)[-1]) - since


def disturb(bench: Bench, case: str, releases: Releases) -> None:
    """Let version 3 of `a` be on its way, in trouble."""
    if case == "dripping bytes":
        bench.proxy.matches, bench.proxy.fault = reads_of("/a/3."), HeldBack()
    bench.put("a", 3, (releases.hanging if case == "hanging trial" else releases.coming)(3))
    if case == "hanging trial":
        bench.until(lambda: bench.events("version_fetched", model="a", version=3))
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
        bench.until(lambda: bench.events("fetch_cancelled", model="a", version=3))
        if drips:
            bench.versions["a"] = {"channel": "stable"}
            bench.edit()
            agent.send_signal(signal.SIGHUP)
        else:
            begun = len(bench.events("version_fetched", model="a", version=3))
            bench.move("a", 3)
            staging = bench.folder / "models/.servesync/staging"
            bench.until(lambda: list(staging.glob("*")))
            if case == "hanging trial":
                bench.until(lambda: len(bench.events("version_fetched", model="a", version=3)) > begun)
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
        os.environ.update(keys_of(store))
        exported, hanging, pipe = folder / "exported", folder / "hanging", folder / "pipe"
        os.mkfifo(pipe)
        export_models(exported)
        command = [sys.executable, str(SUPPORT / "make_hanging.py"), str(hanging), str(pipe)]
        subprocess.run(command, check=True, capture_output=True)
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
