"""Ends the waiting for a call that may hang: a peer that sends a byte now and then defeats every time-out.

A thread cannot be ended from outside. The one that hangs is left behind, until its connection breaks, and
no more than a few of them are ever left behind by one `Deadline`.
"""

import threading
import time
from collections.abc import Callable
from typing import Final, Generic, TypeVar

MOST_LEFT_BEHIND: Final = 4
POLL_SECONDS: Final = 0.2

T = TypeVar("T")


def _drop(_result: object) -> None:
    """Do nothing with it."""


class TookTooLong(Exception):
    """The call did not return in time, or too many earlier ones have not returned yet."""


class _Call(Generic[T]):
    """One call in a thread of its own, and how it ended."""

    def __init__(self, work: Callable[[], T], discard: Callable[[T], None]) -> None:
        self._work = work
        self._discard = discard
        self._result: list[T] = []
        self._error: BaseException | None = None
        self._lock = threading.Lock()
        self._is_given_up = False

    def run(self) -> None:
        try:
            result = self._work()
        except BaseException as error:  # noqa: BLE001 (raised again where it is waited for)
            self._error = error
            return
        with self._lock:
            self._result.append(result)
            is_late = self._is_given_up
        if is_late:
            self._discard(result)

    def give_up(self) -> None:
        """Let nobody have the result: it is discarded as soon as it is there."""
        with self._lock:
            self._is_given_up = True
            there = self._result[:]
        for result in there:
            self._discard(result)

    def outcome(self) -> T:
        if self._error is not None:
            raise self._error
        return self._result[0]


class Deadline:
    """Bounds calls by wall time; used by one thread at a time."""

    def __init__(self, seconds: float, name: str) -> None:
        self._seconds = seconds
        self._name = name
        self._left_behind: list[threading.Thread] = []

    def call(
        self,
        work: Callable[[], T],
        discard: Callable[[T], None] = _drop,
        should_stop: Callable[[], bool] | None = None,
    ) -> T:
        """Return what `work` returns, or raise what it raises; `discard` gets what comes too late.

        `should_stop`: asked now and then; once it says so, nobody waits any longer.

        Raises:
            TookTooLong: it did not end in time, or `should_stop` said so; whatever it still does counts for
                nothing.
        """
        self._left_behind = [thread for thread in self._left_behind if thread.is_alive()]
        if len(self._left_behind) >= MOST_LEFT_BEHIND:
            raise TookTooLong(f"{len(self._left_behind)} earlier requests have still no whole answer")
        call = _Call(work, discard)
        thread = threading.Thread(target=call.run, name=self._name, daemon=True)
        thread.start()
        self._wait(thread, should_stop)
        if thread.is_alive():
            self._left_behind.append(thread)
            call.give_up()
            raise TookTooLong(f"no whole answer within {self._seconds:g} s")
        return call.outcome()

    def _wait(self, thread: threading.Thread, should_stop: Callable[[], bool] | None) -> None:
        if should_stop is None:
            thread.join(self._seconds)
            return
        until = time.monotonic() + self._seconds
        while thread.is_alive() and time.monotonic() < until and not should_stop():
            thread.join(POLL_SECONDS)
