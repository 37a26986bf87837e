"""A folder of records that cannot be read is the trouble of its model, and of no other one."""

import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
from servesync.agent.space import Needed, Space

from install_box import publish, release_of
from servesync.agent.build import build_agent, build_observer
from servesync.agent.scrub import Scrubber
from servesync.errors import DiskError, Reason
from servesync.install import Lock, Reserve, Shelf, Workspace
from servesync.plan.versions import Model, Version
from servesync.settings import Scrub, Settings

LONG_AGO = datetime(2020, 1, 2, 3, 4, 5, tzinfo=UTC)
BAD, GOOD = Model("bad"), Model("good")
ONE = Version(1)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """Two models; a file is in the place of each folder of records of the one that comes first."""
    workspace = Workspace(tmp_path / "models")
    workspace.claim()
    workspace.prepare([BAD, GOOD])
    for kind in ("records", "reserve_records"):
        (workspace.root / kind / BAD).touch()
    return workspace


def settings(workspace: Workspace) -> Settings:
    """Return settings for both models, with more space to keep free than there is."""
    return Settings.model_validate(
        {
            "store": {"url": "s3://bucket", "endpoint_url": "http://127.0.0.1:9", "region": "us-east-1"},
            "serving": {"models_dir": str(workspace.models_dir), "rest_url": None},
            "models": [{"name": BAD}, {"name": GOOD}],
            "limits": {"disk_reserve_bytes": 1 << 42},
        }
    )


@pytest.fixture
def shelf(workspace: Workspace) -> Shelf:
    """The shelf of the good model, with version 1, which was installed long ago."""
    publish(workspace, release_of(1, model=GOOD), at=LONG_AGO)
    return Shelf(workspace, GOOD)


def test_the_others_reserve_gives_way(workspace: Workspace, shelf: Shelf) -> None:
    """Space is needed: what the good model has in reserve goes, and only then is it said that it is short."""
    record = shelf.record(ONE)
    assert record is not None
    reserve = Reserve(workspace, GOOD)
    reserve.take(shelf.path / "1", ONE, record, LONG_AGO)

    with pytest.raises(DiskError) as caught:
        Space(build_observer(settings(workspace))).check(Needed())

    assert caught.value.reason is Reason.DISK_FULL
    assert reserve.versions() == {}


def test_the_others_are_read_again(workspace: Workspace, shelf: Shelf) -> None:
    """The version of the good model is due, and is read."""
    done = threading.Event()
    scrubber = Scrubber(Scrub(interval_hours=1), done.set)

    scrubber.turn([Shelf(workspace, BAD), shelf])

    assert done.wait(60)
    scrubber.turn([Shelf(workspace, BAD), shelf])
    record = shelf.record(ONE)
    assert record is not None
    assert record.scrubbed_at is not None
    scrubber.close()


def test_the_others_begin_at_a_start(workspace: Workspace) -> None:
    """A file in the place of a base path: that model waits. An agent without a usable one does not start."""
    bases = [workspace.shelf(model) for model in (BAD, GOOD)]
    for base in bases:
        base.rmdir()
    bases[0].touch()
    with Lock(workspace.lock) as lock:
        agent = build_agent(settings(workspace), lock, lambda: False)
        agent.prepare()
        agent.cycle(ask_store=False)
        assert [base.is_dir() for base in bases] == [False, True]

        bases[0].unlink()
        agent.cycle(ask_store=False)
        assert [base.is_dir() for base in bases] == [True, True]

        for base in bases:
            base.rmdir()
            base.touch()
        with pytest.raises(DiskError) as caught:
            build_agent(settings(workspace), lock, lambda: False).prepare()
        assert caught.value.reason is Reason.DISK_NOT_A_DIRECTORY
