"""The status page of a model server that says what a test tells it to."""

import contextlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from servesync.domain.versions import server_sees_version

Said = tuple[str, str, str]
"""State, error code, error message."""

UP: Said = ("AVAILABLE", "OK", "")
LOADING: Said = ("LOADING", "OK", "")
BAD: Said = ("END", "DATA_LOSS", "checksum mismatch")


class SaidServer:
    """What the server says of the versions of every model.

    With `models_dir` it serves what lies on a model's shelf, but for what `versions` say. While `is_silent`
    it accepts connections and never answers.
    """

    def __init__(self, url: str, models_dir: Path | None = None) -> None:
        self.url = url
        self.versions: Mapping[int, Said] = {}
        self.is_silent = False
        self.asked_in_vain = threading.Event()
        self.ended = threading.Event()
        self._models_dir = models_dir

    def stay_silent(self) -> None:
        """Return when the server is to answer again, or the test is over."""
        while self.is_silent and not self.ended.is_set():
            self.asked_in_vain.set()
            self.ended.wait(0.02)

    def _said_of(self, model: str) -> Mapping[int, Said]:
        if self._models_dir is None:
            return self.versions
        try:
            names = [path.name for path in (self._models_dir / model).iterdir()]
        except OSError:
            return {}
        found = [int(name) for name in names if server_sees_version(name)]
        return {version: self.versions.get(version, UP) for version in found}

    def body(self, model: str) -> tuple[int, bytes]:
        """Return the present answer."""
        versions = self._said_of(model)
        if not versions:
            return 404, b'{"error": "Could not find any versions of model"}'
        listed = [
            {"version": str(n), "state": state, "status": {"error_code": code, "error_message": message}}
            for n, (state, code, message) in sorted(versions.items(), reverse=True)
        ]
        return 200, json.dumps({"model_version_status": listed}).encode()


@contextmanager
def said_server(models_dir: Path | None = None) -> Iterator[SaidServer]:
    """Run such a server on a free port of this machine."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            said.stay_silent()
            if said.ended.is_set():
                return
            status, body = said.body(self.path.rpartition("/")[2])
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            """Answer every request to a version."""
            said.stay_silent()
            self.rfile.read(int(self.headers["Content-Length"]))
            body = b'{"outputs": [0.0]}'
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def handle(self) -> None:
            with contextlib.suppress(ConnectionError):  # whoever asked does not wait any longer
                super().handle()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        said = SaidServer(f"http://127.0.0.1:{http.server_port}", models_dir)
        thread = threading.Thread(target=http.serve_forever, daemon=True)
        thread.start()
        try:
            yield said
        finally:
            said.ended.set()
            http.shutdown()
            thread.join()
