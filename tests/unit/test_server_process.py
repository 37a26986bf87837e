"""Since when the server runs: found by its command line while it starts, and by its port afterwards."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from servesync.demo.server import ModelServer
from servesync.serving import ServerFootprint

SLEEPER = "import sys; print('here', flush=True); sys.stdin.read()"
LISTENER = (
    "import socket, sys; probe = socket.create_server(('127.0.0.1', 0)); "
    "print(probe.getsockname()[1], flush=True); sys.stdin.read()"
)


@contextmanager
def process(*words: str, code: str = SLEEPER) -> Iterator["subprocess.Popen[str]"]:
    """Run something by the name of `words[0]`, that has the other words on its command line, too."""
    command = [words[0], "-c", code, *words[1:]]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, executable=sys.executable, stdin=pipe, stdout=pipe, text=True) as child:
        try:
            yield child
        finally:
            child.kill()


def ready(child: "subprocess.Popen[str]") -> str:
    """Wait until a process has written its line."""
    assert child.stdout
    return child.stdout.readline().strip()


@pytest.fixture
def port() -> int:
    """A port at which nobody listens."""
    return ModelServer.free_port()


@pytest.mark.parametrize("split", [False, True])
def test_a_server_that_starts_is_found_by_its_command_line(port: int, *, split: bool) -> None:
    """It does not listen yet. A call before it lived finds nobody, and does not keep one from being found."""
    words = ("--rest_api_port", str(port)) if split else (f"--rest_api_port={port}",)
    with process("/opt/bin/tensorflow_model_server", *words) as child:
        ready(child)
        footprint = ServerFootprint(f"http://127.0.0.1:{port}")
        first = footprint.started_at()
        again = footprint.started_at()

    assert first is not None
    assert first == again


@pytest.mark.parametrize(
    "words",
    [
        ("tensorflow_model_server", "--rest_api_port=1"),
        ("tini", "tensorflow_model_server", "--rest_api_port={port}"),
        ("tensorflow_model_server_admin", "--rest_api_port={port}"),
        ("tensorflow_model_server", "--port={port}"),
    ],
)
def test_what_is_no_server_of_this_port_is_not_taken_for_one(port: int, words: tuple[str, ...]) -> None:
    """Another port, a program around it, or another program."""
    with process(*(word.format(port=port) for word in words)) as child:
        ready(child)

        assert ServerFootprint(f"http://127.0.0.1:{port}").started_at() is None


def test_of_two_servers_that_name_the_port_neither_is_known(port: int) -> None:
    """One of them may be another instance's."""
    words = ("tensorflow_model_server", f"--rest_api_port={port}")
    with process(*words) as one, process(*words) as two:
        ready(one)
        ready(two)

        assert ServerFootprint(f"http://127.0.0.1:{port}").started_at() is None


def test_a_server_that_has_ended_is_gone_although_nobody_waited_for_it(port: int) -> None:
    """Its supervisor may be slow to notice."""
    with process("tensorflow_model_server", f"--rest_api_port={port}") as child:
        ready(child)
        footprint = ServerFootprint(f"http://127.0.0.1:{port}")
        assert footprint.started_at() is not None
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it is dead, and stays a zombie

        assert footprint.started_at() is None


def test_a_server_of_any_name_is_found_by_its_port() -> None:
    """Once it listens."""
    with process("my_server", code=LISTENER) as child:
        footprint = ServerFootprint(f"http://localhost:{ready(child)}")

        assert footprint.started_at() is not None


@pytest.mark.parametrize("url", [None, "http://192.0.2.1:8501"])
def test_a_server_elsewhere_is_not_looked_for(url: str | None) -> None:
    """There is none, or it is on another machine."""
    assert ServerFootprint(url).started_at() is None
