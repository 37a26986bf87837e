"""The signals that `run` takes: blocked from its first moment on, and taken from those that are pending.

A signal handler that sets an event or takes a lock can hang; taking signals cannot.
"""

import signal
from collections.abc import Set as AbstractSet
from typing import Final

STOPPING: Final = frozenset({signal.SIGTERM, signal.SIGINT})
_TAKEN: Final = STOPPING | {signal.SIGHUP, signal.SIGUSR1}


def block() -> None:
    """Block the signals in this thread and in those that it starts; else they would end the process.

    The first process of a container would not even be ended: SIGTERM would be lost.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _TAKEN)


def take(wanted: AbstractSet[signal.Signals]) -> signal.Signals | None:
    """Take one of the blocked signals `wanted` that is pending; return None if none of them is.

    This never waits. A process that SIGSTOP or a frozen cgroup holds up during a wait, for longer than the
    wait was to last, gets uninitialized memory from CPython's `sigtimedwait`: a number that may be no
    signal, or one that nobody sent.
    """
    info = signal.sigtimedwait(wanted, 0)
    return next((number for number in wanted if info is not None and number == info.si_signo), None)
