"""Starts Python programs by forking a process that has imported everything: a second of CPU less for each.

With TensorFlow, which the stand-in for the model server and the scripts that make models need, it is three
seconds less.

Each is a process of its own, with its own arguments, environment, working directory and streams, and runs the
real `main`; only the imports were done before. The system shows its own command line for it, too. Run as a
script, this is the process that is forked: `forked.py CONTROL KIND SPACE`, where CONTROL is its end of a
socket pair, KIND says what it imports, and SPACE makes room for command lines. It takes a message for each
process to start, with four handles: the standard streams, and a pipe that it writes the number of the process
to, and later its status as `waitpid` gives it. It ends when the other end of CONTROL is closed.
"""

import atexit
import contextlib
import ctypes
import functools
import gc
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
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

NUMBER = struct.Struct("=i")
SERVESYNC, TENSORFLOW = "servesync", "tensorflow"
"""The kinds of processes to fork: one has imported servesync, the other one TensorFlow and the stand-in."""
QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1", "OPENBLAS_NUM_THREADS": "1"}
"""For imports of TensorFlow: few words, no GPU, and no thread, which a fork would not have."""
MOST_BYTES = 1 << 14
"""Of a command line."""
FROM_THE_START = ("PYTHON", "LC_", "LANG", "LD_", "MALLOC_")
"""Variables that begin so mean something only to a program that starts anew; an empty one means nothing."""


def _from_the_start(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if value and name.startswith(FROM_THE_START)}


OURS = _from_the_start(os.environ)
forkers: set[int] = set()
"""The processes that are forked: children of this one that stay until it ends."""


class ForkedProcess(subprocess.Popen[Any]):
    """A process that was forked; otherwise like any other that `subprocess` starts.

    The one `preexec_fn` that it knows is `die_with_parent`: it then dies with the process that is forked,
    which dies with this one. `stopped`: it stops before it does anything, until somebody sends it SIGCONT.
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
            "command": args,
            "dies_with_parent": more[1] is not None,
            "stopped": self._stopped,
            "environment": dict(os.environ if environment is None else environment),
            "directory": str(working_directory or os.getcwd()),  # noqa: PTH109 (as the system says it)
        }
        try:
            socket.send_fds(
                _forker(kind_of(args) or SERVESYNC), [json.dumps(message).encode()], [*handles, told]
            )
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


def kind_of(command: list[str]) -> str | None:
    """Return the kind of process that has imported what a command line needs; None if there is none."""
    match command[1:]:
        case ["-m", "servesync", *_]:
            return SERVESYNC
        case ["-m", "servesync.demo.standin" | "servesync.demo.models", *_]:
            return TENSORFLOW
        case [script, *_] if Path(script).name.startswith("make_"):
            return TENSORFLOW
        case [script, *_] if script.endswith(".py"):
            return SERVESYNC
        case _:
            return None


def can_be_forked(command: list[str], environment: Mapping[str, str]) -> bool:
    """Whether a command line comes to the same when its process is forked."""
    return kind_of(command) is not None and _from_the_start(environment) == OURS


def start(
    command: list[str], environment: Mapping[str, str], *, anew: bool = False, **more: Any
) -> subprocess.Popen[Any]:
    """Start a command line; it is forked if there is a process for it, unless it is to start anew."""
    if not anew and can_be_forked(command, environment):
        return ForkedProcess(command, env=environment, **more)
    return subprocess.Popen(command, env=environment, **more)


def call(
    command: list[str], environment: Mapping[str, str], seconds: float, *, anew: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run a command line to its end."""
    pipe = subprocess.PIPE
    with start(command, environment, anew=anew, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            out, err = process.communicate(timeout=seconds)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(command, process.returncode, out, err)


@functools.cache
def _forker(kind: str) -> socket.socket:
    """Start the process of a kind to fork, once; return what it takes messages from."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with its:
        command = [sys.executable, __file__, str(its.fileno()), kind, " " * MOST_BYTES]
        more = QUIET if kind == TENSORFLOW else {}
        forker = subprocess.Popen(
            command, pass_fds=[its.fileno()], stdin=subprocess.DEVNULL, env=os.environ | more
        )
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
                for ours in (waiting, control):
                    ours.close()  # else it would close whatever has its number when it is collected
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
    """Take on streams, environment, directory and name; keep nothing else open."""
    for number, handle in enumerate(handles[:3]):
        os.dup2(handle, number)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    os.environ.clear()
    os.environ.update(message["environment"])
    os.chdir(message["directory"])
    _show(message["command"])
    if message["dies_with_parent"]:
        import_module("servesync.demo.seaweed").die_with_parent()
    if message["stopped"]:
        os.kill(os.getpid(), signal.SIGSTOP)


def _show(command: list[str]) -> None:
    """Let the system show this command line for this process, in the place of the one from its start."""
    begin, end = map(int, Path("/proc/self/stat").read_text().rpartition(")")[2].split()[45:47])  # proc(5)
    line = b"\0".join(map(os.fsencode, command))[: end - begin - 1]
    ctypes.memmove(begin, line.ljust(end - begin, b"\0"), end - begin)


def _import_servesync() -> None:
    import_module("servesync.__main__")
    for name in set(import_module("servesync.cli").COMMANDS.values()) - {"demo"}:
        import_module(f"servesync.cli.{name}")
    session = import_module("botocore.session").get_session()
    session.create_client("s3", region_name="us-east-1", aws_access_key_id="", aws_secret_access_key="")


def _import_tensorflow() -> None:
    del sys.modules[
        import_module("servesync.demo.standin.__main__").__name__
    ]  # it is to run, not to be imported
    import_module("servesync.demo.standin.loader").tensorflow()
    import_module("tensorflow.core.protobuf.saved_model_pb2")


def _run(arguments: list[str]) -> None:
    """Run what `python ARGUMENTS` would, with streams that know what they write to now."""
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    if arguments[0] == "-m":
        sys.argv = arguments[1:]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = arguments
        sys.path.insert(0, str(Path(arguments[0]).parent))
        runpy.run_path(arguments[0], run_name="__main__")


def _end_at_once(program: Callable[[], None]) -> None:
    """Run a program, and leave out of its end that the interpreter takes everything apart."""
    try:
        program()
    except SystemExit as end:
        if isinstance(end.code, int):
            with contextlib.suppress(OSError, ValueError):
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(end.code)
        raise


def main() -> None:
    """Import everything, and serve; in a fork, run the program that it is to be."""
    control, kind = socket.socket(fileno=int(sys.argv[1])), sys.argv[2]
    sys.path.remove(os.path.dirname(__file__))  # noqa: PTH120 (what a program of its own would not have)
    (_import_servesync if kind == SERVESYNC else _import_tensorflow)()
    gc.freeze()  # else the first collection in each fork would copy what it looks at
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: the tests end it
    message = _serve(control)
    if message is None:
        os._exit(0)  # and who is to die with this one dies now, not after all is taken apart
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if message["command"][1:3] == ["-m", "servesync"]:
        entry = sys.modules["servesync.__main__"]
        sys.argv = [str(entry.__file__), *message["command"][3:]]
        _end_at_once(entry.main)
    else:
        _run(message["command"][1:])


if __name__ == "__main__":
    main()
