"""Whether what the server says of a number is about the bytes that lie there now, or about older ones.

The server tries a directory once, and says the same for as long as the name stays, whatever becomes of the
content. So the state in which it was when bytes came under a number is kept with them, as a short text, until
the server has been seen in another one.
"""

from dataclasses import replace
from typing import Final

from servesync.planning.facts import Served, ServerState

READING: Final = "LOADING"
"""The load that was under way when the bytes came may have read older ones, and so may its end."""

NOTHING: Final = ""


def said(served: Served | None) -> str:
    """Return what is to be kept of a state in which the server was when bytes came under a number."""
    if served is None:
        return NOTHING
    if served.state in {ServerState.START, ServerState.LOADING}:
        return READING
    return _end(served) if served.state is ServerState.END else NOTHING


def heard(served: Served | None, before: str) -> tuple[Served | None, str]:
    """Return the state with `stale` set where it is old news, and what is to be kept from now on."""
    if served is None or before == NOTHING:
        return served, NOTHING
    if served.state is ServerState.END and before in {READING, _end(served)}:
        return replace(served, stale=True), _end(served)
    if before == READING and said(served) == READING:
        return served, READING
    return served, NOTHING


def _end(served: Served) -> str:
    return f"END {served.error_code}: {served.message}"
