"""Which versions come next, over all models: what is fetched or put in place, and which transfer ends."""

import math
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from servesync.domain.versions import Model, Version
from servesync.errors import Reason
from servesync.planning.actions import Cancel, Fetch, Install, Kind, Repair, Restore, SetAside
from servesync.planning.admission import Admitted, is_gap
from servesync.planning.facts import Condition, Facts, Hold
from servesync.planning.facts_index import FactsIndex, chosen
from servesync.planning.fleet_facts import FleetFacts, Key, Step, Transfer, TransferState
from servesync.planning.memory import Shortage
from servesync.planning.reserve import completed_restore

ArrivingAction = Restore | Install | Repair | SetAside | Fetch


# -- what ends ----------------------------------------------------------------------------------------------


def cancelled(fleet: FleetFacts, admitted: Admitted) -> Iterator[Step]:
    """Yield an order to end every transfer whose version nobody wants any more, and say why."""
    for transfer in fleet.transfers:
        if transfer.state is TransferState.ENDING:
            continue
        because = _why_not(fleet, admitted, transfer)
        if because:
            yield Step(transfer.model, Cancel(transfer.version, because))


def outdated(fleet: FleetFacts, admitted: Admitted) -> dict[Key, str]:
    """Return what interrupted transfers have left with which nobody will go on, and why.

    A hold, whatever it is, may end: what has come by then need not come again.
    """
    found = {
        (item.model, item.version): _why_not(fleet, admitted, item, ends_of_holds=False)
        for item in fleet.interrupted
    }
    return {key: because for key, because in found.items() if because}


def _why_not(
    fleet: FleetFacts, admitted: Admitted, transfer: Transfer, *, ends_of_holds: bool = True
) -> str | None:
    """Return why a transfer is to end; None if it goes on.

    What may pass ends no transfer: a silent server, an unconfirmed version, a hold that passes, or a listing
    that no longer names the version.
    """
    model, version = transfer.model, transfer.version
    facts = admitted.facts.get(model)
    if facts is None:
        return None if model in fleet.broken else "the settings do not name this model any more"
    if version in facts.withdrawn:
        return "it was withdrawn during its transfer"
    offer = fleet.offers.get(model, {}).get(version)
    if offer is not None and offer != transfer.offer:
        return "the store holds something else under this number than when its transfer began"
    ready = transfer.state is TransferState.READY
    item = facts.shelf.get(version)
    if ready and item is not None and item.condition is Condition.GOOD:
        return "it lies on the shelf already"
    if ready and version in FactsIndex(facts).restorable:
        return "it lies in the reserve already, as it was proven"
    if version in admitted.plans[model].wanted:
        return None
    return _why_unwanted(admitted, transfer, facts, ends_of_holds=ends_of_holds)


def _why_unwanted(admitted: Admitted, transfer: Transfer, facts: Facts, *, ends_of_holds: bool) -> str | None:
    version, ready = transfer.version, transfer.state is TransferState.READY
    index = FactsIndex(facts)
    hold = facts.held.get(version)
    if version not in chosen(facts.policy, index.candidates | {version}, facts.channels):
        wanted = ", ".join(map(str, sorted(admitted.plans[transfer.model].wanted))) or "no version"
        return f"not wanted any more by policy ({index.policy}), which asks for {wanted}"
    if ends_of_holds and hold is not None and not _may_pass(hold, version, facts):
        return f"held: {hold.text}"
    if ready and facts.offered is not None and version not in facts.offered:
        return "the store no longer lists it"
    return None


def _may_pass(hold: Hold, version: Version, facts: Facts) -> bool:
    """Whether a transfer outlasts a hold.

    Memory may be short for a moment only: because the server is silent, or another version is loading. A
    version that has come all the same is set aside.
    """
    return hold.passing or hold.reason is Reason.MEMORY_SHORT or version in facts.cooling_down


# -- what comes ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Arrival:
    """What comes next to one model. `rollback`: lower than a version of ours that is to leave for it."""

    model: Model
    action: ArrivingAction
    rank: tuple[bool, bool, bool, float, Model]
    rollback: bool


class Arrivals:
    """Turns "bring this version" into what can be done now: start a transfer, or put in place what came."""

    def __init__(self, fleet: FleetFacts, admitted: Admitted, gone: AbstractSet[Key]) -> None:
        """`gone`: transfers that end now."""
        self._fleet = fleet
        self._admitted = admitted
        self._transfers = {(item.model, item.version): item for item in fleet.transfers}
        self._gone = gone
        self._running = sum(item.state is not TransferState.READY for item in fleet.transfers)
        self._ready = sum(self._piles_up(item) for item in fleet.transfers)

    def in_order(self) -> list[Arrival]:
        """Return what comes: rollbacks, for whom room was made, required models, then who waited longest."""
        found = [
            self._arrival(model, action)
            for model, done in self._admitted.plans.items()
            for planned in done.actions
            if isinstance(planned, Restore | Install | Repair)
            and (action := self._next(model, planned)) is not None
        ]
        found += [self._arrival(model, action) for model, action in self._without_room()]
        return sorted(found, key=lambda item: item.rank)

    def may_start(self, arrival: Arrival) -> bool:
        """Tell whether a transfer may start now, and count it if so.

        What lies in staging and waits for the server keeps others from coming only when `most_transfers` do.
        """
        key = (arrival.model, arrival.action.version)
        if key in self._transfers:
            return False  # the one that ends has the same number
        most = self._fleet.most_transfers
        if not arrival.rollback and (self._running >= most or self._ready >= most):
            return False
        self._running += 1
        return True

    def _piles_up(self, transfer: Transfer) -> bool:
        """Whether a version in staging waits for others, rather than for its own model."""
        key = (transfer.model, transfer.version)
        return (
            transfer.state is TransferState.READY
            and key not in self._gone
            and transfer.model in self._admitted.plans
            and not self._fleet.paused & {(*key, Kind.INSTALL), (*key, Kind.REPAIR), (*key, Kind.SET_ASIDE)}
        )

    def _next(self, model: Model, action: Restore | Install | Repair) -> ArrivingAction | None:
        """Return what is to be done for what one model's plan brings; None: nothing, it is on its way."""
        if isinstance(action, Restore):
            return completed_restore(self._fleet, self._admitted, model, action)
        key = (model, action.version)
        transfer = self._transfers.get(key)
        if transfer is None or key in self._gone or transfer.state is TransferState.ENDING:
            if key in self._admitted.to_weigh:
                return None
            return Fetch(action.version, action.because)
        if transfer.state is TransferState.RUNNING:
            return None
        short = self._admitted.facts[model].memory
        if isinstance(action, Install) and short is not None and short.version == action.version:
            return SetAside(action.version, _why_set_aside(short), short)
        return action

    def _without_room(self) -> Iterator[tuple[Model, SetAside]]:
        """Yield versions in staging for which there is no room, now that their weight is known."""
        for key, transfer in self._transfers.items():
            model, version = key
            short = self._admitted.refused.get(model, {}).get(version)
            if short is not None and transfer.state is TransferState.READY and key not in self._gone:
                yield model, SetAside(version, _why_set_aside(short), short)

    def _arrival(self, model: Model, action: ArrivingAction) -> Arrival:
        fleet, wanted = self._fleet, self._admitted.plans[model].wanted
        facts = self._admitted.facts[model]
        rollback = any(
            version > action.version and item.is_ours and version not in wanted
            for version, item in facts.shelf.items()
        )
        rank = (
            not rollback,
            not (model in fleet.gate.retired_at or is_gap(facts)),
            model not in fleet.required,
            fleet.last_brought.get(model, -math.inf),
            model,
        )
        return Arrival(model, action, rank, rollback)


def _why_set_aside(short: Shortage) -> str:
    return f"proven, and kept in the reserve until there is room: {short.text}"
