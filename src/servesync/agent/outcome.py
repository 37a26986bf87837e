"""The outcome of a turn: whether the agent acted, what is left to do, and when more is due by itself."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from servesync.agent import tidying
from servesync.agent.context import AgentContext
from servesync.agent.snapshot import Seen
from servesync.agent.trials import next_trial
from servesync.domain.versions import Model
from servesync.jobs import JobKind
from servesync.planning.actions import Wait
from servesync.planning.facts import ModelPlan
from servesync.settings import EVERY_MODEL

_WORK: Final = (JobKind.LIST, JobKind.DOCUMENT, JobKind.TRANSFER, JobKind.REREAD, JobKind.EMPTY_TRASH)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a turn did, and what is left. `seen` None: no snapshot was taken; an answer is awaited.

    `acted`: a step was done, or has failed, so that there may be another one to do now.
    `is_due`: another turn is due at once: the agent has acted, and there is no server whose answer it awaits.
    `waiting`: the server (if it answers) is about to say more about a version, and is not overdue, or a step
    waits for the load gate. `suspects`: the server does not answer, and a version that it never served may be
    why. `busy`: a job is at work whose result may change what is to be done, or the trash is being emptied.
    """

    acted: bool = False
    is_due: bool = False
    waiting: bool = False
    suspects: bool = False
    busy: bool = False
    seen: Seen | None = None
    settling_seconds: float | None = None
    retry_seconds: float | None = None
    missing: tuple[Model, ...] = ()
    """Required models without every wanted version complete on the shelf."""

    @property
    def plans(self) -> Mapping[Model, ModelPlan]:
        """Each model's plan."""
        return self.seen.plan.models if self.seen else {}

    @property
    def store_failed(self) -> bool:
        """Whether the store did not answer when it was last asked."""
        return self.seen is not None and self.seen.store_error is not None

    @property
    def server_answers(self) -> bool:
        """Whether the server answers, or none is configured."""
        return self.seen is None or self.seen.server_error is None


def outcome_of(context: AgentContext, seen: Seen, *, acted: bool, is_late: bool, works: bool) -> Outcome:
    """Return the outcome of a turn.

    Args:
        context: The agent's surroundings and state.
        seen: What the turn has found and decided.
        acted: Whether a step was done, or has failed.
        is_late: Whether the server has not answered in time.
        works: Whether the agent holds the lock, so that it removes what lies in the trash.
    """
    plans = seen.plan.models
    answers = seen.server_error is None
    waits = [action for plan in plans.values() for action in plan.actions if isinstance(action, Wait)]
    return Outcome(
        acted=acted,
        is_due=acted and context.ports.server is None,
        waiting=answers and (bool(seen.plan.postponed) or not all(action.overdue for action in waits)),
        suspects=not answers and bool(waits),
        busy=any(context.is_busy(kind) for kind in _WORK)
        or (works and context.state.upkeep.trash_is_due)
        or (context.is_busy(JobKind.ASK_SERVER) and not is_late)
        or not context.state.documents.is_idle
        or bool(context.state.transfers)
        or tidying.is_checking(seen),
        seen=seen,
        settling_seconds=seen.snapshot.settling_seconds,
        retry_seconds=_retry_seconds(context),
        missing=_missing(context, plans),
    )


def _missing(context: AgentContext, plans: Mapping[Model, ModelPlan]) -> tuple[Model, ...]:
    """Return the required models that are not in place; "*" itself as long as it stands for none."""
    models, every = context.models, context.every_model
    missing = [
        model
        for model, settings in models.items()
        if settings.required and not (model in plans and plans[model].in_place)
    ]
    if every is not None and every.required and not models:
        missing.append(Model(EVERY_MODEL))
    return tuple(missing)


def _retry_seconds(context: AgentContext) -> float | None:
    """Return after how many seconds something is due by itself; None if nothing is."""
    now, state = context.now(), context.state
    due = [state.attempts.next_due(now), state.watch.next_due(now), tidying.next_reread(context)]
    due.append(next_trial(context))
    if context.config is not None:
        due.append(context.config.next_due())
    if state.gate.ended_at is not None:
        left = state.gate.ended_at + context.settings.serving.pause_between_loads_seconds - now
        due.append(left if left > 0 else None)
    return min((seconds for seconds in due if seconds is not None), default=None)
