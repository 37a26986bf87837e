"""What the server says of a number, and of which bytes it says it."""

import pytest

from servesync.planning.facts import Served, ServerState
from servesync.planning.status_staleness import NEVER_SEEN, mark_stale, status_token

UP = Served(ServerState.AVAILABLE)
START = Served(ServerState.START)
LOADING = Served(ServerState.LOADING)
FAILED = Served(ServerState.END, "DATA_LOSS", "bad")
OTHER = Served(ServerState.END, "DATA_LOSS", "worse")
UNLOADED = Served(ServerState.END)


@pytest.mark.parametrize(
    ("at_installation", "then", "failed"),
    [
        (None, [FAILED], [True]),
        (FAILED, [FAILED, FAILED], [False, False]),
        (FAILED, [FAILED, LOADING, FAILED], [False, False, True]),
        (FAILED, [OTHER], [True]),
        (FAILED, [None, FAILED], [False, True]),
        (FAILED, [UP, FAILED], [False, True]),
        (UNLOADED, [UNLOADED, FAILED], [False, True]),
        (LOADING, [LOADING, FAILED, FAILED], [False, False, False]),
        (START, [LOADING, FAILED, LOADING, FAILED], [False, False, False, True]),
        (LOADING, [UP, FAILED], [False, True]),
        (UP, [FAILED], [True]),
    ],
)
def test_only_what_is_new_is_a_failure(
    at_installation: Served | None, then: list[Served | None], failed: list[bool]
) -> None:
    """The state at the time when bytes came says nothing of them, nor does the end of a load begun before."""
    kept = status_token(at_installation)
    found = []
    for served in then:
        told, kept = mark_stale(served, kept)
        found.append(told is not None and told.failed)

    assert found == failed


def test_nothing_is_kept_of_a_state_that_is_over() -> None:
    """Then the server has tried the bytes that lie there."""
    assert mark_stale(LOADING, status_token(FAILED)) == (LOADING, NEVER_SEEN)
    assert mark_stale(None, status_token(FAILED)) == (None, NEVER_SEEN)
    assert status_token(UP) == NEVER_SEEN
