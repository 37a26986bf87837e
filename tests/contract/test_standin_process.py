"""The stand-in as a process: its command line, its signals, its port, its answers to odd requests."""

import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

import forked
from forked_server import ModelServer
from servesync.demo.seaweed import ServerDidNotStart
from servesync.demo.server import PROGRAM as REAL

PROGRAM = [sys.executable, "-m", "servesync.demo.standin"]
NO_MODELS = "model_config_list { }\n"
SECONDS = 60
LISTENING = "0A"
"""The state in which /proc/net/tcp shows a socket that listens."""


def run(*arguments: str, anew: bool = False) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    return forked.call([*PROGRAM, *arguments], os.environ, SECONDS, anew=anew)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    """A running stand-in without models; TensorFlow is never imported."""
    folder = tmp_path_factory.mktemp("empty")
    (folder / "models.config").write_text(NO_MODELS)
    flags = ("--no_such_flag=1",)
    with ModelServer(
        folder / "models.config", folder / "server.log", flags=flags, only_standin=True
    ) as server:
        server.wait_ready(SECONDS)
        yield server


def test_the_version_is_told() -> None:
    """The first line names what this is, whatever is asked."""
    done = run("--version", anew=True)

    first, second = done.stdout.splitlines()
    assert done.returncode == 0
    assert "stand-in for tensorflow_model_server" in first
    assert second.startswith("servesync: ")


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--model_base_path=relative"], "absolute"),
        (["--rest_api_port=many"], "rest_api_port"),
        (["--model_config_file=/no/such/file"], "cannot read"),
        (["--port=0", "--model_config_file=/no/such/file"], "grpc_port"),
    ],
)
def test_what_cannot_start_says_why(arguments: list[str], why: str) -> None:
    """Exit code 255, as with the real server."""
    done = run(*arguments)

    assert done.returncode == 255
    assert "Failed to start server" in done.stdout
    assert why in done.stdout


def test_a_server_on_path_is_started_as_it_wants_to_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command line of demo and tests is one that a server takes which has no special flags for it."""
    program = tmp_path / "bin" / REAL
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.join(PROGRAM)} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    (tmp_path / "models.config").write_text(NO_MODELS)

    with ModelServer(tmp_path / "models.config", tmp_path / "server.log") as server:
        server.wait_ready(SECONDS)

        assert not server.is_standin
        assert "unknown argument" not in server.output()


def test_labels_at_the_start_need_their_flag(tmp_path: Path) -> None:
    """O12: without it such a configuration ends the process."""
    config = tmp_path / "models.config"
    config.write_text(
        f'model_config_list {{ config {{ name: "m" base_path: "{tmp_path}" model_platform: "tensorflow" '
        'version_labels { key: "stable" value: 1 } } }'
    )

    done = run(f"--model_config_file={config}")

    assert done.returncode == 255
    assert "not currently available" in done.stdout


def test_an_unknown_flag_is_named_and_tolerated(server: ModelServer) -> None:
    """The real server does so: a newer flag has no effect, and nobody notices."""
    assert "unknown argument: --no_such_flag=1" in server.output()


def test_one_that_is_forked_shows_its_own_command_line(server: ModelServer) -> None:
    """By which the agent finds a server that does not listen yet."""
    flag = f"--rest_api_port={server.url.rpartition(':')[2]}"
    (found,) = (item for item in psutil.process_iter(["cmdline"]) if flag in (item.info["cmdline"] or []))

    assert found.cmdline()[:3] == PROGRAM


def test_it_listens_on_loopback_only(server: ModelServer) -> None:
    """It is for demonstrations and tests, not for a network."""
    port = int(server.url.rpartition(":")[2])
    rows = [
        line.split() for name in ("tcp", "tcp6") for line in Path("/proc/net", name).read_text().splitlines()
    ]
    bound = {row[1] for row in rows if row[3] == LISTENING and row[1].endswith(f":{port:04X}")}

    assert bound == {f"0100007F:{port:04X}"}


def test_metrics_are_shown_only_with_their_flag(server: ModelServer) -> None:
    """Without --monitoring_config_file the real server has no such page."""
    assert httpx.get(f"{server.url}/monitoring/prometheus/metrics", trust_env=False).status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "status", "text"),
    [
        ("GET", "/v1/models", 400, "Missing model name in request."),
        ("GET", "/v1/models/m", 404, "Could not find any versions of model m"),
        ("GET", "/v1/models/m/versions/3", 404, "Could not find version 3 of model m"),
        ("GET", "/V1/Models/m", 404, "Could not find any versions of model m"),
        ("GET", "/v1/models/m/versions/-3", 400, "Malformed request: GET /v1/models/m/versions/-3"),
        ("GET", "/v1/models/m/metadata", 404, "Servable not found for request: Latest(m)"),
        ("GET", "/v1/models/m:predict", 400, "Malformed request"),
        ("POST", "/v1/models/m/metadata", 400, "Malformed request"),
        ("DELETE", "/v1/models/m", 400, "Malformed request: DELETE /v1/models/m"),
        ("PUT", "/v1/models/m", 400, "Malformed request"),
        ("POST", "/v1/models/m%20m/versions/3:predict", 404, "Specific(m m, 3)"),
        ("POST", "/v1/models/m/labels/x:predict", 400, "Unrecognized servable version label: x"),
        ("POST", "/v1/models/m:regress", 400, "key 'examples' is expected and was not found"),
    ],
)
def test_errors(method: str, path: str, status: int, text: str, server: ModelServer) -> None:
    """Codes and texts of the real server, as JSON."""
    answer = httpx.request(method, server.url + path, content=b"{}", trust_env=False)

    assert answer.status_code == status
    assert text in answer.json()["error"]


@pytest.mark.parametrize("number", ["9223372036854775808", "9" * 500])
@pytest.mark.parametrize(("method", "more"), [("GET", ""), ("GET", "/metadata"), ("POST", ":predict")])
def test_a_version_of_more_than_64_bits(method: str, more: str, number: str, server: ModelServer) -> None:
    """400 with an empty body, as with the real server: no JSON."""
    answer = httpx.request(
        method, f"{server.url}/v1/models/m/versions/{number}{more}", content=b"{}", trust_env=False
    )

    assert (answer.status_code, answer.content) == (400, b"")


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b"\xff", b"[" * 100_000])
def test_bodies_that_are_no_request(body: bytes, server: ModelServer) -> None:
    """Each is answered, and the server lives on."""
    answer = httpx.post(f"{server.url}/v1/models/m:predict", content=body, trust_env=False)

    assert answer.status_code == 400
    assert answer.json()["error"]


def test_other_paths_are_no_part_of_it(server: ModelServer) -> None:
    """A page that is no JSON, as with the real server."""
    answer = httpx.get(f"{server.url}/healthz", trust_env=False)

    assert answer.status_code == 404
    assert not answer.headers["Content-Type"].startswith("application/json")


def test_an_empty_directory_keeps_the_port_closed_and_a_restart_changes_nothing(tmp_path: Path) -> None:
    """O4: connection refused, not 404; and SIGTERM ends it at once."""
    (tmp_path / "m").mkdir()
    config = tmp_path / "models.config"
    config.write_text(
        f'model_config_list {{ config {{ name: "m" base_path: "{tmp_path}/m" '
        'model_platform: "tensorflow" } }'
    )
    server = ModelServer(config, tmp_path / "server.log", only_standin=True)
    with pytest.raises(ServerDidNotStart, match="never started"):
        server.wait_ready(1)
    with server:
        for _ in range(2):
            wait_for_text(server, "No versions of servable m")
            with pytest.raises(httpx.ConnectError):
                httpx.get(f"{server.url}/v1/models/m", trust_env=False)
            (tmp_path / "server.log").write_text("")
            server.restart()
        wait_for_text(server, "No versions of servable m")

        assert server.stop() == -signal.SIGTERM


def wait_for_text(server: ModelServer, text: str) -> None:
    """Wait until it has written something."""
    deadline = time.monotonic() + SECONDS
    while text not in server.output():
        assert time.monotonic() < deadline, server.output()
        time.sleep(0.05)


def test_blocked_signals_are_not_inherited(tmp_path: Path) -> None:
    """Whoever starts it may have SIGTERM blocked, as the agent has: it ends by SIGTERM all the same."""
    (tmp_path / "models.config").write_text(NO_MODELS)
    command = [*PROGRAM, "--rest_api_port=0", f"--model_config_file={tmp_path}/models.config"]
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    with process:
        assert process.stdout is not None
        process.stdout.readline()
        process.terminate()

        assert process.wait(SECONDS) == -signal.SIGTERM


def test_it_dies_with_its_parent_if_asked(tmp_path: Path) -> None:
    """A test that is killed leaves no server behind."""
    (tmp_path / "models.config").write_text(NO_MODELS)
    port = ModelServer.free_port()
    child = [
        *PROGRAM,
        "--standin_die_with_parent",
        f"--rest_api_port={port}",
        f"--model_config_file={tmp_path}/models.config",
    ]
    code = f"import subprocess, sys; p = subprocess.Popen({child!r}); print(p.pid, flush=True); p.wait()"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        lines = iter(parent.stdout.readline, "")
        pid = int(next(line for line in lines if line.strip().isdigit()))
        next(line for line in lines if "Exporting HTTP/REST API" in line)
        drain = threading.Thread(target=parent.stdout.read)
        parent.kill()
        drain.start()
        drain.join(SECONDS)  # the pipe's end: the child has it, too

        assert not drain.is_alive()
    deadline = time.monotonic() + SECONDS  # its descriptors are closed a moment before it is gone
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not is_running(pid)


def is_running(pid: int) -> bool:
    """Tell whether a process lives; one that nobody has waited for yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_port_that_is_taken_ends_it(server: ModelServer, tmp_path: Path) -> None:
    """With the reason."""
    (tmp_path / "models.config").write_text(NO_MODELS)
    port = server.url.rpartition(":")[2]

    done = run(f"--rest_api_port={port}", f"--model_config_file={tmp_path}/models.config")

    assert done.returncode == 255
    assert os.strerror(98) in done.stdout
