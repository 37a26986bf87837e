"""Starts processes of servesync by forking one that has imported everything: a second of CPU less for each.

Each is a process of its own, with its own arguments, environment, working directory and streams, and runs the
real `main`; only the imports were done before. Scripts of the tests that use much of servesync can be started
in the same way. Run as a script, this is the process that is forked:
`forked.py CONTROL`, where CONTROL is its end of a socket pair. It takes a message for each process to start,
with four handles: the standard streams, and a pipe that it writes the number of the process to, and later its
status as `waitpid` gives it. It ends when the other end of CONTROL is closed.
"""

import atexit
import contextlib
import functools
import json
import os
import runpy
import select
import selectors
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

NUMBER = struct.Struct("=i")
MODULE = ["-m", "servesync"]
COMMANDS = ("agent", "doctor", "moves", "probe", "publish", "schema", "status")
FROM_THE_START = ("PYTHON", "LC_", "LANG", "LD_", "MALLOC_")
"""Variables that begin so mean something only to a program that starts anew; an empty one means nothing."""


def _from_the_start(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if value and name.startswith(FROM_THE_START)}


OURS = _from_the_start(os.environ)
forkers: set[int] = set()
"""The processes that are forked: children of this one that stay until it ends."""


class ForkedProcess(subprocess.Popen[Any]):
    """A process of servesync that was forked; otherwise like any other that `subprocess` starts.

    `stopped`: it stops before it does anything, until somebody sends it SIGCONT.
    """

    def __init__(self, command: list[str], *, stopped: bool = False, **more: Any) -> None:
        self._stopped = stopped
        super().__init__(command, **more)

    def _execute_child(self, args: list[str], *more: Any) -> None:
        """Have it forked; the arguments are those of CPython's method of this name."""
        working_directory, environment, streams = more[4], more[5], more[9:15]
        own = (streams[0], streams[3], streams[5])
        handles = [given if given != -1 else number for number, given in enumerate(own)]
        self._status, told = os.pipe()
        message = {
            "arguments": args[1:],
            "stopped": self._stopped,
            "environment": dict(os.environ if environment is None else environment),
            "directory": str(working_directory or os.getcwd()),  # noqa: PTH109 (as the system says it)
        }
        try:
            socket.send_fds(_forker(), [json.dumps(message).encode()], [*handles, told])
        finally:
            os.close(told)
            self._close_pipe_fds(*streams)  # type: ignore[attr-defined]
        (self.pid,) = NUMBER.unpack(os.read(self._status, NUMBER.size))
        self._child_created = True

    def _try_wait(self, wait_flags: int) -> tuple[int, int]:
        """Return the number of the process and its status if it has ended, else zeros."""
        if wait_flags & os.WNOHANG and not select.select([self._status], [], [], 0)[0]:
            return 0, 0
        (status,) = NUMBER.unpack(os.read(self._status, NUMBER.size))
        os.close(self._status)
        return self.pid, status

    def _internal_poll(self, _deadstate: int | None = None, **_: Any) -> Any:
        """Take note of its end, as CPython's method of this name does."""
        return super()._internal_poll(  # type: ignore[misc]
            _deadstate, _waitpid=lambda _, wait_flags: self._try_wait(wait_flags)
        )


def can_be_forked(command: list[str], environment: Mapping[str, str]) -> bool:
    """Whether a command line comes to the same when its process is forked."""
    is_ours = command[1:3] == MODULE or command[1].endswith(".py")
    return is_ours and _from_the_start(environment) == OURS


def start(
    command: list[str], environment: Mapping[str, str], *, anew: bool = False, **more: Any
) -> subprocess.Popen[Any]:
    """Start a command line of servesync, or of a script; it is forked unless it is to start anew."""
    if not anew and can_be_forked(command, environment):
        return ForkedProcess(command, env=environment, **more)
    return subprocess.Popen(command, env=environment, **more)


def call(
    command: list[str], environment: Mapping[str, str], seconds: float, *, anew: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run a command line of servesync to its end."""
    pipe = subprocess.PIPE
    with start(command, environment, anew=anew, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            out, err = process.communicate(timeout=seconds)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(command, process.returncode, out, err)


@functools.cache
def _forker() -> socket.socket:
    """Start the process to fork, once; return what it takes messages from."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with its:
        command = [sys.executable, __file__, str(its.fileno())]
        forker = subprocess.Popen(command, pass_fds=[its.fileno()], stdin=subprocess.DEVNULL)
    forkers.add(forker.pid)
    atexit.register(_end, ours, forker)
    return ours


def _end(ours: socket.socket, forker: "subprocess.Popen[bytes]") -> None:
    ours.close()
    forker.wait()


# -- the process that is forked ----------------------------------------------------------------------------


def _serve(control: socket.socket) -> dict[str, Any] | None:
    """Fork for each message; return the message in the fork, and None when nobody sends any more."""
    waiting = selectors.DefaultSelector()
    waiting.register(control, selectors.EVENT_READ)
    while True:
        for key, _ in waiting.select():
            if key.fileobj is not control:
                _bury(waiting, key)
                continue
            data, handles, _, _ = socket.recv_fds(control, 1 << 20, 4)
            if not data:
                return None
            if (number := os.fork()) == 0:
                waiting.close()  # an object that closes its handle some time later may hit another's
                control.detach()
                _become(json.loads(data), handles)
                return json.loads(data)  # type: ignore[no-any-return]
            for handle in handles[:3]:
                os.close(handle)
            os.write(handles[3], NUMBER.pack(number))
            waiting.register(os.pidfd_open(number), selectors.EVENT_READ, (number, handles[3]))


def _bury(waiting: selectors.BaseSelector, key: selectors.SelectorKey) -> None:
    """Pass on the status of a process that has ended."""
    number, told = key.data
    waiting.unregister(key.fileobj)
    os.close(key.fd)
    _, status = os.waitpid(number, 0)
    with contextlib.suppress(BrokenPipeError):  # nobody waits for it any more
        os.write(told, NUMBER.pack(status))
    os.close(told)


def _become(message: dict[str, Any], handles: list[int]) -> None:
    """Take on streams, environment and directory; keep nothing else open."""
    for number, handle in enumerate(handles[:3]):
        os.dup2(handle, number)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    os.environ.clear()
    os.environ.update(message["environment"])
    os.chdir(message["directory"])
    if message["stopped"]:
        os.kill(os.getpid(), signal.SIGSTOP)


def main() -> None:
    """Import everything, and serve; in a fork, run servesync's own main, or a script."""
    control = socket.socket(fileno=int(sys.argv[1]))
    sys.path.remove(os.path.dirname(__file__))  # noqa: PTH120 (what a program of its own would not have)
    entry = import_module("servesync.__main__")
    for name in COMMANDS:
        import_module(f"servesync.cli.{name}")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: the tests end it
    message = _serve(control)
    if message is None:
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if message["arguments"][: len(MODULE)] == MODULE:
        sys.argv = [str(entry.__file__), *message["arguments"][len(MODULE) :]]
        entry.main()
    else:
        sys.argv = message["arguments"]
        runpy.run_path(str(Path(sys.argv[0]).resolve()), run_name="__main__")


if __name__ == "__main__":
    main()
