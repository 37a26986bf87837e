"""Remembers a release that is bad, so that it is not fetched again until it changes."""

from servesync import disk
from servesync.agent import announce
from servesync.agent.context import AgentContext
from servesync.agent.model_snapshot import refusals_of
from servesync.domain.versions import Release
from servesync.errors import SyncError
from servesync.planning.actions import Kind
from servesync.planning.fleet_facts import Key


def refuse(context: AgentContext, key: Key, release: Release, error: SyncError, kind: Kind) -> bool:
    """Remember that a release is bad, and say so; it is not fetched again until it changes.

    Returns whether that could be recorded; if not, it is tried again after a pause.
    """
    facts, recorded = dict(error.facts), True
    try:
        refusals_of(context, release.model).remember(
            release.version, release.offer, error.reason, str(error), context.utc()
        )
    except OSError as problem:
        facts["refusal_not_recorded"] = str(disk.describe(problem, "recording a refusal"))
        recorded = False
        context.state.attempts.failed(key, release.offer, error, context.now())
    context.agent_status.acted(kind.value, "refused")
    announce.refused(context, release, error, facts)
    return recorded
