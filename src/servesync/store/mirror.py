"""Reads ranges of objects from a caching HTTP proxy that holds the same bytes as the store.

A mirror is trusted with nothing: what it sends is proven by whoever asks, and it gets no credentials but
those that its own URL holds. Less patience is had with it than with the store: what it fails to send, the
store has.
"""

import base64
import os
import re
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, unquote, urlsplit, urlunsplit

import urllib3
import urllib3.exceptions
from urllib3.response import BaseHTTPResponse

from servesync.deadline import Deadline, TookTooLong
from servesync.domain.versions import StoredObject
from servesync.errors import Stopped
from servesync.redaction import redact, remember, remember_login
from servesync.store.bounds import KIB, Bounds, SpeedFloor

BOUNDS: Final = Bounds(
    connect_seconds=2.0,
    read_seconds=10.0,
    floor_bytes_per_second=64 * KIB,
    floor_after_seconds=5.0,
    answer_seconds=12.0,
)
"""`answer_seconds` bounds the head of an answer."""

BLOCK_BYTES: Final = 256 * KIB
_RANGE: Final = re.compile(r"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19})", re.ASCII)
_AGENT: Final = "servesync"
_PROOF: Final = "X-Part-SHA256"


class MirrorFailed(Exception):
    """A mirror did not send the bytes that were asked for; the text holds no secret."""


class Mirror:
    """One mirror. Any thread may read from it; nothing is open until the first one does."""

    def __init__(self, url: str, connections: int, bounds: Bounds = BOUNDS) -> None:
        """`url`: `http(s)://[USER:PASSWORD@]HOST[:PORT][/PATH][?QUERY]`; an object's key follows the path."""
        remember_login(url)
        parts = urlsplit(url)
        remember(parts.query, *(value for _, _, value in (p.partition("=") for p in parts.query.split("&"))))
        place = parts.netloc.rpartition("@")[2]
        self.name = urlunsplit((parts.scheme, place, parts.path, "", ""))
        """Its URL as people may see it: without user, password and query."""
        self._query = f"?{parts.query}" if parts.query else ""
        self._bounds = bounds
        self._headers = {"accept-encoding": "identity", "user-agent": _AGENT}
        if parts.username is not None:
            login = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
            self._headers["authorization"] = f"Basic {base64.b64encode(login).decode()}"
        self._http = urllib3.PoolManager(
            **_authorities(),
            num_pools=1,
            maxsize=connections + 2,  # reads that were given up may still end
            retries=False,
            timeout=urllib3.Timeout(connect=bounds.connect_seconds, read=bounds.read_seconds),
        )
        self._local = threading.local()

    def read(
        self,
        item: StoredObject,
        offset: int,
        buffer: memoryview,
        sha256: str,
        should_stop: Callable[[], bool],
    ) -> None:
        """Fill `buffer` with the bytes of an object from `offset` on; nothing is proven yet.

        `sha256`: of these bytes; a proxy may take the header `X-Part-SHA256` as key of its cache.

        Raises:
            MirrorFailed: the mirror did not answer with this range, or not fast enough.
            Stopped: `should_stop` returned True. In both cases the buffer's content is undefined.
        """
        if should_stop():
            raise Stopped
        last = offset + len(buffer) - 1
        headers = self._headers | {"range": f"bytes={offset}-{last}", _PROOF: sha256}
        try:
            answer = self._ask(item.key, headers, should_stop)
            try:
                _check_head(answer, item, offset, len(buffer))
                self._fill(answer, buffer, should_stop)
            except BaseException:
                answer.close()
                raise
            answer.release_conn()
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise MirrorFailed(_said(error)) from error

    def close(self) -> None:
        """Close the connections that nobody uses."""
        self._http.clear()

    def _ask(self, key: str, headers: dict[str, str], should_stop: Callable[[], bool]) -> BaseHTTPResponse:
        """Return the answer when its head is there, which must not drip."""
        url = f"{self.name}/{quote(key)}{self._query}"
        deadline = getattr(self._local, "deadline", None)
        if deadline is None:
            deadline = self._local.deadline = Deadline(self._bounds.answer_seconds, "servesync-mirror")

        def ask() -> BaseHTTPResponse:
            return self._http.request("GET", url, headers=headers, preload_content=False, redirect=False)

        try:
            answer: BaseHTTPResponse = deadline.call(ask, lambda late: late.close(), should_stop)
        except TookTooLong as error:
            if should_stop():
                raise Stopped from error
            raise MirrorFailed(f"no answer within {self._bounds.answer_seconds:g} s") from error
        return answer

    def _fill(self, answer: BaseHTTPResponse, buffer: memoryview, should_stop: Callable[[], bool]) -> None:
        done = 0
        floor = SpeedFloor(self._bounds, time.monotonic())
        while done < len(buffer):
            if should_stop():
                raise Stopped
            block = answer.read1(min(BLOCK_BYTES, len(buffer) - done), decode_content=False)
            if not block:
                raise MirrorFailed(f"ended after {done} of {len(buffer)} bytes")
            buffer[done : done + len(block)] = block
            done += len(block)
            if not floor.holds(done, time.monotonic()):
                least = self._bounds.floor_bytes_per_second
                raise MirrorFailed(f"slower than {least} bytes/s after {done} bytes")
        if answer.read1(1, decode_content=False):
            raise MirrorFailed("more bytes than were asked for")


def _authorities() -> dict[str, Any]:
    """Return whose certificates count, as for the store: those of `AWS_CA_BUNDLE`, or the usual ones."""
    named = os.environ.get("AWS_CA_BUNDLE") or os.environ.get("REQUESTS_CA_BUNDLE") or ""
    if named and Path(named).is_dir():
        return {"ca_cert_dir": named}
    return {"ca_certs": named} if named and Path(named).is_file() else {}


def _check_head(answer: BaseHTTPResponse, item: StoredObject, offset: int, length: int) -> None:
    """Make sure that an answer is the range that was asked for, of an object of the listed size."""
    if answer.status != HTTPStatus.PARTIAL_CONTENT:
        raise MirrorFailed(f"HTTP {answer.status} in place of the range")
    found = _RANGE.fullmatch(answer.headers.get("content-range", ""))
    wanted = (offset, offset + length - 1, item.size)
    if found is None or tuple(map(int, found.groups())) != wanted:
        raise MirrorFailed("another range than was asked for, or of an object of another size")
    if answer.headers.get("content-encoding", "identity") != "identity":
        raise MirrorFailed("it compresses what it sends")


def _said(error: Exception) -> str:
    """Return the kind of an error; what a library says may quote the URL."""
    return redact(type(error).__name__)
