"""The REST interface: model status, metadata, predict; texts and codes as the real server gives them."""

import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import unquote

from servesync.demo.standin.loader import RequestFailed, describe, predict
from servesync.demo.standin.server import Serving

_PATH: Final = re.compile(
    r"/v1/models/(?P<model>[^/:]+)(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
    r"(?P<metadata>/metadata)?(?::(?P<method>predict|classify|regress))?",
    re.IGNORECASE,
)
MAX_VERSION: Final = 2**63 - 1
MAX_BODY_BYTES: Final = 64 << 20


class Handler(BaseHTTPRequestHandler):
    """Answers one connection."""

    protocol_version = "HTTP/1.1"
    serving: Serving

    def do_GET(self) -> None:
        """Answer status and metadata."""
        self._answer(self._body())

    def do_POST(self) -> None:
        """Answer predict."""
        self._answer(self._body())

    def _body(self) -> bytes:
        """Read the request's body, also where none is expected: the connection goes on behind it."""
        length = int(self.headers.get("Content-Length", "0"))
        return self.rfile.read(min(length, MAX_BODY_BYTES))

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the name of the base class)
        """Say nothing for each request, as the real server does."""

    def _answer(self, body: bytes) -> None:
        try:
            found = self._find(body)
            status = 200
        except RequestFailed as error:
            found, status = {"error": str(error)}, error.status
        data = json.dumps(found, indent=1).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _find(self, body: bytes) -> Any:  # noqa: ANN401 (any JSON)
        match = _PATH.fullmatch(self.path.partition("?")[0])
        is_post = self.command == "POST"
        if match is None or is_post != bool(match["method"]) or (match["metadata"] and is_post):
            raise RequestFailed(400, f"Malformed request: {self.command} {self.path}")
        model, label = unquote(match["model"]), match["label"] and unquote(match["label"])
        version = None if match["version"] is None else int(match["version"])
        if version is not None and version > MAX_VERSION:
            raise RequestFailed(400, f"Failed to convert version: {version} to numeric.")
        if match["metadata"]:
            return self.serving.use(
                model, version, label, lambda number, loaded: _metadata(model, number, describe(loaded))
            )
        if not is_post:
            return _status(self.serving, model, version)
        try:
            request = json.loads(body)
        except ValueError as error:
            raise RequestFailed(400, f"JSON Parse error: {error}") from error
        if match["method"].lower() != "predict" or not isinstance(request, dict):
            raise RequestFailed(400, "only predict, with a JSON object, is known here")
        return self.serving.use(model, version, label, lambda _, loaded: predict(loaded, request))


def _status(serving: Serving, model: str, version: int | None) -> Any:  # noqa: ANN401 (any JSON)
    return {
        "model_version_status": [
            {
                "version": str(number),
                "state": status.state.value,
                "status": {"error_code": status.error_code, "error_message": status.error_message},
            }
            for number, status in serving.status(model, version).items()
        ]
    }


def _metadata(model: str, version: int, signatures: dict[str, Any]) -> Any:  # noqa: ANN401 (any JSON)
    return {
        "model_spec": {"name": model, "signature_name": "", "version": str(version)},
        "metadata": {"signature_def": {"signature_def": signatures}},
    }


class Server(ThreadingHTTPServer):
    """A server that takes many connections at once and leaves none behind."""

    daemon_threads = True
    request_queue_size = 128


def listen(serving: Serving, port: int) -> Server:
    """Open the port on loopback."""
    handler = type("BoundHandler", (Handler,), {"serving": serving})
    return Server(("127.0.0.1", port), handler)
