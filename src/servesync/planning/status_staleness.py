"""Whether what the server says of a number is about the bytes that lie there now, or about older ones.

The server tries a directory once, and says the same for as long as the name stays, whatever becomes of the
content. So the state in which it was when bytes came under a number is kept with them, as a short text, until
the server has been seen in another one.
"""

from dataclasses import replace
from typing import Final

from servesync.planning.facts import Served, ServerState

LOAD_IN_FLIGHT: Final = "LOADING"
"""The load that was under way when the bytes came may have read older ones, and so may its end."""

NEVER_SEEN: Final = ""


def status_token(served: Served | None) -> str:
    """Return what is to be kept of a state in which the server was when bytes came under a number."""
    if served is None:
        return NEVER_SEEN
    if served.state in {ServerState.START, ServerState.LOADING}:
        return LOAD_IN_FLIGHT
    return _end(served) if served.state is ServerState.END else NEVER_SEEN


def mark_stale(served: Served | None, before: str) -> tuple[Served | None, str]:
    """Return the state with `stale` set where it is old news, and what is to be kept from now on."""
    if served is None or before == NEVER_SEEN:
        return served, NEVER_SEEN
    if served.state is ServerState.END and before in {LOAD_IN_FLIGHT, _end(served)}:
        return replace(served, stale=True), _end(served)
    if before == LOAD_IN_FLIGHT and status_token(served) == LOAD_IN_FLIGHT:
        return served, LOAD_IN_FLIGHT
    return served, NEVER_SEEN


def _end(served: Served) -> str:
    return f"END {served.error_code}: {served.message}"
