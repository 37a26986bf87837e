"""Decides which model may give the server a version to load: one at a time, with a pause if one is set.

Loading competes with requests for processors and memory. While an answering server loads a version of one
model, or that version is on trial, no other model gets a new one. The gate is open while the server is
silent, and for a version that the server has not loaded within its timeout.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from servesync.domain.versions import Model, Version
from servesync.planning.actions import FleetAction, Install, Prune, Restore, Wait
from servesync.planning.facts import Facts, ModelPlan, ServerState
from servesync.planning.fleet_facts import LoadGate, Step

UNSEEN_SECONDS: Final = 30.0
"""How long a version that an answering server does not list holds up other models: it may not have looked."""


def loading(seen: Iterable[tuple[Facts, ModelPlan]]) -> frozenset[Model]:
    """Return the models of which an answering server is loading a version, or about to."""
    return frozenset(
        facts.model
        for facts, plan in seen
        if facts.server.asked and facts.server.versions is not None
        for action in plan.actions
        if isinstance(action, Wait) and not action.overdue and _holds_up(facts, action.version)
    )


def _holds_up(facts: Facts, version: Version) -> bool:
    if version not in facts.shelf:
        return False
    waited = facts.server.waited_seconds.get(version, 0.0)
    served = (facts.server.versions or {}).get(version)
    if served is None or served.stale:
        return waited < min(UNSEEN_SECONDS, facts.server.load_timeout_seconds)
    if version in facts.on_trial():
        return version not in (facts.server.trials or {})
    loads = served.state in {ServerState.START, ServerState.LOADING}
    return loads and waited < facts.server.load_timeout_seconds


def renewed(gate: LoadGate, now_loading: frozenset[Model], now: float) -> LoadGate:
    """Return the gate after the models that load now are known; no model stays next for ever."""
    return replace(
        gate,
        ended_at=now if gate.loading - now_loading else gate.ended_at,
        loading=now_loading,
        retired_at={m: at for m, at in gate.retired_at.items() if now - at < gate.patience_seconds},
    )


def after_step(gate: LoadGate, step: Step, facts: Facts, now: float, *, done: bool) -> LoadGate:
    """Return the gate after a step was carried out, or (`done` False) tried in vain.

    `facts`: those of the step's model with which it was planned.
    """
    model = step.model
    if done and makes_room(step.action):
        return replace(gate, retired_at={model: now, **gate.retired_at})
    if not makes_load(facts, step.action):
        return gate
    loads = done and facts.server.versions is not None
    return replace(
        gate,
        loading=gate.loading | {model} if loads else gate.loading,
        retired_at={name: at for name, at in gate.retired_at.items() if name != model},
    )


def makes_room(action: FleetAction) -> bool:
    """Tell whether an action takes a version away before its successor has come."""
    return isinstance(action, Prune) and action.retired_for is not None


def makes_load(facts: Facts, action: FleetAction) -> bool:
    """Tell whether an action makes the server load a version."""
    return isinstance(action, Install | Restore) and action.version not in facts.shelf


@dataclass
class LoadOrder:
    """Lets the steps of one plan through, in the order in which they ask.

    `unmeasured`: models with a version whose growth in memory is still to be seen, or to be recorded: nothing
    makes room before, because the estimates that ask for it may be about to change.
    """

    gate: LoadGate
    now: float
    unmeasured: frozenset[Model] = frozenset()

    def lets_through(self, facts: Facts, action: FleetAction) -> bool:
        """Tell whether an action may be carried out now; if so, it counts for those that ask later.

        One that makes the server load nothing always may, and so may each while the server does not answer:
        then it has nothing to be spared, and starts the sooner.
        """
        room = makes_room(action)
        if not (room or makes_load(facts, action)) or facts.server.versions is None:
            return True
        if room and self.unmeasured:
            return False
        if (self.gate.loading | self.gate.retired_at.keys()) - {facts.model}:
            return False
        if self.gate.ended_at is not None and self.now - self.gate.ended_at < self.gate.pause_seconds:
            return False
        self.gate = after_step(self.gate, Step(facts.model, action), facts, self.now, done=True)
        return True
