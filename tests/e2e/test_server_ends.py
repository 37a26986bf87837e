"""A version that aborts the server at its load costs seconds, and no good version is taken for one."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from agent_box import tar_gz_of
from big_models import LONG
from fixtures_store import Bucket
from forked_server import ModelServer
from served_scene import Scene, scene_of
from servesync.demo.server import FLAGS
from servesync.demo.standin.server import ABORTS
from supervised import Supervised

MOST_ENDS = 6
"""It is three, unless a start falls between two looks on a busy machine. Else it would be hundreds."""

long = pytest.mark.skipif(not LONG, reason="starts the model server many times: LONG_TESTS=1 runs it")


@pytest.fixture
def scene(tmp_path: Path, bucket: Bucket, exported: Path) -> Iterator[Scene]:
    """Store and box are ready; the server is the stand-in, which has versions that abort it."""
    for scene in scene_of(tmp_path, bucket, exported):
        scene.server = ModelServer(
            tmp_path / "models.config",
            tmp_path / "server.log",
            only_standin=True,
            flags=(*FLAGS, "--standin_load_delay_seconds=1"),
        )
        scene.box.overrides["serving"]["rest_url"] = scene.server.url
        yield scene


@pytest.fixture
def supervised(scene: Scene) -> Supervised:
    """The scene's server, not running yet."""
    return Supervised(scene.server, "m")


def publish_aborting(scene: Scene, version: int) -> None:
    """Upload a version that is sound in every respect that can be checked, and ends the server."""
    tree = scene.tree(2) | {ABORTS: b""}
    scene.bucket.put(f"prod/m/{version}.tar.gz", tar_gz_of(tree, str(version)))


def is_serving(scene: Scene, version: int) -> bool:
    """Whether the server serves a version."""
    try:
        answer = httpx.get(f"{scene.server.url}/v1/models/m/versions/{version}")
    except httpx.HTTPError:
        return False
    return answer.is_success and answer.json()["model_version_status"][0]["state"] == "AVAILABLE"


def test_a_serving_instance_loses_seconds(scene: Scene, supervised: Supervised) -> None:
    """It serves version 1 all the time but for a few restarts, and refuses version 2."""
    scene.publish(1)
    with supervised.running(), scene.box.running():
        scene.until("version_available", 1)
        before = supervised.seconds_without_answer
        publish_aborting(scene, 2)
        scene.until("version_quarantined", 2)
        scene.box.until(lambda: is_serving(scene, 1), "version 1 to serve")
        supervised.seconds_without_answer -= before
        cost = supervised.cost

    (refused,) = scene.box.events("version_quarantined")
    assert refused["reason"] == "server_refused"
    assert "the server ended" in refused["because"]
    assert supervised.ends <= MOST_ENDS, cost
    assert scene.box.numbers() == ["1"], cost


def test_a_fresh_instance_comes_up_with_the_version_before(scene: Scene, supervised: Supervised) -> None:
    """Nothing has ever served, and the newest version ends each start."""
    scene.publish(1)
    publish_aborting(scene, 2)
    with supervised.running(), scene.box.running():
        scene.until("version_available", 1)
        scene.until("version_quarantined", 2)
        scene.box.until(lambda: is_serving(scene, 1), "version 1 to serve")
        cost = supervised.cost

    assert scene.box.numbers() == ["1"], cost
    assert supervised.ends <= MOST_ENDS, cost


@long
def test_a_withdrawn_version_leaves_a_server_that_never_comes_up(
    scene: Scene, supervised: Supervised
) -> None:
    """It is the only one; without it the server waits, and serves what is published next."""
    publish_aborting(scene, 2)
    with supervised.running(), scene.box.running():
        scene.until("version_installed", 2)
        scene.box.until(lambda: supervised.ends, "the server to end")
        done = scene.box.call("withdraw", "m", "2", "--reason", "it ends the server")
        assert done.returncode == 0, done.stderr
        scene.until("version_pruned", 2)
        cost = supervised.cost
        assert scene.box.numbers() == [], cost
        scene.publish(1)
        scene.until("version_available", 1)

    assert scene.box.numbers() == ["1"], cost


@long
def test_a_restart_on_purpose_only_delays_a_good_version(scene: Scene, supervised: Supervised) -> None:
    """Somebody kills the server while it has version 2 to load."""
    scene.publish(1)
    with supervised.running(), scene.box.running():
        scene.until("version_available", 1)
        scene.publish(2, like=2)
        scene.until("version_installed", 2)
        supervised.kill()
        scene.until("version_available", 2)
        scene.until("version_pruned", 1)
        cost = supervised.cost

    assert not scene.box.events("version_quarantined"), cost
    assert scene.box.numbers() == ["2"], cost
