"""What the log says of actions and of changes: one place for events and counters, each said once."""

from collections.abc import Mapping

from servesync.agent.context import AgentContext
from servesync.domain.versions import Model, Release, Version
from servesync.errors import Reason, SyncError
from servesync.install import Record
from servesync.logs import Event, get_logger
from servesync.planning.actions import Kind
from servesync.planning.facts import Trial
from servesync.planning.memory import Shortage

Key = tuple[Model, Version]


def arrived(context: AgentContext, key: Key, release: Release | None) -> None:
    """Note that a version came onto the shelf; where there is no server to ask, that is the end."""
    if context.ports.server is None:
        available(context, key, release)
    else:
        context.agent_status.installed(*key)


def available(context: AgentContext, key: Key, release: Release | None) -> None:
    """Note that the server serves a version."""
    context.agent_status.available(*key, release.published_at if release else None)


def installed(key: Key, record: Record, because: str, seconds: float, *, again: bool) -> None:
    """Say that a version has come onto the shelf; `again`: it had been there before."""
    event = Event.VERSION_RESTORED if again else Event.VERSION_INSTALLED
    log = get_logger().bind(model=key[0], version=key[1])
    log.info(event, because=because, digest=record.content.digest, seconds=round(seconds, 3))


def set_aside(key: Key, record: Record, short: Shortage) -> None:
    """Say that a proven version waits in the reserve."""
    get_logger().info(
        Event.VERSION_SET_ASIDE,
        model=key[0],
        version=key[1],
        reason=Reason.MEMORY_SHORT,
        because=f"proven, and kept in the reserve until there is room: {short.text}",
        digest=record.content.digest,
    )


def confirmed(key: Key, because: str, grown_bytes: int | None) -> None:
    """Say that the server serves a version, and by how much it grew for it."""
    facts = {} if grown_bytes is None else {"server_grew_bytes": grown_bytes}
    get_logger().info(Event.VERSION_AVAILABLE, model=key[0], version=key[1], because=because, **facts)


def tried(key: Key, trial: Trial, facts: Mapping[str, object], *, is_odd: bool) -> None:
    """Say how a version has answered the trial requests; `is_odd`: somebody should look at it."""
    log = get_logger().bind(model=key[0], version=key[1])
    say = log.warning if trial.failed or is_odd else log.info
    say(Event.VERSION_TRIED, because=trial.text, **facts)


def pruned(key: Key, because: str, *, kept_in_reserve: bool) -> None:
    """Say that a version has left the shelf by policy."""
    log = get_logger().bind(model=key[0], version=key[1])
    log.info(Event.VERSION_PRUNED, because=because, kept_in_reserve=kept_in_reserve)


def quarantined(key: Key, reason: Reason, because: str) -> None:
    """Say that a version has left the shelf for good."""
    log = get_logger().bind(model=key[0], version=key[1])
    log.error(Event.VERSION_QUARANTINED, reason=reason, because=because)


def stepped_aside(key: Key, because: str, cool_down_seconds: float) -> None:
    """Say that a version has left the shelf for a while."""
    log = get_logger().bind(model=key[0], version=key[1])
    log.warning(Event.VERSION_RETRIED, because=because, rest_seconds=cool_down_seconds)


def fetch_cancelled(key: Key, because: str) -> None:
    """Say that a transfer ends because nobody wants what it brings."""
    get_logger().info(Event.FETCH_CANCELLED, model=key[0], version=key[1], because=because)


def gave_way(key: Key, reason: Reason) -> None:
    """Say that a version of the reserve was given up for space."""
    get_logger().warning(
        Event.RESERVE_GAVE_WAY,
        reason=reason,
        dropped=f"{key[0]} {key[1]}",
        because="space is needed" if reason is Reason.DISK_FULL else "inodes are needed",
    )


def refused(context: AgentContext, release: Release, error: SyncError, facts: Mapping[str, object]) -> None:
    """Say that a release is bad, and is not fetched again until it changes."""
    context.agent_status.refused(error.reason)
    get_logger().error(
        Event.VERSION_REFUSED,
        model=release.model,
        version=release.version,
        reason=error.reason,
        because=str(error),
        key=release.objects[0].key,
        facts=dict(facts),
    )


def action_failed(
    context: AgentContext, key: Key, kind: Kind, error: SyncError, pause_seconds: float | None
) -> None:
    """Say that an action failed; the same failure again and again is thinned out."""
    context.agent_status.acted(kind.value, "failed")
    context.agent_status.failed(error.reason)
    repeats = context.state.throttle.count((*key, error.reason))
    if repeats is not None:
        get_logger().warning(
            Event.ACTION_FAILED,
            model=key[0],
            version=key[1],
            reason=error.reason,
            because=str(error),
            action=kind.value,
            retry_in_seconds=pause_seconds,
            repeats=repeats,
            facts=error.facts,
        )


def failed(context: AgentContext, error: SyncError, model: Model | None = None) -> None:
    """Say what failed beside the actions of the plan; the same again and again is thinned out."""
    context.agent_status.failed(error.reason)
    repeats = context.state.throttle.count((error.reason, str(error)))
    if repeats is not None:
        facts = error.facts if model is None else error.facts | {"model": model}
        get_logger().warning(
            Event.ACTION_FAILED, reason=error.reason, because=str(error), repeats=repeats, facts=facts
        )


def trash_resists(context: AgentContext, error: SyncError) -> None:
    """Say what cannot be removed; the same again and again is thinned out."""
    repeats = context.state.throttle.count(("trash", error.reason))
    if repeats is not None:
        get_logger().warning(
            Event.ACTION_FAILED,
            reason=error.reason,
            because=str(error),
            action="empty_trash",
            repeats=repeats,
            facts=error.facts,
        )
