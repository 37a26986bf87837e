"""Jobs that run when a test says so: each in a thread of its own, and never two threads at the same time.

A baton goes from the test to one job and back. A job keeps it until it ends, until it has passed as many
points as the test allowed, or until it comes to a point that holds it: a store that hangs, a server that does
not answer, a question to the deciding thread. Points are `check()`, and every call of the store and the
server. In between the test does what it likes: other jobs, turns of the agent, time, and its end.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

from servesync.domain.versions import Model, Version
from servesync.errors import DiskError, Reason, Stopped, SyncError
from servesync.jobs import Ended, Job, JobKind, Message, RoomWanted, Running

POLL_SECONDS: Final = 0.05
REAL_SECONDS: Final = 60.0
"""A job that keeps the baton for longer hangs in something that is not simulated."""


class ProcessEnded(BaseException):
    """The agent's process has ended here; nothing that comes after it happens."""


class NotInAJob(AssertionError):
    """Something that may be slow was asked for by the deciding thread itself."""


def never() -> bool:
    """Hold nothing."""
    return False


class Task(threading.Thread):
    """One job at work, or about to be.

    Its own thread gives the baton back. A thread that reads for it does so, too, if the job waits for it.
    """

    def __init__(self, job: Job, put: Callable[[Message], None]) -> None:
        super().__init__(name=f"sim-{job.kind}", daemon=True)
        self._job = job
        self._put = put
        self._changed = threading.Condition()
        self._has_baton = False
        self._allowed: int | None = 0
        self._is_cancelled = self._heeds = self._is_dying = False
        self._waits_for: Callable[[], bool] = never
        self.at = "not started"
        self.has_ended = False
        self.failure: BaseException | None = None

    @property
    def job(self) -> Job:
        """What was started."""
        return self._job

    def cancel(self) -> None:
        """Make it end; it notices when it has the baton next."""
        self._is_cancelled = True

    @property
    def is_cancelled(self) -> bool:
        """Whether it was told to end."""
        return self._is_cancelled

    # -- the test's side ----------------------------------------------------------------------------------

    def resume(self, points: int | None = None) -> None:
        """Hand over the baton, and wait until it comes back; `points` None: as far as it gets."""
        assert not self.has_ended, f"{self.name} has ended"
        with self._changed:
            self._heeds, self._allowed = self._is_cancelled, points
            self._has_baton = True
            self._changed.notify_all()
            if self.ident is None:
                self.start()
            if not self._changed.wait_for(lambda: not self._has_baton, REAL_SECONDS):
                raise AssertionError(f"{self.name} hangs in something that is not simulated, after {self.at}")
        if self.at == "end":
            self.join(REAL_SECONDS)
        failure = self.failure
        if failure is not None:
            raise failure

    def end_with_process(self) -> None:
        """End it where it stands, without another effect; the caller lets the disk do nothing any more."""
        self._is_dying = True
        if self.ident is None:
            self.has_ended = True
            return
        try:
            while not self.has_ended:
                self.resume()
        except BaseException:  # noqa: BLE001 (whatever it is, it died of the end)
            self.join(REAL_SECONDS)

    # -- the job's side -----------------------------------------------------------------------------------

    def run(self) -> None:
        """Do the work."""
        result: object = None
        error: SyncError | OSError | None = None
        try:
            self.point("start")
            result = self._job.work(self)
        except (SyncError, OSError) as problem:
            error = problem
        except BaseException as problem:  # noqa: BLE001 (the test hears of it, and it is a failure there)
            self.failure = problem
        if isinstance(error, SyncError) and error.reason is Reason.INTERNAL_ERROR:
            self.failure = AssertionError(f"{self.name}: {error} {error.facts}")
        if self.failure is None and not self._is_dying:
            self._put(Ended(self._job, result, error))
        with self._changed:
            self.has_ended, self.at, self._has_baton = True, "end", False
            self._changed.notify_all()

    def point(self, what: str, holds: Callable[[], bool] = never) -> None:
        """Give the baton back if it is time; go on when it comes again."""
        with self._changed:
            while True:
                if self._is_dying:
                    raise ProcessEnded
                is_held = holds() and not self._heeds
                if not is_held and (self._allowed is None or self._allowed > 0):
                    break
                self.at, self._has_baton = what, False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._has_baton)
            if self._allowed is not None:
                self._allowed -= 1

    def wait_beside(self, holds: Callable[[], bool]) -> None:
        """Let a thread that reads ahead wait; the job gives the baton back when it has nothing else to do."""
        with self._changed:
            self._waits_for = holds
            while holds() and not self._heeds and not self._is_dying:
                self._changed.wait(POLL_SECONDS)
            self._waits_for = never

    def should_stop(self) -> bool:
        """Whether it is cancelled; asked by any of its threads. No point, unless all that it does is wait."""
        if threading.current_thread() is self and self._waits_for():
            self.point("what it reads ahead", self._waits_for)
        return self._heeds or self._is_dying

    def check(self) -> None:
        """Raise `Stopped` if it is cancelled."""
        if threading.current_thread() is self:
            self.point("check")
        if self._heeds:
            raise Stopped

    def make_room(self, short: DiskError) -> bool:
        """Ask the deciding thread for space, and wait for its answer."""
        answers: list[bool] = []
        self._put(RoomWanted(self._job, short, answers.append))
        self.point("room", lambda: not answers)
        if not answers:
            raise Stopped
        return answers[0]


class SimJobs:
    """What the agent starts; nothing of it runs by itself."""

    def __init__(self) -> None:
        self._inbox: deque[Message] = deque()
        self._tasks: list[Task] = []
        self._current: Task | None = None
        self.has_threads = True
        """False: the machine lets no thread be started."""
        self.started: list[Job] = []
        """Every job that was ever started."""

    # -- the agent's side ---------------------------------------------------------------------------------

    def start(self, job: Job) -> Running:
        """Take note of a job."""
        assert self._current is None, "a job starts a job"
        assert all(task.job.key != job.key for task in self.alive), f"{job.key} is at work already"
        self.started.append(job)
        task = Task(job, self._inbox.append)
        if self.has_threads:
            self._tasks.append(task)
        else:
            error = SyncError(Reason.THREADS_EXHAUSTED, f"cannot start a thread ({job.kind})")
            self._inbox.append(Ended(job, error=error))
        return task

    def take(self) -> Iterator[Message]:
        """Yield the messages that have arrived."""
        while self._inbox:
            yield self._inbox.popleft()

    def close(self, seconds: float) -> bool:
        """Cancel all jobs and let them end."""
        for task in self.alive:
            task.cancel()
        for task in self.alive:
            while not task.has_ended:
                self.resume(task)
        return not self.alive

    # -- the test's side ----------------------------------------------------------------------------------

    @property
    def alive(self) -> list[Task]:
        """The jobs that have not ended, in the order in which they were started."""
        self._tasks = [task for task in self._tasks if not task.has_ended]
        return list(self._tasks)

    @property
    def has_news(self) -> bool:
        """Whether the agent has messages to take."""
        return bool(self._inbox)

    def find(self, kind: JobKind, model: str | None = None, version: int | None = None) -> Task | None:
        """Return the job that is meant, if one is alive."""
        for task in self.alive:
            job = task.job
            if (
                job.kind is kind
                and (model is None or job.model == Model(model))
                and (version is None or job.version == Version(version))
            ):
                return task
        return None

    def resume(self, task: Task, points: int | None = None) -> None:
        """Let one job work until it ends, is held, or has passed so many points."""
        assert self._current is None, "a job is at work"
        self._current = task
        try:
            task.resume(points)
        finally:
            self._current = None

    def at_point(
        self, what: str, holds: Callable[[], bool] = never, key: str = "", *, is_ahead: bool = False
    ) -> None:
        """Called by store and server for whoever asks them, in whichever thread.

        `key`: the object that is read. `is_ahead`: the job may do something else meanwhile.

        Raises:
            NotInAJob: it is not a job that asks.
        """
        task = self._asking(key)
        if task is None:
            raise NotInAJob(what)
        if not is_ahead:
            task.point(what, holds)
        elif holds():
            task.wait_beside(holds)

    def _asking(self, key: str) -> Task | None:
        """Return the job that asks: threads that read are shared by all jobs, so an object tells more."""
        thread = threading.current_thread()
        if isinstance(thread, Task):
            return thread
        if thread is threading.main_thread():
            return None
        meant = [task for task in self.alive if _is_about(task.job, key)]
        return self._current if self._current in meant or not meant else meant[0]

    def end_with_process(self) -> None:
        """End all jobs where they stand; see `Task.end_with_process`."""
        for task in self.alive:
            self._current = task
            task.end_with_process()
        self._current = None
        self._tasks.clear()
        self._inbox.clear()


def _is_about(job: Job, key: str) -> bool:
    """Whether an object belongs to what a job is about: a document, or a version."""
    if job.kind is JobKind.DOCUMENT:
        return bool(key) and getattr(job, "name", "").startswith(f"{key}\0")
    stem = f"/{job.model}/{job.version}"
    rest = key.partition(stem)[2]
    return job.kind is JobKind.TRANSFER and stem in key and rest[:1] in {".", "/"}
