"""Gives the server its configuration over gRPC, in a job, right after each write of `serving.config_file`.

The file stays the truth: the server reads it in any case, only later. So nothing is lost if a call fails. A
call is repeated only if nothing listened: the server may have started with the file before.
"""

from functools import partial
from typing import Final

from servesync.agent.asking import is_answering
from servesync.agent.context import AgentContext
from servesync.agent.ports import ReloadPort
from servesync.errors import ServerDown, ServerError, Stopped
from servesync.jobs import Ended, Job, JobContext, JobKind
from servesync.logs import Event, get_logger
from servesync.serving.models_config import ModelsConfig

RELOAD_SECONDS: Final = 10.0
"""How long a call may take. The server answers when new models are loaded, or, after a failed load, never."""

REST_SECONDS: Final = 600.0
"""A server that has not answered is left to the file for so long: each call takes one of its threads."""


def begin_reload(context: AgentContext) -> None:
    """Start the job if a configuration has been written since the last one, and the server answers."""
    state, port = context.state.reload, context.ports.reload
    config = state.wanted
    if port is None or config is None or context.is_busy(JobKind.RELOAD) or not is_answering(context):
        return
    state.wanted = None
    if context.now() >= state.not_before:
        context.start(Job(JobKind.RELOAD, partial(_reload, port, config)))


def _reload(port: ReloadPort, config: ModelsConfig, job: JobContext) -> tuple[ModelsConfig, bool]:
    """Return the configuration, and whether the server has taken it; it has not if nothing listened."""
    try:
        port.reload(config, RELOAD_SECONDS, job.should_stop)
    except ServerDown:
        return config, False
    finally:
        port.close()  # an idle connection would look like load to `servesync drain`
    return config, True


def take_in_reloaded(context: AgentContext, message: Ended) -> None:
    """Note that the server has a configuration, or leave that to the file."""
    error, log = message.error, get_logger()
    if isinstance(message.result, tuple):
        config, is_taken = message.result
        if not is_taken:
            context.state.reload.wanted = context.state.reload.wanted or config
            return
        if context.config is not None:
            context.config.note_taken(config)
        log.info(Event.MODELS_CONFIG_RELOADED)
    elif error is not None and not isinstance(error, Stopped):
        if isinstance(error, ServerError) and error.facts.get("code") == "DEADLINE_EXCEEDED":
            context.state.reload.not_before = context.now() + REST_SECONDS
        text = f"{error}; the server reads the file within serving.config_poll_seconds"
        log.warning(Event.MODELS_CONFIG_NOT_RELOADED, because=text)
