"""Several models of one agent, whose store lies behind a proxy that may hold bytes back."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import graph_bytes as gb
import watch_shelf
from agent_box import AgentBox, tar_gz_of
from faulty_proxy import FaultyProxy, HeldBack, reads_of
from fixtures_store import Bucket
from servesync.publishing import promote, store_at, withdraw

MIB = 1 << 20
SMALL, BIG = 1000, 12 * MIB
PUBLIC = "stable"


def tree_of(version: int, *, asset_bytes: int = SMALL) -> dict[str, bytes]:
    """Return a version without variables; each call makes another one."""
    info = gb.data(1, "x:0") + gb.number(2, 1)
    named = gb.entry(1, "x", info) + gb.entry(2, "y", info)
    graph = gb.graph([gb.node("x", "Placeholder")])
    body = gb.saved_model(graph, gb.entry(5, "serving_default", named))
    return {"saved_model.pb": body, "assets/n": b"%d" % version, "assets/w": os.urandom(asset_bytes)}


class JobsScene:
    """An agent in a box, the bucket, and the proxy through which the agent sees it. Nobody else uses it."""

    def __init__(self, box: AgentBox, bucket: Bucket, proxy: FaultyProxy) -> None:
        self.box = box
        self.bucket = bucket
        self.proxy = proxy
        box.endpoint_url = proxy.endpoint_url
        box.overrides["log"] = {"level": "debug"}  # every poll is in the log
        self._store = store_at(
            url=f"s3://{bucket.name}/prod", endpoint_url=bucket.server.endpoint_url, region="us-east-1"
        )

    def put(self, model: str, version: int, *, asset_bytes: int = SMALL) -> dict[str, bytes]:
        """Publish a version; return its files."""
        tree = tree_of(version, asset_bytes=asset_bytes)
        body = tar_gz_of(tree, f"{version:07}", is_random=asset_bytes == BIG)
        self.bucket.put(f"prod/{model}/{version}.tar.gz", body)
        return tree

    def hold(self, *parts: str) -> HeldBack:
        """Hold back from now on what is read of objects whose keys contain one of `parts`."""
        held = HeldBack()
        self.proxy.matches, self.proxy.fault = reads_of(*parts), held
        return held

    def promote(self, model: str, version: int) -> None:
        """Move the channel of a model."""
        promote(self._store, (model, str(version), PUBLIC), "a test", "a test")

    def withdraw(self, model: str, version: int) -> None:
        """Mark a version as withdrawn."""
        withdraw(self._store, (model, str(version)), "a test", "a test")

    def events(self, name: str, model: str, version: int) -> list[dict[str, Any]]:
        """Return the lines of one event of one version."""
        return [
            line
            for line in self.box.events(name)
            if (line.get("model"), line.get("version")) == (model, version)
        ]

    def until(self, name: str, model: str, version: int, times: int = 1) -> dict[str, Any]:
        """Wait for an event of one version, and return it."""
        self.box.until(
            lambda: len(self.events(name, model, version)) >= times, f"{name} of {model} {version}", 60
        )
        return self.events(name, model, version)[-1]

    def until_polled(self) -> None:
        """Wait until the agent has listed the store again."""
        before = len(self.box.events("poll_finished"))
        self.box.until(lambda: len(self.box.events("poll_finished")) > before, "a poll", 60)

    def on_shelf(self, model: str) -> list[str]:
        """Return the names on a shelf, sorted."""
        shelf = self.box.models_dir / model
        return sorted(path.name for path in shelf.iterdir()) if shelf.exists() else []

    def lead_to(self, model: str, *versions: int) -> None:
        """Let the running agent serve one version of a channel after the other."""
        for version in versions:
            self.put(model, version)
            self.promote(model, version)
            alone = [str(version)]
            self.box.until(partial(self._has, model, alone), f"{model} {version} alone", 60)

    def _has(self, model: str, names: list[str]) -> bool:
        return self.on_shelf(model) == names

    @contextmanager
    def watched(self, model: str, *trees: tuple[int, dict[str, bytes]]) -> Iterator[None]:
        """Look at a shelf all the time; nothing but these versions may be seen there, and each whole."""
        expected, out = self.box.folder / "expected.json", self.box.folder / "seen.json"
        expected.write_text(json.dumps({str(version): _sums(tree) for version, tree in trees}))
        shelf = str(self.box.models_dir / model)
        script = [sys.executable, str(watch_shelf.__file__), shelf, str(expected), str(out)]
        with subprocess.Popen(script) as watcher:
            self.box.until(out.exists, "the watcher", 60)
            try:
                yield
            finally:
                expected.unlink()
                watcher.wait(60)
        seen = json.loads(out.read_text())
        assert seen["violations"] == []
        assert seen["rounds"]


def _sums(tree: dict[str, bytes]) -> dict[str, tuple[int, str]]:
    return {path: watch_shelf.size_and_digest(data) for path, data in tree.items()}


@contextmanager
def jobs_scene(folder: Path, bucket: Bucket) -> Iterator[JobsScene]:
    """Set the scene; nothing runs yet but the proxy."""
    server = bucket.server
    with FaultyProxy(server.port) as proxy:
        box = AgentBox(folder, proxy.endpoint_url, bucket.name, server.access_key, server.secret_key)
        yield JobsScene(box, bucket, proxy)
