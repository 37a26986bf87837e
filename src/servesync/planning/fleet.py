"""The plan over all models at once: facts in, steps with a reason out; the same facts, the same answer.

1. Memory admission (`planning.admission`) makes each model's plan (`planning.planner`), and plans again
   without the versions that the server's memory has no room for.
2. Transfers of versions that are no longer wanted end; each model's other actions and its reserve follow.
3. What comes, comes in order (`planning.transfers`): what lies in staging or in the reserve is a rename,
   everything else a transfer that starts as soon as one may.
4. What makes the server load something passes the load gate (`planning.load_gate`), one for each plan.

An action that has just failed is not in the plan until its pause is over.
"""

from collections.abc import Iterator

from servesync.domain.versions import Model
from servesync.planning.actions import (
    Action,
    Confirm,
    Fetch,
    FleetAction,
    Install,
    Prune,
    Repair,
    Restore,
    Wait,
)
from servesync.planning.admission import Admitted, admit
from servesync.planning.fleet_facts import FleetFacts, FleetPlan, Key, Step
from servesync.planning.load_gate import LoadOrder, loading, renewed
from servesync.planning.reserve import awaited, completed_prune, tidy
from servesync.planning.transfers import Arrivals, cancelled, outdated


def plan_fleet(facts: FleetFacts) -> FleetPlan:
    """Return what to do now over all models, and in which order."""
    return _Planner(facts).plan()


class _Planner:
    """Collects the steps of one plan."""

    def __init__(self, fleet: FleetFacts) -> None:
        self._fleet = fleet
        self._admitted: Admitted = admit(fleet)
        plans = self._admitted.plans
        self._loading = loading((self._admitted.facts[model], plan) for model, plan in plans.items())
        self._gate = renewed(fleet.gate, self._loading, fleet.now)
        self._order = LoadOrder(self._gate, fleet.now, self._loading | self._unmeasured())
        self._awaited = awaited(fleet, self._admitted)
        self._steps: list[Step] = []
        self._postponed: list[Step] = []

    def plan(self) -> FleetPlan:
        """Return the plan."""
        gone = self._cancel()
        for model in self._admitted.plans:
            for action in self._others(model):
                self._take(model, action)
        self._bring(gone)
        return FleetPlan(
            models=self._admitted.plans,
            steps=tuple(self._steps),
            postponed=tuple(self._postponed),
            shortages=self._admitted.shortages,
            loaded=self._admitted.loaded,
            to_weigh=self._admitted.to_weigh,
            loading=self._loading,
            awaited=self._awaited,
            outdated=outdated(self._fleet, self._admitted),
            gate=self._gate,
        )

    def _unmeasured(self) -> frozenset[Model]:
        """Return the models with a version that is to be confirmed now: its growth is learnt then."""
        return frozenset(
            model
            for model, plan in self._admitted.plans.items()
            for action in plan.actions
            if isinstance(action, Confirm) and not self._is_paused(model, action)
        )

    def _is_paused(self, model: Model, action: FleetAction) -> bool:
        return (model, action.version, action.kind) in self._fleet.paused

    def _take(self, model: Model, action: FleetAction) -> None:
        """Take an action into the plan, or postpone it; not one that failed a moment ago."""
        if self._is_paused(model, action):
            return
        passes = self._order.lets_through(self._admitted.facts[model], action)
        (self._steps if passes else self._postponed).append(Step(model, action))

    def _cancel(self) -> frozenset[Key]:
        ends = tuple(cancelled(self._fleet, self._admitted))
        self._steps += [step for step in ends if not self._is_paused(step.model, step.action)]
        return frozenset((step.model, step.action.version) for step in ends)

    def _others(self, model: Model) -> Iterator[FleetAction]:
        """Yield what is to be done for one model besides bringing versions."""
        facts = self._admitted.facts[model]
        for action in self._admitted.plans[model].actions:
            if isinstance(action, Prune):
                yield completed_prune(self._fleet, facts, action)
            elif not _is_arrival(action):
                yield action
        yield from tidy(self._fleet, self._admitted, model, self._awaited)

    def _bring(self, gone: frozenset[Key]) -> None:
        arrivals = Arrivals(self._fleet, self._admitted, gone)
        for arrival in arrivals.in_order():
            model, action = arrival.model, arrival.action
            if not isinstance(action, Fetch):
                self._take(model, action)
            elif not self._is_paused(model, action):
                starts = arrivals.may_start(arrival)
                (self._steps if starts else self._postponed).append(Step(model, action))


def _is_arrival(action: Action) -> bool:
    return isinstance(action, Restore | Install | Repair | Wait)
