"""Slow work beside the deciding thread: each piece is a job, and its result is data in the inbox.

A transfer changes its own attempt folder and the host's cache only, the emptying of the trash only the
trash; every other job only reads. The deciding thread decides whether a result still counts when it arrives.
It starts and cancels jobs, and never waits for one.
"""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Protocol, TypeVar

from servesync import heap, priority
from servesync.domain.versions import Model, Version
from servesync.errors import DiskError, Reason, Stopped, SyncError, internal_error

ROOM_POLL_SECONDS: Final = 0.2
POLL_SECONDS: Final = 0.2

T = TypeVar("T")


class JobKind(StrEnum):
    """What a job does."""

    LIST = "list"
    DOCUMENT = "document"
    ASK_SERVER = "ask_server"
    TRIAL = "trial"
    RELOAD = "reload"
    TRANSFER = "transfer"
    REREAD = "reread"
    SCRUB = "scrub"
    EMPTY_TRASH = "empty_trash"


IN_BACKGROUND: Final = frozenset({JobKind.TRANSFER, JobKind.REREAD, JobKind.SCRUB, JobKind.EMPTY_TRASH})
"""Work on gigabytes, which gives way to the model server; nobody waits for it as for the others."""


class JobContext(Protocol):
    """What a job may ask for while it works; used by the job's own threads only."""

    def should_stop(self) -> bool:
        """Whether the job is cancelled; it then ends within a second."""

    def check(self) -> None:
        """Raise `Stopped` if the job is cancelled."""

    def make_room(self, short: DiskError) -> bool:
        """Ask the deciding thread for space on the disk, and wait; return whether there may be more now.

        Raises:
            Stopped: the job is cancelled.
        """


@dataclass(frozen=True, slots=True)
class Job:
    """One piece of work. `key` names it: no two jobs with the same key are at work at the same time."""

    kind: JobKind
    work: Callable[[JobContext], object] = field(compare=False)
    model: Model | None = None
    version: Version | None = None
    name: str = ""

    @property
    def key(self) -> tuple[JobKind, Model | None, Version | None, str]:
        """What the job is about."""
        return self.kind, self.model, self.version, self.name


@dataclass(frozen=True, slots=True)
class Ended:
    """A job has ended: with a result, or with an error. A cancelled one ends with `Stopped`."""

    job: Job
    result: object = None
    error: SyncError | OSError | None = None


@dataclass(frozen=True, slots=True)
class RoomWanted:
    """A job waits for space on the disk until `answer` is called."""

    job: Job
    short: DiskError
    answer: Callable[[bool], None]


Message = Ended | RoomWanted


class Running(Protocol):
    """A job at work."""

    @property
    def job(self) -> Job:
        """What was started."""

    def cancel(self) -> None:
        """Make it end within a second; its `Ended` still arrives."""


class Jobs(Protocol):
    """Starts jobs and collects their messages. Only the deciding thread uses it."""

    def start(self, job: Job) -> Running:
        """Start a job. One that cannot be started ends at once, with an error in the inbox."""

    def take(self) -> Iterator[Message]:
        """Yield the messages that have arrived; never waits."""

    def close(self, seconds: float) -> bool:
        """Cancel all jobs and wait for their end at most so long; return whether all have ended."""


class ThreadJobs:
    """Runs each job in a thread of its own; `wake` is called whenever there is a message."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._inbox: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._running: dict[int, _Thread] = {}
        self._lock = threading.Lock()

    def start(self, job: Job) -> Running:
        """Start a thread; where the machine allows none, the job has failed, and may be started again."""
        thread = _Thread(job, self._put, self._ended)
        with self._lock:
            self._running[id(thread)] = thread
        try:
            thread.start()
        except RuntimeError:
            text = f"cannot start a thread ({job.kind}): raise the limit on processes and threads"
            self._ended(thread)
            self._put(Ended(job, error=SyncError(Reason.THREADS_EXHAUSTED, text)))
        return thread

    def take(self) -> Iterator[Message]:
        """Yield the messages that have arrived; never waits."""
        while True:
            try:
                yield self._inbox.get_nowait()
            except queue.Empty:
                return

    def close(self, seconds: float) -> bool:
        """Cancel all jobs and wait for their end at most so long; return whether all have ended."""
        with self._lock:
            threads = list(self._running.values())
        for thread in threads:
            thread.cancel()
        until = time.monotonic() + seconds
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))
        return not any(thread.is_alive() for thread in threads)

    def _put(self, message: Message) -> None:
        self._inbox.put(message)
        self._wake()

    def _ended(self, thread: "_Thread") -> None:
        with self._lock:
            self._running.pop(id(thread), None)


class _Thread(threading.Thread):
    """One job at work, and its context."""

    def __init__(self, job: Job, put: Callable[[Message], None], ended: Callable[["_Thread"], None]) -> None:
        super().__init__(name=f"servesync-{job.kind.value}", daemon=True)
        self._job = job
        self._put = put
        self._note_end = ended
        self._cancelled = threading.Event()

    @property
    def job(self) -> Job:
        return self._job

    def cancel(self) -> None:
        self._cancelled.set()

    def run(self) -> None:
        result: object = None
        error: SyncError | OSError | None = None
        if self._job.kind in IN_BACKGROUND:
            priority.lower()
        try:
            result = self._job.work(self)
        except (SyncError, OSError) as problem:
            error = problem
        except BaseException as problem:  # noqa: BLE001 (a job must not die in silence)
            error = internal_error(problem, f"at work on {self.name}")
        if self._job.kind in IN_BACKGROUND:
            heap.give_back()
        self._note_end(self)
        self._put(Ended(self._job, result, error))

    # -- the context --------------------------------------------------------------------------------

    def should_stop(self) -> bool:
        return self._cancelled.is_set()

    def check(self) -> None:
        if self._cancelled.is_set():
            raise Stopped

    def make_room(self, short: DiskError) -> bool:
        answered, granted = threading.Event(), False

        def answer(grant: bool) -> None:  # noqa: FBT001 (a callback with one question)
            nonlocal granted
            granted = grant
            answered.set()

        self._put(RoomWanted(self._job, short, answer))
        while not answered.wait(ROOM_POLL_SECONDS):
            self.check()
        return granted


def ask_beside(work: Callable[[], T], check: Callable[[], None]) -> T:
    """Return the result of `work`, a question to the store that cannot be cancelled by itself.

    Once `check` raises, this waits no longer: `work` ends by its own timeouts, and its result is lost.

    Raises:
        SyncError: `THREADS_EXHAUSTED`: it could not be started; or what `work` or `check` raises.
    """
    result: list[T] = []
    error: list[BaseException] = []

    def call() -> None:
        try:
            result.append(work())
        except BaseException as problem:  # noqa: BLE001 (raised again where it is waited for)
            error.append(problem)

    thread = threading.Thread(target=call, name="servesync-asks", daemon=True)
    try:
        thread.start()
    except RuntimeError as problem:
        text = "cannot start a thread to ask the store with: raise the limit on processes and threads"
        raise SyncError(Reason.THREADS_EXHAUSTED, text) from problem
    while thread.is_alive():
        thread.join(POLL_SECONDS)
        check()
    if error:
        raise error[0]
    return result[0]
