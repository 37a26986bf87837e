"""Calls that may hang: bounded, and never many of them."""

import os
import threading

import pytest

from servesync.deadline import MOST_LEFT_BEHIND, Deadline, TookTooLong


def test_results_and_errors_come_through() -> None:
    """Whoever calls sees no difference."""
    deadline = Deadline(5, "test")

    assert deadline.call(lambda: 7) == 7
    with pytest.raises(KeyError, match="NO_SUCH"):
        deadline.call(lambda: os.environ["NO_SUCH"])


def test_calls_that_hang_do_not_pile_up() -> None:
    """Each is left behind in time; when some hang already, no further one is begun; later it works again."""
    deadline = Deadline(0.02, "test-hangs")
    end = threading.Event()

    for _ in range(MOST_LEFT_BEHIND + 3):
        with pytest.raises(TookTooLong):
            deadline.call(end.wait)
    hanging = [thread for thread in threading.enumerate() if thread.name == "test-hangs"]
    end.set()
    for thread in hanging:
        thread.join()

    assert len(hanging) == MOST_LEFT_BEHIND
    assert deadline.call(lambda: "again") == "again"
