"""Picks the line that says why a process died out of its output: logs, stacks and warnings."""

import re
import signal
from typing import Final

SHOWN_CHARACTERS: Final = 300
LINE_CHARACTERS: Final = 1000
"""Only so much of a line is matched: the time grows with its square, and no other thread runs meanwhile."""

_FATAL: Final = re.compile(
    r"Check failed|CHECK failed|LLVM ERROR|Fatal Python error|terminate called|Assertion .* failed"
    r"|^F\d{4} |: F |double free|stack smashing|corrupted |invalid pointer"
    r"|\b(?:bad_alloc|MemoryError|Cannot allocate memory)\b"
)
"""Lines with which TensorFlow, the C++ runtime, the C library and Python end a process."""
_PREFIX: Final = re.compile(r"^.*?(?=[\w.-]+\.(?:cc|h|cpp|cu|inc):\d+\] )")
"""Severity, time, thread and folder of a line of TensorFlow's log: all before the name of the source file."""
_NOISE: Final = re.compile(
    r"^\s*(?:@ |#\d+ |0x[0-9a-f]+|\*\*\*|File \"|Thread 0x|Current thread |<no Python frame>)"
    r"|^\s*(?:Extension modules: |[~^]+$)|All log messages before absl::InitializeLog|^[IW]\d{4} |: [IW] "
)
"""Frames of stacks, and lines of a log that are no errors."""
_MEANING: Final = {
    "SIGSEGV": "invalid memory access, or a stack that overflowed",
    "SIGBUS": "invalid memory access",
    "SIGABRT": "it aborted itself",
    "SIGFPE": "a division by zero",
    "SIGILL": "an instruction that this processor does not have, or a trap",
    "SIGSYS": "a system call that is forbidden here",
}


def last_words(output: bytes) -> str:
    """Return the line of `output` that says best why the process ended, escaped and cut.

    That is the first line of a fatal error. Without one, it is the last line that is neither part of a stack
    nor a mere notice. Without that, the text is empty.
    """
    printed = output.decode(errors="backslashreplace")
    lines = [line[:LINE_CHARACTERS].rstrip() for line in printed.splitlines()]
    fatal = next((index for index, line in enumerate(lines) if _FATAL.search(line)), None)
    if fatal is None:
        said = next((line for line in reversed(lines) if line.strip() and not _NOISE.search(line)), "")
    else:
        more = lines[fatal + 1].strip() if lines[fatal + 1 :] else ""
        said = f"{lines[fatal]} {more}" if more.startswith("what():") else lines[fatal]
    shown = ascii(_PREFIX.sub("", said).strip())[1:-1]
    return shown if len(shown) <= SHOWN_CHARACTERS else f"{shown[:SHOWN_CHARACTERS]}..."


def signal_in_words(number: int) -> str:
    """Return the name of a signal, with the usual fault if a process gets it for one of its own."""
    try:
        name = signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
    return f"{name} ({_MEANING[name]})" if name in _MEANING else name
