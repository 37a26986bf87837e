"""Reading what a model server says: its own answers count, everything else is `unknown`, never a verdict."""

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from servesync.domain.versions import Model, Version
from servesync.errors import Reason, ServerError
from servesync.planning.facts import Served, ServerState
from servesync.serving.rest import MAX_ANSWER_BYTES, ModelServer

M = Model("m")


@contextmanager
def answering(status: int, body: bytes) -> Iterator[str]:
    """Run a server that gives every request the same answer."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def entry(version: str, state: str, code: str = "OK", message: str = "") -> dict[str, object]:
    """One entry of a status answer, as the real server prints it."""
    return {"version": version, "state": state, "status": {"error_code": code, "error_message": message}}


def test_every_version_is_read_with_its_state() -> None:
    """Strings become numbers, states are told apart, an error keeps code and message."""
    body = {
        "model_version_status": [
            entry("3", "LOADING"),
            entry("2", "END", "DATA_LOSS", "x"),
            entry("1", "AVAILABLE"),
        ]
    }
    with answering(200, json.dumps(body).encode()) as url, ModelServer(url) as server:
        found = server.status(M)

    assert found == {
        Version(3): Served(ServerState.LOADING),
        Version(2): Served(ServerState.END, "DATA_LOSS", "x"),
        Version(1): Served(ServerState.AVAILABLE),
    }
    assert [v for v, served in found.items() if served.failed] == [2]


def test_a_model_that_the_server_never_saw_has_no_versions() -> None:
    """The server's own 404 is an answer: nothing is known of the model."""
    with (
        answering(404, b'{"error": "Could not find any versions of model m"}') as url,
        ModelServer(url) as server,
    ):
        assert server.status(M) == {}


def test_an_unknown_state_is_no_failure() -> None:
    """A state of a newer server is neither available nor failed."""
    body = json.dumps({"model_version_status": [entry("1", "WARMING")]}).encode()
    with answering(200, body) as url, ModelServer(url) as server:
        assert server.status(M)[Version(1)].state is ServerState.UNKNOWN


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, b"<html>not found</html>"),
        (500, b'{"error": "x"}'),
        (200, b"<html>welcome</html>"),
        (200, b"{}"),
        (200, b"[]"),
        (200, b'{"model_version_status": 7}'),
        (200, b'{"model_version_status": [{"version": 3, "state": "AVAILABLE"}]}'),
        (200, b'{"model_version_status": [{"version": "3"}]}'),
        (200, b'{"model_version_status": [{"version": "3", "state": "END", "status": 1}]}'),
        (200, b"[" * 100_000),
        (200, b" " * (MAX_ANSWER_BYTES + 1)),
        (302, b""),
    ],
)
def test_what_is_no_status_is_an_error(status: int, body: bytes) -> None:
    """HTML, other JSON, deep nesting, endless bodies, redirects: nothing is concluded from them."""
    with answering(status, body) as url, ModelServer(url) as server, pytest.raises(ServerError) as caught:
        server.status(M)

    assert caught.value.reason is Reason.SERVER_BAD_ANSWER


def test_no_answer_is_unreachable() -> None:
    """A closed port says nothing about any version."""
    with ModelServer("http://127.0.0.1:9") as server, pytest.raises(ServerError) as caught:
        server.status(M)

    assert caught.value.reason is Reason.SERVER_UNREACHABLE


def test_an_answer_that_never_ends_is_no_answer() -> None:
    """A byte now and then passes every time-out on silence; the head drips, so no body is ever seen."""
    listener = socket.create_server(("127.0.0.1", 0))
    end = threading.Event()

    def drip() -> None:
        connection, _ = listener.accept()
        with connection, contextlib.suppress(OSError):
            connection.sendall(b"HTTP/1.1 200 OK\r\nX-Long: ")
            while not end.wait(0.05):
                connection.sendall(b"x")

    thread = threading.Thread(target=drip)
    thread.start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with listener, ModelServer(url, wall_seconds=0.3) as server, pytest.raises(ServerError) as caught:
        server.status(M)
    end.set()
    thread.join()

    assert caught.value.reason is Reason.SERVER_UNREACHABLE
    assert "no whole answer within 0.3 s" in str(caught.value)
