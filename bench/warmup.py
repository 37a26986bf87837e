"""The first request to a new version, with and without warm-up requests: `python bench/warmup.py [ROUNDS]`.

A network of 40 convolutions on the model server (the stand-in, if the real one is not on PATH). Each round
brings the same version twice, once with the warm-up file that is made of its golden request, and takes the
time from the rename to AVAILABLE, of the first request, and of later ones.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import httpx

from servesync.demo.server import ModelServer
from servesync.domain.versions import Model
from servesync.publishing.warmup import warmup_from_golden
from servesync.verify import read_signatures

ROW = [0.5] * 16
EXPORT = """
import sys, tensorflow as tf
row = tf.keras.Input((16,))
x = tf.keras.layers.Reshape((28, 28, 8))(tf.keras.layers.Dense(28 * 28 * 8)(row))
for _ in range(40):
    x = tf.keras.layers.Conv2D(32, 3, padding="same", activation="relu")(x)
    x = tf.keras.layers.BatchNormalization()(x)
tf.keras.Model(row, tf.keras.layers.GlobalAveragePooling2D()(x)).export(sys.argv[1])
"""


def make_models(folder: Path) -> dict[str, Path]:
    """Export a model with a golden request; return it without and with the warm-up requests made of that."""
    cold, warm = folder / "cold", folder / "warm"
    subprocess.run([sys.executable, "-c", EXPORT, str(cold)], check=True, capture_output=True)
    signature = read_signatures(cold)["serving_default"]
    request = {
        "inputs": {name: [ROW] for name in signature.inputs},
        "outputs": {next(iter(signature.outputs)): [[0.0] * 32]},
    }
    (cold / "assets.extra").mkdir()
    golden = {"schema": "servesync.golden/1", "requests": [request]}
    (cold / "assets.extra/servesync_golden.json").write_text(json.dumps(golden))
    shutil.copytree(cold, warm)
    made = warmup_from_golden(warm, Model("m"))
    (warm / made.path).write_bytes(made.data)
    return {"without": cold, "with": warm}


class Scene:
    """A model server with a shelf to which versions come."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._shelf = folder / "shelf"
        self._shelf.mkdir()
        config = folder / "models.config"
        config.write_text(
            f'model_config_list {{ config {{ name: "m" base_path: "{self._shelf}" '
            'model_platform: "tensorflow" model_version_policy { all {} } } }\n'
        )
        self.server = ModelServer(config, folder / "server.log")
        self._http = httpx.Client(timeout=60, trust_env=False)

    def put(self, model: Path, version: int) -> None:
        """Rename a version into place."""
        shutil.copytree(model, self._folder / f"staged-{version}")
        (self._folder / f"staged-{version}").rename(self._shelf / str(version))

    def take(self, version: int) -> None:
        """Rename it away."""
        (self._shelf / str(version)).rename(self._folder / f"gone-{version}")

    def until_available(self, version: int) -> None:
        """Wait for it."""
        while True:
            answer = self._http.get(f"{self.server.url}/v1/models/m").json()
            found = {item["version"]: item["state"] for item in answer["model_version_status"]}
            if found.get(str(version)) == "AVAILABLE":
                return
            time.sleep(0.01)

    def ask(self, version: int) -> float:
        """Return how many milliseconds a request takes."""
        started = time.perf_counter()
        url = f"{self.server.url}/v1/models/m/versions/{version}:predict"
        self._http.post(url, json={"instances": [ROW]}).raise_for_status()
        return (time.perf_counter() - started) * 1000


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("rounds", nargs="?", type=int, default=9)
    rounds = parser.parse_args().rounds
    seen: dict[tuple[str, str], list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as name:
        models = make_models(Path(name))
        scene = Scene(Path(name))
        scene.put(models["without"], 1)
        with scene.server:
            scene.server.wait_ready(120)
            scene.ask(1)
            version = 1
            for _ in range(rounds):
                for kind, model in models.items():
                    version += 1
                    started = time.perf_counter()
                    scene.put(model, version)
                    scene.until_available(version)
                    seen[kind, "until AVAILABLE"].append((time.perf_counter() - started) * 1000)
                    seen[kind, "first request"].append(scene.ask(version))
                    seen[kind, "later ones"].extend(scene.ask(version) for _ in range(10))
                    scene.take(version)
    for (kind, what), milliseconds in sorted(seen.items()):
        print(f"{kind} warm-up requests, {what}: {statistics.median(milliseconds):.0f} ms")


if __name__ == "__main__":
    main()
