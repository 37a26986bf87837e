"""Versions that the server calls AVAILABLE and that do not answer: no client by label ever meets one."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from agent_box import AgentBox, tar_gz_of
from fixtures_store import Bucket
from forked_server import ModelServer
from served_scene import files_of
from servesync.demo.client import Client
from servesync.demo.server import FLAGS

INPUTS = [1.0]
GOLDEN = "assets.extra/servesync_golden.json"
Tree = Mapping[str, bytes]


class Scene:
    """An agent beside a server; version 1 serves under the label `stable`, which follows a channel."""

    def __init__(self, box: AgentBox, bucket: Bucket, exported: Path, server: ModelServer) -> None:
        self.box = box
        self.bucket = bucket
        self.server = server
        self.sound = {number: files_of(exported / str(number)) for number in (1, 2)}

    def publish(self, version: int, tree: Tree) -> None:
        """Upload a version, and let the channel point to it."""
        self.bucket.put(f"prod/m/{version}.tar.gz", tar_gz_of(tree, str(version)))
        done = self.box.call("promote", "m", str(version), "--channel", "stable")
        assert done.returncode == 0, done.stderr

    def begin(self) -> None:
        """Start the server, and wait until version 1 serves under its label."""
        self.box.until(lambda: self.box.numbers() == ["1"], "version 1")
        self.server.start()
        self.until("version_available", 1)
        with self.client() as client:
            self.box.until(lambda: bool(client.answers), "the label is given")

    def until(self, event: str, version: int) -> None:
        """Wait for an event of one version."""
        self.box.until(
            lambda: [line for line in self.box.events(event) if line["version"] == version],
            f"{event} of {version}",
        )

    def client(self) -> Client:
        """Return a client of the label."""
        return Client(self.server.url, "m", INPUTS, "stable")


@pytest.fixture
def scene(box: AgentBox, bucket: Bucket, exported: Path, tmp_path: Path) -> Iterator[Scene]:
    """Version 1 is published; agent and server are started by the test."""
    config = tmp_path / "models.config"
    flags = (
        *FLAGS,
        "--model_config_file_poll_wait_seconds=1",
        "--allow_version_labels_for_unavailable_models",
        "--rest_api_timeout_in_ms=10000",  # the server publishes no other state while a request hangs
    )
    server = ModelServer(config, tmp_path / "server.log", flags=flags)
    box.overrides = {
        "serving": {
            "rest_url": server.url,
            "config_file": str(config),
            "config_poll_seconds": 1,
            "smoke_timeout_seconds": 8,
            "allow_version_labels_for_unavailable_models": True,
        }
    }
    box.models = [{"name": "m", "versions": {"channel": ["stable"]}}]
    scene = Scene(box, bucket, exported, server)
    scene.publish(1, scene.sound[1])
    try:
        yield scene
    finally:
        server.kill()


def test_a_version_that_does_not_answer_is_met_by_no_client_of_a_label(
    scene: Scene, trial_models: Path
) -> None:
    """Each kind is quarantined with the server's words; the old version answers all the time."""
    function_only = scene.sound[2]["saved_model.pb"].replace(b"AddV2", b"AddV9")
    golden = {
        "schema": "servesync.golden/1",
        "requests": [{"inputs": {"x": [[1.0]]}, "outputs": {"y": [[-7.0]]}}],
    }
    bad: dict[int, tuple[Tree, str]] = {
        2: (scene.sound[2] | {"saved_model.pb": function_only}, "Op type not registered 'AddV9'"),
        3: (scene.sound[2] | {GOLDEN: json.dumps(golden).encode()}, "golden request 1: output y[0][0] is"),
        4: (files_of(trial_models / "not_a_number"), "output 'y' is NaN where the version that serves has"),
        5: (files_of(trial_models / "no_table"), "Table not initialized"),
        6: (files_of(trial_models / "hangs"), "no answer within 8 s"),
    }
    with scene.box.running():
        scene.begin()
        with scene.client() as client:
            for version, (tree, words) in bad.items():
                scene.publish(version, tree)
                scene.until("version_quarantined", version)
                line = scene.box.events("version_quarantined")[-1]
                assert line["reason"] == "smoke_failed"
                assert words in line["because"]
            assert scene.box.events("version_pruned") == []
            before = client.asked
            scene.box.until(lambda: client.asked > before + 20, "answers")
            assert (client.failures, len(client.answers)) == ([], 1)

            scene.publish(7, scene.sound[2])
            scene.until("version_available", 7)
            scene.box.until(lambda: len(client.answers) == 2, "the label moves")
        assert client.failures == []
        tried = [line for line in scene.box.events("version_tried") if line["version"] == 7]
        assert "has answered 1 requests made from its signatures" in tried[0]["because"]
        assert tried[0]["seconds"] > 0 < tried[0]["seconds_before"]


def test_without_a_trial_available_is_enough(scene: Scene) -> None:
    """`serving.smoke: off` brings back what was before."""
    scene.box.overrides["serving"]["smoke"] = "off"
    with scene.box.running():
        scene.begin()
        function_only = scene.sound[2]["saved_model.pb"].replace(b"AddV2", b"AddV9")
        scene.publish(2, scene.sound[2] | {"saved_model.pb": function_only})
        scene.until("version_available", 2)

    assert scene.box.events("version_tried") == []
