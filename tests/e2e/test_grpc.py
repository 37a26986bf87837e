"""The agent beside a server that takes its configuration over gRPC, and one that has no REST port."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from agent_box import AgentBox, tar_gz_of
from fixtures_store import Bucket
from forked_server import ModelServer
from served_scene import files_of
from servesync.demo.client import Client
from servesync.demo.server import FLAGS

LABELS = "--allow_version_labels_for_unavailable_models"


class Scene:
    """Two versions in the store, a label that follows a channel, and a server with some more flags."""

    def __init__(self, box: AgentBox, bucket: Bucket, exported: Path) -> None:
        self.box = box
        for number in (1, 2):
            tree = files_of(exported / str(number))
            bucket.put(f"prod/m/{number}.tar.gz", tar_gz_of(tree, str(number)))
        box.models = [{"name": "m", "versions": {"channel": ["stable"]}}]
        self.server = self.served_by()
        self.promote(1)

    def served_by(self, *flags: str, rest: bool = True) -> ModelServer:
        """Return a server with these flags, and settings for an agent beside it."""
        config = self.box.folder / "models.config"
        self.server = ModelServer(
            config,
            self.box.folder / "server.log",
            flags=(*FLAGS, LABELS, *flags),
            only_standin=any(flag.startswith("--standin") for flag in flags),
        )
        self.box.overrides = {
            "serving": {
                "rest_url": self.server.url if rest else None,
                "grpc_target": self.server.grpc_target,
                "config_file": str(config),
                "config_poll_seconds": 1,
                "allow_version_labels_for_unavailable_models": True,
            }
        }
        return self.server

    def promote(self, version: int) -> None:
        """Move the channel."""
        done = self.box.call("promote", "m", str(version), "--channel", "stable")
        assert done.returncode == 0, done.stderr

    def client(self) -> Client:
        """Return a client of the label."""
        return Client(self.server.url, "m", [1.0], "stable")

    def until(self, event: str, version: int) -> None:
        """Wait for an event of one version."""
        self.box.until(
            lambda: [line for line in self.box.events(event) if line["version"] == version],
            f"{event} of {version}",
        )


@pytest.fixture
def scene(box: AgentBox, bucket: Bucket, exported: Path) -> Iterator[Scene]:
    """Agent and server are started by the test."""
    scene = Scene(box, bucket, exported)
    try:
        yield scene
    finally:
        scene.server.kill()


def test_a_label_moves_in_a_server_that_does_not_read_its_file_again(scene: Scene) -> None:
    """What is written into the file counts at once; no request fails meanwhile."""
    scene.served_by("--model_config_file_poll_wait_seconds=0")
    with scene.box.running():
        scene.box.until(lambda: scene.box.numbers() == ["1"], "version 1")
        scene.server.start()
        scene.until("version_available", 1)
        with scene.client() as first:
            scene.box.until(lambda: bool(first.answers), "the label is given")
        with scene.client() as client:
            scene.box.until(lambda: client.asked > 20, "answers")
            scene.promote(2)
            scene.until("version_pruned", 1)
            scene.box.until(lambda: len(client.answers) == 2, "the label moves")

    assert client.failures == []
    assert scene.box.events("models_config_reloaded")


def test_a_server_that_answers_no_configuration_reads_the_file(scene: Scene) -> None:
    """The call is given up, with a warning, and is not repeated at once."""
    scene.served_by("--model_config_file_poll_wait_seconds=1", "--standin_reload_blocks")
    with scene.box.running():
        scene.box.until(lambda: scene.box.numbers() == ["1"], "version 1")
        scene.server.start()
        scene.until("version_available", 1)
        with scene.client() as client:
            scene.box.until(lambda: bool(client.answers), "the label is given")
            scene.box.until(lambda: scene.box.events("models_config_not_reloaded"), "the call is given up")
            scene.promote(2)
            scene.until("version_pruned", 1)

    said = scene.box.events("models_config_not_reloaded")
    assert len(said) == 1
    assert "DEADLINE_EXCEEDED" in said[0]["because"]
    assert "the server reads the file" in said[0]["because"]


def test_without_a_rest_port_grpc_tells_the_status(scene: Scene) -> None:
    """Versions are confirmed, though not tried: requests are sent to the REST interface."""
    scene.served_by("--model_config_file_poll_wait_seconds=1", rest=False)
    with scene.box.running():
        scene.box.until(lambda: scene.box.numbers() == ["1"], "version 1")
        scene.server.start()
        scene.until("version_available", 1)
        scene.promote(2)
        scene.until("version_pruned", 1)

    tried = scene.box.events("version_tried")
    assert [line["version"] for line in tried] == [1, 2]
    assert "not tried" in tried[0]["because"]
