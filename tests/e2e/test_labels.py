"""Agent, store and model server together, with labels: the agent keeps the server's models.config."""

import signal
import stat
import subprocess
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from agent_box import AgentBox, tar_gz_of
from big_models import LONG_ONLY
from fixtures_store import Bucket
from forked_server import ModelServer
from servesync.demo.client import Client, ask
from servesync.demo.server import FLAGS
from servesync.demo.standin.config import parse_config

INPUTS = [1.0]
POLL = timedelta(seconds=1)
"""How often the server reads its models.config."""


def when(line: Mapping[str, Any]) -> datetime:
    """Return the time of a line of the log."""
    return datetime.fromisoformat(line["timestamp"])


class Scene:
    """An agent beside a server whose models.config it keeps; versions 1 and 2 answer differently."""

    def __init__(self, box: AgentBox, server: ModelServer, exported: Path, bucket: Bucket) -> None:
        self.box = box
        self.server = server
        self.config = box.folder / "models.config"
        for number in (1, 2):
            root = exported / str(number)
            tree = {
                str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()
            }
            bucket.put(f"prod/m/{number}.tar.gz", tar_gz_of(tree, str(number)))

    def ask_for(self, versions: Mapping[str, Any], labels: Mapping[str, int]) -> None:
        """Say in the settings which versions are served, and where the labels of `m` point."""
        self.box.models = [{"name": "m", "versions": versions, "labels": labels}]

    def move(self, agent: "subprocess.Popen[bytes]", versions: Mapping[str, Any], **labels: int) -> None:
        """Move labels as an operator does: change the settings, send SIGHUP."""
        self.ask_for(versions, labels)
        self.box.write_settings()
        agent.send_signal(signal.SIGHUP)

    def client(self, label: str) -> Client:
        """Return a client that asks for a label fifty times a second."""
        return Client(self.server.url, "m", INPUTS, label)

    def change_to(self, agent: "subprocess.Popen[bytes]", number: int, client: Client) -> None:
        """Serve one version under `stable` instead of the other, and wait until that is over."""
        self.move(agent, {"pin": [number]}, stable=number)
        self.box.until(lambda: self.box.numbers() == [str(number)], f"change to {number}")
        assert self.labels() == {"stable": number}
        before = client.asked
        self.box.until(lambda: client.asked > before + 50, "answers")

    def labels(self) -> Mapping[str, int]:
        """Return the labels of `m` in the file."""
        found = {model.name: model.labels for model in parse_config(self.config.read_text())}
        return found.get("m", {})

    def available(self) -> list[int]:
        """Return the versions that the agent has seen AVAILABLE."""
        return sorted(line["version"] for line in self.box.events("version_available"))


@pytest.fixture
def scene(box: AgentBox, bucket: Bucket, exported: Path, tmp_path: Path) -> Iterator[Scene]:
    """Both versions are in the store; agent and server are started by the test."""
    flags = (
        *FLAGS,
        f"--model_config_file_poll_wait_seconds={POLL.seconds}",
        "--allow_version_labels_for_unavailable_models",
    )
    server = ModelServer(tmp_path / "models.config", tmp_path / "server.log", flags=flags)
    box.overrides = {
        "serving": {
            "rest_url": server.url,
            "config_file": str(tmp_path / "models.config"),
            "config_poll_seconds": POLL.seconds,
            "allow_version_labels_for_unavailable_models": True,
        }
    }
    scene = Scene(box, server, exported, bucket)
    try:
        yield scene
    finally:
        server.kill()


@LONG_ONLY
def test_a_label_moves_without_a_failed_request(scene: Scene) -> None:
    """A/B: two versions side by side; stable moves to the other one, and the first one leaves."""
    scene.ask_for({"pin": [1, 2]}, {"stable": 1, "canary": 2})
    with scene.box.running() as agent:
        scene.box.until(lambda: scene.box.numbers() == ["1", "2"], "both versions")
        scene.server.start()
        scene.server.wait_ready(120)
        scene.box.until(lambda: scene.available() == [1, 2], "both AVAILABLE")
        with scene.client("stable") as stable, scene.client("canary") as canary:
            scene.box.until(lambda: stable.asked > 50 and canary.asked > 50, "answers")
            assert (len(stable.answers), len(canary.answers)) == (1, 1)
            assert stable.answers.keys() != canary.answers.keys()

            scene.move(agent, {"pin": [2]}, stable=2, canary=2)
            scene.box.until(lambda: len(stable.answers) == 2, "the other version's answers")
            scene.box.until(lambda: scene.box.events("version_pruned"), "version 1 leaves")
            asked = stable.asked
            scene.box.until(lambda: stable.asked > asked + 100, "more answers")

    assert stable.failures == canary.failures == []
    assert stable.answers.keys() > canary.answers.keys()
    (moved,) = [
        line
        for line in scene.box.events("models_config_written")
        if "label stable of m: 1 -> 2" in line["changes"]
    ]
    (pruned,) = scene.box.events("version_pruned")
    assert when(pruned) - when(moved) >= POLL  # until then the server may send `stable` to version 1
    assert scene.box.numbers() == ["2"]
    assert stat.S_IMODE(scene.config.stat().st_mode) == 0o644


def test_promote_moves_a_label_without_a_failed_request(scene: Scene) -> None:
    """Two channels, served side by side under labels of their names; one command moves `stable`, one back."""
    scene.box.models = [{"name": "m", "versions": {"channel": ["stable", "canary"]}}]
    for channel, number in (("stable", "1"), ("canary", "2")):
        assert scene.box.call("promote", "m", number, "--channel", channel).returncode == 0
    with scene.box.running():
        scene.box.until(lambda: scene.box.numbers() == ["1", "2"], "both versions")
        scene.server.start()
        scene.server.wait_ready(120)
        scene.box.until(lambda: scene.available() == [1, 2], "both AVAILABLE")
        with scene.client("stable") as stable, scene.client("canary") as canary:
            scene.box.until(lambda: stable.asked > 50 and canary.asked > 50, "answers")
            assert stable.answers.keys() != canary.answers.keys()
            assert scene.box.call("promote", "m", "2", "--channel", "stable").returncode == 0
            scene.box.until(lambda: scene.box.numbers() == ["2"], "version 1 leaves")
            assert scene.labels() == {"stable": 2, "canary": 2}
            assert scene.box.call("rollback", "m", "--channel", "stable").returncode == 0
            scene.box.until(lambda: scene.labels() == {"stable": 1, "canary": 2}, "back")
            asked = stable.asked
            scene.box.until(lambda: stable.asked > asked + 100, "more answers")

    assert stable.failures == canary.failures == []
    assert stable.answers.keys() > canary.answers.keys()
    assert len(scene.box.events("version_fetched")) == 2
    assert scene.box.numbers() == ["1", "2"]


@LONG_ONLY
def test_a_label_waits_for_its_version_and_a_rollback_moves_it_back(scene: Scene) -> None:
    """The version that a label asks for is not there yet: it moves when that is AVAILABLE, not before."""
    scene.ask_for({"pin": [1]}, {"stable": 1})
    with scene.box.running() as agent:
        scene.box.until(lambda: scene.box.numbers() == ["1"], "version 1")
        scene.server.start()
        scene.server.wait_ready(120)
        with scene.client("stable") as stable:
            scene.box.until(lambda: stable.asked > 50, "answers")
            scene.change_to(agent, 2, stable)
            scene.change_to(agent, 1, stable)

    assert stable.failures == []
    assert len(stable.answers) == 2
    assert scene.box.events("label_waiting")


def test_labels_answer_as_soon_as_a_new_or_restarted_server_does(scene: Scene) -> None:
    """`sync` as init container writes the file, with labels, before there is a server."""
    scene.ask_for({"pin": [1, 2]}, {"stable": 1, "canary": 2})
    done = scene.box.call("sync")
    assert done.returncode == 0, done.stderr
    assert scene.labels() == {"stable": 1, "canary": 2}
    plan = scene.box.plan()["config_file"]
    assert (plan["as_it_should_be"], plan["changes"], plan["problem"]) == (True, [], None)

    scene.server.start()
    for _ in range(2):
        scene.server.wait_ready(120)
        with httpx.Client(trust_env=False) as http:
            answers = [
                ask(http, f"{scene.server.url}/v1/models/m/labels/{label}:predict", INPUTS)
                for label in ("stable", "canary")
            ]
        assert answers[0] != answers[1]
        scene.server.restart()


def test_somebody_elses_file_stops_nothing_but_itself(scene: Scene) -> None:
    """The agent brings the versions, says what is wrong, and `plan` says it, too."""
    scene.config.write_text("# mine\nmodel_config_list { }\n")
    scene.ask_for({"latest": 1}, {"stable": 2})

    done = scene.box.call("sync")

    assert done.returncode == 0, done.stderr
    assert scene.box.numbers() == ["2"]
    assert '"reason": "config_file_foreign"' in done.stdout
    assert scene.config.read_text().startswith("# mine\n")
    assert scene.box.plan()["config_file"]["problem"]["reason"] == "config_file_foreign"
    text = scene.box.call("plan").stdout
    assert "config_file_foreign" in text

    scene.box.overrides["serving"]["adopt_config"] = True
    assert "would be written" in scene.box.call("plan").stdout
    assert scene.box.call("sync").returncode == 0
    assert scene.labels() == {"stable": 2}
    assert (scene.box.folder / "models.config.before-servesync").read_text().startswith("# mine\n")


def test_a_reload_makes_the_base_path_before_the_file_names_it(scene: Scene) -> None:
    """A model that comes by a reload; one that goes leaves the file and is unloaded, and its files stay."""
    scene.ask_for({"latest": 1}, {})
    with scene.box.running() as agent:
        scene.box.until(lambda: scene.box.numbers() == ["2"], "version 2")
        scene.server.start()
        scene.server.wait_ready(120)
        scene.box.until(lambda: scene.available() == [2], "AVAILABLE")
        scene.box.models = [{"name": "n"}]
        scene.box.write_settings()
        agent.send_signal(signal.SIGHUP)
        scene.box.until(lambda: scene.box.events("settings_reloaded"), "the reload")

    assert (scene.box.models_dir / "n").is_dir()
    assert scene.box.numbers() == ["2"]
    changes = scene.box.events("models_config_written")[-1]["changes"]
    assert changes == ["model m is gone: the server unloads it"]
    assert parse_config(scene.config.read_text()) == []


def test_a_server_that_has_the_models_elsewhere(scene: Scene) -> None:
    """It reads its own path in the file, and a change of that is taken over while it serves."""
    elsewhere = scene.box.folder / "elsewhere"
    elsewhere.symlink_to(scene.box.models_dir)
    scene.box.overrides["serving"]["server_models_dir"] = str(elsewhere)
    scene.box.models = [{"name": "m", "versions": {"pin": [1]}}]
    with scene.box.running() as agent:
        scene.box.until(lambda: scene.box.numbers() == ["1"] and scene.config.exists(), "version 1")
        scene.server.start()
        scene.box.until(lambda: scene.available() == [1], "version 1, found elsewhere")
        assert base_paths(scene) == [str(elsewhere / "m")]

        del scene.box.overrides["serving"]["server_models_dir"]
        scene.box.models = [{"name": "m", "versions": {"pin": [2]}}]
        scene.box.write_settings()
        agent.send_signal(signal.SIGHUP)
        scene.box.until(lambda: base_paths(scene) == [str(scene.box.shelf)], "the new base path")
        scene.box.until(lambda: scene.box.numbers() == ["2"], "version 2, found there")

    assert scene.available() == [1, 2]


def base_paths(scene: Scene) -> list[str]:
    """Return the base paths in the file."""
    return [model.base_path for model in parse_config(scene.config.read_text())]
