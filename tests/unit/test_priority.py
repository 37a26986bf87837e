"""What may take long lets the model server go first; what others wait for does not."""

import ctypes
import os
import subprocess
import threading
from collections.abc import Callable

import pytest

from servesync import priority
from servesync.jobs import Ended, Job, JobKind, ThreadJobs

IOPRIO_GET = {"x86_64": 252, "aarch64": 31}.get(os.uname().machine)
LAST_OF_ALL = 2 << 13 | 7
"""The class `best effort`, and its lowest level."""


def nice() -> int:
    """Return the priority of the calling thread."""
    return os.getpriority(os.PRIO_PROCESS, 0)


def in_a_thread(work: Callable[[], int]) -> int:
    """Return what `work` returns in a thread of its own."""
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(work()))
    thread.start()
    thread.join()
    return found[0]


def lowered(then: Callable[[], int]) -> int:
    """Return what `then` returns in a thread of a lower priority."""

    def work() -> int:
        priority.lower()
        priority.lower()
        return then()

    return in_a_thread(work)


def of_a_program() -> int:
    """Return the priority of a process that this thread starts."""
    return int(subprocess.run(["nice"], capture_output=True, check=True).stdout)


EXPECTED = min(19, nice() + 10)


@pytest.mark.parametrize("look", [nice, lambda: in_a_thread(nice), of_a_program])
def test_a_thread_and_what_it_starts_are_lowered_once(look: Callable[[], int]) -> None:
    """Its threads and its processes are as low as it is, and nobody else is."""
    before = nice()

    assert lowered(look) == EXPECTED
    assert nice() == before


@pytest.mark.skipif(IOPRIO_GET is None, reason="the number of ioprio_get is not known here")
def test_the_disk_serves_others_first() -> None:
    """The lowest level of the usual class: it waits, and does not starve."""

    def ask() -> int:
        return int(ctypes.CDLL(None).syscall(IOPRIO_GET, 1, 0))

    before = ask()

    assert lowered(ask) == LAST_OF_ALL
    assert ask() == before


def test_a_system_that_refuses_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sandbox may forbid the calls."""

    def refuse(*_: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "setpriority", refuse)

    assert lowered(nice) == nice()


@pytest.mark.parametrize("kind", JobKind)
def test_only_jobs_on_gigabytes_are_lowered(kind: JobKind) -> None:
    """A rollback waits for documents, the server's answer and a listing; for the others nobody waits."""
    woken = threading.Semaphore(0)
    jobs = ThreadJobs(woken.release)

    jobs.start(Job(kind, lambda _: nice()))

    assert woken.acquire(timeout=60)
    (message,) = jobs.take()
    assert isinstance(message, Ended)
    heavy = {JobKind.TRANSFER, JobKind.REREAD, JobKind.SCRUB, JobKind.EMPTY_TRASH}
    assert message.result == (EXPECTED if kind in heavy else nice())
