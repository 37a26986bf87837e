"""A folder of records that cannot be read is the trouble of its model, and of no other one."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent_parts import Parts, PromptJobs, settings_of, turn_until_idle
from install_box import publish, release_of
from servesync.domain.versions import Model, Version
from servesync.errors import DiskError, Reason
from servesync.install import Lock, Reserve, Shelf, Workspace
from servesync.jobs import Job, JobKind, RoomWanted
from servesync.settings import Settings

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
    """Return settings for both models; everything is to be read again each hour."""
    return settings_of(workspace.models_dir, BAD, GOOD, scrub={"interval_hours": 1})


class WantingRoom(PromptJobs):
    """A transfer among the jobs is short of space when the test says so, and notes what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.answers: list[bool] = []

    def want(self) -> None:
        """Ask for space."""
        job = Job(JobKind.TRANSFER, lambda _: None, GOOD, Version(2))
        self.put(RoomWanted(job, DiskError(Reason.DISK_FULL, "the disk is full"), self.answers.append))


@pytest.fixture
def shelf(workspace: Workspace) -> Shelf:
    """The shelf of the good model, with version 1, which was installed long ago."""
    publish(workspace, release_of(1, model=GOOD), at=LONG_AGO)
    return Shelf(workspace, GOOD)


def test_the_others_reserve_gives_way(workspace: Workspace, shelf: Shelf) -> None:
    """Space is needed: what the good model has in reserve goes, and only then nothing more is to be had."""
    record = shelf.record(ONE)
    assert record is not None
    reserve = Reserve(workspace, GOOD)
    reserve.take(shelf.path / "1", ONE, record, LONG_AGO)
    shelf.forget(ONE)
    jobs = WantingRoom()
    with Lock(workspace.lock) as lock:
        agent = Parts(jobs=jobs).agent(settings(workspace), lock)
        agent.prepare()
        turn_until_idle(agent)
        assert reserve.versions().keys() == {ONE}

        jobs.want()
        agent.turn()
        assert reserve.versions() == {}
        agent.turn()
        assert jobs.answers == [True]

        jobs.want()
        agent.turn()
        assert jobs.answers == [True, False]


def test_the_others_are_read_again(workspace: Workspace, shelf: Shelf) -> None:
    """The version of the good model is due, and is read."""
    with Lock(workspace.lock) as lock:
        agent = Parts().agent(settings(workspace), lock)
        agent.prepare()
        turn_until_idle(agent)
        agent.turn()

    record = shelf.record(ONE)
    assert record is not None
    assert record.scrubbed_at is not None


def test_the_others_begin_at_a_start(workspace: Workspace) -> None:
    """A file in the place of a base path: that model waits. An agent without a usable one does not start."""
    bases = [workspace.shelf(model) for model in (BAD, GOOD)]
    for base in bases:
        base.rmdir()
    bases[0].touch()
    with Lock(workspace.lock) as lock:
        agent = Parts().agent(settings(workspace), lock)
        agent.prepare()
        agent.turn()
        assert [base.is_dir() for base in bases] == [False, True]

        bases[0].unlink()
        agent.turn()
        assert [base.is_dir() for base in bases] == [True, True]

        for base in bases:
            base.rmdir()
            base.touch()
        with pytest.raises(DiskError) as caught:
            Parts().agent(settings(workspace), lock).prepare()
        assert caught.value.reason is Reason.DISK_NOT_A_DIRECTORY
