"""A server whose memory has no room for old and new together: refused with figures, or retired first."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from agent_box import AgentBox, tar_gz_of
from big_models import LONG_ONLY, files_of
from fixtures_store import Bucket
from forked_server import ModelServer
from served_scene import unloadable_by_server
from servesync.demo.client import Client
from servesync.demo.server import FLAGS
from servesync.planning.memory import estimate, weight_of

NAMES = ("a", "b", "c")
INPUTS = [1.0]


class Scene:
    """Three models beside one server; each version of each weighs the same."""

    def __init__(self, box: AgentBox, bucket: Bucket, exported: Path) -> None:
        self.box = box
        self.bucket = bucket
        self.folders = {1: exported / "1", 2: exported / "2"}
        self.trees = {version: files_of(folder) for version, folder in self.folders.items()}
        config = box.folder / "models.config"
        self.server = ModelServer(config, box.folder / "server.log")
        box.models = [{"name": name} for name in NAMES]
        box.overrides = {"serving": {"rest_url": self.server.url}}
        entries = (
            f'config {{ name: "{name}" base_path: "{box.models_dir / name}" model_platform: "tensorflow" '
            "model_version_policy { all {} } }"
            for name in NAMES
        )
        config.write_text(f"model_config_list {{ {' '.join(entries)} }}\n")

    def publish(self, name: str, version: int, tree: dict[str, bytes] | None = None) -> None:
        """Upload a bare archive, whose weight nobody knows before it is unpacked."""
        body = tar_gz_of(tree or self.trees[1 if version == 1 else 2], str(version))
        self.bucket.put(f"prod/{name}/{version}.tar.gz", body)

    def publish_with_manifest(self, name: str, version: int) -> None:
        """Publish with servesync, so that the manifest tells the weight."""
        done = self.box.call("publish", str(self.folders[2]), "--model", name, "--version", str(version))
        assert done.returncode == 0, done.stderr

    def begin(self) -> int:
        """Bring version 1 of all models, start the server; return the estimate of each of them."""
        for name in NAMES:
            self.publish(name, 1)
        done = self.box.call("sync")
        assert done.returncode == 0, done.stderr
        self.server.start()
        self.server.wait_ready(120)
        sizes = [(path, len(data)) for path, data in self.trees[1].items()]
        (verified,) = {line["tensor_bytes"] for line in self.lines(done.stdout, "version_verified")}
        return estimate(weight_of(sizes, verified), 1.2)

    @staticmethod
    def lines(output: str, event: str) -> list[dict[str, Any]]:
        """Return the lines of one event."""
        found = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
        return [line for line in found if line["event"] == event]

    def on_shelf(self) -> dict[str, list[str]]:
        """Return what is on each shelf."""
        return {name: sorted(path.name for path in (self.box.models_dir / name).iterdir()) for name in NAMES}

    def events(self, event: str, name: str, version: int) -> list[dict[str, Any]]:
        """Return the lines of one event of one version."""
        found = self.box.events(event)
        return [line for line in found if (line["model"], line["version"]) == (name, version)]

    def until(self, event: str, name: str, version: int) -> None:
        """Wait for an event of one version."""
        self.box.until(lambda: self.events(event, name, version), f"{event} of {name} {version}")

    def states(self, name: str) -> dict[str, str]:
        """Return what the server says of a model."""
        answer = httpx.get(f"{self.server.url}/v1/models/{name}", timeout=10, trust_env=False).json()
        return {item["version"]: item["state"] for item in answer["model_version_status"]}


@pytest.fixture
def scene(tmp_path: Path, bucket: Bucket, exported: Path) -> Iterator[Scene]:
    """Store and box are ready; agent and server are started by the test."""
    server = bucket.server
    box = AgentBox(tmp_path, server.endpoint_url, bucket.name, server.access_key, server.secret_key)
    scene = Scene(box, bucket, exported)
    try:
        yield scene
    finally:
        scene.server.kill()


ALL_AT_ONE = {name: ["1"] for name in NAMES}


def check_figures(found: list[dict[str, Any]], each: int, budget: int) -> None:
    """One event, whose figures add up."""
    (short,) = found
    assert (short["reason"], short["way"]) == ("memory_short", "refused")
    assert short["version_bytes"] == pytest.approx(each, rel=0.01)
    assert short["loaded"] == dict.fromkeys(("a 1", "b 1", "c 1"), each)
    assert short["needed_bytes"] == 3 * each + short["version_bytes"]
    assert short["budget_bytes"] == budget
    assert short["missing_bytes"] == short["needed_bytes"] - budget


def check_plan(box: AgentBox, taken: int, budget: int) -> None:
    """Both forms say what is taken, and why version 2 of a and b does not come."""
    plan = box.plan()
    for name in ("a", "b"):
        versions = plan["models"][name]["versions"]
        assert (versions["1"]["state"], versions["2"]["state"]) == ("serving", "held")
        assert "bytes are missing" in versions["2"]["why"]
    assert plan["memory"]["budget_bytes"] == budget
    shown = " ".join(box.call("plan").stdout.split())
    assert f"memory: {taken} bytes of {budget} are taken" in shown


def steps(box: AgentBox) -> list[tuple[str, str, int]]:
    """Return how versions left and came, in order, without the first."""
    return [
        (line["event"], line["model"], line["version"])
        for line in box.events()
        if line["event"] in {"version_pruned", "version_restored", "version_available"}
        and (line["event"], line["version"]) != ("version_available", 1)
    ]


def test_three_models_that_fit_alone_but_not_old_and_new(scene: Scene) -> None:
    """Refused with figures, fetched once at most; with retire_first installed, one after the other."""
    each = scene.begin()
    slack = each // 2
    scene.box.overrides["memory"] = {"budget_bytes": 3 * each + slack}
    with scene.box.running(), Client(scene.server.url, "c", INPUTS) as client:
        scene.publish("a", 2)
        scene.until("memory_short", "a", 2)
        scene.publish_with_manifest("b", 2)
        scene.until("memory_short", "b", 2)

        for name in ("a", "b"):
            check_figures(scene.events("memory_short", name, 2), each, 3 * each + slack)
        assert len(scene.events("version_set_aside", "a", 2)) == 1
        assert not scene.events("version_fetched", "b", 2)
        assert scene.on_shelf() == ALL_AT_ONE
        check_plan(scene.box, 3 * each, 3 * each + slack)

        scene.box.overrides["memory"]["when_short"] = "retire_first"
        scene.box.write_settings()
        scene.until("version_available", "a", 2)
        scene.until("version_available", "b", 2)
        scene.box.until(lambda: scene.on_shelf() == {"a": ["2"], "b": ["2"], "c": ["1"]})

    assert client.failures == []
    assert len(scene.events("version_fetched", "a", 2)) == 1
    order = steps(scene.box)
    names = ("a", "b") if order[0][1] == "a" else ("b", "a")
    assert order == [
        step
        for name in names
        for step in (
            ("version_pruned", name, 1),
            ("version_restored", name, 2),
            ("version_available", name, 2),
        )
    ]
    assert scene.box.events("internal_error") == scene.box.events("action_failed") == []


def test_a_broken_version_does_not_cost_the_one_that_serves(scene: Scene) -> None:
    """Not proven: nothing retires. Proven, but refused by the server: the old one comes back by a rename."""
    each = scene.begin()
    scene.box.overrides["memory"] = {"budget_bytes": 3 * each + each // 2, "when_short": "retire_first"}
    cut = scene.trees[2] | {"variables/variables.data-00000-of-00001": b"cut"}
    unloadable = unloadable_by_server(scene.trees[2])
    with scene.box.running(), Client(scene.server.url, "b", INPUTS) as client:
        scene.publish("a", 2, cut)
        scene.until("version_refused", "a", 2)
        assert not scene.box.events("version_pruned")
        assert scene.on_shelf()["a"] == ["1"]

        scene.publish("a", 3, unloadable)
        scene.until("version_quarantined", "a", 3)
        scene.until("version_restored", "a", 1)
        scene.box.until(lambda: scene.states("a")["1"] == "AVAILABLE")
        assert scene.on_shelf() == ALL_AT_ONE

    assert client.failures == []
    assert not scene.events("version_fetched", "a", 1)


def test_an_agent_that_starts_in_the_gap_ends_it(scene: Scene) -> None:
    """The old one is off the shelf, the new one waits in the reserve: a restart goes on from there."""
    each = scene.begin()
    scene.box.overrides["memory"] = {"budget_bytes": 3 * each + each // 2}
    scene.publish("a", 2)
    with scene.box.running():
        scene.until("version_set_aside", "a", 2)
    shutil.move(scene.box.models_dir / "a" / "1", scene.box.folder / "moved-by-hand")

    with scene.box.running():
        scene.until("version_available", "a", 2)

    assert scene.on_shelf()["a"] == ["2"]
    assert len(scene.events("version_fetched", "a", 2)) == 1


def test_everything_comes_at_once_while_there_is_no_server(scene: Scene) -> None:
    """A pause between loads spares a server that serves; one that is not there needs no rest."""
    scene.box.overrides["serving"]["pause_between_loads_seconds"] = 3600
    for name in NAMES:
        scene.publish(name, 1)

    done = scene.box.call("sync", timeout=100)

    assert done.returncode == 0, done.stderr
    assert scene.on_shelf() == ALL_AT_ONE


@LONG_ONLY
def test_one_load_at_a_time_over_all_models(scene: Scene) -> None:
    """While the server takes its time for one model, no other gets a new version."""
    scene.begin()
    scene.server.kill()
    scene.server = ModelServer(
        scene.box.folder / "models.config",
        scene.box.folder / "server.log",
        port=int(scene.server.url.rpartition(":")[2]),
        flags=(*FLAGS, "--standin_load_delay_seconds=2"),
        only_standin=True,
    )
    scene.server.start()
    scene.server.wait_ready(120)
    for name in NAMES:
        scene.publish(name, 2)

    done = scene.box.call("sync")

    assert done.returncode == 0, done.stderr
    order = [
        (line["event"], line["model"])
        for line in map(json.loads, filter(lambda line: line.startswith("{"), done.stdout.splitlines()))
        if line["event"] in {"version_installed", "version_available"} and line["version"] == 2
    ]
    assert len(order) == 2 * len(NAMES)
    for installed, available in zip(order[::2], order[1::2], strict=True):
        assert installed[0] == "version_installed"
        assert available == ("version_available", installed[1])


def test_a_model_that_never_loads_holds_up_the_others_for_its_time_only(scene: Scene) -> None:
    """The server does not list it; the others come all the same."""
    scene.begin()
    scene.box.models.insert(0, {"name": "unknown_to_the_server"})
    scene.box.overrides["serving"]["load_timeout_seconds"] = 3
    scene.publish("unknown_to_the_server", 1)
    for name in NAMES:
        scene.publish(name, 2)

    done = scene.box.call("sync")

    assert done.returncode == 0, done.stderr
    assert scene.on_shelf() == {name: ["2"] for name in NAMES}
