"""Asks the model server, in a job; a server that accepts and never answers holds up nothing else."""

from collections.abc import Mapping
from typing import Final

from servesync.agent.context import AgentContext
from servesync.agent.jobs import Ended, Job, JobContext, JobKind
from servesync.agent.state import Answers
from servesync.errors import Reason, ServerError, Stopped
from servesync.plan.facts import Served
from servesync.plan.versions import Model, Version

PATIENCE_SECONDS: Final = 1.0
"""How long decisions wait for an answer; after that the server counts as silent until the answer comes."""


def want_answer(context: AgentContext) -> None:
    """Ask for an answer of the server that is newer than this moment."""
    context.state.server.wanted_since = context.now()


def begin_asking(context: AgentContext) -> None:
    """Start to ask the server if a newer answer is wanted, and nobody asks it just now."""
    view, server = context.state.server, context.ports.server
    answers = view.answers
    if server is None or context.is_busy(JobKind.ASK_SERVER):
        return
    if answers is not None and answers.asked_at >= view.wanted_since:
        return
    models, footprint = tuple(context.models), context.ports.footprint
    asked_at = view.asking_since = context.now()

    def work(job: JobContext) -> Answers:
        said: dict[Model, Mapping[Version, Served] | ServerError] = {}
        unreachable: ServerError | None = None
        for model in models:
            job.check()
            if unreachable is not None:
                said[model] = unreachable
                continue
            try:
                said[model] = server.status(model, job.should_stop)
            except ServerError as error:
                job.check()
                said[model] = error
                if error.reason is Reason.SERVER_UNREACHABLE:  # do not wait for it once more
                    unreachable = error
        return Answers(asked_at, said, footprint.started_at())

    view.running = context.start(Job(JobKind.ASK_SERVER, work))


def take_in_answers(context: AgentContext, message: Ended) -> None:
    """Take in what the server said."""
    view, error = context.state.server, message.error
    asked_at, view.asking_since, view.running = view.asking_since, None, None
    if isinstance(error, Stopped):
        return
    if isinstance(message.result, Answers):
        view.answers, view.is_noted = message.result, False
        return
    text = f"the model server could not be asked: {error}"
    failed = ServerError(Reason.SERVER_UNREACHABLE, text)
    view.answers = Answers(asked_at or context.now(), dict.fromkeys(context.models, failed))
    view.is_noted = False


def is_current(context: AgentContext) -> bool:
    """Whether the last answer is as new as is wanted; where there is no server to ask, it always is."""
    view = context.state.server
    if context.ports.server is None:
        return True
    return view.answers is not None and view.answers.asked_at >= view.wanted_since


def is_late(context: AgentContext) -> bool:
    """Whether the server has had its time to answer."""
    since = context.state.server.asking_since
    return since is not None and context.now() - since >= PATIENCE_SECONDS


def server_error(context: AgentContext) -> ServerError | None:
    """Return why the server did not answer for a model, as of its last answer."""
    answers = context.state.server.answers
    said = answers.said.values() if answers else ()
    return next((item for item in said if isinstance(item, ServerError)), None)
