"""What the planner makes of an AVAILABLE version that is tried with requests."""

from dataclasses import replace

import pytest

from servesync.domain.versions import Model, Version
from servesync.errors import Reason
from servesync.planning.actions import Action, Confirm, Install, Prune, Quarantine, Try, Wait
from servesync.planning.facts import (
    Condition,
    Facts,
    Latest,
    Role,
    Served,
    Server,
    ServerState,
    Shelved,
    Trial,
)
from servesync.planning.labels import LabelFacts, Link, next_labels
from servesync.planning.planner import plan

UP = Served(ServerState.AVAILABLE)
OLD, NEW = Version(1), Version(2)
SERVED = Shelved(Condition.GOOD, confirmed=True, identity="a")
FRESH = Shelved(Condition.GOOD, identity="b")
PASSED = Trial(failed=False, text="it has answered")
FAILED = Trial(failed=True, text="Op type not registered")


def facts(trials: dict[Version, Trial] | None, **changes: object) -> Facts:
    """Return the facts of a model whose version 2 has just become AVAILABLE beside version 1."""
    found = Facts(
        model=Model("m"),
        policy=Latest(1),
        offered={OLD: "a", NEW: "b"},
        held={},
        shelf={OLD: SERVED, NEW: FRESH},
        server=Server(versions={OLD: UP, NEW: UP}, trials=trials),
    )
    return replace(found, **changes)  # type: ignore[arg-type]


def actions(found: Facts) -> list[tuple[type[Action], int]]:
    """Return what is planned, without the waiting."""
    return [(type(item), item.version) for item in plan(found).actions if not isinstance(item, Wait)]


def test_nothing_depends_on_a_version_before_it_has_answered() -> None:
    """It is asked beside the version that it replaces, which stays; nothing else comes meanwhile."""
    found = plan(facts({}, offered={OLD: "a", NEW: "b", Version(3): "c"}))

    (trial,) = (item for item in found.actions if isinstance(item, Try))
    assert (trial.version, trial.against) == (NEW, OLD)
    assert not [item for item in found.actions if isinstance(item, Confirm | Prune | Install)]
    assert not found.served
    assert found.verdicts[NEW].role is Role.WAITING


def test_a_version_that_has_answered_is_confirmed_and_replaces_the_old_one() -> None:
    """The log says what it has answered."""
    found = plan(facts({NEW: PASSED}))

    (confirm,) = (item for item in found.actions if isinstance(item, Confirm))
    assert "it has answered" in confirm.because
    assert actions(facts({NEW: PASSED}))[-1] == (Prune, OLD)
    assert found.served


def test_a_version_that_has_not_answered_leaves_for_good() -> None:
    """With a reason of its own, and in the server's words."""
    (refusal,) = (item for item in plan(facts({NEW: FAILED})).actions if isinstance(item, Quarantine))

    assert (refusal.version, refusal.reason) == (NEW, Reason.SMOKE_FAILED)
    assert "Op type not registered" in refusal.because


@pytest.mark.parametrize("trials", [None, {}])
def test_what_has_served_before_needs_no_trial(trials: dict[Version, Trial] | None) -> None:
    """Neither after a restart of the agent, nor when the server comes up again; nor back from the reserve."""
    shelf = {OLD: SERVED, NEW: replace(FRESH, confirmed=True)}
    assert actions(facts(trials, shelf=shelf)) == [(Prune, OLD)]

    back = {OLD: SERVED, NEW: replace(FRESH, has_served=True)}
    assert actions(facts(trials, shelf=back)) == [(Confirm, NEW), (Prune, OLD)]


def test_without_a_trial_available_is_enough() -> None:
    """`serving.smoke: off`."""
    assert actions(facts(None)) == [(Confirm, NEW), (Prune, OLD)]


def test_on_a_fresh_instance_there_is_nothing_to_compare_with() -> None:
    """Nothing is asked besides."""
    alone = facts({}, shelf={NEW: FRESH}, server=Server(versions={NEW: UP}, trials={}))

    (trial,) = (item for item in plan(alone).actions if isinstance(item, Try))
    assert trial.against is None


def test_the_only_version_of_the_shelf_stays_while_another_one_serves() -> None:
    """An empty shelf would make the server unload what it still has in memory."""
    last = facts({NEW: FAILED}, shelf={NEW: FRESH})

    assert not [item for item in plan(last).actions if isinstance(item, Quarantine)]


def test_a_version_withdrawn_on_trial_leaves_at_once() -> None:
    """No label points to it yet, and it has never counted as served."""
    assert (Prune, NEW) in actions(facts({}, withdrawn=frozenset({NEW})))


def test_no_label_moves_to_a_version_on_trial() -> None:
    """It stays where it is, and says why; without a place it is given to no version."""
    on_trial = facts({}).on_trial()
    both = {OLD: UP, NEW: UP}
    for written, expected in (({"stable": OLD}, {"stable": OLD}), ({}, {})):
        found = next_labels(
            LabelFacts({"stable": NEW}, written, frozenset(both), Link.ANSWERS, both, on_trial)
        )
        assert found.labels == expected
        assert "2 has not answered the trial requests yet" in found.waiting["stable"]

    assert facts({NEW: PASSED}).on_trial() == frozenset()
