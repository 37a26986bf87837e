"""Reads the body of one answer into a buffer: exactly the bytes that were requested, and never too slowly.

Speed, and a request to stop, are looked at after a time and not after a number of bytes: a fast body costs no
more looks than a slow one.
"""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import urllib3.exceptions

from servesync.errors import Reason, Stopped, TransferError
from servesync.store.bounds import Bounds, SpeedFloor
from servesync.store.connections import read_into
from servesync.store.errors_s3 import bad_answer

if TYPE_CHECKING:
    from urllib3.response import HTTPResponse

LOOK_SECONDS: Final = 0.1


def fill(
    doing: str, answer: "HTTPResponse", buffer: memoryview, bounds: Bounds, should_stop: Callable[[], bool]
) -> None:
    """Read exactly `len(buffer)` bytes; the body must end with them.

    Raises:
        TransferError: the body broke off, or was slower than `bounds` allow.
        StoreError: the body is longer.
        Stopped: `should_stop` returned True. In all three cases the buffer's content is undefined.
    """
    done = 0
    floor = SpeedFloor(bounds, time.monotonic())
    while done < len(buffer):
        if should_stop():
            raise Stopped
        count = _some(doing, answer, buffer[done:], done)
        if not count:
            raise _broken(doing, f"ended after {done} of {len(buffer)} bytes")
        done += count
        if not floor.holds(done, time.monotonic()):
            text = f"{doing}: below {bounds.floor_bytes_per_second} bytes/s after {done} bytes"
            raise TransferError(Reason.TRANSFER_TOO_SLOW, f"{text}; servesync tries again")
    if _is_more(doing, answer, done):
        raise bad_answer(doing, "more bytes than were requested")


def _some(doing: str, answer: "HTTPResponse", buffer: memoryview, done: int) -> int:
    try:
        return read_into(answer, buffer, LOOK_SECONDS)
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise _broken(doing, f"{type(error).__name__} after {done} bytes") from error


def _is_more(doing: str, answer: "HTTPResponse", done: int) -> bool:
    """Whether the body goes on; after its end, urllib3 keeps the connection for the next request."""
    try:
        return bool(answer.read1(1, decode_content=False))
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise _broken(doing, f"{type(error).__name__} after {done} bytes") from error


def _broken(doing: str, what: str) -> TransferError:
    return TransferError(Reason.TRANSFER_BROKEN, f"{doing}: broken off: {what}; servesync tries again")
