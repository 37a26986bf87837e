"""Keeps secrets out of what people read: those that are known by their value, others by how they look.

What a library says may quote whatever it was given: the header that it could not send, the line that it
could not parse. So the text of an exception is told only where our own code raised it.
"""

import base64
import re
import traceback
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from types import TracebackType
from typing import Final
from urllib.parse import unquote

HIDDEN: Final = "[hidden]"
MOST_REMEMBERED: Final = 256
MOST_CHARACTERS: Final = 8192
"""Of one text; a page that a proxy sends in place of an answer may have millions."""
SHORTEST: Final = 8
"""A shorter secret would hide parts of ordinary words."""
MOST_IN_A_CHAIN: Final = 10
_NAMES: Final = r"signature|token|credential|authorization|password|secret|access[_-]?key"
_LOOKS_SECRET: Final = re.compile(
    r"(?i)(AKIA|ASIA)[A-Z0-9]{12,}"
    rf"|({_NAMES})[^\s,;)]{{0,100}}\s{{0,9}}[=:]\s{{0,9}}((basic|bearer|aws4-hmac-sha256)\s{{1,9}})?\S+"
    rf"|(?<=<)[^<>\s]{{0,60}}({_NAMES})[^<>\s]{{0,60}}>[^<]+"
    r"|\b(basic|bearer)\s{1,9}[\w.~+/=-]{8,}"
    r"|((?<=://)|(?<=:/)(?!/))\S{1,2000}@"  # a path that was meant as a URL has one slash
)
"""Every repetition has a bound: what a peer says must not hold up a thread that looks through it."""
_BREAKS: Final = re.compile(r"[^\x21-\x7e]+")
_remembered: deque[str] = deque(maxlen=MOST_REMEMBERED)


def remember(*secrets: str | None) -> None:
    """Hide these values from now on, wherever a text quotes them; the last `MOST_REMEMBERED` count.

    A value that is broken by white space or control characters is hidden piece by piece.
    """
    for secret in secrets:
        for piece in _BREAKS.split(secret or ""):
            if len(piece) < SHORTEST:
                continue
            _remembered.append(piece)  # the last again, so that what is in use stays; and at no time missing
            if _remembered.count(piece) > 1:
                with suppress(ValueError):  # another thread was first
                    _remembered.remove(piece)


def remember_login(url: str) -> None:
    """Hide the password of a URL, its user if there is no other: as written, as meant, and as it is sent."""
    login = url.rpartition("@")[0].rpartition("://")[2]
    user, _, password = login.partition(":")
    sent = base64.b64encode(f"{unquote(user)}:{unquote(password)}".encode()).decode()
    remember(password or user, unquote(password or user), sent if login else None)


def redact(text: str) -> str:
    """Return the first `MOST_CHARACTERS` of `text`, without known secrets and without what looks like one."""
    for secret in sorted(_remembered.copy(), key=len, reverse=True):  # other threads append
        text = text.replace(secret, HIDDEN)
    return _LOOKS_SECRET.sub(HIDDEN, text[:MOST_CHARACTERS])


def safe_text(error: BaseException) -> str:
    """Return the kind of an exception and, where our own code raised it, what it says."""
    kind = type(error).__name__
    text = redact(str(error)) if is_ours(error) else ""
    return f"{kind}: {text}" if text else kind


def traceback_of(error: BaseException) -> list[str]:
    """Return the way to where `error` was raised, its causes first, as Python prints it; see `safe_text`."""
    lines: list[str] = []
    for each in reversed(list(_chain(error))):
        lines += [line.rstrip("\n") for line in traceback.format_tb(each.__traceback__)]
        lines.append(safe_text(each))
    return lines


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    for _ in range(MOST_IN_A_CHAIN):
        if error is None:
            return
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def is_ours(error: BaseException) -> bool:
    """Tell whether our own code raised `error`, so that its words are ours."""
    place: TracebackType | None = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    name = place.tb_frame.f_globals.get("__name__", "") if place is not None else ""
    return f"{name}.".startswith(f"{__package__}.")
