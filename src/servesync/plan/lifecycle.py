"""The life of a version on one instance: one table; `docs/lifecycle.md` draws its diagram from it."""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class State(StrEnum):
    """How far a version has come on this instance."""

    WANTED = "wanted"
    FETCHED = "fetched"
    VERIFIED = "verified"
    INSTALLED = "installed"
    AVAILABLE = "available"
    PRUNED = "pruned"
    REFUSED = "refused"
    QUARANTINED = "quarantined"


# A version is proven before it is installed, and installed before the server is asked for it. It leaves the
# shelf by policy (pruned) or because the server refused it (quarantined), and comes back through
# WANTED, or from the reserve, where it lies as it was proven.
MOVES: Final[Mapping[State, frozenset[State]]] = MappingProxyType(
    {
        State.WANTED: frozenset({State.FETCHED, State.REFUSED}),
        State.FETCHED: frozenset({State.VERIFIED, State.REFUSED}),
        State.VERIFIED: frozenset({State.INSTALLED, State.REFUSED}),
        State.INSTALLED: frozenset({State.AVAILABLE, State.QUARANTINED, State.PRUNED, State.WANTED}),
        State.AVAILABLE: frozenset({State.PRUNED, State.WANTED}),
        State.PRUNED: frozenset({State.WANTED, State.INSTALLED}),
        State.REFUSED: frozenset({State.WANTED}),
        State.QUARANTINED: frozenset({State.WANTED}),
    }
)


class IllegalMove(RuntimeError):
    """A bug of servesync: a version was about to skip a step. Nothing was changed."""


def advance(old: State, new: State) -> State:
    """Return `new` if a version may go there from `old`.

    Raises:
        IllegalMove: it may not.
    """
    if new not in MOVES[old]:
        raise IllegalMove(f"{old.value} -> {new.value}")
    return new
