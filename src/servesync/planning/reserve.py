"""Decides over all models what stays in the reserve and what leaves it, each with a reason in words."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace

from servesync.domain.versions import Model, Version
from servesync.errors import Reason
from servesync.planning.actions import Drop, Forget, Keep, Prune, Restore
from servesync.planning.admission import Admitted
from servesync.planning.facts import Condition, Facts, ModelPlan
from servesync.planning.fleet_facts import FleetFacts, Key, Reserved


def awaited(fleet: FleetFacts, admitted: Admitted) -> frozenset[Key]:
    """Return what is about to come back to the shelf, or may have to: it must not give way for space."""
    return frozenset(
        (model, version)
        for model, reserve in fleet.reserve.items()
        for version, item in reserve.items()
        if _is_awaited(version, item, admitted.facts.get(model), admitted.plans.get(model))
    )


def _is_awaited(version: Version, item: Reserved, facts: Facts | None, done: ModelPlan | None) -> bool:
    if facts is None or done is None:
        return item.retired_for is not None  # its model cannot be looked at now, and may need it later
    if version in facts.withdrawn:
        return False
    return version in done.wanted or (item.retired_for is not None and not done.served)


def next_to_drop(reserve: Mapping[Model, Mapping[Version, Reserved]], awaited: Collection[Key]) -> Key | None:
    """Return what gives way when space on the disk is short: what has been in the reserve for longest."""
    found = [
        (item.at, model, version)
        for model, versions in reserve.items()
        for version, item in versions.items()
        if not item.returning and (model, version) not in awaited
    ]
    return min(found)[1:] if found else None


def tidy(
    fleet: FleetFacts, admitted: Admitted, model: Model, awaited: frozenset[Key]
) -> Iterator[Drop | Keep | Forget]:
    """Yield what is to be done in one model's reserve, and with records of what is on the shelf no more."""
    facts, done = admitted.facts[model], admitted.plans[model]
    reserve = fleet.reserve.get(model, {})
    for version in sorted(facts.withdrawn & reserve.keys()):
        yield Drop(version, "withdrawn: no instance is to serve it any more")
    yield from _kept(facts, done, reserve)
    yield from _beyond(fleet, facts, reserve, awaited)
    orphaned = fleet.orphaned.get(model, frozenset())
    for version in sorted(orphaned - done.wanted - facts.held.keys()):
        yield Forget(version, "no longer on the shelf, and not wanted there")


def _kept(facts: Facts, done: ModelPlan, reserve: Mapping[Version, Reserved]) -> Iterator[Keep]:
    if not done.served:
        return
    for version, item in sorted(reserve.items()):
        if version in done.wanted or version in facts.withdrawn:
            continue
        if item.returning:
            yield Keep(version, "the server was to try it again, but it serves what policy wants without it")
        elif item.retired_for is not None:
            text = f"it made room for {item.retired_for}; the server serves what policy wants without it now"
            yield Keep(version, text)


def _beyond(
    fleet: FleetFacts, facts: Facts, reserve: Mapping[Version, Reserved], awaited: frozenset[Key]
) -> Iterator[Drop]:
    """Yield what `reserve.keep` leaves no place for, but for what waits for room in memory."""
    waiting = _waiting_for_room(facts, reserve)
    spare = [
        (item.at, version)
        for version, item in reserve.items()
        if not item.returning
        and version not in facts.withdrawn
        and (facts.model, version) not in awaited
        and version not in waiting
    ]
    for _, version in sorted(spare, reverse=True)[max(0, fleet.reserve_keep) :]:
        yield Drop(version, f"newer ones have come to the reserve (reserve.keep: {fleet.reserve_keep})")


def _waiting_for_room(facts: Facts, reserve: Mapping[Version, Reserved]) -> frozenset[Version]:
    """Return what only lacks room in the server's memory: the highest, and what room was made for in vain.

    It is there and proven; without it, it would be fetched again as soon as an estimate changes.
    """
    found = {
        version
        for version in reserve
        if (hold := facts.held.get(version)) is not None and hold.reason is Reason.MEMORY_SHORT
    }
    in_vain = {v for v in found if reserve[v].swing_bytes > 0 or v in facts.retired.values()}
    return frozenset({max(found)} | in_vain) if found else frozenset()


def completed_prune(fleet: FleetFacts, facts: Facts, action: Prune) -> Prune:
    """Add where a version goes, and for which one it makes room; one that does may have to come back."""
    version, short = action.version, facts.memory
    item = facts.shelf.get(version)
    may_stay = (
        item is not None
        and item.condition is Condition.GOOD
        and version not in facts.withdrawn
        and version not in fleet.unreadable.get(facts.model, frozenset())
    )
    if short is None or version not in short.retire:
        return replace(action, to_reserve=may_stay and fleet.reserve_keep > 0)
    return replace(
        action, to_reserve=may_stay, retired_for=short.version, need_bytes=short.needed_later_bytes
    )


def completed_restore(fleet: FleetFacts, admitted: Admitted, model: Model, action: Restore) -> Restore:
    """Say instead of which version one comes back, if it had made room for that in vain."""
    reserve = fleet.reserve.get(model, {})
    item = reserve.get(action.version)
    if item is None or item.retired_for is None or item.retired_for not in reserve:
        return action
    short = admitted.refused.get(model, {}).get(item.retired_for)
    if short is None:
        return action
    before = item.need_bytes
    grown = short.budget.bytes if before is None else short.needed_later_bytes - before
    swing = max(1, grown, reserve[item.retired_for].swing_bytes)
    return replace(action, instead_of=item.retired_for, swing_bytes=swing)
