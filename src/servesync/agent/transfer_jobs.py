"""Starts transfers, takes in their results, ends unwanted ones, and records refused releases."""

from functools import partial

from servesync import disk
from servesync.agent import announce, leftovers
from servesync.agent.context import AgentContext
from servesync.agent.model_snapshot import ModelSnapshot, refusals_of, served_now
from servesync.agent.state import TransferUnderWay
from servesync.domain.versions import Release, Version
from servesync.errors import CheckFailed, Reason, ReleaseRefused, Stopped, SyncError
from servesync.jobs import Ended, Job, JobKind
from servesync.planning.actions import Fetch, Kind
from servesync.planning.facts import Condition
from servesync.planning.fleet_facts import Key
from servesync.transfer.transfer import FREE_RETRIES, Staged, TransferOrder
from servesync.verify import Expectations, read_signatures


def begin_transfer(context: AgentContext, found: ModelSnapshot, action: Fetch) -> bool:
    """Start the job that brings a version into staging; return whether that was possible.

    Raises:
        OSError: the records cannot be read.
    """
    model, version = found.facts.model, action.version
    key = (model, version)
    if key in context.state.transfers:  # a cancelled one has not ended yet
        return False
    release = found.offered[version]
    present = found.inventory.versions.get(version)
    shelf_top = max((v for v, item in found.inventory.versions.items() if item.is_ours), default=Version(-1))
    order = TransferOrder(
        release=release,
        expected=_expected(context, release),
        patient=context.state.attempts.count(key, release.offer) < FREE_RETRIES,
        present=present is not None and not present.is_ours,
        first=version < shelf_top or found.settings.required,
        kept=leftovers.take(context, release),
    )
    job = Job(JobKind.TRANSFER, partial(context.transfers.run, order), model, version)
    is_repair = present is not None and present.condition is Condition.DAMAGED
    now = context.now()
    context.state.last_brought[model] = now
    context.state.transfers[key] = TransferUnderWay(release, context.start(job), now, is_repair)
    return True


def _expected(context: AgentContext, release: Release) -> Expectations | CheckFailed:
    """Return the signatures that clients of the model rely on, or why they are not known."""
    wanted = context.models[release.model].signatures
    if wanted is None:
        return Expectations()
    if wanted != "as_served":
        return Expectations(signatures=wanted)
    found = served_now(context, release.model)
    if found is None or found[0] == release.version:
        return Expectations()
    version, record = found
    if record is not None and record.signatures is not None:
        return Expectations(same_as_served=record.signatures)
    served = context.workspace.shelf(release.model) / str(version)
    try:
        return Expectations(same_as_served=read_signatures(served))
    except ReleaseRefused as error:
        text = f"the signatures of {served}, which is served now, cannot be read: {error}"
        return CheckFailed(Reason.VERSION_DAMAGED, text)


def give_up(context: AgentContext, key: Key, *, is_unwanted: bool = False) -> bool:
    """End a transfer, or give back the staging of one that has brought its version; False if there is none.

    Until the job at work has ended, the transfer stays known as cancelled. What the job has brought stays for
    the next one, unless it `is_unwanted`.
    """
    transfer = context.state.transfers.get(key)
    if transfer is None or transfer.is_cancelled:
        return False
    if transfer.staged is None:
        transfer.is_cancelled, transfer.is_unwanted = True, is_unwanted
        transfer.running.cancel()
        return True
    del context.state.transfers[key]
    try:
        context.workspace.give_up_attempt(transfer.staged.tree)
    except OSError as problem:
        context.state.upkeep.may_have_strays = True
        context.failed(disk.describe(problem, f"giving back the staging of {key[0]} {key[1]}"), key[0])
    context.state.upkeep.trash_is_due = True
    return True


def give_up_all(context: AgentContext) -> None:
    """End every transfer, because the settings have changed."""
    for key in list(context.state.transfers):
        if give_up(context, key):
            announce.fetch_cancelled(
                key, "the settings have changed: it may have to come from elsewhere, or in another way"
            )


def take_in(context: AgentContext, message: Ended) -> None:
    """Take in the end of a transfer: a version in staging, or why there is none."""
    model, version = message.job.model, message.job.version
    if model is None or version is None:
        return
    key = (model, version)
    transfer = context.state.transfers.get(key)
    if transfer is None or transfer.running.job is not message.job:
        return
    if isinstance(message.result, Staged):
        transfer.staged, transfer.ready_at = message.result, context.now()
        context.state.memory.estimates.cache(transfer.release, message.result.weight)
        if transfer.is_cancelled:
            transfer.is_cancelled = False
            give_up(context, key)
        return
    del context.state.transfers[key]
    context.state.upkeep.may_have_strays = True
    leftovers.look(context)
    if transfer.is_unwanted:
        leftovers.drop(context, key)
    error = message.error
    if transfer.is_cancelled or error is None or isinstance(error, Stopped):
        return
    if model in context.models:
        _failed(context, key, transfer, error)


def _failed(context: AgentContext, key: Key, transfer: TransferUnderWay, error: SyncError | OSError) -> None:
    """Log why a transfer failed; refuse the release if it is bad, or else pause it."""
    kind = Kind.REPAIR if transfer.is_repair else Kind.INSTALL
    release, attempts, now = transfer.release, context.state.attempts, context.now()
    if isinstance(error, OSError):
        error = disk.describe(error, f"bringing {key[0]} {key[1]}")
    if not isinstance(error, ReleaseRefused):
        announce.action_failed(context, key, kind, error, attempts.failed(key, release.offer, error, now))
        return
    if error.in_transit:
        wall = context.ports.clock.wall()
        pause = attempts.in_transit(key, release.offer, error, now, wall)
        if pause is not None:
            announce.action_failed(context, key, kind, error, pause)
            return
        text = attempts.refusal_text(key, release.offer, error, wall)
        error = ReleaseRefused(error.reason, text, **error.facts)
    if refuse(context, key, release, error, kind):
        attempts.forget(key)


def refuse(context: AgentContext, key: Key, release: Release, error: SyncError, kind: Kind) -> bool:
    """Record that a release is bad, and log it; it is not fetched again until it changes.

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
