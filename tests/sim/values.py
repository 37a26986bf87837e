"""What lies in the simulated world: releases, and directories with their records."""

from dataclasses import dataclass

from servesync.plan.facts import Served, ServerState
from sim.server import Loads


class Broken(AssertionError):
    """A guarantee does not hold."""


@dataclass(frozen=True)
class Release:
    """What was published under a number. Bytes that are not sound do not pass servesync's own proofs."""

    identity: str
    loads: Loads = Loads.WELL
    is_sound: bool = True

    @property
    def is_good(self) -> bool:
        """Whether it can be served."""
        return self.is_sound and self.loads is Loads.WELL


@dataclass(frozen=True)
class Item:
    """A numbered directory, on the shelf or in the reserve, with what its record says."""

    release: Release
    is_ours: bool = True
    is_damaged: bool = False
    confirmed: bool = False
    tries: int = 0
    said_before: str = ""
    returning: bool = False
    at: float = 0.0


def said(served: Served | None) -> str:
    """Return the word of the server that a record keeps when bytes come under a number."""
    if served is None:
        return ""
    if served.state in {ServerState.START, ServerState.LOADING}:
        return "LOADING"
    return f"END {served.error_code}: {served.message}" if served.state is ServerState.END else ""
