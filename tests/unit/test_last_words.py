"""Of what a dying process prints, one line says why; stacks, notices and warnings do not."""

import signal

import pytest

from servesync.verify.last_words import SHOWN_CHARACTERS, last_words, signal_in_words
from servesync.verify.trial import TAIL_BYTES

NOTICE = "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\n"
INFO = "I0000 00:00:1795972554.705951   24807 port.cc:153] oneDNN custom operations are on.\n"
FRAMES = "*** Check failure stack trace: ***\n    @     0x7faf6a71d314  absl::LogMessage::Flush()\n" * 40


@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        ("", ""),
        (NOTICE + INFO, ""),
        (FRAMES, ""),
        (
            f"{NOTICE}{INFO}F0000 00:00:17.7 248 kernels.cc:725] Check failed: a < b (9 vs. 1) \n{FRAMES}",
            "kernels.cc:725] Check failed: a < b (9 vs. 1)",
        ),
        (
            "2026-11-29 17:02:33.1: F external/xla/tensor_shape.cc:404] Check failed: 0 <= n\nAborted\n",
            "tensor_shape.cc:404] Check failed: 0 <= n",
        ),
        (
            "terminate called after throwing an instance of 'std::length_error'\n  what():  vector\n",
            "terminate called after throwing an instance of 'std::length_error' what():  vector",
        ),
        (
            "Fatal Python error: Segmentation fault\n\nThread 0x00 (most recent call first):\n",
            "Fatal Python error: Segmentation fault",
        ),
        ('Traceback\n  File "x.py", line 1\nOSError: no more threads\n  @ 0x1\n', "OSError: no more threads"),
        ("free(): invalid pointer\n#0  0x00007f in raise ()\n", "free(): invalid pointer"),
        ("\x1b[31mred \xff\n", r"\x1b[31mred \xff"),
    ],
)
def test_the_line_that_says_why(printed: str, expected: str) -> None:
    """The fatal one, without time and thread; else the last that means anything; escaped."""
    assert last_words(printed.encode("latin-1")) == expected.replace(r"\xff", r"\\xff")


def test_a_long_line_is_cut() -> None:
    """Names in C++ have no end."""
    assert (
        last_words(b"Check failed: " + b"x" * 10_000)
        == "Check failed: " + "x" * (SHOWN_CHARACTERS - 14) + "..."
    )


@pytest.mark.parametrize("piece", [b"a.", b"F0000", b"Assertion ", b"x.cc:1"])
def test_a_line_without_end_is_not_searched_to_its_end(piece: bytes) -> None:
    """A model that prints a matrix would stop the agent for a minute; only the beginning of a line counts."""
    line = piece * (TAIL_BYTES // len(piece))

    assert last_words(line + b" Check failed: too late\nAborted\n") == "Aborted"
    assert last_words(line + b"\nCheck failed: a < b\n") == "Check failed: a < b"


@pytest.mark.parametrize(
    ("number", "expected"),
    [(signal.SIGSEGV, "SIGSEGV (invalid memory access"), (signal.SIGTERM, "SIGTERM"), (63, "signal 63")],
)
def test_a_signal_in_words(number: int, expected: str) -> None:
    """Its name; what it means, if that is not plain; a number that has no name."""
    assert signal_in_words(number).startswith(expected)
