"""Puts a thread's work behind that of the model server: the processor and the disk serve the others first.

In Linux both priorities belong to a thread. The threads and processes that it starts inherit them.
"""

import ctypes
import os
from contextlib import suppress
from typing import Final

LOWER_BY: Final = 10
"""A tenth of the processor remains beside a server that wants all of it.

More would hurt the agent itself: a thread that waits for the processor may hold Python's lock.
"""
LOWEST: Final = 19
IO_CLASS_SHIFT: Final = 13
IO_BEST_EFFORT: Final = 2
IO_LOWEST: Final = 7
_IO_OF_THREAD: Final = 1
_IOPRIO_SET: Final = {"x86_64": 251, "aarch64": 30, "riscv64": 30, "ppc64le": 273, "s390x": 282}
"""The number of the system call, which has no function in the C library."""


def lower(than: int | None = None) -> None:
    """Give the calling thread a lower priority than the first thread of a process has (None: of this one).

    Once more has no further effect. Where the system refuses it, the thread stays as it is.
    """
    with suppress(OSError):
        wanted = min(LOWEST, os.getpriority(os.PRIO_PROCESS, than or os.getpid()) + LOWER_BY)
        os.setpriority(os.PRIO_PROCESS, 0, wanted)
    number = _IOPRIO_SET.get(os.uname().machine)
    if number is not None:
        ctypes.CDLL(None).syscall(number, _IO_OF_THREAD, 0, IO_BEST_EFFORT << IO_CLASS_SHIFT | IO_LOWEST)
