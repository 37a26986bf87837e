"""Asks the model server, in a job; a server that accepts and never answers holds up nothing else."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from servesync.agent.context import AgentContext
from servesync.agent.state import Answers
from servesync.domain.versions import Model, Version
from servesync.errors import Reason, ServerError, Stopped
from servesync.jobs import Ended, Job, JobContext, JobKind
from servesync.planning.facts import Served

PATIENCE_SECONDS: Final = 1.0
"""How long decisions wait for an answer; after that the server counts as silent until the answer comes."""

ONE_PASS_PATIENCE_SECONDS: Final = 10.0
"""The same where nobody looks again later: as long as an answer may take."""


def want_answer(context: AgentContext, *, changed: bool = False) -> None:
    """Want an answer of the server that is newer than this moment. `changed`: the agent has acted."""
    view = context.state.server
    view.wanted_since = context.now()
    if changed:
        view.changed_at = view.wanted_since


def begin_asking(context: AgentContext) -> None:
    """Start a job that asks the server, if a newer answer is wanted and no such job is at work."""
    view, server = context.state.server, context.ports.server
    answers = view.answers
    if server is None or context.is_busy(JobKind.ASK_SERVER):
        return
    if answers is not None and answers.asked_at >= view.wanted_since:
        return
    models, footprint = tuple(context.models), context.ports.footprint
    asked_at = view.asking_since = context.now()

    def work(job: JobContext) -> Answers:
        statuses: dict[Model, Mapping[Version, Served] | ServerError] = {}
        unreachable: ServerError | None = None
        for model in models:
            job.check()
            if unreachable is not None:
                statuses[model] = unreachable
                continue
            try:
                statuses[model] = server.status(model, job.should_stop)
            except ServerError as error:
                job.check()
                statuses[model] = error
                if error.reason is Reason.SERVER_UNREACHABLE:  # do not wait for it once more
                    unreachable = error
        server.close()
        return Answers(asked_at, statuses, footprint.started_at())

    view.running = context.start(Job(JobKind.ASK_SERVER, work))


def take_in_answers(context: AgentContext, message: Ended) -> None:
    """Take in what the server said."""
    view, error = context.state.server, message.error
    if view.running is None or view.running.job is not message.job:
        return  # another server was asked, under other settings
    asked_at, view.asking_since, view.running = view.asking_since, None, None
    if isinstance(error, Stopped):
        return
    if isinstance(message.result, Answers):
        view.answers = message.result
    else:
        text = f"the model server could not be asked: {error}"
        failed = ServerError(Reason.SERVER_UNREACHABLE, text)
        view.answers = Answers(asked_at or context.now(), dict.fromkeys(context.models, failed))
    view.unnoted.append(view.answers)
    if server_error(context) is not None:  # it may be started anew, and hold other bytes than before
        context.state.memory.before_load.clear()


@dataclass(frozen=True, slots=True)
class Standing:
    """Whether decisions may be made now. `is_late`: without the server, which has had its time to answer."""

    is_known: bool
    is_late: bool = False


def standing(context: AgentContext) -> Standing:
    """Return whether the last answer is as new as is wanted, or is not waited for any longer.

    If newer answers are wanted all the time, an answer younger than the patience is good enough, as long as
    it was asked for after the agent's own last change.
    """
    view, now = context.state.server, context.now()
    if context.ports.server is None:
        return Standing(is_known=True)
    asked_at = view.answers.asked_at if view.answers is not None else -math.inf
    if asked_at >= view.wanted_since:
        view.waiting_since = None
        return Standing(is_known=True)
    view.waiting_since = now if view.waiting_since is None else view.waiting_since
    patience = ONE_PASS_PATIENCE_SECONDS if context.one_pass else PATIENCE_SECONDS
    if now - view.waiting_since < patience:
        return Standing(is_known=False)
    is_fresh = asked_at >= view.changed_at and now - asked_at <= patience
    return Standing(is_known=True, is_late=not is_fresh)


def is_answering(context: AgentContext) -> bool | None:
    """Tell whether the server last answered for every model; None if none is configured."""
    if context.ports.server is None:
        return None
    return context.state.server.answers is not None and server_error(context) is None


def server_error(context: AgentContext) -> ServerError | None:
    """Return why the server did not answer for a model, as of its last answer."""
    answers = context.state.server.answers
    statuses = answers.statuses.values() if answers else ()
    return next((item for item in statuses if isinstance(item, ServerError)), None)
