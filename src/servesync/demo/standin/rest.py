"""The REST interface: model status, metadata, requests; with the texts and codes of the real server."""

import json
import re
import time
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, TypeAlias
from urllib.parse import unquote

from servesync.demo.standin.codes import HTTP_STATUS, Code, RequestFailed
from servesync.demo.standin.examples import answer, examples_of
from servesync.demo.standin.loader import Loaded
from servesync.demo.standin.monitoring import Monitoring
from servesync.demo.standin.predict import DEFAULT_SIGNATURE, predict
from servesync.demo.standin.server import Serving
from servesync.domain.methods import Method

Json: TypeAlias = Any
_WHERE: Final = r"/v1/models/(?P<model>[^/:]+)(?:/versions/(?P<version>[0-9]+)|/labels/(?P<label>[^/:]+))?"
_GET: Final = re.compile(_WHERE + r"(?P<metadata>/metadata)?", re.IGNORECASE)
_POST: Final = re.compile(_WHERE + r":(?P<method>predict|classify|regress)", re.IGNORECASE)
_NO_MODEL: Final = re.compile(r"/v1/models/?", re.IGNORECASE)
MAX_VERSION: Final = 2**63 - 1
MAX_VERSION_DIGITS: Final = 400
MAX_BODY_BYTES: Final = 64 << 20


class Handler(BaseHTTPRequestHandler):
    """Answers the requests of one connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # an answer is two writes; the second must not wait for the client
    serving: Serving
    monitoring: Monitoring
    monitored: str | None
    """The path of the page for Prometheus."""

    def answer(self) -> None:
        """Answer one request; every failure becomes an error answer."""
        path = self.path.partition("?")[0]
        body = self._body()
        if body is None:
            return
        if path == self.monitored:
            self._send(HTTPStatus.OK, self.monitoring.page().encode(), "text/plain")
            return
        if not path.lower().startswith("/v1/"):
            self._send(HTTPStatus.NOT_FOUND, b"<h1>Not Found</h1>", "text/html")
            return
        try:
            found, status = self._find(path, body), int(HTTPStatus.OK)
        except NoSuchNumber:  # the real server fails at the path, and its answer has no body
            self._send(HTTPStatus.BAD_REQUEST, b"", "application/json")
            return
        except RequestFailed as error:
            found, status = {"error": str(error)}, int(HTTP_STATUS[error.code])
        self._send(status, _json(found), "application/json")

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = answer  # noqa: N815 (named by the base)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the name of the base class)
        """Say nothing for each request, as the real server does."""

    def _body(self) -> bytes | None:
        """Read the request's body, even if none is expected; None if it cannot be read."""
        length = self.headers.get("Content-Length", "0")
        if not (length.isascii() and length.isdigit() and int(length[:20]) <= MAX_BODY_BYTES):
            self.close_connection = True
            self._send(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, b"", "text/plain")
            return None
        return self.rfile.read(int(length))

    def _send(self, status: int, data: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _find(self, path: str, body: bytes) -> Json:
        is_post = self.command == "POST"
        match = (_POST if is_post else _GET).fullmatch(path)
        if self.command == "GET" and _NO_MODEL.fullmatch(path):
            raise _invalid("Missing model name in request.")
        if match is None or self.command not in {"GET", "POST"}:
            raise _invalid(f"Malformed request: {self.command} {self.path}")
        model, version = unquote(match["model"]), _version(match["version"])
        label = unquote(match["label"]) if match["label"] else None
        if not is_post:
            return (
                self._metadata(model, version, label) if match["metadata"] else self._status(model, version)
            )
        method = Method(match["method"].lower())
        began, code = time.monotonic(), Code.OK
        try:
            return self.serving.use(model, version, label, self._work(method, body))
        except RequestFailed as error:
            code = error.code
            raise
        finally:
            self.monitoring.ended((model, method), code, time.monotonic() - began)

    def _work(self, method: Method, body: bytes) -> Callable[[int, Loaded], Json]:
        """Return what answers a request; what can be told from the request alone is refused at once."""
        request = _parsed(body)
        name = _signature_name(request)
        timeout, checks = self.serving.timeout_ms, self.serving.checks_methods
        if method is Method.PREDICT:
            return lambda _, loaded: predict(loaded, name, request, timeout, checks_method=checks)
        examples = examples_of(request)
        return lambda _, loaded: answer(method, loaded, name, examples, timeout, checks_method=checks)

    def _status(self, model: str, version: int | None) -> Json:
        """Return the status of a model; like the real server, ignore a label in the path."""
        return {
            "model_version_status": [
                {
                    "version": str(number),
                    "state": status.state,
                    "status": {"error_code": status.error_code, "error_message": status.error_message},
                }
                for number, status in self.serving.status(model, version).items()
            ]
        }

    def _metadata(self, model: str, version: int | None, label: str | None) -> Json:
        number, definitions = self.serving.use(
            model, version, label, lambda number, loaded: (number, loaded.definitions())
        )
        return {
            "model_spec": {"name": model, "signature_name": "", "version": str(number)},
            "metadata": {"signature_def": {"signature_def": definitions}},
        }


def _json(found: Json) -> bytes:
    """Return JSON in which strings of a model stand as they are, be they UTF-8 or not."""
    try:
        return json.dumps(found, indent=1, ensure_ascii=False).encode(errors="surrogateescape")
    except UnicodeEncodeError:  # half a pair of surrogates, out of the request
        return json.dumps(found, indent=1).encode()


class NoSuchNumber(ValueError):
    """The version in a path has more than 64 bits."""


def _version(text: str | None) -> int | None:
    if text is None:
        return None
    if len(text) > MAX_VERSION_DIGITS or int(text) > MAX_VERSION:
        raise NoSuchNumber
    return int(text)


def _parsed(body: bytes) -> dict[str, Json]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise _invalid(f"JSON Parse error: {error}") from error
    if not isinstance(found, dict):
        raise _invalid("Request body must be a JSON object")
    return found


def _signature_name(request: dict[str, Json]) -> str:
    """Return the signature that a request names; an empty name stands for the default one."""
    name = request.get("signature_name", "")
    if not isinstance(name, str):
        shown = json.dumps(request, indent=4)
        text = "not formatted correctly. 'signature_name' key must be a string value."
        raise _invalid(f"JSON Value: {shown} {text}")
    return name or DEFAULT_SIGNATURE


def _invalid(message: str) -> RequestFailed:
    return RequestFailed(Code.INVALID_ARGUMENT, message)


class Server(ThreadingHTTPServer):
    """A server that takes many connections at once and leaves none behind."""

    daemon_threads = True
    request_queue_size = 128


def listen(serving: Serving, port: int, monitored: str | None = None) -> Server:
    """Open the port on loopback; `monitored`: the path of the page for Prometheus.

    Raises:
        OSError: something else has it.
    """
    found = {"serving": serving, "monitoring": Monitoring(), "monitored": monitored}
    handler = type("BoundHandler", (Handler,), found)
    return Server(("127.0.0.1", port), handler)
