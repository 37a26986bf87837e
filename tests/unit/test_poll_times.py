"""How long the loop may wait for the poll timer before it lists the store by itself."""

import pytest

from servesync.runtime.triggers import jitter_of, longest_wait
from servesync.settings import Poll


@pytest.mark.parametrize(
    ("interval", "jitter", "expected"), [(10, 2, 2), (10, 60, 5), (1, 2, 0.5), (5, 0, 0)]
)
def test_jitter_is_at_most_half_of_the_interval(interval: float, jitter: float, expected: float) -> None:
    """A wait that jitter could push out for ever would be no poll."""
    assert jitter_of(Poll(interval_seconds=interval, jitter_seconds=jitter)) == expected


def test_the_store_is_listed_even_if_the_timer_stands_still() -> None:
    """The bound is above what the timer ever takes, so that it does not double the requests."""
    poll = Poll(interval_seconds=10, jitter_seconds=2)

    assert 14 <= longest_wait(poll) <= 16
