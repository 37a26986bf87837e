"""The entry point: command line in, exit code out."""

import contextlib
import ctypes
import gc
import os
import sys
import threading
from typing import Final, NoReturn

from servesync import signals

HIGHEST_STANDARD_STREAM: Final = 2
M_ARENA_MAX: Final = -8
"""The parameter of glibc's `mallopt` (malloc.h) that bounds its arenas."""
ARENAS: Final = 2
M_MMAP_THRESHOLD: Final = -3
"""The parameter from which size on a block is a mapping of its own, which goes back when it is freed."""
LARGE_BYTES: Final = 1 << 20


def main() -> None:
    """Run the command line of this process and end it with the command's exit code."""
    _open_missing_streams()
    _bound_heap(sys.argv[1:2])
    if sys.argv[1:2] == ["run"]:
        signals.block()
    gc.disable()  # nothing that is imported is ever garbage
    from servesync.cli import run_command_line  # noqa: PLC0415 (takes a while, and signals may come)

    _end(run_command_line(sys.argv[1:]))


def _end(code: int) -> NoReturn:
    """End the process; a thread that hangs in the disk or in the network does not hold up the end.

    The interpreter's own end waits for the workers of thread pools, even for those that are daemons.
    """
    if threading.active_count() == 1:
        sys.exit(code)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _bound_heap(command: list[str]) -> None:
    """Let the threads share two arenas of malloc: each more would keep what its threads have freed.

    The publisher passes blocks of some MiB from thread to thread; glibc would begin to keep such ones. An
    environment that sets `MALLOC_ARENA_MAX` or `MALLOC_MMAP_THRESHOLD_` has its way; another C library than
    glibc may lack the call.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    if "MALLOC_ARENA_MAX" not in os.environ:
        mallopt(M_ARENA_MAX, ARENAS)
    if command == ["publish"] and "MALLOC_MMAP_THRESHOLD_" not in os.environ:
        mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)


def _open_missing_streams() -> None:
    """Give a process that was started without standard streams (`>&-`) ones that go nowhere.

    Otherwise the next file that is opened would become its standard output.
    """
    while (handle := os.open(os.devnull, os.O_RDWR)) <= HIGHEST_STANDARD_STREAM:
        pass
    os.close(handle)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)


if __name__ == "__main__":
    main()
