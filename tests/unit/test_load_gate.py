"""Room in memory and whose turn it is, as the plans see them."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from servesync.domain.versions import Model, Version
from servesync.errors import Reason
from servesync.planning.actions import Action, Install, Prune, Restore, Wait
from servesync.planning.facts import (
    Condition,
    Facts,
    Hold,
    Latest,
    Role,
    Served,
    Server,
    ServerState,
    Shelved,
    Trial,
)
from servesync.planning.fleet import plan_fleet
from servesync.planning.fleet_facts import FleetFacts, LoadGate, Step
from servesync.planning.load_gate import UNSEEN_SECONDS, LoadOrder, after_step, loading, renewed
from servesync.planning.memory import Budget, Remedy, Shortage
from servesync.planning.planner import plan

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


def short(remedy: Remedy, *retire: Version) -> Shortage:
    """Return why version 2 does not fit."""
    return Shortage(V2, remedy, 100, 100, Budget(150, "a test"), (), retire)


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
        (SERVING, short(Remedy.RETIRE, V1), [(Install, 2)]),
        (SERVING, short(Remedy.UNLOADING), [(Install, 2)]),
        (READY, None, [(Restore, 2)]),
        (READY, short(Remedy.RETIRE, V1), [(Prune, 1)]),
        (READY, short(Remedy.UNLOADING), [(Wait, 2)]),
        (GAP, short(Remedy.UNLOADING), [(Wait, 2)]),
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

    (action,) = plan(replace(damaged, memory=short(Remedy.RETIRE))).actions

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


def on_trial(trials: dict[Version, Trial]) -> Facts:
    """Return the facts of a model whose version 2 is AVAILABLE for the first time."""
    both = facts({V1: GOOD, V2: NEW}, {V1: UP, V2: UP}, name="a")
    return replace(both, server=replace(both.server, trials=trials))


@pytest.mark.parametrize(
    ("found", "waited", "busy"),
    [
        (LOADS, 0, True),
        (LOADS, 599, True),
        (LOADS, 600, False),
        (UNSEEN, 0, True),
        (UNSEEN, UNSEEN_SECONDS, False),
        (SILENT, 0, False),
        (on_trial({}), 0, True),
        (on_trial({V2: Trial(failed=False, text="")}), 0, False),
        (on_trial({V2: Trial(failed=True, text="")}), 0, False),
        (facts({V1: GOOD}, {V1: UP}, name="a"), 0, False),
        (replace(READY, memory=short(Remedy.UNLOADING)), 0, False),
    ],
)
def test_who_is_loading(found: Facts, waited: float, busy: bool) -> None:  # noqa: FBT001 (a column)
    """Only what an answering server is about to load, and for no longer than it may take."""
    late = replace(found, server=replace(found.server, waited_seconds={V2: waited}))

    assert bool(loading([(late, plan(late))])) is busy


OTHER = facts({V1: GOOD}, {V1: UP}, name="b")
COMES = Install(V2, "wanted")
ROOM = Prune(V1, "retired", to_reserve=True, retired_for=V2)


def gate(*seen: Facts, pause: float = 0.0) -> LoadGate:
    """Return the gate after one look, at second 0."""
    return renewed(LoadGate(pause, patience_seconds=600), loading((each, plan(each)) for each in seen), 0.0)


def may(gate: LoadGate, facts: Facts, action: Install | Restore | Prune, now: float = 1.0) -> bool:
    """Tell whether an action is let through."""
    return LoadOrder(gate, now).lets_through(facts, action)


def test_one_at_a_time_over_all_models() -> None:
    """While a is loading, b waits, and a's own plan decides for a."""
    found = gate(LOADS, OTHER)

    assert not may(found, OTHER, COMES)
    assert may(found, LOADS, Install(Version(3), "wanted"))


def test_a_server_that_does_not_answer_is_not_spared() -> None:
    """The first filling takes no turns."""
    silent = facts({}, None, name="b")

    assert may(gate(LOADS, silent, pause=100), silent, COMES)


def test_one_load_in_each_plan() -> None:
    """The second one waits for the first, whoever it is; a silent server gets both."""
    order = LoadOrder(gate(SERVING, OTHER), 1.0)
    assert [order.lets_through(each, COMES) for each in (SERVING, OTHER)] == [True, False]

    silent = [facts({}, None, name=name) for name in "ab"]
    order = LoadOrder(gate(*silent), 1.0)
    assert [order.lets_through(each, COMES) for each in silent] == [True, True]


def test_what_comes_is_loading_before_the_server_says_so() -> None:
    """Between the rename and the next look."""
    found = after_step(gate(OTHER), Step(SERVING.model, COMES), SERVING, 0.0, done=True)

    assert not may(found, OTHER, COMES)


def test_a_rest_after_each_load() -> None:
    """Counted from the look at which a version had been loaded."""
    loaded = facts({V1: GOOD, V2: GOOD}, {V1: UP, V2: UP}, name="a")
    found = renewed(gate(LOADS, OTHER, pause=10.0), loading([(loaded, plan(loaded))]), 5.0)

    assert not may(found, OTHER, COMES, 14.9)
    assert may(found, OTHER, COMES, 15.0)


def test_a_rest_begins_in_the_plan_that_sees_the_load_end() -> None:
    """Nothing slips through in between."""
    fleet = FleetFacts(
        now=5.0,
        models={OTHER.model: replace(OTHER, reserve={V2: "id"})},
        gate=LoadGate(10.0, loading=frozenset({Model("a")})),
    )

    found = plan_fleet(fleet)
    assert (found.steps, found.gate.ended_at) == ((), 5.0)
    assert [step.action.version for step in found.postponed] == [V2]
    later = plan_fleet(replace(fleet, now=15.0, gate=found.gate))
    assert [step.action.version for step in later.steps] == [V2]


def test_whoever_has_made_room_is_next() -> None:
    """No other version comes, nor retires one, before it; but not for ever."""
    retiring = facts({V1: GOOD}, {V1: UP}, name="b", reserve=(V2,))
    found = after_step(gate(GAP, OTHER), Step(GAP.model, ROOM), GAP, 0.0, done=True)

    assert not may(found, OTHER, COMES)
    assert not may(found, retiring, ROOM)
    assert may(found, GAP, Restore(V2, "room"))

    assert may(renewed(found, frozenset(), 600.0), OTHER, COMES, 600.0)


def test_nothing_retires_while_another_model_loads() -> None:
    """The gap would last for as long as that load."""
    found = gate(LOADS, OTHER)

    assert not may(found, OTHER, ROOM)
    assert may(found, OTHER, Prune(V1, "newer ones serve"))
