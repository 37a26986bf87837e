"""What there is at one moment, as facts for the planner: the disk by its names and stamps, never by contents.

Store and server are seen as they last answered. Nothing is changed anywhere.
"""

import hashlib
import math
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import Final

from servesync import __version__, disk
from servesync.agent.context import AgentContext, isolate
from servesync.agent.models_config import labels_of, told
from servesync.agent.state import TransferUnderWay
from servesync.agent.weights import OfferedWeights
from servesync.confirm import find_budget
from servesync.errors import Reason, ServerError, SyncError
from servesync.install import Inventory, Record, Refusals
from servesync.plan.facts import (
    Condition,
    Everything,
    Facts,
    Follow,
    Hold,
    Kind,
    Latest,
    Pin,
    Policy,
    Served,
    Server,
)
from servesync.plan.fleet_facts import (
    FleetFacts,
    Key,
    MemoryFacts,
    Reserved,
    Transfer,
    TransferState,
)
from servesync.plan.hearsay import heard
from servesync.plan.memory import Loaded, WhenShort, estimate
from servesync.plan.versions import Model, Release, Version, parse_version
from servesync.plan.view import View, chosen
from servesync.settings import ModelSettings

TAKES_THE_NUMBER: Final = (
    "was not put there by servesync, and the server takes its name for this version: move it away by hand"
)
LISTING_SECONDS: Final = 5.0
"""How long a proven version waits for the listing that shows whether it is still offered."""
FRESH_LISTING_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class ModelSnapshot:
    """One model. `said`: what records are to keep of the server's word, where that has changed.

    `unreadable`: what to say of records that are there and cannot be read.
    """

    settings: ModelSettings
    inventory: Inventory
    reserve: Mapping[Version, Record]
    offered: Mapping[Version, Release]
    facts: Facts
    said: Mapping[Version, str]
    unreadable: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All models. `broken`: those that could not be read, and why. `settling_seconds`: see `settling`."""

    models: Mapping[Model, ModelSnapshot]
    broken: Mapping[Model, SyncError]
    fleet: FleetFacts
    settling_seconds: float | None = None
    """Until a listing may show that a wanted directory release has settled; None if none is settling."""


def take_snapshot(context: AgentContext, *, server_is_late: bool) -> Snapshot:
    """Return what there is now. `server_is_late`: it has not answered in time, and counts as silent."""
    now = context.now()
    settling = _settling(context)
    models: dict[Model, ModelSnapshot] = {}
    broken: dict[Model, SyncError] = {}
    for model, settings in context.models.items():
        try:
            reader = _ModelReader(context, model, settings, settling.get(model, {}), now)
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


def policy_of(settings: ModelSettings) -> Policy:
    """Return the policy that a model's settings ask for."""
    versions = settings.versions
    if versions.latest is not None:
        return Latest(versions.latest)
    if versions.pin is not None:
        return Pin(frozenset(Version(number) for number in versions.pin))
    if versions.channel is not None:
        return Follow(tuple(versions.channel))
    return Everything()


def served_now(context: AgentContext, model: Model) -> tuple[Version, Record | None] | None:
    """Return the highest version that the server has confirmed, and its record; None if there is none.

    Where there is no server to ask, the highest installed one. It counts while it is repaired, doubted, or
    off the shelf for a moment, too; and so does one whose record cannot be read.

    Raises:
        OSError: the records cannot be read.
    """
    away = context.reserve(model).versions().items()
    known = {version: record for version, record in away if record.returning}
    shelf = context.shelf(model)
    known |= shelf.records()
    asked = context.ports.server is not None
    good = {version for version, record in known.items() if record.confirmed or not asked}
    good |= shelf.unrecorded()
    return (max(good), known.get(max(good))) if good else None


def refusals_of(context: AgentContext, model: Model) -> Refusals:
    """Return the refused releases of `model`, as far as the present settings would refuse them again.

    Raises:
        OSError: the records cannot be read.
    """
    settings, wish = context.settings, context.models[model].signatures
    parts = [__version__, settings.verify.model_dump_json(), settings.limits.model_dump_json(), repr(wish)]
    if wish == "as_served":
        served = served_now(context, model)
        parts.append(str(served[0] if served else None))
    judge = "\n".join(parts)
    return Refusals(context.workspace.refusals(model), hashlib.sha256(judge.encode()).hexdigest()[:16])


# -- one model ------------------------------------------------------------------------------------------


class _ModelReader:
    """Reads one model: shelf, reserve and records, and what is remembered of it."""

    def __init__(
        self,
        context: AgentContext,
        model: Model,
        settings: ModelSettings,
        settling: Mapping[Version, float],
        now: float,
    ) -> None:
        self._context = context
        self._state = context.state
        self._model = model
        self._settings = settings
        self._settling = settling
        self._now = now

    def read(self, *, server_is_late: bool) -> ModelSnapshot:
        context, state, model = self._context, self._state, self._model
        inventory = context.shelf(model).inventory(state.checked.setdefault(model, {}))
        served = self._served(inventory, server_is_late=server_is_late)
        versions, said = _heard(served, inventory)
        reserve, lost = context.reserve(model).contents()
        refusals = refusals_of(context, model)
        returning = frozenset(version for version, record in reserve.items() if record.returning)
        cooling = state.watch.cooling_down(model, self._now)
        listing = state.store.listing_of(model)
        releases = listing.releases.get(model, ()) if listing else ()
        offered = {release.version: release for release in releases}
        channels = state.notices.positions(model)
        labels = labels_of(context.settings.serving, self._settings, channels)
        facts = Facts(
            model=model,
            policy=policy_of(self._settings),
            offered=None if listing is None else {v: release.identity for v, release in offered.items()},
            held=_rests(cooling - returning) | self._holds(offered, inventory, refusals),
            shelf=inventory.versions,
            reserve={version: record.identity for version, record in reserve.items()},
            returning=returning,
            resting=cooling,
            channels=channels,
            withdrawn=state.notices.withdrawn(model, offered, refusals),
            server=self._server(versions),
            labels=labels,
            labelled=context.config.labelled(model, labels) if context.config else frozenset(),
            retired={
                version: Version(record.retired_for)
                for version, record in reserve.items()
                if record.retired_for is not None
            },
        )
        unreadable = (
            *inventory.unreadable.values(),
            *lost.values(),
            *refusals.unreadable().values(),
            *state.notices.unreadable(model).values(),
        )
        return ModelSnapshot(self._settings, inventory, reserve, offered, facts, said, unreadable)

    def _served(self, inventory: Inventory, *, server_is_late: bool) -> Mapping[Version, Served] | None:
        """Return the server's last answer for the model, after the watch has taken note of it."""
        view, shelf = self._state.server, inventory.versions
        for answers in view.unnoted:
            heard_now = answers.said.get(self._model)
            if heard_now is not None:
                self._state.watch.saw(self._model, heard_now, shelf, answers.asked_at, answers.started_at)
        said = view.answers.said.get(self._model) if view.answers else None
        return None if said is None or isinstance(said, ServerError) or server_is_late else said

    def _server(self, versions: Mapping[Version, Served] | None) -> Server:
        serving, watch = self._context.settings.serving, self._state.watch
        policy, latest = told(serving, self._settings)
        one_pass = self._context.one_pass
        silent = watch.silent_seconds(self._model, self._now)
        server = Server(
            asked=self._context.ports.server is not None,
            policy=policy,
            versions=versions,
            load_timeout_seconds=serving.load_timeout_seconds,
            scan_seconds=serving.scan_interval_seconds,
            may_be_starting=not one_pass and silent < serving.load_timeout_seconds,
            latest=latest,
        )
        found = watch.facts(self._model, self._now, server)
        if one_pass:
            return replace(found, unreachable_seconds={}, answered_seconds=math.inf)
        return found

    def _holds(
        self, offered: Mapping[Version, Release], inventory: Inventory, refusals: Refusals
    ) -> dict[Version, Hold]:
        """Return why versions are not to be fetched now; what is said last counts."""
        store, model = self._context.settings.store, self._model
        holds = {
            version: Hold(
                Reason.RELEASE_INCOMPLETE,
                "a directory without a manifest; it counts as complete when it has not changed for "
                f"{store.settle_seconds:g} s (at the last listing, {left:.0f} s were left)",
            )
            for version, left in self._settling.items()
        }
        identities = {version: release.offer for version, release in offered.items()}
        if store.require_manifest:
            text = (
                "it has no manifest, and store.require_manifest asks for one; `servesync manifest` makes it"
            )
            holds |= {
                version: Hold(Reason.RELEASE_UNPROVEN, text)
                for version, release in offered.items()
                if release.manifest is None
            }
        wall = self._context.ports.clock.wall()
        holds |= self._state.attempts.holds(model, identities, self._now, wall)
        foreign = {v for v, item in inventory.versions.items() if not item.is_ours}
        holds |= refusals.holds(offered, foreign)
        holds |= {
            version: Hold(
                Reason.VERSION_FOREIGN,
                f"{str(self._context.workspace.shelf(model) / name)!a} {TAKES_THE_NUMBER}",
            )
            for name in inventory.strange
            if (version := parse_version(name.strip(" \t\n\v\f\r").removeprefix("+"))) is not None
        }
        holds |= {
            version: Hold(Reason.RECORD_UNREADABLE, inventory.unreadable[version])
            for version in inventory.blocking
        }
        return holds | self._problems()

    def _problems(self) -> dict[Version, Hold]:
        listing = self._state.store.listing_of(self._model)
        found = listing.problems.items() if listing else ()
        return {
            version: Hold(error.reason, str(error)) for (name, version), error in found if name == self._model
        }


def _heard(
    versions: Mapping[Version, Served] | None, inventory: Inventory
) -> tuple[Mapping[Version, Served] | None, dict[Version, str]]:
    """Return what the server says with old news marked as such, and what records are to keep of it now."""
    if versions is None:
        return None, {}
    found, said = dict(versions), {}
    for version, item in inventory.versions.items():
        served, kept = heard(versions.get(version), item.said_before)
        if served is not None:
            found[version] = served
        if kept != item.said_before:
            said[version] = kept
    return found, said


def _rests(versions: AbstractSet[Version]) -> dict[Version, Hold]:
    text = "taken off the shelf a moment ago; the server must see it gone before it may come again"
    return dict.fromkeys(versions, Hold(Reason.SERVER_REFUSED, text))


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
    present = View(found.facts).candidates
    return (
        chosen(found.facts.policy, present | settling, found.facts.channels)
        & settling - found.inventory.versions.keys()
    )


def _memory(
    context: AgentContext, models: dict[Model, ModelSnapshot], broken: dict[Model, SyncError], now: float
) -> MemoryFacts:
    """Return what is known of the server's memory; a model whose weights cannot be read is broken."""
    settings, weights = context.settings.memory, context.state.weights
    budget, source = find_budget(settings, context.ports.footprint.limit)
    if budget is None:
        return MemoryFacts(source=source)
    known: dict[Key, int] = {}
    unloading: dict[Model, frozenset[Version]] = {}
    for model, found in list(models.items()):
        unloading[model] = context.state.unloading.of(found.facts, now)
        try:
            known |= _weights_of(context, found, unloading[model])
        except OSError as problem:
            broken[model] = disk.describe(problem, f"reading what the versions of {model} weigh")
            del models[model]
    elsewhere = [
        Loaded(model, version, estimate(weight, settings.factor, weights.observed(model)))
        for (model, version), weight in context.state.last_weights.items()
        if model in broken
    ]
    context.state.last_weights = {
        key: weight for key, weight in context.state.last_weights.items() if key[0] in broken
    } | known
    return MemoryFacts(
        budget=budget,
        source=source,
        when_short=WhenShort(settings.when_short),
        factor=settings.factor,
        weights=known,
        offered_weights=OfferedWeights(weights, {model: found.offered for model, found in models.items()}),
        observed={model: weights.observed(model) for model in models},
        unloading=unloading,
        elsewhere=tuple(elsewhere),
    )


def _weights_of(context: AgentContext, found: ModelSnapshot, unloading: frozenset[Version]) -> dict[Key, int]:
    facts, weights = found.facts, context.state.weights
    model = facts.model
    present = facts.shelf.keys() | facts.reserve.keys() | unloading
    weights.keep(model, present, found.offered)
    known = {}
    for version in present:
        key = (model, version)
        item = facts.shelf.get(version)
        if item is not None and item.condition in {Condition.FOREIGN, Condition.UNRECORDED}:
            known[key] = weights.of_foreign(key)
            continue
        identity = item.identity if item else facts.reserve.get(version)
        known[key] = weights.of_installed(key, identity) or 0
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
    """Whether a proven version may be put in place: the store was looked at once more since it came.

    A store that does not answer by then keeps nothing away.
    """
    if ready_at is None:
        return False
    tried_at = context.state.store.tried_at
    looked = tried_at is not None and tried_at >= ready_at - FRESH_LISTING_SECONDS
    return looked or now - ready_at >= LISTING_SECONDS
