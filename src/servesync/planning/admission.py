"""Decides over all models which versions the server's memory has room for, and plans accordingly.

A version's weight comes from its record, its manifest, or the listing of a directory. The weight of a bare
archive is known only after it has been unpacked and proven in staging. If such a version does not fit, it is
set aside in the reserve, and a rename brings it to the shelf when there is room.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from servesync.domain.versions import Model, Version
from servesync.errors import Reason
from servesync.planning.actions import Install, Restore
from servesync.planning.facts import Facts, Hold, ModelPlan, ServerPolicy, ServerState
from servesync.planning.fleet_facts import FleetFacts, Key, MemoryFacts, Reserved, TransferState
from servesync.planning.memory import Budget, Loaded, ModelMemory, Remedy, Shortage, check_budget, estimate
from servesync.planning.planner import plan
from servesync.planning.unloading import IN_MEMORY

MOST_ROUNDS: Final = 100
READ_BY_SERVER: Final = frozenset({ServerState.START, ServerState.LOADING})

_NONE: Final[frozenset[Version]] = frozenset()
_NO_RESERVE: Final[Mapping[Version, Reserved]] = {}


@dataclass(frozen=True, slots=True)
class Admitted:
    """Every model's facts and plan with memory taken into account. `refused`: what has no room, and why."""

    facts: Mapping[Model, Facts]
    plans: Mapping[Model, ModelPlan]
    refused: Mapping[Model, Mapping[Version, Shortage]] = field(default_factory=dict)
    shortages: tuple[tuple[Model, Shortage], ...] = ()
    loaded: tuple[Loaded, ...] = ()
    to_weigh: frozenset[Key] = frozenset()


def admit(fleet: FleetFacts) -> Admitted:
    """Plan for every model, and plan anew without the versions for which the server's memory has no room."""
    facts = {model: _with_retired(found, fleet) for model, found in fleet.models.items()}
    plans = {model: plan(found) for model, found in facts.items()}
    budget = fleet.memory.budget
    return Admitted(facts, plans) if budget is None else _Rounds(fleet, facts, plans).admit(budget)


def _with_retired(facts: Facts, fleet: FleetFacts) -> Facts:
    reserve = fleet.reserve.get(facts.model, _NO_RESERVE)
    retired = {version: item.retired_for for version, item in reserve.items() if item.retired_for is not None}
    return replace(facts, retired=retired) if retired else facts


class _Rounds:
    """Plans again, without the versions that do not fit, until each model's next version fits or waits."""

    def __init__(self, fleet: FleetFacts, facts: dict[Model, Facts], plans: dict[Model, ModelPlan]) -> None:
        self._fleet = fleet
        self._first_facts = facts
        self._facts = dict(facts)
        self._plans = plans
        self._to_weigh: dict[Model, Version] = {}
        self._ready = {
            (item.model, item.version): item.weight
            for item in fleet.transfers
            if item.state is TransferState.READY
            and fleet.offers.get(item.model, {}).get(item.version) == item.offer
        }

    def admit(self, budget: Budget) -> Admitted:
        """Plan until every next version fits, or waits for room that is being made."""
        memories = _elsewhere(self._fleet.memory.elsewhere)
        refused: dict[Model, dict[Version, Shortage]] = {}
        short: dict[Model, Shortage] = {}
        changed = set(self._first_facts)
        for _ in range(MOST_ROUNDS):
            for model in changed:
                memories[model] = self._memory_of(self._facts[model], self._plans[model])
            short = check_budget(memories.values(), budget, self._fleet.memory.when_short)
            changed = {model for model, found in short.items() if found.remedy is Remedy.REFUSED}
            if not changed:
                break
            for model in changed:
                self._refuse(model, short[model], refused.setdefault(model, {}))
        for model, found in short.items():
            self._change(model, replace(self._facts[model], memory=found))
        waiting = [(model, found) for model, found in short.items() if found.remedy is not Remedy.REFUSED]
        return Admitted(
            facts=self._facts,
            plans=self._plans,
            refused=refused,
            shortages=tuple((model, each) for model, all_of in refused.items() for each in all_of.values())
            + tuple(waiting),
            loaded=tuple(
                Loaded(model_memory.model, version, size)
                for model_memory in memories.values()
                for version, size in model_memory.loaded.items()
            ),
            to_weigh=frozenset(self._to_weigh.items()),
        )

    def _change(self, model: Model, facts: Facts) -> None:
        self._facts[model] = facts
        self._plans[model] = plan(facts)

    def _refuse(self, model: Model, short: Shortage, refused: dict[Version, Shortage]) -> None:
        facts = self._first_facts[model]
        left = [version for version, successor in facts.retired.items() if successor == short.version]
        if left and not short.note and is_gap(facts):
            who = ", ".join(map(str, sorted(left)))
            text = f"; {who} made room for it, but it does not fit by what is known now: {who} comes back"
            short = replace(short, note=text)
        refused[short.version] = short
        holds = {version: Hold(Reason.MEMORY_SHORT, found.text) for version, found in refused.items()}
        self._change(model, replace(facts, held={**facts.held, **holds}))

    # -- one model's share ----------------------------------------------------------------------------

    def _memory_of(self, facts: Facts, done: ModelPlan) -> ModelMemory:
        model, memory = facts.model, self._fleet.memory
        unloading = memory.unloading.get(model, _NONE) - facts.shelf.keys()
        sizes = {
            version: self._estimate(model, memory.weights.get((model, version), 0))
            for version in sorted(_on_shelf(facts) | unloading)
        }
        gap = is_gap(facts)
        model_memory = ModelMemory(
            model=model,
            loaded=sizes,
            unloading=unloading,
            retirable=_retirable(facts, done) & sizes.keys(),
            gap=gap,
        )
        return self._with_candidate(model_memory, facts, done)

    def _with_candidate(self, model_memory: ModelMemory, facts: Facts, done: ModelPlan) -> ModelMemory:
        """Add the version that the plan brings next, if it takes room and its size is known."""
        model, memory = facts.model, self._fleet.memory
        self._to_weigh.pop(model, None)
        for action in done.actions:
            if not isinstance(action, Install | Restore) or not is_loaded_when_there(facts, action.version):
                continue
            version, key = action.version, (model, action.version)
            restored = isinstance(action, Restore)
            if restored:
                weight = memory.weights.get(key)
            else:
                weight = self._ready.get(key)
                if weight is None and key not in memory.offered_weights:
                    self._to_weigh[model] = version
                weight = memory.offered_weights.get(key) if weight is None else weight
            if weight is None:
                continue
            return replace(
                model_memory,
                candidate=version,
                candidate_bytes=self._estimate(model, weight),
                proven=restored or key in self._ready,
                comes_back=model_memory.gap and version in facts.retired,
                swing=self._fleet.reserve.get(model, _NO_RESERVE).get(version, _NOT_RESERVED).swing_bytes,
            )
        return model_memory

    def _estimate(self, model: Model, weight: int) -> int:
        memory: MemoryFacts = self._fleet.memory
        return estimate(weight, memory.factor, memory.observed.get(model, 0.0))


_NOT_RESERVED: Final = Reserved(at=0.0)


def _elsewhere(found: tuple[Loaded, ...]) -> dict[Model, ModelMemory]:
    """Return the memory of models that cannot be read now: what they had loaded before."""
    sizes: dict[Model, dict[Version, int]] = {}
    for item in found:
        sizes.setdefault(item.model, {})[item.version] = item.bytes
    return {model: ModelMemory(model, each) for model, each in sizes.items()}


def is_gap(facts: Facts) -> bool:
    """Tell whether nothing of a model is on the shelf because a version has made room for another one."""
    return bool(facts.retired) and not any(item.is_ours for item in facts.shelf.values())


def is_loaded_when_there(facts: Facts, version: Version) -> bool:
    """Tell whether putting a version on the shelf makes the server load it."""
    if version in facts.shelf:
        return False
    return facts.server.policy is ServerPolicy.ALL or version > max(facts.shelf, default=-1)


def _on_shelf(facts: Facts) -> frozenset[Version]:
    """Return what the server has loaded, or loads when it starts: the highest alone by policy latest."""
    if facts.server.policy is ServerPolicy.ALL or not facts.shelf:
        return frozenset(facts.shelf)
    loaded = {v for v, served in (facts.server.versions or {}).items() if served.state in IN_MEMORY}
    return frozenset({max(facts.shelf)} | loaded & facts.shelf.keys())


def _retirable(facts: Facts, done: ModelPlan) -> frozenset[Version]:
    """Return the versions that may leave before their successors come; none while the server is silent."""
    server = facts.server
    if server.asked and server.versions is None:
        return _NONE
    busy = {v for v, served in (server.versions or {}).items() if served.state in READ_BY_SERVER}
    owned = {v for v, item in facts.shelf.items() if item.is_ours}
    return frozenset(owned - done.wanted - busy - facts.labelled)
