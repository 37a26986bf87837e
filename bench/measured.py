"""Runs a command line and measures it: wall and processor time, and memory, of it and of its children."""

import os
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

LOOK_MILLISECONDS = 20
LOOKS_FOR_CHILDREN = 10
"""Each so many looks the children are looked for, too; peaks that the kernel keeps need no closer watch."""


class Failed(RuntimeError):
    """A command ended badly, or not in time; the text has the end of what it said."""


@dataclass(frozen=True)
class Run:
    """What one command took. Times in seconds, sizes in MB (1e6 bytes).

    `peak_mb` is the most resident memory of the process that was started, with its threads; `others_mb` that
    of the largest one below it. `sent_mb` is what the store sent meanwhile.
    """

    seconds: float
    user_seconds: float
    system_seconds: float
    peak_mb: float
    others_mb: float
    sent_mb: float = 0.0


def run(
    command: Sequence[str],
    *,
    folder: Path,
    environment: Mapping[str, str],
    timeout_seconds: float = 900.0,
    kill_when: Callable[[], bool] | None = None,
) -> Run:
    """Run a command in `folder` to its end, and return what it took.

    `kill_when` is asked at each look; if it says yes, the process gets SIGKILL, and that is no failure. What
    the command has left running in its session is killed in any case.

    Raises:
        Failed: the command ended with another status than 0, or not in time, or before `kill_when` said yes.
    """
    with tempfile.TemporaryFile() as said:
        started = time.monotonic()
        with subprocess.Popen(
            command,
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=said,
            start_new_session=True,
        ) as process:
            try:
                watch = _Watch(process.pid)
                killed = watch.until_end(started + timeout_seconds, kill_when)
                ended = time.monotonic()
                _, status, usage = os.wait4(process.pid, 0)
                process.returncode = os.waitstatus_to_exitcode(status)
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
        if kill_when is not None and not killed:
            raise Failed("it ended before it was to be killed")
        if process.returncode and not killed:
            raise Failed(f"status {process.returncode}: {_end_of(said)}")
    return Run(ended - started, usage.ru_utime, usage.ru_stime, watch.peak_kb * 1024 / 1e6, watch.others_mb)


class _Watch:
    """Looks at a process, and at those below it."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._others: dict[int, int] = {}
        self.peak_kb = 0

    @property
    def others_mb(self) -> float:
        """The most memory that one of those below has held."""
        return max(self._others.values(), default=0) * 1024 / 1e6

    def until_end(self, deadline: float, kill_when: Callable[[], bool] | None) -> bool:
        """Look on until the process has ended; return whether `kill_when` made an end to it.

        Raises:
            Failed: it has not ended at the deadline.
        """
        handle = os.pidfd_open(self._pid)
        try:
            ended = select.poll()
            ended.register(handle, select.POLLIN)
            looks, killed = 0, False
            while not ended.poll(LOOK_MILLISECONDS):
                self.peak_kb = max(self.peak_kb, _peak_kb(self._pid))
                if looks % LOOKS_FOR_CHILDREN == 0:
                    for child in _descendants(self._pid):
                        self._others[child] = max(self._others.get(child, 0), _peak_kb(child))
                looks += 1
                if kill_when is not None and not killed and kill_when():
                    os.kill(self._pid, signal.SIGKILL)
                    killed = True
                if time.monotonic() > deadline:
                    raise Failed("it did not end in time")
            return killed
        finally:
            os.close(handle)


def _peak_kb(pid: int) -> int:
    """Return the most memory that a process has held; its own VmHWM, since ru_maxrss begins with ours."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1])
    return 0


def _descendants(pid: int) -> set[int]:
    """Return the processes below a process."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                stat = (entry / "stat").read_text()
                parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])
    found: set[int] = set()
    while more := {child for child, parent in parents.items() if parent in found | {pid}} - found:
        found |= more
    return found


def _end_of(said: IO[bytes]) -> str:
    said.seek(0, os.SEEK_END)
    said.seek(max(0, said.tell() - 1500))
    return said.read().decode(errors="replace").strip()
