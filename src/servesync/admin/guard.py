"""Who may ask: the Host header against DNS rebinding, the size of a request, the headers of every answer."""

import hmac
import ipaddress
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from servesync.admin.token import read_token
from servesync.errors import SettingsError

MOST_BODY_BYTES: Final = 1024
WRONG: Final = "this token is not that of admin.token_file"
NOTHING_ALLOWED: Final = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
HEADERS: Final = {
    "cache-control": "no-store",
    "connection": "close",
    "content-security-policy": NOTHING_ALLOWED,
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
_HOST: Final = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?")
PROXY_HEADERS: Final = ("forwarded", "x-forwarded-for", "x-real-ip", "via")


class Guard:
    """Refuses requests that must not reach the application, and adds `HEADERS` to every answer."""

    def __init__(self, app: ASGIApp, allowed_hosts: Callable[[], Sequence[str]]) -> None:
        self._app = app
        self._allowed_hosts = allowed_hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            return
        refusal = self._refusal(Headers(scope=scope))

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await (refusal or self._app)(scope, receive, send_with_headers)

    def _refusal(self, headers: Headers) -> PlainTextResponse | None:
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not is_known_host(hosts[0], self._allowed_hosts()):
            text = (
                "this name is not known here: use an address, localhost, or a name of admin.allowed_hosts\n"
            )
            return PlainTextResponse(text, 421)
        length = headers.get("content-length", "0")
        if "transfer-encoding" in headers or not length.isdecimal() or int(length) > MOST_BODY_BYTES:
            return PlainTextResponse(f"no body of more than {MOST_BODY_BYTES} bytes is taken\n", 413)
        return None


def is_known_host(host: str, allowed: Sequence[str]) -> bool:
    """Tell whether a Host header names this agent: an address, localhost, or one of `allowed`.

    A page of another site can make a browser resolve its own name to this machine, but not localhost.
    """
    found = _HOST.fullmatch(host)
    if found is None:
        return False
    name = found[1].strip("[]").rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost") or name in {one.lower() for one in allowed}:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def refuse_change(request: Request, token_file: Path | None) -> tuple[int, str] | None:
    """Return why this request may not change anything, with the status to answer; None if it may."""
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if kind != "application/json":
        return 415, "send no body, or application/json"
    if _comes_from_another_site(request):
        return 403, "a page of another site may not do this"
    wrong = _token_refusal(request, token_file)
    if wrong is None:
        return None
    if "authorization" in request.headers:
        return 401, wrong
    if not _is_loopback(request):
        return (
            401,
            "from another machine this needs the token of admin.token_file (Authorization: Bearer ...)",
        )
    return None


def _comes_from_another_site(request: Request) -> bool:
    """Whether a browser says so; other programs send neither header."""
    if request.headers.get("sec-fetch-site", "none") not in {"none", "same-origin"}:
        return True
    origin = request.headers.get("origin")
    if origin is None:
        return False
    try:
        return urlsplit(origin).netloc.lower() != request.headers.get("host", "").lower()
    except ValueError:  # no URL at all
        return True


def _is_loopback(request: Request) -> bool:
    """Whether the peer is on this machine, and not a proxy here that speaks for somebody else."""
    if request.client is None or any(name in request.headers for name in PROXY_HEADERS):
        return False
    address = ipaddress.ip_address(request.client.host.partition("%")[0])
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def _token_refusal(request: Request, token_file: Path | None) -> str | None:
    """Return why the token of a request does not count; None if it does.

    The file is read each time, so that it may be rotated.
    """
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if token_file is None or scheme.lower() != "bearer" or not given.strip():
        return WRONG
    try:
        expected = read_token(token_file)
    except SettingsError as error:
        return str(error)
    return None if hmac.compare_digest(given.strip().encode("latin-1"), expected) else WRONG
