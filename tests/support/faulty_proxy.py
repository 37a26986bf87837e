"""An HTTP proxy on loopback, between an agent and its store, that does to an exchange what a test says.

A fault is a function that takes an `Exchange`; it may change the request, ask the store, change the
answer, or do something else altogether. Requests are passed on as they came, so that signatures hold.
"""

import contextlib
import gzip
import http.client
import re
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

PORTAL = b"<html><head><title>Welcome</title></head><body><p>Accept the terms<br></body></html>"
PORTAL_XHTML = b'<?xml version="1.0"?><html xmlns="http://www.w3.org/1999/xhtml"><body/></html>'
END_TO_END = {"connection", "keep-alive", "transfer-encoding"}


@dataclass
class Answer:
    """What the store said."""

    status: int
    headers: dict[str, str]
    body: bytes


class Exchange:
    """One request of the agent, and the way to answer it."""

    def __init__(self, handler: BaseHTTPRequestHandler, proxy: "FaultyProxy") -> None:
        self._handler = handler
        self._proxy = proxy
        self.headers = dict(handler.headers.items())
        self.method = handler.command
        self.path = handler.path
        self.body = handler.rfile.read(int(self.headers.get("Content-Length", "0")))
        self.is_listing = "list-type" in parse_qs(urlsplit(handler.path).query)

    @property
    def stopping(self) -> bool:
        """Whether the test is over."""
        return self._proxy.stopping.is_set()

    def forward(self) -> Answer:
        """Ask the store."""
        store = http.client.HTTPConnection("127.0.0.1", self._proxy.store_port, timeout=30)
        with contextlib.closing(store):
            store.putrequest(
                self._handler.command, self._handler.path, skip_host=True, skip_accept_encoding=True
            )
            for name, value in self.headers.items():
                store.putheader(name, value)
            store.endheaders(self.body or None)
            got = store.getresponse()
            body = got.read()
            headers = {name.lower(): value for name, value in got.getheaders()}
        for name in END_TO_END:
            headers.pop(name, None)
        return Answer(got.status, headers, body)

    def head(self, answer: Answer, *, length: int | None = -1) -> None:
        """Send status and headers; `length` overrides the Content-Length, None leaves it out."""
        self._handler.send_response_only(answer.status)
        headers = answer.headers | {"content-length": str(len(answer.body) if length == -1 else length)}
        if self.method == "HEAD":  # then it is the length of the object
            headers["content-length"] = answer.headers.get("content-length", "0")
        if length is None:
            del headers["content-length"]
            headers["connection"] = "close"
        for name, value in headers.items():
            self._handler.send_header(name, value)
        self._handler.end_headers()

    def send(self, data: bytes) -> None:
        """Send some of the body, if the request asked for one."""
        if self._handler.command != "HEAD":
            self._handler.wfile.write(data)

    def answer(self, answer: Answer) -> None:
        """Send a whole answer."""
        self.head(answer)
        self.send(answer.body)

    def close(self) -> None:
        """End the connection cleanly, whatever was promised."""
        self._handler.close_connection = True

    def reset(self) -> None:
        """End the connection with a reset."""
        linger = struct.pack("ii", 1, 0)
        self._handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self._handler.rfile.close()
        self._handler.connection.close()
        self.close()

    def wait_until_given_up(self) -> None:
        """Return when the agent has closed the connection, or the test is over."""
        self._handler.connection.settimeout(0.1)
        while not self.stopping:
            try:
                if not self._handler.connection.recv(1):
                    break
            except TimeoutError:
                continue
            except OSError:
                break
        self.close()


Fault = Callable[[Exchange], None]


@dataclass
class FaultyProxy:
    """Listens on a free port while entered; `fault` is done to the next `times` requests that `matches`."""

    store_port: int
    tls: ssl.SSLContext | None = None
    fault: Fault | None = None
    times: int = 1_000_000
    matches: Callable[[Exchange], bool] = lambda _: True
    requests: int = 0
    stopping: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 30

            def do_GET(self) -> None:
                proxy.handle(Exchange(self, proxy))

            do_HEAD = do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815 (the names that it looks for)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

            def handle_error(self, request: Any, client_address: Any) -> None:
                """Say nothing: an agent that goes away is what most of these tests are about."""

        self._lock = threading.Lock()
        self._server = Server(("127.0.0.1", 0), Handler)
        if self.tls is not None:
            self._server.socket = self.tls.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def endpoint_url(self) -> str:
        """Where the agent is to look for the store."""
        scheme = "http" if self.tls is None else "https"
        return f"{scheme}://127.0.0.1:{self._server.server_address[1]}"

    def handle(self, exchange: Exchange) -> None:
        """Do the fault, if it is due, or pass the request on."""
        with self._lock:
            self.requests += 1
            fault = self.fault if self.times > 0 and self.matches(exchange) else None
            if fault is not None:
                self.times -= 1
        if fault is None:
            exchange.answer(exchange.forward())
        else:
            fault(exchange)


def listings(exchange: Exchange) -> bool:
    """Match listings."""
    return exchange.is_listing


def reads(exchange: Exchange) -> bool:
    """Match reads of objects."""
    return not exchange.is_listing


def reads_of(*parts: str) -> Callable[[Exchange], bool]:
    """Match reads of objects whose keys contain one of `parts`."""
    return lambda exchange: not exchange.is_listing and any(part in exchange.path for part in parts)


# -- faults: the connection --------------------------------------------------------------------------------


def reset_in_the_middle(exchange: Exchange) -> None:
    """Half the body, then a reset."""
    answer = exchange.forward()
    exchange.head(answer)
    exchange.send(answer.body[: len(answer.body) // 2])
    exchange.reset()


def cut_short(exchange: Exchange) -> None:
    """Half the body, then a clean end, though Content-Length promised more."""
    answer = exchange.forward()
    exchange.head(answer)
    exchange.send(answer.body[: len(answer.body) // 2])
    exchange.close()


def cut_short_without_length(exchange: Exchange) -> None:
    """Half the body, without a Content-Length that would show it."""
    answer = exchange.forward()
    exchange.head(answer, length=None)
    exchange.send(answer.body[: len(answer.body) // 2])
    exchange.close()


def black_hole(exchange: Exchange) -> None:
    """Nothing at all."""
    exchange.wait_until_given_up()


def black_hole_in_the_middle(exchange: Exchange) -> None:
    """Half the body, then nothing more."""
    answer = exchange.forward()
    exchange.head(answer)
    exchange.send(answer.body[: len(answer.body) // 2])
    exchange.wait_until_given_up()


def drip(exchange: Exchange) -> None:
    """A byte now and then: no read ever times out."""
    answer = exchange.forward()
    exchange.head(answer)
    for position in range(len(answer.body)):
        if exchange.stopping:
            return
        exchange.send(answer.body[position : position + 1])
        time.sleep(0.02)


def drip_the_head(exchange: Exchange) -> None:
    """A header that never ends, a byte now and then."""
    exchange.send(b"HTTP/1.1 200 OK\r\nX-Long: ")
    while not exchange.stopping:
        exchange.send(b"x")
        time.sleep(0.02)


class HeldBack:
    """Half of each body, then a little now and then, until a test lets the rest go: no read times out.

    The first part of an object passes, so that there is progress to be seen.
    """

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.released = threading.Event()

    def __call__(self, exchange: Exchange) -> None:
        """Hold back the answer to one request."""
        answer = exchange.forward()
        if exchange.headers.get("Range", "").startswith("bytes=0-"):
            exchange.answer(answer)
            return
        exchange.head(answer)
        done = len(answer.body) // 2
        exchange.send(answer.body[:done])
        self.begun.set()
        while done < len(answer.body) and not exchange.stopping:
            last = len(answer.body) if self.released.wait(0.05) else done + 2048
            exchange.send(answer.body[done:last])
            done = min(last, len(answer.body))


def endless(exchange: Exchange) -> None:
    """The whole body, and then more, for ever."""
    answer = exchange.forward()
    exchange.head(answer, length=None)
    exchange.send(answer.body)
    while not exchange.stopping:
        exchange.send(bytes(64 * 1024))


def endless_error(exchange: Exchange) -> None:
    """An error whose text never ends."""
    exchange.head(Answer(500, {}, b""), length=None)
    while not exchange.stopping:
        exchange.send(bytes(64 * 1024))


def sends(raw: bytes) -> Fault:
    """Send these bytes, whatever was asked, and end: what they are need not be HTTP."""

    def fault(exchange: Exchange) -> None:
        exchange.send(raw)
        exchange.close()

    return fault


def one_byte_too_many(exchange: Exchange) -> None:
    """A body that is one byte longer than the range."""
    answer = exchange.forward()
    answer.body += b"!"
    exchange.head(answer, length=None)
    exchange.send(answer.body)
    exchange.close()


# -- faults: the answer ------------------------------------------------------------------------------------


def says(status: int, body: bytes, content_type: str = "application/xml") -> Fault:
    """Answer this, whatever was asked."""

    def fault(exchange: Exchange) -> None:
        exchange.answer(Answer(status, {"content-type": content_type}, body))

    return fault


def s3_error(status: int, code: str, message: str = "said the test") -> Fault:
    """Answer with an error as S3 does."""
    return says(
        status,
        f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>{message}</Message></Error>'.encode(),
    )


def without_request_header(name: str) -> Fault:
    """Pass the request on without a header, as some proxies and some stores do."""

    def fault(exchange: Exchange) -> None:
        exchange.headers = {key: value for key, value in exchange.headers.items() if key.lower() != name}
        exchange.answer(exchange.forward())

    return fault


def a_store_without(header: str, client: "S3Client", bucket: str, key: str) -> Fault:
    """Answer as a store that does not know a header; one that got lost on the way breaks the signature."""

    def fault(exchange: Exchange) -> None:
        known: dict[str, Any] = {"Range": exchange.headers["Range"], "IfMatch": exchange.headers["If-Match"]}
        known.pop(header)
        told: Any = client.get_object(Bucket=bucket, Key=key, **known)
        said = told["ResponseMetadata"]
        exchange.answer(Answer(said["HTTPStatusCode"], dict(said["HTTPHeaders"]), told["Body"].read()))

    return fault


def other_range(exchange: Exchange) -> None:
    """Answer 206 with the right number of bytes, of another place."""
    answer = exchange.forward()
    found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", answer.headers["content-range"])
    assert found is not None
    first, last, total = map(int, found.groups())
    answer.headers["content-range"] = f"bytes {first + 1}-{last + 1}/{total}"
    exchange.answer(answer)


def gzip_the_body(exchange: Exchange) -> None:
    """Compress on the way, as some proxies do."""
    answer = exchange.forward()
    answer.body = gzip.compress(answer.body)
    answer.headers["content-encoding"] = "gzip"
    exchange.answer(answer)


def redirect_to_region(status: int, code: str, region: str) -> Fault:
    """Say, as S3 does, that the bucket is in another region, and send the client to another host."""

    def fault(exchange: Exchange) -> None:
        text = f"<Error><Code>{code}</Code><Region>{region}</Region><Endpoint>127.0.0.1:9</Endpoint></Error>"
        headers = {"location": "http://127.0.0.1:9/", "x-amz-bucket-region": region}
        exchange.answer(Answer(status, headers, text.encode()))

    return fault


def edit_body(old: bytes, new: bytes) -> Fault:
    """Replace a part of the answer's body, which must be there."""

    def fault(exchange: Exchange) -> None:
        answer = exchange.forward()
        assert old in answer.body, answer.body
        answer.body = answer.body.replace(old, new)
        exchange.answer(answer)

    return fault


def lose_the_answer(exchange: Exchange) -> None:
    """Let the store do it, and reset the connection instead of saying so."""
    exchange.forward()
    exchange.reset()


def an_error_inside(exchange: Exchange) -> None:
    """Answer 200 at once, and then with an error in the body, as S3 does when it takes long to complete."""
    text = (
        b'<?xml version="1.0"?>\n  <Error><Code>InternalError</Code><Message>said the test</Message></Error>'
    )
    exchange.answer(Answer(200, {"content-type": "application/xml"}, text))
