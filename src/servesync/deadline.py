"""Ends the waiting for a call that may hang: a peer that sends a byte now and then defeats every time-out.

A thread cannot be ended from outside. The one that hangs is left behind, until its connection breaks, and
no more than a few of them are ever left behind by one `Deadline`.
"""

import threading
from collections.abc import Callable
from typing import Final, Generic, TypeVar

MOST_LEFT_BEHIND: Final = 4

T = TypeVar("T")


class TookTooLong(Exception):
    """The call did not return in time, or too many earlier ones have not returned yet."""


class _Call(Generic[T]):
    """One call in a thread of its own, and how it ended."""

    def __init__(self, work: Callable[[], T]) -> None:
        self._work = work
        self._result: list[T] = []
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            self._result.append(self._work())
        except BaseException as error:  # noqa: BLE001 (raised again where it is waited for)
            self._error = error

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

    def call(self, work: Callable[[], T]) -> T:
        """Return what `work` returns, or raise what it raises.

        Raises:
            TookTooLong: it did not end in time; whatever it still does counts for nothing.
        """
        self._left_behind = [thread for thread in self._left_behind if thread.is_alive()]
        if len(self._left_behind) >= MOST_LEFT_BEHIND:
            raise TookTooLong(f"{len(self._left_behind)} earlier requests have still no whole answer")
        call = _Call(work)
        thread = threading.Thread(target=call.run, name=self._name, daemon=True)
        thread.start()
        thread.join(self._seconds)
        if thread.is_alive():
            self._left_behind.append(thread)
            raise TookTooLong(f"no whole answer within {self._seconds:g} s")
        return call.outcome()
