"""Reports every request that was sent to a counter: its operation and its outcome."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

OnRequest = Callable[[str, str], None]
"""Called in any thread with an operation (one of `OPERATIONS`, or `other`) and an outcome (of `OUTCOMES`)."""

OPERATIONS: Final = {"ListObjectsV2": "list", "GetObject": "get", "HeadObject": "head"}
OUTCOMES: Final = ("ok", "redirected", "refused", "throttled", "failed", "no_answer")
_THROTTLED: Final = frozenset({429, 503})
_OF_HUNDREDS: Final = {2: "ok", 3: "redirected", 4: "refused", 5: "failed"}


def nobody_counts(_operation: str, _outcome: str) -> None:
    """Count nothing."""


@contextmanager
def counted(on_request: OnRequest, event_name: str) -> Iterator[Callable[[int], None]]:
    """Count the request that is sent inside; the caller passes on the status of its answer, if any."""
    outcome = "no_answer"

    def answered(status: int) -> None:
        nonlocal outcome
        outcome = "throttled" if status in _THROTTLED else _OF_HUNDREDS.get(status // 100, "failed")

    try:
        yield answered
    finally:
        on_request(OPERATIONS.get(event_name.rpartition(".")[2], "other"), outcome)
