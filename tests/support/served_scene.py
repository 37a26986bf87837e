"""An agent beside a model server, with a bucket to publish to."""

from collections.abc import Iterator
from pathlib import Path

from agent_box import AgentBox, tar_gz_of
from fixtures_store import Bucket
from forked_server import ModelServer
from servesync.demo.client import Client

INPUTS = [1.0]
UNKNOWN_OPERATION = "NoOq"


def files_of(root: Path) -> dict[str, bytes]:
    """Return every file of a model."""
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def unloadable_by_server(tree: dict[str, bytes]) -> dict[str, bytes]:
    """Return a sound SavedModel whose main graph, not only a function, has an operation that nobody knows."""
    graph = tree["saved_model.pb"]
    assert b"NoOp" in graph
    return tree | {"saved_model.pb": graph.replace(b"NoOp", UNKNOWN_OPERATION.encode())}


class Scene:
    """An agent beside a server, with a bucket to publish to."""

    def __init__(self, box: AgentBox, bucket: Bucket, exported: Path, server: ModelServer) -> None:
        self.box = box
        self.bucket = bucket
        self.server = server
        self._models = {1: files_of(exported / "1"), 2: files_of(exported / "2")}

    def publish(self, version: int, *, like: int = 1, unloadable: bool = False) -> None:
        """Upload a version."""
        tree = unloadable_by_server(self._models[like]) if unloadable else dict(self._models[like])
        self.bucket.put(f"prod/m/{version}.tar.gz", tar_gz_of(tree, f"{version:07}"))

    def tree(self, version: int) -> dict[str, bytes]:
        """Return the files of one of the two models."""
        return dict(self._models[version])

    def client(self) -> Client:
        """Return a client that asks fifty times a second."""
        return Client(self.server.url, "m", INPUTS)

    def until(self, event: str, version: int) -> None:
        """Wait for an event of one version."""
        self.box.until(
            lambda: [line for line in self.box.events(event) if line["version"] == version],
            f"{event} of {version}",
        )


def scene_of(tmp_path: Path, bucket: Bucket, exported: Path) -> Iterator[Scene]:
    """Store and box are ready; agent and server are started by the test."""
    config = tmp_path / "models.config"
    server = ModelServer(config, tmp_path / "server.log")
    box = AgentBox(
        tmp_path, bucket.server.endpoint_url, bucket.name, bucket.server.access_key, bucket.server.secret_key
    )
    box.overrides = {"serving": {"rest_url": server.url}}
    config.write_text(
        f'model_config_list {{ config {{ name: "m" base_path: "{box.shelf}" model_platform: "tensorflow" '
        "model_version_policy { all {} } } }\n"
    )
    scene = Scene(box, bucket, exported, server)
    try:
        yield scene
    finally:
        server.kill()
