"""Tells whether the server's status of a version is about the bytes that lie there now, or older ones.

The server tries a directory once, and reports the same status while the name stays, even if the content
changes. So the record keeps the server's status at the moment when bytes came under a number, as a short
token, until the server reports another status.
"""

from dataclasses import replace
from typing import Final

from servesync.planning.facts import Served, ServerState

LOAD_IN_FLIGHT: Final = "LOADING"
"""The load that was under way when the bytes came may have read older ones, and so may its end."""

NEVER_SEEN: Final = ""


def status_token(served: Served | None) -> str:
    """Return the token for the status that a version had when new bytes came under its number."""
    if served is None:
        return NEVER_SEEN
    if served.state in {ServerState.START, ServerState.LOADING}:
        return LOAD_IN_FLIGHT
    return _end(served) if served.state is ServerState.END else NEVER_SEEN


def mark_stale(served: Served | None, before: str) -> tuple[Served | None, str]:
    """Return the status, with `stale` set if it is about older bytes, and the token to keep from now on."""
    if served is None or before == NEVER_SEEN:
        return served, NEVER_SEEN
    if served.state is ServerState.END and before in {LOAD_IN_FLIGHT, _end(served)}:
        return replace(served, stale=True), _end(served)
    if before == LOAD_IN_FLIGHT and status_token(served) == LOAD_IN_FLIGHT:
        return served, LOAD_IN_FLIGHT
    return served, NEVER_SEEN


def _end(served: Served) -> str:
    return f"END {served.error_code}: {served.message}"
