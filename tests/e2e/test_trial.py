"""Versions that the server calls AVAILABLE and that do not answer: no client by label ever meets one."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

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


class Bad(NamedTuple):
    """A version, and how it is found out: the event, its reason, and words of it."""

    tree: Tree
    event: str
    reason: str
    words: str


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
            self.hear(client, 1)

    def until(self, event: str, version: int) -> None:
        """Wait for an event of one version."""
        self.box.until(
            lambda: [line for line in self.box.events(event) if line["version"] == version],
            f"{event} of {version}",
        )

    def hear(self, client: Client, answers: int) -> None:
        """Wait until a client has had so many different answers: the label is given, or moves."""
        self.box.until(lambda: len(client.answers) >= answers, f"{answers} answers")

    def hear_more(self, client: Client) -> None:
        """Wait until a client has asked twenty times more."""
        before = client.asked
        self.box.until(lambda: client.asked > before + 20, "more answers")

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


def bad_versions(scene: Scene, models: Path) -> list[Bad]:
    """Return versions that become AVAILABLE or fail at that, and how each is found out."""
    sound = scene.sound[2]
    unknown = sound["saved_model.pb"].replace(b"AddV2", b"AddV9")
    golden = {
        "schema": "servesync.golden/1",
        "requests": [{"inputs": {"x": [[1.0]]}, "outputs": {"y": [[-7.0]]}}],
    }
    without_asset = files_of(models / "table_of_an_asset")
    del without_asset["assets/words.txt"]
    by_trial = "version_quarantined", "smoke_failed"
    return [
        Bad(sound | {"saved_model.pb": unknown}, *by_trial, "Op type not registered 'AddV9'"),
        Bad(sound | {GOLDEN: json.dumps(golden).encode()}, *by_trial, "golden request 1: output y[0][0] is"),
        Bad(files_of(models / "weights/swapped"), *by_trial, "golden request 1: output y[0][0] is"),
        Bad(
            files_of(models / "not_a_number"),
            *by_trial,
            "output 'y' is NaN where the version that serves has",
        ),
        Bad(files_of(models / "no_table"), *by_trial, "Table not initialized"),
        Bad(without_asset, "version_refused", "asset_missing", "assets/words.txt"),
        Bad(
            files_of(models / "table_elsewhere"),
            *("version_quarantined", "server_refused"),
            "NOT_FOUND: /data/training/words.txt; No such file or directory",
        ),
        Bad(
            files_of(models / "table_on_first_use"),
            *by_trial,
            "HTTP 404: /data/training/words.txt; No such file or directory",
        ),
        Bad(files_of(models / "hangs"), *by_trial, "no answer within 8 s"),
    ]


def test_a_version_that_does_not_answer_is_met_by_no_client_of_a_label(
    scene: Scene, trial_models: Path
) -> None:
    """Each kind is found out, with the server's words; the old version answers all the time.

    The true weights, and a table whose file came along, pass.
    """
    with scene.box.running():
        scene.begin()
        with scene.client() as client:
            bad = bad_versions(scene, trial_models)
            for version, (tree, event, reason, words) in enumerate(bad, 2):
                scene.publish(version, tree)
                scene.until(event, version)
                line = scene.box.events(event)[-1]
                assert line["reason"] == reason
                assert words in line["because"]
                scene.hear_more(client)
                assert (client.failures, len(client.answers)) == ([], 1)
            assert scene.box.events("version_pruned") == []

            sound = [
                files_of(trial_models / "weights/true"),
                files_of(trial_models / "table_of_an_asset"),
                scene.sound[2],
            ]
            for count, tree in enumerate(sound, 2):
                version = len(bad) + count
                scene.publish(version, tree)
                scene.until("version_available", version)
                scene.hear(client, count)
        assert client.failures == []
        tried = [line["because"] for line in scene.box.events("version_tried")]
        assert "has answered 3 golden requests" in tried[-3]
        assert "has answered 1 requests made from its signatures" in tried[-1]
        last = scene.box.events("version_tried")[-1]
        assert last["seconds"] > 0 < last["seconds_before"]


def test_without_a_trial_available_is_enough(scene: Scene) -> None:
    """`serving.smoke: off` brings back what was before."""
    scene.box.overrides["serving"]["smoke"] = "off"
    with scene.box.running():
        scene.begin()
        function_only = scene.sound[2]["saved_model.pb"].replace(b"AddV2", b"AddV9")
        scene.publish(2, scene.sound[2] | {"saved_model.pb": function_only})
        scene.until("version_available", 2)

    assert scene.box.events("version_tried") == []
