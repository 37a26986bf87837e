"""Nothing waits for slow work: while a transfer, a listing, the server or a trial hangs, all else goes on.

No test looks at a clock. What must not wait for something is awaited while that something is held back, and
only then is it let go.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from admin_client import AdminClient
from agent_box import digests, digests_on_disk, tar_gz_of
from big_models import LONG, files_of
from faulty_proxy import HeldBack, drip, listings, reads_of, s3_error
from fixtures_store import Bucket
from jobs_scene import BIG, JobsScene, jobs_scene, tree_of
from said_server import BAD, SaidServer, said_server

GRACE_SECONDS = 60
"""The agent itself says whether it ended in time."""
CHANNEL: dict[str, Any] = {"channel": "stable"}
LATEST: dict[str, Any] = {"latest": 1}


@pytest.fixture
def scene(tmp_path: Path, bucket: Bucket) -> Iterator[JobsScene]:
    """Model `big`, whose newest version is to come, `moved` behind a channel, and `plain`."""
    with jobs_scene(tmp_path, bucket) as scene:
        scene.box.models = [
            {"name": "big", "versions": LATEST},
            {"name": "moved", "versions": CHANNEL},
            {"name": "plain", "versions": LATEST},
        ]
        yield scene


@pytest.fixture
def server(scene: JobsScene) -> Iterator[SaidServer]:
    """A server beside the agent that serves what lies on the shelves."""
    with said_server(scene.box.models_dir) as server:
        scene.box.overrides["serving"] = {"rest_url": server.url, "scan_interval_seconds": 0.1}
        yield server


def ready_to_roll_back(scene: JobsScene) -> None:
    """Let version 2 of `moved` be served, with 1 in the reserve, and `plain` 1."""
    scene.put("plain", 1)
    scene.lead_to("moved", 1, 2)
    scene.until("version_available", "moved", 2)
    scene.until("version_available", "plain", 1)


def hold_big(scene: JobsScene) -> HeldBack:
    """Publish a version of `big`, and wait until the agent has had a part of it."""
    held = scene.hold("/big/1.tar.gz")
    scene.put("big", 1, asset_bytes=BIG)
    scene.box.until(held.begun.is_set, "the transfer of big")
    return held


def others_go_on(scene: JobsScene, server: SaidServer) -> None:
    """Roll back, bring, confirm, quarantine, prune and restore versions of the other models."""
    scene.promote("moved", 1)
    scene.until("version_restored", "moved", 1)
    scene.until("version_available", "moved", 1, 2)
    scene.until("version_pruned", "moved", 2)
    scene.put("plain", 2)
    scene.until("version_available", "plain", 2)
    scene.until("version_pruned", "plain", 1)
    server.versions = {3: BAD}
    scene.put("plain", 3)
    scene.until("version_quarantined", "plain", 3)
    (scene.box.models_dir / "moved/1/assets/n").write_bytes(b"damaged")
    scene.until("version_restored", "moved", 1, 2)


def stops_at_once(scene: JobsScene, process: "subprocess.Popen[bytes]") -> None:
    """Send SIGTERM; the process ends by itself, having ended its deciding thread."""
    process.send_signal(signal.SIGTERM)
    assert process.wait(GRACE_SECONDS) == 0, scene.box.log.read_text()[-3000:]
    assert scene.box.events("agent_stopped")[-1]["in_time"]


def no_bugs(scene: JobsScene) -> None:
    """Check that nothing went wrong inside."""
    assert not scene.box.events("internal_error")


# -- other models ------------------------------------------------------------------------------------------


def test_other_models_do_not_wait_for_a_transfer(scene: JobsScene, server: SaidServer) -> None:
    """All that the agent does goes on while the bytes of one release are held back; then that one comes."""
    admin = AdminClient.listen(scene.box)
    with scene.box.running():
        ready_to_roll_back(scene)
        held = hold_big(scene)
        others_go_on(scene, server)
        scene.box.models.append({"name": "late", "versions": LATEST})
        scene.box.write_settings()
        scene.put("late", 1)
        scene.until("version_available", "late", 1)
        status = admin.status()

        (transfer,) = status["transfers"]
        assert (transfer["stage"], transfer["model"], transfer["version"]) == ("fetch", "big", 1)
        assert 0 <= transfer["done_bytes"] < transfer["total_bytes"]
        assert status["models"]["moved"]["wanted"] == [1]
        assert not scene.events("version_fetched", "big", 1)
        held.released.set()
        scene.until("version_available", "big", 1)
    assert not scene.box.events("fetch_cancelled")
    no_bugs(scene)


def test_a_stop_does_not_wait_for_a_transfer(scene: JobsScene) -> None:
    """And the transfer gives its staging back."""
    with scene.box.running() as process:
        hold_big(scene)
        stops_at_once(scene, process)

    assert scene.box.leftovers() == []
    no_bugs(scene)


def test_nobody_waits_for_a_listing_that_drips(scene: JobsScene, server: SaidServer) -> None:
    """What needs no news from the store is done, also what changed settings ask for; then SIGTERM."""
    with scene.box.running() as process:
        ready_to_roll_back(scene)
        scene.put("plain", 2)
        scene.until("version_available", "plain", 2)
        scene.until("version_pruned", "plain", 1)
        dripping = threading.Event()

        def slowly(exchange: Any) -> None:
            dripping.set()
            drip(exchange)

        scene.proxy.matches, scene.proxy.fault = listings, slowly
        scene.box.until(dripping.is_set, "a listing")
        shutil.rmtree(scene.box.models_dir / "plain/2")
        scene.until("version_restored", "plain", 2)
        scene.box.models[1]["versions"] = {"pin": [1]}
        scene.box.write_settings()
        scene.until("version_available", "moved", 1, 2)
        scene.until("version_pruned", "moved", 2)
        stops_at_once(scene, process)

    polls = [
        line["event"] for line in scene.box.events() if line["event"] in {"poll_finished", "version_pruned"}
    ]
    assert polls[-1] == "version_pruned"
    no_bugs(scene)


def test_nobody_waits_for_a_server_that_never_answers(scene: JobsScene, server: SaidServer) -> None:
    """It accepts connections and says nothing: versions come and go back, and the agent ends when told."""
    admin = AdminClient.listen(scene.box)
    with scene.box.running() as process:
        ready_to_roll_back(scene)
        server.is_silent = True
        scene.box.until(server.asked_in_vain.is_set, "a question")
        scene.promote("moved", 1)
        scene.until("version_restored", "moved", 1)
        scene.put("big", 1)
        scene.until("version_installed", "big", 1)
        (scene.box.models_dir / "plain/1/assets/n").write_bytes(b"damaged")
        scene.until("version_restored", "plain", 1)
        scene.box.until(lambda: admin.status()["server"]["answers"] is False, "silence in /status", 60)
        stops_at_once(scene, process)

    assert scene.on_shelf("moved") == ["1", "2"]
    no_bugs(scene)


@pytest.fixture(scope="session")
def hanging(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], Path]:
    """The files of a model that hangs in its load, and the pipe that it waits for."""
    pytest.importorskip("tensorflow")
    folder = tmp_path_factory.mktemp("hanging")
    pipe = folder / "pipe"
    os.mkfifo(pipe)
    script = Path(__file__).parents[1] / "support/make_hanging.py"
    command = [sys.executable, str(script), str(folder / "out"), str(pipe)]
    subprocess.run(command, check=True, capture_output=True)
    return files_of(folder / "out"), pipe


@pytest.mark.slow
@pytest.mark.skipif(not LONG, reason="has TensorFlow make a model that hangs: LONG_TESTS=1 runs it")
def test_nobody_waits_for_a_trial_that_hangs(
    scene: JobsScene, server: SaidServer, hanging: tuple[dict[str, bytes], Path]
) -> None:
    """One is rolled back meanwhile, one quarantined; SIGTERM leaves no process and no staging behind."""
    tree, _ = hanging
    with scene.box.running() as process:
        agent = psutil.Process(process.pid)
        ready_to_roll_back(scene)
        scene.box.overrides["verify"] = {"level": "load"}
        scene.box.write_settings()
        scene.box.until(lambda: scene.box.events("settings_reloaded"), "settings")
        scene.bucket.put("prod/big/1.tar.gz", tar_gz_of(tree, "0000001"))
        scene.until("version_fetched", "big", 1)
        scene.box.until(partial(agent.children, recursive=True), "the trial")
        trials = agent.children(recursive=True)
        scene.promote("moved", 1)
        scene.until("version_available", "moved", 1, 2)
        scene.until("version_pruned", "moved", 2)
        server.versions = {2: BAD}
        stops_at_once(scene, process)
        psutil.wait_procs(trials, timeout=GRACE_SECONDS)

    assert not [trial for trial in trials if trial.is_running()]
    assert not scene.events("version_verified", "big", 1)
    assert scene.box.leftovers() == []
    no_bugs(scene)


# -- the same model ----------------------------------------------------------------------------------------


def test_a_rollback_cancels_the_transfer_that_it_makes_needless(scene: JobsScene, server: SaidServer) -> None:
    """The bytes are never let go; the version that was served before is back all the same."""
    with scene.box.running():
        ready_to_roll_back(scene)
        scene.hold("/moved/3.tar.gz")
        scene.put("moved", 3, asset_bytes=BIG)
        scene.promote("moved", 3)
        scene.box.until(lambda: [*(scene.box.workspace / "staging").glob("*")], "staging of 3")
        scene.promote("moved", 1)
        scene.until("version_restored", "moved", 1)
        cancelled = scene.until("fetch_cancelled", "moved", 3)
        scene.until("version_pruned", "moved", 2)
        scene.box.until(lambda: scene.box.leftovers() == [], "staging given back")

    assert "not wanted any more" in cancelled["because"]
    assert scene.on_shelf("moved") == ["1"]
    assert not scene.events("version_fetched", "moved", 3)
    no_bugs(scene)


def withdrawn(scene: JobsScene) -> None:
    """Withdraw what comes."""
    scene.withdraw("big", 2)


def pinned(scene: JobsScene) -> None:
    """Pin the model to what it has."""
    scene.box.models[0]["versions"] = {"pin": [1]}
    scene.box.write_settings()


def removed(scene: JobsScene) -> None:
    """Take the model out of the settings."""
    del scene.box.models[0]
    scene.box.write_settings()


@pytest.mark.parametrize("change", [withdrawn, pinned, removed])
def test_what_is_not_wanted_any_more_never_goes_live(
    scene: JobsScene, server: SaidServer, change: Callable[[JobsScene], None]
) -> None:
    """Its transfer is cancelled and its staging given back; letting the bytes go changes nothing."""
    old = scene.put("big", 1)
    with scene.box.running():
        scene.until("version_available", "big", 1)
        with scene.watched("big", (1, old)):
            held = scene.hold("/big/2.tar.gz")
            scene.put("big", 2, asset_bytes=BIG)
            scene.box.until(held.begun.is_set, "the transfer")
            change(scene)
            scene.until("fetch_cancelled", "big", 2)
            held.released.set()
            scene.box.until(lambda: scene.box.leftovers() == [], "staging given back")
            scene.until_polled()
            scene.until_polled()

    assert scene.on_shelf("big") == ["1"]
    assert [line["model"] for line in scene.box.events("fetch_cancelled")] == ["big"]
    assert not scene.events("version_fetched", "big", 2)
    no_bugs(scene)


def test_of_a_release_that_is_replaced_only_the_new_bytes_go_live(
    scene: JobsScene, server: SaidServer
) -> None:
    """What came of the old ones is given back."""
    old = scene.put("big", 1)
    with scene.box.running():
        scene.until("version_available", "big", 1)
        held = scene.hold("/big/2.tar.gz")
        scene.put("big", 2, asset_bytes=BIG)
        scene.box.until(held.begun.is_set, "the transfer")
        fresh = tree_of(2, asset_bytes=BIG)
        with scene.watched("big", (1, old), (2, fresh)):
            scene.bucket.put("prod/big/2.tar.gz", tar_gz_of(fresh, "0000002", is_random=True))
            scene.until("fetch_cancelled", "big", 2)
            held.released.set()
            scene.until("version_available", "big", 2)
            scene.box.until(lambda: scene.box.leftovers() == [], "staging given back")

    assert digests_on_disk(scene.box.models_dir / "big/2") == digests(fresh)
    no_bugs(scene)


def test_a_version_withdrawn_between_two_polls_never_goes_live(scene: JobsScene, server: SaidServer) -> None:
    """The store is listed once more before a version is put in place."""
    old = scene.put("big", 1)
    scene.box.overrides["poll"] = {"interval_seconds": 3600}
    with scene.box.running() as process:
        scene.until("version_available", "big", 1)
        with scene.watched("big", (1, old)):
            held = scene.hold("/big/2.tar.gz")
            scene.put("big", 2, asset_bytes=BIG)

            def has_begun() -> bool:
                process.send_signal(signal.SIGUSR1)
                return held.begun.wait(2)

            scene.box.until(has_begun, "transfer")
            scene.withdraw("big", 2)
            held.released.set()
            scene.until("fetch_cancelled", "big", 2)
            scene.box.until(lambda: scene.box.leftovers() == [], "staging given back")

    assert scene.events("version_fetched", "big", 2)
    assert scene.on_shelf("big") == ["1"]
    no_bugs(scene)


# -- several transfers -------------------------------------------------------------------------------------


def test_two_transfers_at_once_and_a_rollback_beside_them(scene: JobsScene, server: SaidServer) -> None:
    """`/status` shows both; a rollback that must be fetched takes no slot, what else is new waits for one."""
    admin = AdminClient.listen(scene.box)
    scene.box.overrides["reserve"] = {"keep": 0}
    scene.box.models.append({"name": "other", "versions": LATEST})
    with scene.box.running():
        ready_to_roll_back(scene)
        held = scene.hold("/big/1.tar.gz", "/other/1.tar.gz")
        for model in ("big", "other"):
            scene.put(model, 1, asset_bytes=BIG)
        scene.box.until(lambda: _progressing(admin) == {"big", "other"}, "both with progress")
        scene.put("plain", 2)
        scene.promote("moved", 1)
        scene.until("version_fetched", "moved", 1, 2)
        scene.until("version_pruned", "moved", 2)
        scene.until_polled()

        assert not scene.events("version_fetched", "plain", 2)
        assert _progressing(admin) == {"big", "other"}
        assert admin.metric("servesync_transfers_running") == 2
        held.released.set()
        for model, version in (("big", 1), ("other", 1), ("plain", 2)):
            scene.until("version_available", model, version)
    no_bugs(scene)


def _progressing(admin: AdminClient) -> set[str]:
    """Return the models with a transfer of which some bytes, and not all, have come."""
    found = admin.status()["transfers"]
    return {item["model"] for item in found if 0 < (item["done_bytes"] or 0) < item["total_bytes"]}


# -- a folder that somebody removes ------------------------------------------------------------------------


def test_a_models_folder_that_somebody_removed_never_comes_back_empty(
    scene: JobsScene, server: SaidServer
) -> None:
    """The server would unload everything at an empty one: it appears with a version in it."""
    tree = scene.put("big", 1)
    scene.box.models = scene.box.models[:1]
    shelf = scene.box.models_dir / "big"
    with scene.box.running():
        scene.until("version_available", "big", 1)
        with scene.watched("big", (1, tree)):
            shelf.rename(scene.box.folder / "gone")
            seen: list[list[str] | None] = []

            def names_now() -> list[str] | None:
                seen.append(_names(shelf))
                return seen[-1]

            scene.box.until(names_now, "the folder")
            scene.until("version_restored", "big", 1)

    assert {tuple(names) for names in seen if names is not None} <= {("1",)}
    assert digests_on_disk(shelf / "1") == digests(tree)
    assert scene.box.events("action_failed") == [] or "shelf_removed" in str(scene.box.events())
    no_bugs(scene)


def _names(folder: Path) -> list[str] | None:
    try:
        return sorted(os.listdir(folder))  # noqa: PTH208 (one system call)
    except FileNotFoundError:
        return None


# -- sync --------------------------------------------------------------------------------------------------


def refused(scene: JobsScene) -> None:
    """Publish a newest version that is none."""
    scene.bucket.put("prod/big/2.tar.gz", b"no archive")


def denied(scene: JobsScene) -> None:
    """Publish a newest version that may not be read."""
    scene.put("big", 2)
    scene.proxy.matches, scene.proxy.fault = reads_of("/big/2.tar.gz"), s3_error(403, "AccessDenied")


@pytest.mark.parametrize("trouble", [refused, denied])
def test_sync_passes_over_a_newest_version_that_cannot_come(
    scene: JobsScene, trouble: Callable[[JobsScene], None]
) -> None:
    """The next good one is in place, exit code 0, and it says so; `--strict` makes that 3."""
    scene.put("big", 1)
    trouble(scene)
    scene.box.models = scene.box.models[:1]

    done = scene.box.call("sync", "--timeout", "60")

    assert (done.returncode, scene.on_shelf("big")) == (0, ["1"]), done.stderr
    assert "big 2 is passed over" in done.stderr
    assert scene.box.call("sync", "--timeout", "60", "--strict").returncode == 3
    assert scene.on_shelf("big") == ["1"]


def test_sync_goes_on_trying_while_the_disk_is_too_small(scene: JobsScene) -> None:
    """It may be given space: tried again until the time is over, then the exit code is 3."""
    scene.put("big", 1)
    scene.box.models = scene.box.models[:1]
    assert scene.box.call("sync").returncode == 0
    scene.put("big", 2)
    scene.box.overrides["limits"] = {"disk_reserve_bytes": 1 << 42}

    done = scene.box.call("sync", "--timeout", "8")

    failed = [
        json.loads(line) for line in (done.stdout + done.stderr).splitlines() if '"action_failed"' in line
    ]
    assert done.returncode == 3
    assert "big" in done.stderr
    assert {line["reason"] for line in failed} == {"disk_full"}
    assert scene.on_shelf("big") == ["1"]


# -- settings that cannot be in force yet ------------------------------------------------------------------


def test_a_base_path_that_cannot_be_made_is_seen_and_made_later(scene: JobsScene, server: SaidServer) -> None:
    """A file has its name: `/status` says so; once it is gone the model comes without anybody's help."""
    admin = AdminClient.listen(scene.box)
    models, scene.box.models = scene.box.models, scene.box.models[2:]
    scene.put("plain", 1)
    scene.put("big", 1)
    with scene.box.running():
        scene.until("version_available", "plain", 1)
        in_the_way = scene.box.models_dir / "big"
        in_the_way.write_text("a file")
        scene.box.models = models
        scene.box.write_settings()
        scene.box.until(lambda: _troubles(admin, {"settings", "big"}), "a trouble in /status", 60)
        scene.put("plain", 2)
        scene.until("version_available", "plain", 2)
        in_the_way.unlink()
        scene.until("version_available", "big", 1)
        scene.box.until(lambda: not _troubles(admin, {"settings", "big"}), "no trouble any more", 60)
    no_bugs(scene)


def _troubles(admin: AdminClient, about: set[str]) -> list[Any]:
    return [trouble for trouble in admin.status()["troubles"] if trouble["about"] in about]
