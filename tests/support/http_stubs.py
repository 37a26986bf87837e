"""A door in front of the store, which a test can open, close, or paint with a login page."""

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import urlsplit

HTML = b"<html><head><title>Welcome</title></head><body>Please log in.</body></html>"
DENIED = b"<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"


class Door:
    """What the door does now: `open`, `shut` (connections are cut), `html`, `denied`."""

    def __init__(self, target: str) -> None:
        self.state = "open"
        self.requests = 0
        self.host = str(urlsplit(target).netloc)


class _Handler(BaseHTTPRequestHandler):
    """One connection through the door."""

    protocol_version = "HTTP/1.1"
    kept: ClassVar[tuple[str, ...]] = ("connection", "transfer-encoding", "keep-alive")
    door: Door

    def do_GET(self) -> None:
        self.door.requests += 1
        match self.door.state:
            case "open":
                self._forward()
            case "html":
                self._say(200, "text/html", HTML)
            case "denied":
                self._say(403, "application/xml", DENIED)
            case _:
                self.close_connection = True

    do_HEAD = do_GET  # noqa: N815 (the name that http.server looks for)

    def _forward(self) -> None:
        upstream = http.client.HTTPConnection(self.door.host, timeout=30)
        try:
            upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in self.kept:
                    upstream.putheader(name, value)
            upstream.endheaders()
            answer = upstream.getresponse()
            data = answer.read()
        finally:
            upstream.close()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in {*self.kept, "content-length"}:
                self.send_header(name, value)
        length = str(len(data)) if self.command == "GET" else answer.getheader("content-length", "0")
        self.send_header("Content-Length", length)
        self.end_headers()
        self.wfile.write(data)

    def _say(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def door_before(target: str) -> Iterator[tuple[str, Door]]:
    """Run a forwarding server on loopback; yield its URL and the door."""
    door = Door(target)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (_Handler,), {"door": door}))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", door
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
