"""How far transfers have come, shown on a terminal."""

import io
from contextlib import ExitStack

from servesync.domain.versions import Layout, Model, Release, StoredObject, Version
from servesync.transfer.progress import for_stream


class Terminal(io.StringIO):
    """What is written to a terminal."""

    def isatty(self) -> bool:
        """Say that it is one."""
        return True


def release(name: str) -> Release:
    """Return a release of 100 bytes."""
    return Release(Model(name), Version(1), Layout.ARCHIVE, (StoredObject(f"{name}/1.tar", 100, "e"),), "i")


def test_two_transfers_have_a_line_each() -> None:
    """One may begin and end while the other goes on, and another may come after both."""
    terminal = Terminal()
    reporter = for_stream(terminal)
    with ExitStack() as both:
        first = both.enter_context(reporter(release("first")))
        first(10)
        with reporter(release("second")) as second:
            second(50)
        first(100)
    with reporter(release("third")) as third:
        third(1)

    assert all(name in terminal.getvalue() for name in ("first 1", "second 1", "third 1"))
