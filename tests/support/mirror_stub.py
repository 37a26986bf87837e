"""A caching HTTP proxy on loopback, as far as an agent sees one: objects by key, cut as the request says.

A trick is a function that takes a `Call`, and answers it in a way that a mirror should not.
"""

import re
import ssl
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import unquote, urlsplit


@dataclass
class Call:
    """One request. `data`: what it asked for; None: there is no such object. `path`: with the query."""

    handler: BaseHTTPRequestHandler
    stub: "MirrorStub"
    path: str
    headers: Mapping[str, str]
    range: tuple[int, int]
    data: bytes | None
    size: int

    def head(self, status: int, length: int | None, **headers: str) -> None:
        """Send a head."""
        self.handler.send_response_only(status)
        for name, value in headers.items():
            self.handler.send_header(name.replace("_", "-"), value)
        if length is not None:
            self.handler.send_header("content-length", str(length))
        else:
            self.handler.close_connection = True
        self.handler.end_headers()

    def send(self, data: bytes) -> None:
        """Send some of the body."""
        self.handler.wfile.write(data)
        self.stub.sent_bytes += len(data)

    def answer(self, data: bytes | None = None) -> None:
        """Answer as a mirror should, or with other data."""
        body = self.data if data is None else data
        if body is None:
            self.head(404, 0)
            return
        first, last = self.range
        self.head(206, len(body), content_range=f"bytes {first}-{last}/{self.size}")
        self.send(body)

    def close(self) -> None:
        """End the connection."""
        self.handler.close_connection = True


Trick = Callable[[Call], None]


@dataclass
class MirrorStub:
    """Listens on a free port while entered."""

    objects: Mapping[str, bytes] = field(default_factory=dict)
    trick: Trick = Call.answer
    tls: ssl.SSLContext | None = None
    requests: list[Call] = field(default_factory=list)
    sent_bytes: int = 0
    stopping: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        stub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 30

            def do_GET(self) -> None:
                stub.handle(self)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        class Server(ThreadingHTTPServer):
            def handle_error(self, *_: object) -> None:
                """Whoever asked may leave in the middle."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        if self.tls is not None:
            self._server.socket = self.tls.wrap_socket(self._server.socket, server_side=True)
        self.port: int = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.vanish()

    @property
    def url(self) -> str:
        """The base URL."""
        return f"http{'s' if self.tls else ''}://127.0.0.1:{self.port}/bucket"

    def vanish(self) -> None:
        """Listen no more."""
        if not self.stopping.is_set():
            self.stopping.set()
            self._server.shutdown()
            self._server.server_close()

    def handle(self, handler: Any) -> None:
        """Answer one request, or play the trick."""
        key = unquote(urlsplit(handler.path).path).removeprefix("/bucket/")
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", handler.headers.get("Range", ""))
        first, last = (int(found[1]), int(found[2])) if found else (0, 1 << 60)
        whole = self.objects.get(key)
        data = None if whole is None else whole[first : last + 1]
        call = Call(
            handler, self, handler.path, dict(handler.headers), (first, last), data, len(whole or b"")
        )
        self.requests.append(call)
        self.trick(call)


# -- tricks ------------------------------------------------------------------------------------------------


def lie(call: Call) -> None:
    """Send other bytes."""
    data = call.data or b""
    call.answer(bytes([data[0] ^ 1]) + data[1:])


def cut_short(call: Call) -> None:
    """Send half of what was promised, and end."""
    data = call.data or b""
    first, last = call.range
    call.head(206, len(data), content_range=f"bytes {first}-{last}/{call.size}")
    call.send(data[: len(data) // 2])
    call.close()


def drip(call: Call) -> None:
    """Send a byte now and then."""
    data = call.data or b""
    first, last = call.range
    call.head(206, len(data), content_range=f"bytes {first}-{last}/{call.size}")
    for position in range(len(data)):
        if call.stub.stopping.wait(0.02):
            return
        call.send(data[position : position + 1])


def drip_the_head(call: Call) -> None:
    """Send a header that never ends."""
    call.handler.wfile.write(b"HTTP/1.1 206 Partial Content\r\nx-long: ")
    while not call.stub.stopping.wait(0.02):
        call.handler.wfile.write(b"x")


def say_nothing(call: Call) -> None:
    """Never answer."""
    call.stub.stopping.wait()
    call.close()


def redirect(call: Call) -> None:
    """Send the agent to the right bytes elsewhere."""
    call.head(302, 0, location=f"{call.stub.url}/elsewhere")


def whole_object(call: Call) -> None:
    """Do not know ranges."""
    data = call.data or b""
    call.head(200, len(data))
    call.send(data)


def other_range(call: Call) -> None:
    """Say that it is another range."""
    data = call.data or b""
    first, last = call.range
    call.head(206, len(data), content_range=f"bytes {first + 1}-{last + 1}/{call.size}")
    call.send(data)


def too_much(call: Call) -> None:
    """Send a byte more, without saying how many there are."""
    data = call.data or b""
    first, last = call.range
    call.head(206, None, content_range=f"bytes {first}-{last}/{call.size}")
    call.send(data + b"!")


def refuse(call: Call) -> None:
    """Want credentials that nobody gave."""
    call.head(403, 0)


def compress(call: Call) -> None:
    """Say that the body is compressed."""
    data = call.data or b""
    first, last = call.range
    call.head(206, len(data), content_range=f"bytes {first}-{last}/{call.size}", content_encoding="gzip")
    call.send(data)


QUICK_TRICKS: tuple[Trick, ...] = (
    lie,
    cut_short,
    redirect,
    whole_object,
    other_range,
    too_much,
    refuse,
    compress,
)
"""Those that show at once."""

SLOW_TRICKS: tuple[Trick, ...] = (drip, drip_the_head, say_nothing)
"""Those that only time shows."""
