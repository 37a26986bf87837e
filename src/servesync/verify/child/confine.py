"""Takes from the trial process what it does not need; to be called before any thread starts."""

import contextlib
import ctypes
import os
import resource
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from servesync import priority

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NO_NEW_PRIVS: Final = 38
_CLONE_NEWUSER: Final = 0x10000000
_CLONE_NEWNET: Final = 0x40000000
_libc: Final = ctypes.CDLL(None, use_errno=True)


def die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent ends; exit if that has happened already.

    Raises:
        OSError: the kernel refused.
    """
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def limit(limits: Mapping[str, float]) -> None:
    """Set the limits of `verify.load` that the kernel enforces, and let every other process go first.

    Raises:
        OSError: the kernel refused.
        ValueError: a limit is above one that this process was given.
    """
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    priority.lower(than=os.getppid())  # it began with the priority of the thread that started it
    with contextlib.suppress(OSError):  # if memory runs out, the kernel kills this process first
        Path("/proc/self/oom_score_adj").write_text("1000")
    cpu = int(limits["cpu_seconds"])
    bounds = {
        resource.RLIMIT_CORE: (1, 1),  # too little for a core file; 0 would not stop a pipe
        resource.RLIMIT_AS: (int(limits["address_space_bytes"]),) * 2,
        resource.RLIMIT_FSIZE: (int(limits["file_size_bytes"]),) * 2,
        resource.RLIMIT_CPU: (cpu, cpu + 1),
    }
    for kind, (soft, hard) in bounds.items():
        given = resource.getrlimit(kind)[1]
        top = hard if given == resource.RLIM_INFINITY else min(hard, given)
        resource.setrlimit(kind, (min(soft, top), top))


def isolate_network(parent: int) -> bool:
    """Leave every network, also loopback; return whether the kernel allowed it."""
    for flags in (_CLONE_NEWNET, _CLONE_NEWUSER | _CLONE_NEWNET):
        if _libc.unshare(flags) == 0:
            die_with(parent)  # a change of credentials may undo it
            return True
    return False


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), f"prctl {option}")
