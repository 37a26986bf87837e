"""Takes the snapshot for the planner: the disk by its names and stamps, never by contents.

Store and server count as they last answered. A snapshot changes nothing.
"""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from typing import Final

from servesync import disk
from servesync.admin import HeldVersion
from servesync.agent.context import AgentContext, isolate
from servesync.agent.memory_estimates import OfferedEstimates
from servesync.agent.model_snapshot import ModelReader, ModelSnapshot
from servesync.agent.models_config import Draft
from servesync.agent.state import TransferUnderWay
from servesync.domain.versions import Model, Version
from servesync.errors import ServerError, StoreError, SyncError
from servesync.install import Record
from servesync.planning.actions import Kind
from servesync.planning.facts import Condition
from servesync.planning.facts_index import FactsIndex, chosen
from servesync.planning.fleet_facts import (
    FleetFacts,
    FleetPlan,
    Key,
    MemoryFacts,
    Reserved,
    Transfer,
    TransferState,
)
from servesync.planning.memory import Loaded, WhenShort, estimate
from servesync.serving import find_budget
from servesync.store import Listing
from servesync.transfer.sources.supply import Forecast

LISTING_SECONDS: Final = 5.0
"""How long a proven version waits for the listing that shows whether it is still offered."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All models. `broken`: those that could not be read, and why. `settling_seconds`: see `settling`."""

    models: Mapping[Model, ModelSnapshot]
    broken: Mapping[Model, SyncError]
    fleet: FleetFacts
    settling_seconds: float | None = None
    """Until a listing may show that a wanted directory release has settled; None if none is settling."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What one turn of the agent has found and decided: for the log, the page, and `servesync plan`.

    `config`: what `serving.config_file` is to say; None if the agent writes none. `held`: each model's newest
    version, where something keeps it off the shelf. `forecasts`: of what comes, how much is to be fetched;
    only `servesync plan` asks for it.
    """

    snapshot: Snapshot
    plan: FleetPlan
    listing: Listing | None = None
    store_error: StoreError | None = None
    server_error: ServerError | None = None
    config: Draft | None = None
    held: Mapping[Model, HeldVersion] = field(default_factory=dict)
    forecasts: Mapping[Key, Forecast] = field(default_factory=dict)


def take_snapshot(context: AgentContext, *, server_is_late: bool) -> Snapshot:
    """Return what there is now. `server_is_late`: it has not answered in time, and counts as silent."""
    now = context.now()
    settling = _settling(context)
    models: dict[Model, ModelSnapshot] = {}
    broken: dict[Model, SyncError] = {}
    for model, settings in context.models.items():
        try:
            reader = ModelReader(context, model, settings, settling.get(model, {}), now)
            found = isolate(lambda reader=reader: reader.read(server_is_late=server_is_late))  # type: ignore[misc]
        except OSError as problem:
            found = disk.describe(problem, f"reading the shelf of {model}")
        if isinstance(found, SyncError):
            broken[model] = found
        else:
            models[model] = found
    context.state.server.unnoted.clear()
    memory = _memory(context, models, broken, now)
    fleet = _fleet(context, models, frozenset(broken), memory, now)
    return Snapshot(models, broken, fleet, _settling_seconds(context, models, settling, now))


# -- over all models ------------------------------------------------------------------------------------


def _settling(context: AgentContext) -> dict[Model, dict[Version, float]]:
    """Return the seconds after the last listing that each settling release must stay unchanged."""
    store = context.state.store
    if store.listing is None:
        return {}
    return {
        model: context.state.settling.remaining(model, releases, store.asked_at)
        for model, releases in store.listing.releases.items()
    }


def _settling_seconds(
    context: AgentContext,
    models: Mapping[Model, ModelSnapshot],
    settling: Mapping[Model, Mapping[Version, float]],
    now: float,
) -> float | None:
    waits = [
        settling[model][version] + context.state.store.asked_at - now
        for model, found in models.items()
        for version in _awaited(found, settling.get(model, {}).keys())
    ]
    return min(waits, default=None)


def _awaited(found: ModelSnapshot, settling: AbstractSet[Version]) -> frozenset[Version]:
    """Return the settling versions that policy would bring if they were complete."""
    present = FactsIndex(found.facts).candidates
    return (
        chosen(found.facts.policy, present | settling, found.facts.channels)
        & settling - found.inventory.versions.keys()
    )


def _memory(
    context: AgentContext, models: dict[Model, ModelSnapshot], broken: dict[Model, SyncError], now: float
) -> MemoryFacts:
    """Return what is known of the server's memory; a model whose weights cannot be read is broken."""
    settings, estimates = context.settings.memory, context.state.memory.estimates
    budget, source = find_budget(settings, context.ports.footprint.limit)
    if budget is None:
        return MemoryFacts(source=source)
    known: dict[Key, int] = {}
    unloading: dict[Model, frozenset[Version]] = {}
    for model, found in list(models.items()):
        unloading[model] = context.state.memory.unloading.of(found.facts, now)
        try:
            known |= _weights_of(context, found, unloading[model])
        except OSError as problem:
            broken[model] = disk.describe(problem, f"reading what the versions of {model} weigh")
            del models[model]
    elsewhere = [
        Loaded(model, version, estimate(weight, settings.factor, estimates.observed(model)))
        for (model, version), weight in context.state.memory.last_weights.items()
        if model in broken
    ]
    context.state.memory.last_weights = {
        key: weight for key, weight in context.state.memory.last_weights.items() if key[0] in broken
    } | known
    return MemoryFacts(
        budget=budget,
        source=source,
        when_short=WhenShort(settings.when_short),
        factor=settings.factor,
        weights=known,
        offered_weights=OfferedEstimates(
            estimates, {model: found.offered for model, found in models.items()}
        ),
        observed={model: estimates.observed(model) for model in models},
        unloading=unloading,
        elsewhere=tuple(elsewhere),
    )


def _weights_of(context: AgentContext, found: ModelSnapshot, unloading: frozenset[Version]) -> dict[Key, int]:
    facts, estimates = found.facts, context.state.memory.estimates
    model = facts.model
    present = facts.shelf.keys() | facts.reserve.keys() | unloading
    estimates.keep(model, present, found.offered)
    known = {}
    for version in present:
        key = (model, version)
        item = facts.shelf.get(version)
        if item is not None and item.condition in {Condition.FOREIGN, Condition.UNRECORDED}:
            known[key] = estimates.of_foreign(key)
            continue
        identity = item.identity if item else facts.reserve.get(version)
        known[key] = estimates.of_installed(key, identity) or 0
    return known


def _fleet(
    context: AgentContext,
    models: Mapping[Model, ModelSnapshot],
    broken: frozenset[Model],
    memory: MemoryFacts,
    now: float,
) -> FleetFacts:
    state, settings = context.state, context.settings
    return FleetFacts(
        now=now,
        models={model: found.facts for model, found in models.items()},
        broken=broken,
        offers={
            model: {version: release.offer for version, release in found.offered.items()}
            for model, found in models.items()
        },
        memory=memory,
        gate=replace(
            state.gate,
            pause_seconds=settings.serving.pause_between_loads_seconds,
            patience_seconds=settings.serving.load_timeout_seconds,
        ),
        transfers=tuple(_transfers(context, now)),
        interrupted=tuple(
            Transfer(item.model, item.version, item.offer, TransferState.READY)
            for item in state.upkeep.interrupted.values()
        ),
        most_transfers=settings.fetch.transfers,
        required=frozenset(model for model, item in context.models.items() if item.required),
        last_brought=dict(state.last_brought),
        paused=_paused(context, models, now),
        reserve={
            model: {version: _reserved(record) for version, record in found.reserve.items()}
            for model, found in models.items()
        },
        reserve_keep=settings.reserve.keep,
        orphaned={model: frozenset(found.inventory.orphaned) for model, found in models.items()},
        unreadable={model: found.inventory.blocking for model, found in models.items()},
    )


def _reserved(record: Record) -> Reserved:
    at = (record.reserved_at or record.at).timestamp()
    retired_for = None if record.retired_for is None else Version(record.retired_for)
    return Reserved(at, record.returning, retired_for, record.need_bytes, record.swing_bytes)


def _paused(
    context: AgentContext, models: Mapping[Model, ModelSnapshot], now: float
) -> frozenset[tuple[Model, Version, Kind]]:
    """Return the actions that have failed a moment ago."""
    kinds = {kind.value: kind for kind in Kind}
    return frozenset(
        (model, version, kinds[identity])
        for (model, version), identity in context.state.attempts.paused(now)
        if model in models and identity in kinds
    )


def _transfers(context: AgentContext, now: float) -> list[Transfer]:
    return [
        Transfer(
            model=model,
            version=version,
            offer=item.release.offer,
            state=_state_of(context, item, now),
            weight=item.staged.weight if item.staged else None,
        )
        for (model, version), item in context.state.transfers.items()
    ]


def _state_of(context: AgentContext, item: TransferUnderWay, now: float) -> TransferState:
    if item.is_cancelled:
        return TransferState.ENDING
    return TransferState.READY if _is_ready(context, item.ready_at, now) else TransferState.RUNNING


def _is_ready(context: AgentContext, ready_at: float | None, now: float) -> bool:
    """Whether a proven version may be put in place: the store was listed once more since it came.

    After `LISTING_SECONDS` it may in any case, even if the store does not answer.
    """
    if ready_at is None:
        return False
    tried_at = context.state.store.tried_at
    looked = tried_at is not None and tried_at >= ready_at
    return looked or now - ready_at >= LISTING_SECONDS
