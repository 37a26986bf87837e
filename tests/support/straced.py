"""Runs a command under strace: lists its system calls below a folder, kills it before one, or fails one.

strace counts the calls of each thread for itself, so a count means "the n-th such call of that thread". The
command is a forked process that waits until strace is attached: its imports are neither counted nor slowed.
"""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import forked

WORKS = os.geteuid() == 0 and shutil.which("strace") is not None

CHANGING = (
    "openat,mkdir,mkdirat,write,pwrite64,ftruncate,fallocate,sync_file_range,fsync,fdatasync,"
    "rename,renameat,renameat2,link,linkat,symlink,symlinkat,unlink,unlinkat,rmdir,"
    "chmod,fchmod,fchmodat,chown,fchown,utimensat"
)
"""Calls that may change a filesystem, and those that make the change durable."""


@dataclass(frozen=True)
class Call:
    """The `count`-th call of `name` in the main thread; `what` is strace's line, for people."""

    name: str
    count: int
    what: str = ""


def calls_below(
    folder: Path, command: Sequence[str], environment: Mapping[str, str], *, every_open: bool = False
) -> list[Call]:
    """Run a command to its end and return what its main thread did below `folder`, in order of time.

    An `openat` counts if it may create a file, or always with `every_open`.
    """
    with tempfile.NamedTemporaryFile(mode="r") as output:
        done = _run(["-y", "-o", output.name, "-e", f"trace={CHANGING}"], command, environment)
        assert done.returncode == 0, done.stdout + done.stderr
        lines = output.read().splitlines()
    main = lines[0].split()[0]
    counts: Counter[str] = Counter()
    found = []
    for line in lines:
        thread, text = line.split(maxsplit=1)
        name, parenthesis, _ = text.partition("(")
        if thread != main or not parenthesis or not name.isidentifier():  # "+++ exited", "<... resumed>"
            continue
        counts[name] += 1
        if str(folder) in text and (name != "openat" or every_open or "O_CREAT" in text):
            found.append(Call(name, counts[name], text))
    return found


def killed_before(call: Call, command: Sequence[str], environment: Mapping[str, str]) -> bool:
    """Run a command and send SIGKILL as it enters `call`; return whether it came so far."""
    inject = f"inject={call.name}:signal=KILL:when={call.count}"
    done = _run(["-o", os.devnull, "-e", f"trace={call.name}", "-e", inject], command, environment)
    assert done.returncode in (0, -9), done.stdout + done.stderr  # strace ends as the command did
    return done.returncode != 0


def with_failing(
    name: str,
    error: str,
    when: str,
    command: Sequence[str],
    environment: Mapping[str, str],
    *,
    only: Sequence[str] = (),
) -> subprocess.CompletedProcess[str]:
    """Run a command whose calls of `name` fail with `error`; `when` is strace's own: `2`, `2+`, `1..3`.

    `only`: those calls alone that have one of these paths as an argument, just as it is passed.
    """
    inject = f"inject={name}:error={error}:when={when}"
    paths = [word for path in only for word in ("-P", path)]
    return _run(["-o", os.devnull, *paths, "-e", f"trace={name}", "-e", inject], command, environment)


def _run(
    options: Sequence[str], command: Sequence[str], environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    # --seccomp-bpf would be faster, but strace 6.1 injects nothing with it.
    pipe = subprocess.PIPE
    with forked.ForkedProcess(
        [*command], stopped=True, env=environment, stdout=pipe, stderr=pipe, text=True
    ) as process:
        try:
            _await(process.pid, "State", "T (stopped)")
            strace = ["strace", "-f", "-qq", *options, "-p", str(process.pid)]
            with subprocess.Popen(strace, stdout=subprocess.DEVNULL, stderr=pipe, text=True) as tracer:
                _await(process.pid, "TracerPid", str(tracer.pid))
                process.send_signal(signal.SIGCONT)
                out, err = process.communicate(timeout=120)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def _await(number: int, name: str, value: str) -> None:
    """Wait until the system says something of a process."""
    deadline = time.monotonic() + 60
    while f"{name}:\t{value}" not in Path(f"/proc/{number}/status").read_text().splitlines():
        assert time.monotonic() < deadline, f"process {number} is never {name} {value}"
        time.sleep(0.005)
