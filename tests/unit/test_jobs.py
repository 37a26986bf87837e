"""Slow work beside the deciding thread: threads, what they say, and how they end."""

import threading
from collections.abc import Iterator

import pytest

from servesync.domain.versions import Model, Version
from servesync.errors import DiskError, Reason, Stopped, SyncError
from servesync.jobs import Ended, Job, JobContext, JobKind, Message, RoomWanted, Running, ThreadJobs

M, ONE = Model("m"), Version(1)
LONG = 60.0
SHORT = DiskError(Reason.DISK_FULL, "the disk is full")


class Box:
    """Jobs in threads, and their inbox as a test reads it."""

    def __init__(self) -> None:
        self._woken = threading.Semaphore(0)
        self.jobs = ThreadJobs(self._woken.release)

    def start(self, work: object, kind: JobKind = JobKind.TRANSFER) -> Running:
        """Start a job."""
        assert callable(work)
        return self.jobs.start(Job(kind, work, M, ONE))

    def next(self) -> Message:
        """Return the next message as soon as it is there; whoever sends one wakes."""
        assert self._woken.acquire(timeout=LONG)
        return next(self.jobs.take())

    def ended(self) -> Ended:
        """Return the next message, which is the end of a job."""
        message = self.next()
        assert isinstance(message, Ended)
        return message


@pytest.fixture
def box() -> Iterator[Box]:
    """Jobs that have all ended when the test ends."""
    box = Box()
    yield box
    assert box.jobs.close(LONG)


def until_cancelled(context: JobContext) -> None:
    """Work until somebody cancels it."""
    pause = threading.Event()
    while True:
        context.check()
        pause.wait(0.01)


def test_a_result_comes_once(box: Box) -> None:
    """One message; then there is nothing more."""
    running = box.start(lambda _: "whole")

    assert box.next() == Ended(running.job, "whole")
    assert list(box.jobs.take()) == []


@pytest.mark.parametrize("error", [SyncError(Reason.STORE_FAILED, "x"), OSError(28, "full"), Stopped()])
def test_a_failure_arrives_as_it_is(box: Box, error: SyncError | OSError) -> None:
    """Whoever takes it in decides what follows."""

    def work(_: JobContext) -> None:
        raise error

    box.start(work)

    assert box.ended().error is error


@pytest.mark.parametrize("problem", [KeyError("secret"), SystemExit(3), MemoryError()])
def test_a_bug_in_a_job_is_an_internal_error(box: Box, problem: BaseException) -> None:
    """It does not die in silence; others go on. What a library has said is left out."""

    def work(_: JobContext) -> None:
        raise problem

    box.start(work)

    error = box.ended().error
    assert isinstance(error, SyncError)
    assert error.reason is Reason.INTERNAL_ERROR
    assert "secret" not in str(error)
    box.start(lambda _: 1)
    assert box.ended().result == 1


def test_a_cancelled_job_ends_and_says_so(box: Box) -> None:
    """One, and no other."""
    first, second = box.start(until_cancelled), box.start(until_cancelled, JobKind.REREAD)

    first.cancel()

    end = box.ended()
    assert end.job is first.job
    assert isinstance(end.error, Stopped)
    second.cancel()
    assert box.ended().job is second.job


def test_where_no_thread_can_be_started_the_job_has_failed(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """As under `ulimit -u`. It may be started again; nothing is left of the attempt."""
    started: list[JobContext] = []

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        box.start(started.append)
        error = box.ended().error
    assert isinstance(error, SyncError)
    assert error.reason is Reason.THREADS_EXHAUSTED
    assert started == []

    box.start(lambda _: "begun")
    assert box.ended().result == "begun"


@pytest.mark.parametrize("granted", [True, False])
def test_a_job_waits_for_space_until_it_is_answered(box: Box, *, granted: bool) -> None:
    """The answer is what it goes by."""
    box.start(lambda context: context.make_room(SHORT))

    wanted = box.next()
    assert isinstance(wanted, RoomWanted)
    assert wanted.short is SHORT
    assert list(box.jobs.take()) == []
    wanted.answer(granted)

    assert box.ended().result is granted


def test_a_job_that_waits_for_space_can_be_cancelled(box: Box) -> None:
    """An answer that comes later disturbs nobody."""
    running = box.start(lambda context: context.make_room(SHORT))
    wanted = box.next()
    assert isinstance(wanted, RoomWanted)

    running.cancel()

    assert isinstance(box.ended().error, Stopped)
    wanted.answer(True)
    assert list(box.jobs.take()) == []


def test_close_ends_all_jobs(box: Box) -> None:
    """What they say still arrives."""
    for kind in (JobKind.TRANSFER, JobKind.SCRUB):
        box.start(until_cancelled, kind)

    assert box.jobs.close(LONG)

    ends = [message for message in box.jobs.take() if isinstance(message, Ended)]
    assert {end.job.kind for end in ends} == {JobKind.TRANSFER, JobKind.SCRUB}
    assert all(isinstance(end.error, Stopped) for end in ends)


def test_close_does_not_wait_for_what_heeds_nothing(box: Box) -> None:
    """A disk may hang for ever."""
    hang = threading.Event()
    box.start(lambda _: hang.wait(LONG))

    assert not box.jobs.close(0.05)

    hang.set()
    assert box.ended().result is True


def test_jobs_are_the_same_by_what_they_are_about() -> None:
    """Not by their work."""
    one = Job(JobKind.DOCUMENT, lambda _: 1, M, name="x")
    same = Job(JobKind.DOCUMENT, lambda _: 2, M, name="x")
    assert one == same
    assert one.key == same.key == (JobKind.DOCUMENT, M, None, "x")
    assert one.key != Job(JobKind.DOCUMENT, lambda _: None, M, name="y").key
