"""Starts the trial process, watches it, and cleans up after it: no process and no pipe is left."""

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from typing import Final, Literal

from pydantic import JsonValue

from servesync.settings import LoadLimits
from servesync.verify import answer

POLL_SECONDS: Final = 0.2
READ_BYTES: Final = 64 << 10
TAIL_BYTES: Final = 64 << 10
"""Enough to hold the cause of a crash in C++, which comes before a stack of up to a hundred long names."""

KEPT_VARIABLES: Final = ("PATH", "LD_LIBRARY_PATH")

Excess = Literal["wall_seconds", "memory_bytes", "threads", "answer"]


@dataclass
class Ended:
    """How a trial process ended. `status`: its exit code, or the negative number of the signal."""

    status: int = 0
    lines: list[bytes] = field(default_factory=list)
    """The complete lines that it sent."""
    tail: bytes = b""
    """The end of what it and TensorFlow printed, at most TAIL_BYTES."""
    excess: Excess | None = None
    """The limit for which the parent killed it; None if the parent did not."""
    seconds: float = 0.0


def run_trial(root: Path, requests: list[JsonValue], limits: LoadLimits, check: Callable[[], None]) -> Ended:
    """Load the version in `root` in a process of its own; return how that ended.

    `check` is called every POLL_SECONDS. If it raises, or if the calling thread ends, the process is killed.

    Raises:
        OSError: the process could not be started; nothing is left of it.
    """
    task: dict[str, JsonValue] = {
        "root": str(root.absolute()),
        "limits": limits.model_dump(),
        "requests": requests,
    }
    ended = Ended()
    started = time.monotonic()
    with _pipe() as (answers, answer_end), _pipe() as (prints, print_end):
        with _task_file(task) as task_fd, answer_end, print_end:
            process = _start(task_fd, answer_end.fileno(), print_end.fileno())
        try:
            _watch(process, (answers, prints), ended, limits, check)
        finally:
            _end(process)
        ended.status = process.returncode
        ended.seconds = time.monotonic() - started
    return ended


def _start(task_fd: int, answer_fd: int, print_fd: int) -> subprocess.Popen[bytes]:
    arguments = [str(number) for number in (task_fd, answer_fd, os.getpid())]
    return subprocess.Popen(  # noqa: S603 (our own interpreter, our own module, three numbers)
        [sys.executable, "-P", "-B", "-s", "-m", "servesync.verify.child", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=print_fd,
        stderr=print_fd,
        pass_fds=(task_fd, answer_fd),
        cwd="/",
        env=_environment(),
        umask=0o077,
        start_new_session=True,
    )


def _environment() -> dict[str, str]:
    """Return the process's environment: only where code lies, and what keeps TensorFlow quiet and small."""
    kept = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
    return kept | {
        "PYTHONPATH": os.pathsep.join(str(Path(place).absolute()) for place in sys.path if place),
        "HOME": "/nonexistent",
        "CUDA_VISIBLE_DEVICES": "",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "MALLOC_ARENA_MAX": "2",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }


def _watch(
    process: subprocess.Popen[bytes],
    pipes: tuple[FileIO, FileIO],
    ended: Ended,
    limits: LoadLimits,
    check: Callable[[], None],
) -> None:
    """Read the process's output until it ends, exceeds a limit, or `check` raises."""
    deadline = time.monotonic() + limits.wall_seconds
    received = bytearray()
    answers, prints = (pipe.fileno() for pipe in pipes)
    with selectors.DefaultSelector() as selector:
        for number in (answers, prints):
            os.set_blocking(number, False)
            selector.register(number, selectors.EVENT_READ)
        while ended.excess is None:
            has_ended = _has_ended(process.pid)  # asked first, so that all of its output is read below
            for key, _ in selector.select(0 if has_ended else POLL_SECONDS):
                piece = _read(key.fd, everything=has_ended)
                if key.fd == answers:
                    received += piece
                else:
                    ended.tail = (ended.tail + piece)[-TAIL_BYTES:]
                if not piece:
                    selector.unregister(key.fd)
            ended.lines = bytes(received).split(b"\n")[:-1]
            if has_ended:
                return
            check()
            ended.excess = _excess(process.pid, len(received), deadline, limits)


def _read(number: int, *, everything: bool) -> bytes:
    """Return what is in a pipe: one piece, or `everything` up to a bound; nothing at its end."""
    pieces = bytearray()
    with contextlib.suppress(BlockingIOError):
        while piece := os.read(number, READ_BYTES):
            pieces += piece
            if not everything or len(pieces) > answer.MAX_BYTES:
                break
    return bytes(pieces)


def _excess(pid: int, received: int, deadline: float, limits: LoadLimits) -> Excess | None:
    if time.monotonic() > deadline:
        return "wall_seconds"
    if received > answer.MAX_BYTES:
        return "answer"
    status = _status(pid)
    if limits.memory_bytes is not None and status.get("VmHWM", 0) * 1024 > limits.memory_bytes:
        return "memory_bytes"
    return "threads" if status.get("Threads", 0) > limits.threads else None


def _status(pid: int) -> Mapping[str, int]:
    """Return the numbers of /proc/PID/status: the highest resident memory (KiB) and the threads."""
    try:
        lines = Path("/proc", str(pid), "status").read_text(errors="replace").splitlines()
    except OSError:
        return {}  # it has just ended
    pairs = (line.split()[:2] for line in lines if line.startswith(("VmHWM:", "Threads:")))
    return {name.removesuffix(":"): int(value) for name, value in pairs}


def _has_ended(pid: int) -> bool:
    """Whether the process has ended; it is not reaped, so that no other process gets its id."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill what is left of the process and of its group, and reap it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@contextlib.contextmanager
def _pipe() -> Iterator[tuple[FileIO, FileIO]]:
    """Lend both ends of a pipe; either may be closed before."""
    reading, writing = os.pipe()
    with FileIO(reading, "rb") as reader, FileIO(writing, "wb") as writer:
        yield reader, writer


@contextlib.contextmanager
def _task_file(task: Mapping[str, JsonValue]) -> Iterator[int]:
    """Lend the descriptor of a file in memory that holds the task."""
    handle = os.memfd_create("servesync-task")
    try:
        with open(handle, "w", encoding="utf-8", closefd=False) as file:
            json.dump(task, file)
        os.lseek(handle, 0, os.SEEK_SET)
        yield handle
    finally:
        os.close(handle)
