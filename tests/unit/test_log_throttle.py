"""Messages that say the same again and again are thinned out."""

from servesync.log_throttle import LogThrottle


def test_identical_messages_thin_out() -> None:
    """The 1st, 2nd, 4th and 8th time is said, until it is over."""
    throttle = LogThrottle()

    assert [throttle.count("x") for _ in range(8)] == [1, 2, None, 4, None, None, None, 8]
    assert throttle.over("x")
    assert not throttle.over("x")
    assert throttle.count("x") == 1


def test_memory_is_bounded() -> None:
    """Messages that never come twice are forgotten, the oldest first."""
    throttle = LogThrottle()
    throttle.count("first")
    for number in range(5000):
        throttle.count(number)

    assert throttle.count("first") == 1
    assert throttle.count(4999) == 2
