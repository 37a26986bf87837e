"""Agent, store and model server together, while a client keeps asking: it never gets a failed answer."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from admin_client import AdminClient
from agent_box import tar_gz_of
from fixtures_store import Bucket
from served_scene import UNKNOWN_OPERATION, Scene, scene_of


@pytest.fixture
def scene(tmp_path: Path, bucket: Bucket, exported: Path) -> Iterator[Scene]:
    """Store and box are ready; agent and server are started by the test."""
    yield from scene_of(tmp_path, bucket, exported)


def test_a_bad_version_is_a_log_line_and_not_an_outage(scene: Scene) -> None:
    """A late server, a refused version 2, a good version 3, an emptied store: no failed request."""
    scene.publish(1)
    with scene.box.running():
        scene.until("version_installed", 1)  # before there is a server: it opens its port only then
        scene.server.start()
        scene.server.wait_ready(120)
        scene.until("version_available", 1)
        with scene.client() as client:
            scene.publish(2, unloadable=True)
            scene.until("version_quarantined", 2)
            assert scene.box.numbers() == ["1"]
            (refused,) = scene.box.events("version_quarantined")
            assert refused["reason"] == "server_refused"
            assert UNKNOWN_OPERATION in refused["because"]

            fetched = len(scene.box.events("version_fetched"))
            scene.publish(3, like=2)
            scene.until("version_pruned", 1)
            assert scene.box.numbers() == ["3"]
            assert len(scene.box.events("version_fetched")) == fetched + 1

            scene.bucket.empty()
            scene.box.until(lambda: scene.box.events("poll_finished")[-1].get("in_store") == {"m": 0})
            before = client.asked
            scene.box.until(lambda: client.asked > before + 100)
        verdict = scene.box.plan()["models"]["m"]["versions"]["3"]

    assert client.failures == []
    assert len(client.answers) == 2
    assert "no longer lists it" in verdict["why"]
    assert scene.box.numbers() == ["3"]


def test_sync_waits_for_an_answering_server_and_not_for_a_silent_one(scene: Scene) -> None:
    """As init container there is no server yet; from cron there is, and its judgement is waited for."""
    scene.publish(1)
    silent = scene.box.call("sync")
    assert silent.returncode == 0, silent.stderr
    assert "version_available" not in silent.stdout

    scene.server.start()
    scene.server.wait_ready(120)
    scene.publish(2, like=2)
    answering = scene.box.call("sync")

    assert answering.returncode == 0, answering.stderr
    assert "version_available" in answering.stdout
    assert scene.box.numbers() == ["2"]


def test_sync_brings_every_wanted_version_before_the_server_starts(scene: Scene) -> None:
    """As init container, whatever policy the server will have."""
    scene.box.models = [{"name": "m", "versions": {"latest": 2}}]
    for version in (1, 2, 3):
        scene.publish(version)
    done = scene.box.call("sync")
    assert done.returncode == 0, done.stderr
    assert scene.box.numbers() == ["2", "3"]

    scene.box.overrides["serving"]["version_policy"] = "latest"
    scene.publish(4)
    done = scene.box.call("sync")
    assert done.returncode == 0, done.stderr
    assert "4" in scene.box.numbers()


def test_a_server_that_ignores_the_model_is_named_and_not_waited_for_in_vain(scene: Scene) -> None:
    """It answers, but its configuration has no such model: after the time for a load, that is said."""
    scene.box.models = [{"name": "other"}]
    scene.box.overrides["serving"]["load_timeout_seconds"] = 2
    scene.bucket.put("prod/other/1.tar.gz", tar_gz_of(scene.tree(1), "1"))
    for name, data in scene.tree(1).items():
        path = scene.box.shelf / "1" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    scene.server.start()
    scene.server.wait_ready(120)

    done = scene.box.call("sync", "--timeout", "60")

    assert done.returncode == 0, done.stderr
    assert '"event": "version_not_loaded"' in done.stdout
    assert '"because": "nothing left to do"' in done.stdout


def test_who_comes_from_a_copying_loop_loses_no_request(scene: Scene) -> None:
    """As docs/migration.md says: a copied version is renamed, taken over, and replaced by the next one."""
    for name, data in scene.tree(1).items():
        scene.bucket.put(f"prod/m/0000001/{name}", data)
        copied = scene.box.shelf / "0000001" / name
        copied.parent.mkdir(parents=True, exist_ok=True)
        copied.write_bytes(data)
    scene.server.start()
    scene.server.wait_ready(120)
    with scene.client() as client:
        scene.box.until(lambda: client.answers, "the copied version to serve")
        (scene.box.shelf / "0000001").rename(scene.box.shelf / "1")
        before = client.asked
        scene.box.until(lambda: client.asked > before + 100)
        assert "release_incomplete" in scene.box.plan()["models"]["m"]["versions"]["1"]["why"]
        with scene.box.running():
            scene.until("version_available", 1)
            (taken,) = scene.box.events("version_installed")
            assert "not put there by servesync" in taken["because"]
            scene.publish(2, like=2)
            scene.until("version_pruned", 1)

    assert client.failures == []
    assert len(client.answers) == 2
    assert scene.box.numbers() == ["2"]


def test_readyz_follows_the_server_even_while_the_agent_is_busy(scene: Scene) -> None:
    """A server that ends in the middle of a long download is noticed at once, and so is its return."""
    admin = AdminClient.listen(scene.box)
    scene.box.overrides["fetch"] = {"max_bytes_per_second": 1 << 19}
    scene.publish(1)
    with scene.box.running():
        scene.until("version_installed", 1)
        scene.box.until(lambda: admin.ask("/startupz").status == 200, "in place")
        assert "does not answer" in admin.ask("/readyz").json["missing"][0]
        scene.server.start()
        scene.server.wait_ready(120)
        scene.until("version_available", 1)
        scene.box.until(lambda: admin.ask("/readyz").status == 200, "ready")
        assert (admin.metric("servesync_stage_duration_seconds_count", stage="confirm") or 0) >= 1

        big = scene.tree(2) | {"assets/big.bin": os.urandom(30 << 20)}
        scene.bucket.put("prod/m/2.tar.gz", tar_gz_of(big, "2", is_random=True))
        scene.box.until(lambda: (admin.status()["activity"] or {}).get("stage") == "fetch", "the download")
        scene.server.kill()
        scene.box.until(lambda: admin.ask("/readyz").status == 503, "not ready")
        assert admin.status()["activity"]["stage"] == "fetch"
        scene.server.start()
        scene.box.until(lambda: admin.ask("/readyz").status == 200, "ready again")
        assert [admin.ask(probe).status for probe in ("/livez", "/startupz")] == [200, 200]
