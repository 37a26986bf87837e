"""A rollout that goes wrong in every way that a server knows: who is served goes on being served."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent_box import tar_gz_of
from big_models import LONG, LONG_ONLY
from fixtures_store import Bucket
from forked_server import ModelServer
from served_scene import Scene, files_of, scene_of
from servesync.demo.client import Client
from servesync.demo.seaweed import ServerDidNotStart

STEPS = ["version_fetched", "version_verified", "version_installed", "version_available", "version_pruned"]
KILLED_AT = STEPS if LONG else ["version_installed"]


@pytest.fixture
def scene(tmp_path: Path, bucket: Bucket, exported: Path) -> Iterator[Scene]:
    """Store, box and server are ready; nothing runs yet."""
    yield from scene_of(tmp_path, bucket, exported)


def refused_by_server(client: Client) -> list[str]:
    """Return the failures that a server has answered with; those while there was none are not its fault."""
    return [text for text in client.failures if "http://" in text]


def ask_on(scene: Scene, client: Client, times: int = 50) -> None:
    """Wait until the client has been answered so many times more."""
    before = sum(client.answers.values())
    scene.box.until(lambda: sum(client.answers.values()) >= before + times, "answers")


def test_a_version_that_hangs_in_loading(scene: Scene, tmp_path: Path) -> None:
    """After its time it is off the shelf; the old one answers throughout, and a later one still comes."""
    pipe, out = tmp_path / "pipe", tmp_path / "hanging"
    os.mkfifo(pipe)
    command = [
        sys.executable,
        str(Path(__file__).parents[1] / "support/make_hanging.py"),
        str(out),
        str(pipe),
    ]
    subprocess.run(command, check=True, capture_output=True)
    scene.box.overrides["serving"]["load_timeout_seconds"] = 3
    scene.publish(1)
    with scene.box.running():
        scene.until("version_installed", 1)
        scene.server.start()
        scene.server.wait_ready(120)
        scene.until("version_available", 1)
        with scene.client() as client:
            scene.bucket.put("prod/m/2.tar.gz", tar_gz_of(files_of(out), "2"))
            scene.until("version_quarantined", 2)
            (line,) = scene.box.events("version_quarantined")
            ask_on(scene, client)
            scene.publish(3, like=2)
            scene.until("version_pruned", 1)
            ask_on(scene, client)

    assert line["reason"] == "server_load_timeout"
    assert client.failures == []
    assert scene.box.numbers() == ["3"]


def test_a_server_that_is_killed_at_each_step(scene: Scene) -> None:
    """It comes back with what is on the shelf, and the rollout goes on to its end."""
    scene.publish(1)
    with scene.box.running():
        scene.until("version_installed", 1)
        scene.server.start()
        scene.server.wait_ready(120)
        scene.until("version_available", 1)
        with scene.client() as client:
            for version, step in enumerate(KILLED_AT, 2):
                scene.publish(version, like=1 + version % 2)
                scene.until(step, version if step != "version_pruned" else version - 1)
                restart(scene.server)
                scene.until("version_pruned", version - 1)
                ask_on(scene, client)

    assert refused_by_server(client) == []
    assert scene.box.numbers() == [str(1 + len(KILLED_AT))]
    assert scene.box.events("version_quarantined") == []


def restart(server: ModelServer) -> None:
    """Kill the server and start it, as a supervisor does: once more if a version left just then."""
    server.restart()
    try:
        server.wait_ready(120)
    except ServerDidNotStart:
        server.restart()
        server.wait_ready(120)


def test_a_server_that_never_comes(scene: Scene) -> None:
    """What is wanted is there for it; nothing is taken away or judged meanwhile."""
    scene.publish(1)
    with scene.box.running():
        scene.until("version_installed", 1)
        scene.publish(2)
        scene.until("version_installed", 2)
        scene.publish(3)
        scene.box.until(lambda: sees(scene, "3"), "a poll that sees version 3")

    assert scene.box.numbers() == ["1", "2"]
    assert not scene.box.events("version_pruned") + scene.box.events("version_quarantined")
    assert scene.box.events("server_unreachable")


def sees(scene: Scene, version: str) -> bool:
    """Whether a poll has told of a version."""
    return any(version in line.get("changed", {}).get("m", {}) for line in scene.box.events("poll_finished"))


def test_a_server_that_ends_of_a_bad_version_at_every_start(scene: Scene) -> None:
    """It comes up with the old one, without anybody's help, and what it died of is judged by it then."""
    scene.box.overrides["serving"]["load_timeout_seconds"] = 5
    scene.publish(1)
    with scene.box.running():
        scene.until("version_installed", 1)
        scene.server.start()
        scene.server.wait_ready(120)
        scene.until("version_available", 1)
        scene.server.kill()
        scene.publish(2, unloadable=True)
        scene.until("version_installed", 2)
        ends = 0
        while not comes_up(scene):
            ends += 1
        with scene.client() as client:
            scene.until("version_quarantined", 2)
            ask_on(scene, client)

    assert ends >= 1
    assert client.failures == []
    assert scene.box.numbers() == ["1"]
    assert [line["version"] for line in scene.box.events("version_retried")] == [2]
    assert scene.box.events("version_quarantined")[0]["reason"] == "server_refused"


def comes_up(scene: Scene) -> bool:
    """Start the server as its supervisor does; return whether it lives."""
    scene.server.start()
    try:
        scene.server.wait_ready(60)
    except ServerDidNotStart:
        return False
    return True


@LONG_ONLY
def test_an_agent_that_dies_with_the_server_half_way(scene: Scene) -> None:
    """Both are killed while a new version loads; both come back, and the end is the same."""
    scene.publish(1)
    with scene.box.running():
        scene.until("version_installed", 1)
        scene.server.start()
        scene.server.wait_ready(120)
        scene.until("version_available", 1)
        scene.publish(2, like=2)
        scene.until("version_installed", 2)
    scene.server.restart()
    scene.server.wait_ready(120)
    with scene.box.running():
        scene.until("version_pruned", 1)

    assert scene.box.numbers() == ["2"]
