"""The life of a version: what the table allows and what it does not."""

import itertools

import pytest

from servesync.plan.lifecycle import MOVES, IllegalMove, State, advance


def test_the_whole_journey_is_legal() -> None:
    """Wanted, fetched, verified, installed, available, pruned: each step follows the one before."""
    way = [State.WANTED, State.FETCHED, State.VERIFIED, State.INSTALLED, State.AVAILABLE, State.PRUNED]

    assert way[1:] == [advance(old, new) for old, new in itertools.pairwise(way)]


def test_nothing_is_installed_that_was_not_verified() -> None:
    """The ways onto the shelf lead through the proof, or back from the reserve; into that, from the shelf."""
    assert [old for old, new in MOVES.items() if State.INSTALLED in new] == [State.VERIFIED, State.PRUNED]
    assert {old for old, new in MOVES.items() if State.PRUNED in new} == {State.INSTALLED, State.AVAILABLE}


@pytest.mark.parametrize("new", [State.INSTALLED, State.AVAILABLE, State.WANTED])
def test_an_illegal_move_raises(new: State) -> None:
    """A skipped step is a bug, and says so."""
    with pytest.raises(IllegalMove):
        advance(State.FETCHED, new)


def test_every_state_has_a_row() -> None:
    """The table is complete, and every state can be reached."""
    assert set(State) == set(MOVES)
    assert set(State) == {State.WANTED}.union(*MOVES.values())
