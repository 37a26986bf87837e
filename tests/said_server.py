"""The status page of a model server that says what a test tells it to."""

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Said = tuple[str, str, str]
"""State, error code, error message."""

UP: Said = ("AVAILABLE", "OK", "")
LOADING: Said = ("LOADING", "OK", "")
BAD: Said = ("END", "DATA_LOSS", "checksum mismatch")


class SaidServer:
    """What the server says of the versions of every model."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.versions: Mapping[int, Said] = {}

    def body(self) -> tuple[int, bytes]:
        """Return the present answer."""
        if not self.versions:
            return 404, b'{"error": "Could not find any versions of model"}'
        listed = [
            {"version": str(n), "state": state, "status": {"error_code": code, "error_message": message}}
            for n, (state, code, message) in sorted(self.versions.items(), reverse=True)
        ]
        return 200, json.dumps({"model_version_status": listed}).encode()


@contextmanager
def said_server() -> Iterator[SaidServer]:
    """Run such a server on a free port of this machine."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = said.body()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        said = SaidServer(f"http://127.0.0.1:{http.server_port}")
        thread = threading.Thread(target=http.serve_forever, daemon=True)
        thread.start()
        try:
            yield said
        finally:
            http.shutdown()
            thread.join()
