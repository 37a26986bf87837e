"""An answer that is refused half-way ends its connection at once, and not when memory is tidied up."""

import gc
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from odd_store import ONCE, failure, only
from servesync.cli.probe import MOST_BYTES, ask
from servesync.domain.versions import StoredObject
from servesync.errors import SyncError
from servesync.settings import Fetch, Limits, Store
from servesync.store import Bounds, S3Store

ITEM = StoredObject("prod/m/1.tar", 100, '"e"')
GOOD = b'HTTP/1.1 206 Partial Content\r\nETag: "e"\r\nContent-Range: bytes 0-99/100\r\n'
END = b"\r\n" + bytes(100)
PATIENCE = 60.0


class Patient:
    """A server that answers everything with the same bytes, and then keeps the connection for ever."""

    def __init__(self, answer: bytes, rest: bytes = b"") -> None:
        self._answer, self._rest = answer, rest
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.send_rest = threading.Event()
        self._ended = threading.Semaphore(0)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            connection.recv(1 << 16)
            connection.sendall(self._answer)
            if self._rest:
                self.send_rest.wait(PATIENCE)
                connection.sendall(self._rest)
            try:
                while connection.recv(1 << 16):
                    pass
            except OSError:
                pass
        self._ended.release()

    def close(self) -> None:
        """Accept nobody any more."""
        self._listener.close()

    def saw_the_end(self) -> bool:
        """Wait until the other side has closed one connection."""
        return self._ended.acquire(timeout=PATIENCE)


@pytest.fixture
def untidy(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No garbage collector, and some credentials."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret")
    gc.disable()
    yield
    gc.enable()


def store_at(url: str, bounds: Bounds = ONCE) -> S3Store:
    """Return the agent's store at a URL."""
    return S3Store(Store(url="s3://acme/prod", endpoint_url=url, region="x"), Fetch(), Limits(), bounds)


def read(store: S3Store) -> None:
    """Read an object."""
    store.read(ITEM, 0, 100, memoryview(bytearray(100)), lambda: False)


def list_all(store: S3Store) -> object:
    """List."""
    return store.list(only)


def describe(store: S3Store) -> object:
    """Ask for an object's head."""
    return store.describe(ITEM)


REFUSED: dict[str, tuple[Callable[[S3Store], object], bytes]] = {
    "a length that is none": (read, GOOD + b"Content-Length: all\r\n" + END),
    "a negative length": (read, GOOD + b"Content-Length: -1\r\n" + END),
    "a length of too many digits": (read, GOOD + b"Content-Length: " + b"9" * 5000 + b"\r\n" + END),
    "several lengths": (read, GOOD + b"Content-Length: 100, 99\r\n" + END),
    "two headers with a length": (read, GOOD + b"Content-Length: 100\r\nContent-Length: 99\r\n" + END),
    "another range": (read, GOOD.replace(b"0-99", b"1-100") + b"Content-Length: 100\r\n" + END),
    "another object": (read, GOOD.replace(b'"e"', b'"f"') + b"Content-Length: 100\r\n" + END),
    "the whole object": (read, b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n" + END),
    "a page": (read, GOOD + b"Content-Length: 100\r\n\r\n" + b"<html>".ljust(100)),
    "a listing of several lengths": (list_all, b"HTTP/1.1 200 OK\r\nContent-Length: 9, 8\r\n" + END),
    "a listing without end": (list_all, b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n<L"),
    "a head of several lengths": (describe, b"HTTP/1.1 200 OK\r\nContent-Length: 9, 8\r\n\r\n"),
}


@pytest.mark.parametrize(("look", "answer"), REFUSED.values(), ids=REFUSED.keys())
@pytest.mark.usefixtures("untidy")
def test_what_is_refused_ends_its_connection(look: Callable[[S3Store], object], answer: bytes) -> None:
    """While the error, and with it every frame that it came through, is still at hand."""
    server = Patient(answer)
    store = store_at(server.url, replace(ONCE, answer_seconds=0.5, read_seconds=0.5))

    error = failure(lambda: look(store))

    if "page" in str(error) or "100 bytes" in str(error):
        store.close()  # it was read to its end, so the connection is kept for the next time
    assert server.saw_the_end()
    assert isinstance(error, SyncError)
    server.close()


@pytest.mark.parametrize("length", [b"all", b"-1", b"999999"])
@pytest.mark.usefixtures("untidy")
def test_a_probe_ends_its_connection(length: bytes) -> None:
    """Though it reads only the beginning of what some other server says."""
    body = bytes(2 * MOST_BYTES)
    server = Patient(
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: " + length + b"\r\n\r\n" + body
    )

    error = failure(lambda: ask(server.url, "livez"))

    assert server.saw_the_end()
    assert "is no agent's probe" in str(error)
    server.close()


@pytest.mark.usefixtures("untidy")
def test_connections_that_wait_are_closed_with_the_store() -> None:
    """Even while somebody holds an error of it."""
    server = Patient(GOOD + b"Content-Length: 100\r\n" + END)
    store = store_at(server.url)
    read(store)
    error = failure(lambda: store.read(ITEM, 0, 100, memoryview(bytearray(100)), lambda: True))

    store.close()

    assert server.saw_the_end()
    assert isinstance(error, SyncError)
    server.close()


@pytest.mark.usefixtures("untidy")
def test_a_head_that_comes_too_late_ends_its_connection() -> None:
    """Nobody waits for it any more when it is there."""
    server = Patient(b"HTTP/1.1 200 OK\r\nX: ", b"y\r\nContent-Length: 999\r\n\r\n<ListBucketResult>")
    store = store_at(server.url, replace(ONCE, answer_seconds=0.2, read_seconds=PATIENCE))

    error = failure(lambda: store.list(only))
    server.send_rest.set()

    assert server.saw_the_end()
    assert "timeout" in str(error)
    server.close()
