"""The plan over all models: what is fetched, put in place, cancelled, retired and dropped, and why."""

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servesync.domain.versions import Model, Version
from servesync.errors import Reason
from servesync.planning.actions import (
    Cancel,
    Drop,
    Fetch,
    Forget,
    Install,
    Keep,
    Kind,
    Prune,
    Repair,
    Restore,
    SetAside,
)
from servesync.planning.facts import (
    Condition,
    Everything,
    Facts,
    Follow,
    Hold,
    Latest,
    Pin,
    Policy,
    Served,
    Server,
    ServerPolicy,
    ServerState,
    Shelved,
)
from servesync.planning.fleet import plan_fleet
from servesync.planning.fleet_facts import (
    FleetFacts,
    FleetPlan,
    LoadGate,
    MemoryFacts,
    Reserved,
    Step,
    Transfer,
    TransferState,
)
from servesync.planning.load_gate import after_step
from servesync.planning.memory import Budget, Loaded, Remedy, WhenShort
from servesync.planning.reserve import next_to_drop

A, B = Model("a"), Model("b")
V1, V2, V3 = Version(1), Version(2), Version(3)
UP = Served(ServerState.AVAILABLE)
LOADING = Served(ServerState.LOADING)
UNLOADING = Served(ServerState.UNLOADING)
GOOD = Shelved(Condition.GOOD, confirmed=True, identity="id")
NEW = Shelved(Condition.GOOD, identity="id")
DAMAGED = Shelved(Condition.DAMAGED, confirmed=True, identity="id")
RUNNING, READY, ENDING = TransferState.RUNNING, TransferState.READY, TransferState.ENDING
SILENT: Final = None


def model(
    shelf: Mapping[Version, Shelved] | tuple[Version, ...] = (),
    server: Mapping[Version, Served] | tuple[Version, ...] | None = (),
    *,
    name: str = "a",
    policy: Policy | None = None,
    offered: tuple[Version, ...] = (V1, V2),
    reserve: tuple[Version, ...] = (),
    **more: object,
) -> Facts:
    """Return the facts of one model; versions alone are good, and available."""
    shelf = shelf if isinstance(shelf, Mapping) else dict.fromkeys(shelf, GOOD)
    served = dict.fromkeys(server, UP) if isinstance(server, tuple) else server
    found = Facts(
        model=Model(name),
        policy=policy or Latest(1),
        offered=dict.fromkeys(offered, "id"),
        held={},
        shelf=shelf,
        server=Server(versions=served),
        reserve=dict.fromkeys(reserve, "id"),
    )
    return replace(found, **more)  # type: ignore[arg-type]


def fleet(*models: Facts, **more: object) -> FleetFacts:
    """Return what is known of these models: each version is offered as "offer", and lies there since 0."""
    found = FleetFacts(
        now=1000.0,
        models={facts.model: facts for facts in models},
        offers={facts.model: dict.fromkeys(facts.offered or {}, "offer") for facts in models},
        reserve={facts.model: {v: Reserved(at=float(v)) for v in facts.reserve} for facts in models},
    )
    return replace(found, **more)  # type: ignore[arg-type]


def transfer(
    version: Version, state: TransferState, name: Model = A, offer: str = "offer", weight: int | None = None
) -> Transfer:
    """Return a transfer."""
    return Transfer(name, version, offer, state, weight)


def short(found: FleetPlan | tuple[Step, ...]) -> list[tuple[str, str, int]]:
    """Return steps as (model, kind, version)."""
    steps = found.steps if isinstance(found, FleetPlan) else found
    return [(step.model, step.action.kind.value, step.action.version) for step in steps]


def only(found: FleetPlan) -> object:
    """Return the one action of a plan."""
    (step,) = found.steps
    return step.action


SERVES_1 = model((V1,), (V1,))


# -- arrivals -----------------------------------------------------------------------------------------------


def test_a_missing_version_is_fetched_then_goes_on_then_is_installed() -> None:
    """One transfer from its start to the rename."""
    assert short(plan_fleet(fleet(SERVES_1))) == [("a", "fetch", 2)]
    assert short(plan_fleet(fleet(SERVES_1, transfers=(transfer(V2, RUNNING),)))) == []
    assert short(plan_fleet(fleet(SERVES_1, transfers=(transfer(V2, READY),)))) == [("a", "install", 2)]


def test_a_damaged_version_is_fetched_and_swapped() -> None:
    """A repair makes the server load nothing, so the gate is open for it."""
    found = model({V2: DAMAGED}, (V2,))
    gate = LoadGate(loading=frozenset({B}), ended_at=1000.0, pause_seconds=60)

    assert short(plan_fleet(fleet(found))) == [("a", "fetch", 2)]
    assert short(plan_fleet(fleet(found, transfers=(transfer(V2, READY),), gate=gate))) == [
        ("a", "repair", 2)
    ]


def test_as_many_transfers_as_there_are_slots() -> None:
    """Who waits longest comes first; the others are named."""
    models = [model((), (), name=name) for name in "abcd"]
    plan = plan_fleet(fleet(*models, last_brought={A: 5.0, B: 4.0}))

    assert short(plan) == [("c", "fetch", 2), ("d", "fetch", 2)]
    assert short(plan.postponed) == [("b", "fetch", 2), ("a", "fetch", 2)]


def test_required_models_come_before_who_waits_longest() -> None:
    """With one slot it is theirs."""
    found = fleet(model((), ()), model((), (), name="b"), most_transfers=1, required=frozenset({B}))

    assert short(plan_fleet(replace(found, last_brought={B: 9.0}))) == [("b", "fetch", 2)]


BACK = model((V2,), (V2,), name="z", policy=Pin(frozenset({V1})))


def test_a_rollback_waits_for_no_slot_and_comes_before_required_models() -> None:
    """Somebody has asked for the older version because the newer one hurts."""
    busy = (transfer(V2, RUNNING), transfer(V2, RUNNING, B))
    required = model((), (), name="m")
    found = fleet(
        SERVES_1, model((), (), name="b"), required, BACK, transfers=busy, required=frozenset({"m"})
    )

    plan = plan_fleet(found)

    assert short(plan) == [("z", "fetch", 1)]
    assert short(plan.postponed) == [("m", "fetch", 2)]


def test_lower_versions_that_fill_up_are_no_rollbacks() -> None:
    """With policy all every version but the highest is lower than one that is there."""
    found = model((V3,), (V3,), policy=Everything(), offered=(V1, V2, V3))

    plan = plan_fleet(fleet(found, transfers=(transfer(V2, RUNNING, B),), most_transfers=1, broken={B}))

    assert short(plan) == []
    assert short(plan.postponed) == [("a", "fetch", 2)]


@pytest.mark.parametrize(("ready", "starts"), [(1, True), (2, False)])
def test_what_waits_in_staging_holds_up_others_only_when_it_piles_up(
    ready: int,
    starts: bool,  # noqa: FBT001 (a column)
) -> None:
    """As many as there are transfers may lie there, and the next one is fetched meanwhile."""
    others = [model((V1,), (V1,), name=f"m{number}") for number in range(ready)]
    loads = model({V2: NEW}, {V2: LOADING}, name="l")
    waiting = tuple(transfer(V2, READY, Model(f"m{number}")) for number in range(ready))

    plan = plan_fleet(fleet(loads, *others, model((), ()), transfers=waiting))

    assert (("a", "fetch", 2) in short(plan)) is starts
    assert len([step for step in plan.postponed if isinstance(step.action, Install)]) == ready


def test_one_bad_folder_in_staging_holds_up_nobody() -> None:
    """What cannot be put in place just now does not count."""
    others = [model((V1,), (V1,), name=name) for name in "bc"]
    waiting = tuple(transfer(V2, READY, facts.model) for facts in others)
    paused = frozenset((facts.model, V2, Kind.INSTALL) for facts in others)

    plan = plan_fleet(fleet(*others, model((), ()), transfers=waiting, paused=paused))

    assert short(plan) == [("a", "fetch", 2)]


def test_what_failed_a_moment_ago_is_in_no_list() -> None:
    """Whatever it is; the same version's other actions are not concerned."""
    paused = frozenset({(A, V2, Kind.FETCH)})

    plan = plan_fleet(fleet(SERVES_1, paused=paused))
    assert (plan.steps, plan.postponed) == ((), ())
    assert short(plan_fleet(fleet(SERVES_1, paused=paused, transfers=(transfer(V2, READY),)))) != []


def test_a_restore_needs_no_transfer() -> None:
    """It is a rename."""
    found = fleet(model((V1,), (V1,), reserve=(V2,)), most_transfers=0)

    assert short(plan_fleet(found)) == [("a", "restore", 2)]


# -- cancelling ---------------------------------------------------------------------------------------------


def test_a_channel_that_moved_on_ends_the_transfer_and_starts_the_next() -> None:
    """Its reason names what is wanted now."""
    found = model((V1,), (V1,), policy=Follow(("p",)), offered=(V1, V2, V3), channels={"p": V3})

    plan = plan_fleet(fleet(found, transfers=(transfer(V2, RUNNING),)))

    cancel, fetch = plan.steps
    assert isinstance(cancel.action, Cancel)
    assert "channel: p at 3" in cancel.action.because
    assert isinstance(fetch.action, Fetch)


@pytest.mark.parametrize("state", [RUNNING, READY])
@pytest.mark.parametrize(
    ("found", "because"),
    [
        (model((V1,), (V1,), policy=Pin(frozenset({V1}))), "pin: [1]"),
        (model((V1,), (V1,), withdrawn=frozenset({V2})), "withdrawn"),
        (model((V1,), (V1,), offered=(V1, V2, V3)), "asks for 3"),
        (model((V1,), (V1,), held={V2: Hold(Reason.SERVER_REFUSED, "no good")}), "no good"),
        (model((V1,), (V1,), name="other"), "do not name this model"),
    ],
    ids=["pinned elsewhere", "withdrawn", "a newer one", "held", "model gone"],
)
def test_what_nobody_wants_any_more_is_cancelled(found: Facts, because: str, state: TransferState) -> None:
    """On its way, or in staging already."""
    plan = plan_fleet(fleet(found, transfers=(transfer(V2, state),)))

    texts = [step.action.because for step in plan.steps if isinstance(step.action, Cancel)]
    assert len(texts) == 1
    assert because in texts[0]


@pytest.mark.parametrize("state", [RUNNING, READY])
def test_another_offer_ends_the_transfer_before_the_new_one_starts(state: TransferState) -> None:
    """They have the same number."""
    plan = plan_fleet(fleet(SERVES_1, transfers=(transfer(V2, state, offer="old"),)))

    assert short(plan) == [("a", "cancel", 2)]
    assert short(plan.postponed) == [("a", "fetch", 2)]


def test_what_ends_is_not_cancelled_again_and_keeps_its_slot() -> None:
    """A job may take a second to heed."""
    plan = plan_fleet(fleet(SERVES_1, transfers=(transfer(V1, ENDING, B),), most_transfers=1))

    assert short(plan) == []
    assert short(plan.postponed) == [("a", "fetch", 2)]


PASSING = Hold(Reason.STORE_UNREACHABLE, "down", passing=True)


@pytest.mark.parametrize(
    "found",
    [
        model((V1,), SILENT),
        model({V1: NEW}, {V1: LOADING}),
        model((), SILENT),
        model((V1,), (V1,), held={V2: PASSING}),
        model((), (), held={V2: PASSING}),
        model((V1,), (V1,), offered=(V1,)),
        model((V1,), (V1,), held={V2: Hold(Reason.SERVER_REFUSED, "rests")}, cooling_down=frozenset({V2})),
    ],
    ids=["silent", "another in doubt", "fresh", "passing", "passing, fresh", "vanished", "resting"],
)
def test_what_may_pass_ends_no_transfer(found: Facts) -> None:
    """The version is still wanted, or would be."""
    plan = plan_fleet(fleet(found, transfers=(transfer(V2, RUNNING),)))

    assert not [step for step in plan.steps if isinstance(step.action, Cancel)]


def test_a_server_with_policy_latest_that_is_silent_ends_no_transfer() -> None:
    """No name appears meanwhile; what came waits in staging."""
    found = replace(SERVES_1, server=Server(policy=ServerPolicy.LATEST))
    for state in (RUNNING, READY):
        plan = plan_fleet(fleet(found, transfers=(transfer(V2, state),)))
        assert (plan.steps, plan.postponed) == ((), ())


def test_a_model_that_could_not_be_looked_at_keeps_its_transfer() -> None:
    """One bad folder is no order."""
    assert plan_fleet(fleet(transfers=(transfer(V2, RUNNING),), broken=frozenset({A}))).steps == ()


@pytest.mark.parametrize(
    ("found", "because"),
    [
        (model((V2,), (V2,)), "on the shelf already"),
        (model((V1,), (V1,), reserve=(V2,)), "in the reserve already"),
        (model((V1,), (V1,), offered=(V1,)), "no longer lists"),
    ],
)
def test_a_version_in_staging_that_is_not_needed_is_given_up(found: Facts, because: str) -> None:
    """Somebody was faster, or it is gone from the store."""
    plan = plan_fleet(fleet(found, transfers=(transfer(V2, READY),)))

    (cancel,) = [step.action for step in plan.steps if isinstance(step.action, Cancel)]
    assert because in cancel.because


# -- the reserve --------------------------------------------------------------------------------------------


def test_a_pruned_version_goes_to_the_reserve_if_it_may_come_back() -> None:
    """Not one that is withdrawn, and not where the name is taken or nothing is kept."""
    found = model((V1, V2), (V1, V2))
    gone = replace(found, withdrawn=frozenset({V1}))

    for facts, kept in [
        (fleet(found), True),
        (fleet(found, reserve_keep=0), False),
        (fleet(found, unreadable={A: frozenset({V1})}), False),
        (fleet(gone), False),
    ]:
        prune = only(plan_fleet(facts))
        assert isinstance(prune, Prune)
        assert (prune.version, prune.to_reserve, prune.retired_for) == (1, kept, None)


def test_the_reserve_keeps_what_came_last() -> None:
    """Neither what is about to come back, nor what is to be tried again, counts or leaves."""
    found = model((V3,), (V3,), offered=(V1, V2, V3), reserve=(V1, V2))

    assert short(plan_fleet(fleet(found))) == [("a", "drop", 1)]
    wanted = replace(found, policy=Pin(frozenset({V1})))
    assert short(plan_fleet(fleet(wanted, reserve_keep=0))) == [("a", "drop", 2), ("a", "restore", 1)]


def test_a_withdrawn_version_leaves_the_reserve() -> None:
    """Whatever the reserve may keep."""
    found = model((V2,), (V2,), reserve=(V1,), withdrawn=frozenset({V1}))

    assert isinstance(only(plan_fleet(fleet(found, reserve_keep=9))), Drop)


def test_what_was_to_be_tried_again_and_is_not_wanted_stays_as_the_rest() -> None:
    """As soon as what policy wants serves."""
    found = model((V2,), (V2,), reserve=(V1,), returning=frozenset({V1}))
    reserve = {A: {V1: Reserved(1.0, returning=True)}}

    assert isinstance(only(plan_fleet(fleet(found, reserve=reserve, reserve_keep=0))), Keep)
    silent = replace(found, server=Server())
    assert plan_fleet(fleet(silent, reserve=reserve, reserve_keep=0)).steps == ()


def test_records_of_what_is_gone_are_forgotten() -> None:
    """Not those of what is wanted, which is a version to restore, nor of what is held."""
    found = model((V2,), (V2,), held={V1: Hold(Reason.SERVER_REFUSED, "x")}, offered=(V1, V2))
    orphaned = {A: frozenset({V1, V2, V3})}

    assert only(plan_fleet(fleet(found, orphaned=orphaned))) == Forget(
        V3, "no longer on the shelf, and not wanted there"
    )


def test_who_gives_way_for_space() -> None:
    """What has lain there longest, over all models; never what comes back."""
    reserve = {
        A: {V1: Reserved(1.0, returning=True), V2: Reserved(5.0)},
        B: {V1: Reserved(2.0), V2: Reserved(3.0)},
    }

    assert next_to_drop(reserve, {(B, V1)}) == (B, V2)
    assert next_to_drop({A: {V1: Reserved(1.0, returning=True)}}, ()) is None


# -- memory -------------------------------------------------------------------------------------------------


def memory(
    budget: int | None,
    *,
    retire: bool = False,
    weights: Mapping[tuple[Model, Version], int] | None = None,
    **more: object,
) -> MemoryFacts:
    """Return a budget, with 100 bytes for every version that is not named."""
    known = {(name, version): 100 for name in (A, B) for version in (V1, V2, V3)} | dict(weights or {})
    found = MemoryFacts(
        budget=None if budget is None else Budget(budget, "a test"),
        when_short=WhenShort.RETIRE_FIRST if retire else WhenShort.REFUSE,
        weights=known,
        offered_weights=known,
    )
    return replace(found, **more)  # type: ignore[arg-type]


def test_what_has_no_room_is_held_with_figures_and_not_fetched() -> None:
    """The old version stays, and is what policy wants meanwhile."""
    plan = plan_fleet(fleet(SERVES_1, memory=memory(150)))

    assert plan.steps == ()
    assert plan.models[A].wanted == {V1}
    assert "50 bytes are missing" in plan.models[A].verdicts[V2].why
    assert [(name, item.version, item.remedy) for name, item in plan.shortages] == [(A, V2, Remedy.REFUSED)]
    assert plan.loaded == (Loaded(A, V1, 100),)


def test_what_has_no_room_leaves_the_next_one_its_chance() -> None:
    """The highest that fits comes."""
    found = model((V1,), (V1,), offered=(V1, V2, V3))

    plan = plan_fleet(fleet(found, memory=memory(220, weights={(A, V3): 500})))

    assert short(plan) == [("a", "fetch", 2)]


def test_nothing_is_fetched_before_a_manifest_that_tells_its_weight() -> None:
    """One that nothing tells of is fetched; without a budget nobody asks."""
    unknown = memory(150, offered_weights={})

    plan = plan_fleet(fleet(SERVES_1, memory=unknown))
    assert not plan.steps + plan.postponed
    assert plan.to_weigh == {(A, V2)}
    never = memory(150, offered_weights={(A, V2): None})
    assert short(plan_fleet(fleet(SERVES_1, memory=never))) == [("a", "fetch", 2)]
    none = plan_fleet(fleet(SERVES_1, memory=replace(unknown, budget=None)))
    assert (short(none), none.to_weigh) == ([("a", "fetch", 2)], frozenset())


@pytest.mark.parametrize("retire", [True, False])
def test_a_weight_that_turns_out_in_staging_sets_the_version_aside(retire: bool) -> None:  # noqa: FBT001
    """Instead of onto the shelf it goes to the reserve, whether room can be made or not."""
    known = memory(150, retire=retire, offered_weights={(A, V2): None})

    plan = plan_fleet(fleet(SERVES_1, memory=known, transfers=(transfer(V2, READY, weight=100),)))

    action = only(plan)
    assert isinstance(action, SetAside)
    assert action.short.missing_bytes == 50
    assert "50 bytes are missing" in action.because


def test_two_in_staging_do_not_both_take_the_last_room() -> None:
    """A silent server is given everything at once, so the first one's room is kept."""
    both = (model((), SILENT), model((), SILENT, name="b"))
    came = (transfer(V2, READY, weight=100), transfer(V2, READY, B, weight=100))

    plan = plan_fleet(fleet(*both, memory=memory(150), transfers=came))

    assert short(plan) == [("a", "install", 2), ("b", "set_aside", 2)]


def test_a_transfer_outlasts_a_shortage() -> None:
    """A silent server's old version cannot retire: for a moment there is no room."""
    silent = replace(SERVES_1, server=Server())

    plan = plan_fleet(fleet(silent, memory=memory(150, retire=True), transfers=(transfer(V2, RUNNING),)))

    assert plan.steps == ()


def test_a_model_that_cannot_be_looked_at_keeps_its_room() -> None:
    """It has in memory what it had."""
    taken = memory(250, elsewhere=(Loaded(B, V1, 100),))

    assert plan_fleet(fleet(SERVES_1, memory=taken)).steps == ()
    assert short(plan_fleet(fleet(SERVES_1, memory=memory(250)))) == [("a", "fetch", 2)]


def test_beside_a_server_with_policy_latest_only_the_highest_is_loaded() -> None:
    """The others lie on the shelf and cost no memory."""
    server = Server(policy=ServerPolicy.LATEST, versions={V2: UP})
    found = replace(model((V1, V2), (), offered=(V1, V2, V3)), server=server)

    assert plan_fleet(fleet(found, memory=memory(1000))).loaded == (Loaded(A, V2, 100),)


# -- retire_first never loses a model ------------------------------------------------------------------------

TIGHT = memory(150, retire=True)


def test_a_proven_version_makes_the_old_one_retire_into_the_reserve() -> None:
    """Though nothing else is kept there: it may have to come back."""
    found = model((V1,), (V1,), reserve=(V2,))

    plan = plan_fleet(fleet(found, memory=TIGHT, reserve_keep=0))

    prune = only(plan)
    assert isinstance(prune, Prune)
    assert (prune.version, prune.to_reserve, prune.retired_for, prune.need_bytes) == (1, True, 2, 100)
    assert (A, V2) in plan.awaited


@pytest.mark.parametrize("name", ["a", "b"])
def test_nothing_retires_before_the_estimates_are_renewed(name: str) -> None:
    """A version that serves, and is not confirmed yet, is about to teach something."""
    tight = memory(1150, retire=True, weights={(B, V3): 1000})
    found = model((V1,), (V1,), reserve=(V2,))
    learns = model({V3: NEW}, (V3,), name="b", offered=(V3,))
    if name == "a":
        found, learns = replace(found, shelf={V1: NEW}), replace(learns, shelf={V3: GOOD})

    plan = plan_fleet(fleet(found, learns, memory=tight))

    assert [(step.model, step.action.kind) for step in plan.steps] == [(name, Kind.CONFIRM)]
    assert not [step for step in plan.steps if isinstance(step.action, Prune)]


def gap(policy: Policy | None = None, **more: object) -> FleetFacts:
    """Return a model of which 1 has made room for 2, both in the reserve, and the server is empty."""
    found = model((), {}, reserve=(V1, V2), policy=policy)
    reserve = {A: {V1: Reserved(2.0, retired_for=V2, need_bytes=100), V2: Reserved(1.0)}}
    return replace(fleet(found, memory=TIGHT, reserve=reserve), **more)  # type: ignore[arg-type]


def test_the_successor_comes_into_the_room_that_was_made() -> None:
    """As planned."""
    assert short(plan_fleet(gap())) == [("a", "restore", 2)]


GREW: Final = memory(150, retire=True, observed={A: 3.0})


@pytest.mark.parametrize(
    "policy", [Latest(1), Pin(frozenset({V2})), Everything()], ids=["latest", "pin", "all"]
)
@pytest.mark.parametrize("grown", [GREW, replace(TIGHT, elsewhere=(Loaded(B, V1, 120),))])
def test_what_made_room_comes_back_if_its_successor_does_not_fit_after_all(
    policy: Policy, grown: MemoryFacts
) -> None:
    """Whatever is thought of it now: it fitted before. Also if policy names the successor alone."""
    grown = replace(grown, factor=1.0)
    weights = {(A, V1): 100, (A, V2): 100}
    plan = plan_fleet(gap(policy, memory=replace(grown, weights=weights, factor=1.0)))

    (action,) = [step.action for step in plan.steps if isinstance(step.action, Restore)]
    assert (action.version, action.instead_of) == (V1, V2)
    assert action.swing_bytes > 0
    assert "1 comes back" in plan.models[A].verdicts[V2].why
    assert (A, V1) in plan.awaited


def test_it_comes_back_though_the_store_no_longer_lists_it() -> None:
    """It made room a moment ago; absence is no order."""
    found = gap(memory=GREW)
    unlisted = replace(found.models[A], offered={V2: "id"})

    assert short(plan_fleet(replace(found, models={A: unlisted}))) == [("a", "restore", 1)]


def test_it_comes_back_if_its_successor_must_be_fetched_anew() -> None:
    """Nothing would serve meanwhile."""
    found = gap()
    lost = replace(found.models[A], reserve={V1: "id"})
    reserve = {A: {V1: found.reserve[A][V1]}}

    assert short(plan_fleet(replace(found, models={A: lost}, reserve=reserve))) == [("a", "restore", 1)]


def test_who_made_room_in_vain_does_not_do_so_again_at_once() -> None:
    """By the old estimate there would be room; by how much it grew then, there is not."""
    found = model((V1,), (V1,), reserve=(V2,))
    tried = {A: {V2: Reserved(1.0, swing_bytes=51)}}

    plan = plan_fleet(fleet(found, memory=TIGHT, reserve=tried, reserve_keep=0))

    assert plan.steps == ()
    assert "room was made for it before" in plan.models[A].verdicts[V2].why
    more = memory(151, retire=True)
    assert short(plan_fleet(fleet(found, memory=more, reserve=tried))) == [("a", "prune", 1)]


def test_the_room_that_was_made_is_kept_from_others() -> None:
    """A model that serves nothing comes before one that only wants more."""
    other = model((), {}, name="0", offered=(V1,), reserve=(V1,))
    found = gap()
    known = dict(found.memory.weights) | {(Model("0"), V1): 100}
    both = replace(
        found,
        models={other.model: other, **found.models},
        reserve={other.model: {V1: Reserved(0.0)}, **found.reserve},
        memory=replace(found.memory, weights=known, budget=Budget(100, "a test")),
    )

    plan = plan_fleet(both)

    assert short(plan) == [("a", "restore", 2)]
    assert [name for name, _ in plan.shortages] == ["0"]


def test_when_the_successor_serves_the_old_one_stays_as_the_rest() -> None:
    """It has no claim any more."""
    found = model((V2,), (V2,), reserve=(V1,))
    reserve = {A: {V1: Reserved(2.0, retired_for=V2)}}

    assert isinstance(only(plan_fleet(fleet(found, memory=TIGHT, reserve=reserve))), Keep)


class Story:
    """A model with `retire_first` whose steps are carried out; estimates swing between two looks."""

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.shelf: dict[Version, Shelved] = {V1: GOOD}
        self.reserve: dict[Version, Reserved] = {V2: Reserved(0.0)}

    def turn(self, observed: float) -> list[tuple[str, str, int]]:
        """Plan and act once; the server follows at once."""
        found = model(self.shelf, tuple(self.shelf), reserve=tuple(self.reserve))
        known = memory(self.budget, retire=True, observed={A: observed})
        plan = plan_fleet(fleet(found, memory=known, reserve={A: dict(self.reserve)}, reserve_keep=0))
        for step in plan.steps:
            self._act(step.action)
        return short(plan)

    def _act(self, action: object) -> None:
        match action:
            case Prune(version=version, retired_for=successor, need_bytes=need, to_reserve=kept):
                del self.shelf[version]
                if kept:
                    self.reserve[version] = Reserved(1.0, retired_for=successor, need_bytes=need)
            case Restore(version=version, instead_of=successor, swing_bytes=swing):
                if successor is not None:
                    self.reserve[successor] = replace(self.reserve[successor], swing_bytes=swing)
                del self.reserve[version]
                self.shelf[version] = GOOD
            case Drop(version=version):
                del self.reserve[version]
            case Keep(version=version):
                self.reserve[version] = Reserved(self.reserve[version].at)
            case _:
                raise AssertionError(action)


@given(st.lists(st.sampled_from([1.0, 1.3, 1.6, 2.0, 2.9]), max_size=30), st.integers(100, 400))
def test_no_swing_of_the_estimates_loses_a_model_or_makes_it_change_for_ever(
    swings: list[float], budget: int
) -> None:
    """Whatever is thought from look to look: after a retirement something is back with the next step."""
    story = Story(budget)
    retired = 0
    for observed in swings:
        steps = story.turn(observed)
        retired += any(kind == "prune" for _, kind, _ in steps)
        if not story.shelf:
            assert story.turn(observed * 1.1)
        assert story.shelf
    assert retired <= 6


# -- properties ---------------------------------------------------------------------------------------------


@st.composite
def fleets(draw: st.DrawFn) -> FleetFacts:
    """Any few models, with anything on the shelf, in the reserve and on its way."""
    numbers = [V1, V2, V3]
    policies: list[Policy] = [Latest(1), Latest(2), Pin(frozenset({V1, V2})), Everything()]
    models: list[Facts] = []
    for name in draw(st.lists(st.sampled_from("abcd"), unique=True)):
        shelf = {
            version: draw(st.sampled_from([GOOD, NEW, DAMAGED]))
            for version in draw(st.lists(st.sampled_from(numbers), unique=True))
        }
        answers = draw(st.booleans())
        said = {version: draw(st.sampled_from([UP, LOADING, UNLOADING])) for version in shelf}
        models.append(
            model(
                shelf,
                said if answers else None,
                name=name,
                policy=draw(st.sampled_from(policies)),
                offered=tuple(draw(st.lists(st.sampled_from(numbers), unique=True))),
                reserve=tuple(draw(st.sets(st.sampled_from(numbers))) - shelf.keys()),
                withdrawn=draw(st.sampled_from([frozenset(), frozenset({V3})])),
            )
        )
    keys = draw(st.sets(st.tuples(st.sampled_from("abcde"), st.sampled_from(numbers))))
    transfers = tuple(
        Transfer(Model(name), version, "offer", draw(st.sampled_from(TransferState)), 100)
        for name, version in sorted(keys)
    )
    budget = draw(st.sampled_from([None, 100, 250, 600]))
    weights = {(Model(name), version): 100 for name in "abcd" for version in numbers}
    known = memory(budget, retire=draw(st.booleans()), weights=weights, offered_weights=weights)
    return fleet(
        *models,
        transfers=transfers,
        memory=known,
        reserve_keep=draw(st.integers(0, 2)),
        required=frozenset({A}),
        gate=LoadGate(retired_at=draw(st.sampled_from([{}, {A: 900.0}]))),
    )


@given(fleets())
def test_what_holds_for_every_plan(facts: FleetFacts) -> None:
    """The same answer twice; one load at a time; nothing drops that is awaited; wanted transfers go on."""
    plan = plan_fleet(facts)

    assert plan_fleet(facts) == plan
    answering = [
        step
        for step in plan.steps
        if isinstance(step.action, Install | Restore)
        and facts.models[step.model].server.versions is not None
        and step.action.version not in facts.models[step.model].shelf
    ]
    assert len(answering) <= 1
    assert not plan.awaited & {(s.model, s.action.version) for s in plan.steps if isinstance(s.action, Drop)}
    ended = {(s.model, s.action.version) for s in plan.steps if isinstance(s.action, Cancel)}
    for item in facts.transfers:
        if item.state is RUNNING and item.model in plan.models:
            assert (
                item.version not in plan.models[item.model].wanted or (item.model, item.version) not in ended
            )
    keys = [(s.model, s.action.kind, s.action.version) for s in plan.steps]
    assert len(keys) == len(set(keys))
    ready = {(t.model, t.version) for t in facts.transfers if t.state is READY} - ended
    placed = {
        (s.model, s.action.version) for s in plan.steps if isinstance(s.action, Install | Repair | SetAside)
    }
    assert placed <= ready
    assert all(s.action.because for s in (*plan.steps, *plan.postponed))


def test_a_thousand_models_take_no_longer_than_their_plans() -> None:
    """Twenty times as many models cost about twenty times as much: nothing is quadratic."""

    def seconds(count: int) -> float:
        models = [model((V1,), (V1,), name=f"m{number}") for number in range(count)]
        known = memory(100 * count + 50, weights={(m.model, v): 100 for m in models for v in (V1, V2)})
        facts = fleet(*models, memory=replace(known, offered_weights=known.weights))
        started = time.process_time()
        plan_fleet(facts)
        return time.process_time() - started

    assert seconds(1000) < 100 * max(seconds(50), 0.001)


def test_a_step_that_was_carried_out_counts_for_the_next_plan() -> None:
    """What makes room is next; what was brought is being loaded; a failure only ends the claim."""
    prune = Step(A, Prune(V1, "x", to_reserve=True, retired_for=V2))
    restore = Step(A, Restore(V2, "x"))
    facts = model((V1,), (V1,))

    next_up = after_step(LoadGate(), prune, facts, 5.0, done=True)
    assert next_up.retired_at == {A: 5.0}
    assert after_step(next_up, restore, facts, 6.0, done=True).loading == {A}
    failed = after_step(next_up, restore, facts, 6.0, done=False)
    assert (failed.loading, failed.retired_at) == (frozenset(), {})


# -- what an interrupted transfer has left -----------------------------------------------------------------


def why_outdated(policy: Policy | None = None, offer: str = "offer", **more: object) -> str | None:
    """Return why what is left of version 2 is given up, where 1 is served, and 1 and 2 are offered."""
    facts = model((V1,), (V1,), policy=policy, **more)  # type: ignore[arg-type]
    left = (transfer(V2, READY, offer=offer),)
    return plan_fleet(fleet(facts, interrupted=left)).outdated.get((A, V2))


def test_what_is_wanted_stays() -> None:
    """And so does what is held for a cause that may end, and what is wanted while the store is silent."""
    assert why_outdated() is None
    assert why_outdated(held={V2: Hold(Reason.STORE_UNREACHABLE, "away", passing=True)}) is None
    assert why_outdated(held={V2: Hold(Reason.STORE_UNREACHABLE, "away for long", passing=False)}) is None
    silent = fleet(model((V1,), (V1,), offered=()), interrupted=(transfer(V2, READY),))
    unknown = {A: replace(silent.models[A], offered=None)}
    assert plan_fleet(replace(silent, models=unknown)).outdated == {}


@pytest.mark.parametrize(
    ("more", "because"),
    [
        ({"offer": "another"}, "something else"),
        ({"policy": Pin(frozenset({V1}))}, "not wanted any more"),
        ({"policy": Latest(1), "offered": (V1, V2, V3)}, "not wanted any more"),
        ({"withdrawn": frozenset({V2})}, "withdrawn"),
        ({"reserve": (V2,)}, "in the reserve already"),
    ],
)
def test_what_nobody_will_go_on_with_goes(more: dict[str, object], because: str) -> None:
    """The plan says why."""
    assert because in (why_outdated(**more) or "")  # type: ignore[arg-type]


def test_what_is_left_takes_no_slot() -> None:
    """The next transfer of it starts, though only one may be at work."""
    facts = model((V1,), (V1,))
    plan = plan_fleet(fleet(facts, interrupted=(transfer(V2, READY),), most_transfers=1))

    assert [step.action.version for step in plan.steps] == [V2]
