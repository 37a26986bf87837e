"""What TensorFlow Serving says of the versions it has seen (`GET /v1/models/NAME`)."""

import json
import ssl
from collections.abc import Callable, Mapping
from functools import cache
from types import MappingProxyType
from typing import Final, Self

import httpx

from servesync.deadline import Deadline, TookTooLong
from servesync.domain.methods import Method
from servesync.domain.versions import Model, Version, parse_canonical
from servesync.errors import Reason, ServerDown, ServerError
from servesync.planning.facts import Served, ServerState

MAX_ANSWER_BYTES: Final = 4 << 20
MAX_PAGE_BYTES: Final = 64 << 20
PAGE: Final = "/monitoring/prometheus/metrics"
"""Where the server shows its metrics, unless its flags say something else."""
TIMEOUT: Final = httpx.Timeout(5.0, connect=2.0)
WALL_SECONDS: Final = 10.0


class ModelServer:
    """The REST interface of the server beside this agent; no answer may take longer than `wall_seconds`."""

    def __init__(self, rest_url: str, wall_seconds: float = WALL_SECONDS) -> None:
        self._url = rest_url
        self._deadline = Deadline(wall_seconds, "servesync-asks-server")
        self._client = _client()

    def __enter__(self) -> Self:
        """Return the server, whose connections are closed on leaving."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close all connections."""
        self.close()

    def close(self) -> None:
        """Close all connections, until the next request: an idle one would look like load (`draining`)."""
        self._client.close()
        self._client = _client()

    def status(self, model: Model, should_stop: Callable[[], bool] | None = None) -> Mapping[Version, Served]:
        """Return what the server says of every version of `model` it has seen; nothing if it saw none.

        `should_stop`: asked now and then; once it says so, the answer is not waited for.

        Raises:
            ServerDown: there was no connection.
            ServerError: no answer, or one that is not a status. This says nothing about any version.
        """
        url = f"{self._url}/v1/models/{model}"
        status, body = self._ask(url, MAX_ANSWER_BYTES, should_stop)
        if status == httpx.codes.NOT_FOUND and _is_not_found(body):
            return {}
        if status != httpx.codes.OK:
            raise _bad_answer(url, f"HTTP {status}")
        return _parse(url, body)

    def page(self) -> str | None:
        """Return the server's page for Prometheus; None if it shows none.

        Raises:
            ServerDown: there was no connection.
            ServerError: there was no answer.
        """
        status, body = self._ask(self._url + PAGE, MAX_PAGE_BYTES)
        return body.decode(errors="replace") if status == httpx.codes.OK else None

    def _ask(
        self, url: str, most_bytes: int, should_stop: Callable[[], bool] | None = None
    ) -> tuple[int, bytes]:
        client = self._client
        try:
            return self._deadline.call(lambda: _get(client, url, most_bytes), should_stop=should_stop)
        except (httpx.HTTPError, TookTooLong) as error:
            if isinstance(error, TookTooLong):  # closing breaks the connection that the request hangs in
                self.close()
            cause = str(error) or type(error).__name__
            text = f"the model server at {self._url} does not answer ({cause}); is it running?"
            kind = ServerDown if isinstance(error, httpx.ConnectError) else ServerError
            raise kind(Reason.SERVER_UNREACHABLE, text, url=url) from error

    def ask(
        self,
        model: Model,
        version: Version,
        request: tuple[Method, bytes],
        seconds: float,
        should_stop: Callable[[], bool],
    ) -> tuple[int, bytes]:
        """Send a request, by a method and with a body, to one version; return the HTTP status and the body.

        The status is 0 if no whole answer came within `seconds`, or `should_stop` said so. Of a longer body
        there are MAX_ANSWER_BYTES and one. Each call has a connection of its own, since it may run beside
        `status`.

        Raises:
            ServerDown: there was no connection.
            ServerError: the connection broke.
        """
        method, body = request
        url = f"{self._url}/v1/models/{model}/versions/{version}:{method.value}"
        deadline = Deadline(seconds, "servesync-tries-version")
        with _client(httpx.Timeout(seconds, connect=2.0)) as client:
            try:
                return deadline.call(lambda: _post(client, url, body), should_stop=should_stop)
            except (httpx.ReadTimeout, httpx.WriteTimeout, TookTooLong):
                return 0, b""
            except httpx.HTTPError as error:
                text = f"{url}: {str(error) or type(error).__name__}"
                kind = ServerDown if isinstance(error, httpx.ConnectError) else ServerError
                raise kind(Reason.SERVER_UNREACHABLE, text, url=url) from error


def _client(timeout: httpx.Timeout = TIMEOUT) -> httpx.Client:
    return httpx.Client(
        verify=_trusted(),
        timeout=timeout,
        trust_env=False,
        headers={"Accept-Encoding": "identity"},
        follow_redirects=False,
    )


@cache
def _trusted() -> ssl.SSLContext:
    """Return whom to believe, which takes 30 ms to read."""
    return httpx.create_ssl_context(trust_env=False)


def _get(client: httpx.Client, url: str, most_bytes: int) -> tuple[int, bytes]:
    with client.stream("GET", url) as answer:
        return answer.status_code, _bounded(answer, most_bytes)


def _post(client: httpx.Client, url: str, body: bytes) -> tuple[int, bytes]:
    with client.stream("POST", url, content=body, headers={"Content-Type": "application/json"}) as answer:
        return answer.status_code, _beginning(answer, MAX_ANSWER_BYTES)


def _bounded(answer: httpx.Response, most_bytes: int) -> bytes:
    body = _beginning(answer, most_bytes)
    if len(body) > most_bytes:
        raise _bad_answer(str(answer.url), f"more than {most_bytes} bytes")
    return body


def _beginning(answer: httpx.Response, most_bytes: int) -> bytes:
    """Return the body, or the first `most_bytes` and one of it."""
    body = bytearray()
    for piece in answer.iter_raw():
        body += piece[: most_bytes + 1 - len(body)]
        if len(body) > most_bytes:
            break
    return bytes(body)


def _bad_answer(url: str, what: str) -> ServerError:
    text = f"{url} answered with {what}, which is no model status: does serving.rest_url name a model server?"
    return ServerError(Reason.SERVER_BAD_ANSWER, text, url=url)


def _is_not_found(body: bytes) -> bool:
    """Tell the server's own 404, which is JSON with an error, from that of something else on the port."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and isinstance(found.get("error"), str)


def _parse(url: str, body: bytes) -> Mapping[Version, Served]:
    try:
        listed = json.loads(body)["model_version_status"]
        found = [(parse_canonical(item["version"]), _served(item)) for item in listed]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _bad_answer(url, "something else") from error
    return MappingProxyType({version: served for version, served in found if version is not None})


def _served(item: Mapping[str, object]) -> Served:
    status = item.get("status", {})
    if not isinstance(status, Mapping):
        raise TypeError(status)
    name = str(item["state"])
    state = ServerState(name) if name in ServerState.__members__ else ServerState.UNKNOWN
    return Served(state, str(status.get("error_code", "OK")), str(status.get("error_message", ""))[:2000])
