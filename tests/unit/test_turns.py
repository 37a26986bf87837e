"""Room in memory and whose turn it is, as the planner and the agent's helper see them."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from servesync.agent.turns import Turns
from servesync.errors import Reason
from servesync.plan.facts import (
    Action,
    Condition,
    Facts,
    Hold,
    Install,
    Latest,
    Prune,
    Restore,
    Role,
    Served,
    Server,
    ServerState,
    Shelved,
    Wait,
)
from servesync.plan.memory import Budget, Shortage, Way
from servesync.plan.planner import plan
from servesync.plan.turns import UNSEEN_SECONDS, loading
from servesync.plan.versions import Model, Version

UP = Served(ServerState.AVAILABLE)
LOADING = Served(ServerState.LOADING)
GOOD = Shelved(Condition.GOOD, confirmed=True, identity="id")
NEW = Shelved(Condition.GOOD, confirmed=False, identity="id")
V1, V2 = Version(1), Version(2)


def facts(
    shelf: Mapping[Version, Shelved],
    server: Mapping[Version, Served] | None,
    *,
    name: str = "m",
    reserve: tuple[Version, ...] = (),
    waited: Mapping[Version, float] | None = None,
) -> Facts:
    """Return the facts of a model of which the store offers versions 1 and 2, and the highest is wanted."""
    return Facts(
        model=Model(name),
        policy=Latest(1),
        offered={V1: "id", V2: "id"},
        held={},
        shelf=shelf,
        server=Server(versions=server, waited_seconds=waited or {}),
        reserve=dict.fromkeys(reserve, "id"),
    )


def short(way: Way, *retire: Version) -> Shortage:
    """Return why version 2 does not fit."""
    return Shortage(V2, way, 100, 100, Budget(150, "a test"), (), retire)


def ordered(found: Facts) -> list[tuple[type[Action], int]]:
    """Return what the planner orders."""
    return [(type(action), action.version) for action in plan(found).actions]


SERVING = facts({V1: GOOD}, {V1: UP})
READY = facts({V1: GOOD}, {V1: UP}, reserve=(V2,))
GAP = facts({}, {V1: Served(ServerState.UNLOADING)}, reserve=(V1, V2))


@pytest.mark.parametrize(
    ("found", "shortage", "expect"),
    [
        (SERVING, None, [(Install, 2)]),
        (SERVING, short(Way.RETIRE, V1), [(Install, 2)]),
        (SERVING, short(Way.UNLOADING), [(Install, 2)]),
        (READY, None, [(Restore, 2)]),
        (READY, short(Way.RETIRE, V1), [(Prune, 1)]),
        (READY, short(Way.UNLOADING), [(Wait, 2)]),
        (GAP, short(Way.UNLOADING), [(Wait, 2)]),
        (GAP, None, [(Restore, 2)]),
    ],
    ids=[
        "room",
        "not proven yet: nothing retires",
        "not proven yet: fetched meanwhile",
        "room, and in the reserve",
        "proven: the old one retires",
        "proven, room comes by itself",
        "in the gap: wait, and the old one stays away",
        "unloaded: it comes",
    ],
)
def test_a_version_that_does_not_fit(
    found: Facts, shortage: Shortage | None, expect: list[tuple[type[Action], int]]
) -> None:
    """Proven before anything retires, and on the shelf only when there is room."""
    assert ordered(replace(found, memory=shortage)) == expect


def test_a_version_is_repaired_whatever_the_memory_says() -> None:
    """The server has it loaded: new bytes on the disk need no room."""
    damaged = facts({V2: Shelved(Condition.DAMAGED, identity="id")}, {V2: UP})

    (action,) = plan(replace(damaged, memory=short(Way.RETIRE))).actions

    assert type(action).__name__ == "Repair"


def test_a_refused_version_stays_in_the_reserve_and_says_why() -> None:
    """The old one is what policy wants meanwhile, and nothing is ordered."""
    held = replace(READY, held={V2: Hold(Reason.MEMORY_SHORT, "50 bytes are missing")})

    found = plan(held)

    assert found.actions == ()
    assert found.wanted == {V1}
    assert found.in_place
    assert found.verdicts[V2].role is Role.HELD
    assert "50 bytes are missing" in found.verdicts[V2].why


def test_what_policy_no_longer_wants_leaves_though_a_newer_one_has_no_room() -> None:
    """Else the old one would be what keeps the newest away for ever."""
    three = Version(3)
    found = facts({V1: GOOD, V2: GOOD}, {V1: UP, V2: UP})
    held = {three: Hold(Reason.MEMORY_SHORT, "x")}
    offered = {V1: "id", V2: "id", three: "id"}

    assert ordered(replace(found, offered=offered, held=held)) == [(Prune, 1)]


LOADS = facts({V1: GOOD, V2: NEW}, {V1: UP, V2: LOADING}, name="a")
UNSEEN = facts({V1: GOOD, V2: NEW}, {V1: UP}, name="a")
SILENT = facts({V1: GOOD, V2: NEW}, None, name="a")


@pytest.mark.parametrize(
    ("found", "waited", "busy"),
    [
        (LOADS, 0, True),
        (LOADS, 599, True),
        (LOADS, 600, False),
        (UNSEEN, 0, True),
        (UNSEEN, UNSEEN_SECONDS, False),
        (SILENT, 0, False),
        (facts({V1: GOOD}, {V1: UP}, name="a"), 0, False),
        (replace(READY, memory=short(Way.UNLOADING)), 0, False),
    ],
)
def test_who_is_loading(found: Facts, waited: float, busy: bool) -> None:  # noqa: FBT001 (a column)
    """Only what an answering server is about to load, and for no longer than it may take."""
    late = replace(found, server=replace(found.server, waited_seconds={V2: waited}))

    assert bool(loading([(late, plan(late))])) is busy


OTHER = facts({V1: GOOD}, {V1: UP}, name="b")
COMES = Install(V2, "wanted")


def turns(*seen: Facts, pause: float = 0.0) -> Turns:
    """Return a helper that has looked once, at second 0."""
    found = Turns(pause, patience_seconds=600)
    found.look([(each, plan(each)) for each in seen], 0.0)
    return found


def test_one_at_a_time_over_all_models() -> None:
    """While a is loading, b waits, and a's own plan decides for a."""
    found = turns(LOADS, OTHER)

    assert not found.is_due(OTHER, COMES, 1.0)
    assert found.is_due(LOADS, COMES, 1.0)


def test_a_server_that_does_not_answer_is_not_spared() -> None:
    """The first filling takes no turns."""
    silent = facts({}, None, name="b")

    assert turns(LOADS, silent, pause=100).is_due(silent, COMES, 1.0)


def test_what_comes_is_loading_before_the_server_says_so() -> None:
    """Between the rename and the next look."""
    found = turns(OTHER)
    found.tried(SERVING, brought=True)

    assert not found.is_due(OTHER, COMES, 1.0)


def test_a_rest_after_each_load() -> None:
    """Counted from the look at which a version had been loaded."""
    found = turns(LOADS, OTHER, pause=10.0)
    loaded = facts({V1: GOOD, V2: GOOD}, {V1: UP, V2: UP}, name="a")
    found.look([(loaded, plan(loaded)), (OTHER, plan(OTHER))], 5.0)

    assert not found.is_due(OTHER, COMES, 14.9)
    assert found.is_due(OTHER, COMES, 15.0)


def test_whoever_has_made_room_is_next() -> None:
    """No other version comes, nor retires one, before it; but not for ever."""
    retiring = replace(facts({V1: GOOD}, {V1: UP}, name="b", reserve=(V2,)), memory=short(Way.RETIRE, V1))
    found = turns(GAP, OTHER)
    found.retired(GAP.model, 0.0)

    assert found.is_next(GAP.model)
    assert not found.is_due(OTHER, COMES, 1.0)
    assert not found.is_due(retiring, Prune(V1, "retired"), 1.0)
    assert found.is_due(GAP, Restore(V2, "room"), 1.0)

    found.look([], 600.0)
    assert found.is_due(OTHER, COMES, 600.0)


def test_nothing_retires_while_another_model_loads() -> None:
    """The gap would last for as long as that load."""
    retiring = replace(facts({V1: GOOD}, {V1: UP}, name="b", reserve=(V2,)), memory=short(Way.RETIRE, V1))

    assert not turns(LOADS, retiring).is_due(retiring, Prune(V1, "retired"), 1.0)
    assert turns(LOADS, retiring).is_due(OTHER, Prune(V1, "newer ones serve"), 1.0)


def test_fetching_what_will_be_set_aside_waits_for_nobody() -> None:
    """The server loads nothing by it."""
    aside = replace(OTHER, memory=short(Way.RETIRE, V1))

    assert turns(LOADS, aside).is_due(aside, COMES, 1.0)
