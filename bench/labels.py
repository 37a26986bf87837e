"""How long until a label, and a new model, are live: `python bench/labels.py [ROUNDS]`.

A real store, a real agent that polls every second, and a model server (the real one if it is on PATH, else
the stand-in) that reads its configuration every 30 s, as the documents say. Each round moves a channel whose
label a client asks for all the time, and the label follows once the version has answered. It is done with the
file alone, and with `serving.grpc_target`. Printed: seconds from the write of the file until the label
answers with the other version, and from a new model's coming to the disk until the model answers.
"""

import argparse
import statistics
import tempfile
from pathlib import Path

import httpx

from beside import Beside, at, export_models
from servesync.demo.seaweed import Seaweed
from servesync.demo.server import FLAGS, ModelServer

LABELS = "allow_version_labels_for_unavailable_models"


class Bench:
    """One agent beside one server; `rpc`: the agent has the server's gRPC interface, too."""

    def __init__(self, folder: Path, store: Seaweed, *, rpc: bool) -> None:
        self._beside = Beside(folder, store, folder.name)
        config = folder / "models.config"
        flags = (*FLAGS, "--model_config_file_poll_wait_seconds=30", f"--{LABELS}")
        self._server = ModelServer(config, folder / "server.log", flags=flags)
        self._beside.configure(
            {
                "serving": {
                    "models_dir": str(folder / "models"),
                    "rest_url": self._server.url,
                    "grpc_target": self._server.grpc_target if rpc else None,
                    "config_file": str(config),
                    LABELS: True,
                },
                "models": [
                    {"name": "m", "versions": {"channel": "stable"}},
                    {"name": "later", "versions": {"latest": 1}, "required": False},
                ],
            }
        )

    def says(self, path: str) -> object:
        """Return what a model answers, or None."""
        try:
            answer = httpx.post(f"{self._server.url}/v1/models/{path}:predict", json={"instances": [[1.0]]})
        except httpx.HTTPError:
            return None
        return answer.json() if answer.is_success else None

    def moves(self, exported: Path, rounds: int) -> tuple[list[float], float]:
        """Return the seconds of each move of the label, and of the new model."""
        bench = self._beside
        for number in ("1", "2"):
            bench.call("publish", str(exported / number), "--model", "m", "--version", number)
        bench.call("promote", "m", "1", "--channel", "stable")
        try:
            with bench.running():
                bench.until(lambda: bench.events("version_installed"))
                self._server.start()
                bench.until(lambda: self.says("m/labels/stable"))
                seconds = [self._move(str(2 - turn % 2)) for turn in range(rounds)]
                bench.call("publish", str(exported / "1"), "--model", "later", "--version", "1")
                done = bench.until(lambda: self.says("later"))
                bench.until(lambda: bench.events("version_installed", model="later"))
                return seconds, done - at(bench.events("version_installed", model="later")[-1])
        finally:
            self._server.kill()

    def _move(self, number: str) -> float:
        bench = self._beside
        before, written = self.says("m/labels/stable"), len(bench.events("models_config_written"))
        bench.call("promote", "m", number, "--channel", "stable")
        bench.until(lambda: len(bench.events("models_config_written")) > written)
        since = at(bench.events("models_config_written")[-1])
        return bench.until(lambda: self.says("m/labels/stable") not in (before, None)) - since


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("rounds", type=int, nargs="?", default=4)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as name, Seaweed(Path(name, "seaweed")) as store:
        exported = Path(name, "exported")
        export_models(exported)
        for what, rpc in (("file", False), ("grpc", True)):
            folder = Path(name, what)
            folder.mkdir()
            seconds, model = Bench(folder, store, rpc=rpc).moves(exported, rounds)
            middle, most = statistics.median(seconds), max(seconds)
            print(
                f"{what}: a label moves {middle:.2f} s after the write of the file (median; longest "
                f"{most:.2f} s, of {rounds}); a new model answers {model:.2f} s after it came to the disk"
            )


if __name__ == "__main__":
    main()
