"""Messages that say the same again and again are thinned out."""

from servesync.log_throttle import Repeats


def test_identical_messages_thin_out() -> None:
    """The 1st, 2nd, 4th and 8th time is said, until it is over."""
    repeats = Repeats()

    assert [repeats.count("x") for _ in range(8)] == [1, 2, None, 4, None, None, None, 8]
    assert repeats.over("x")
    assert not repeats.over("x")
    assert repeats.count("x") == 1


def test_memory_is_bounded() -> None:
    """Messages that never come twice are forgotten, the oldest first."""
    repeats = Repeats()
    repeats.count("first")
    for number in range(5000):
        repeats.count(number)

    assert repeats.count("first") == 1
    assert repeats.count(4999) == 2
