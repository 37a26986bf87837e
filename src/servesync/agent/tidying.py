"""Slow work beside the rest: jobs empty the trash and read installed versions again."""

from functools import partial
from typing import Final

from servesync import disk
from servesync.agent import announce, leftovers
from servesync.agent.context import AgentContext
from servesync.agent.snapshot import Seen
from servesync.domain.versions import Version
from servesync.errors import Stopped, SyncError
from servesync.install import Record, Shelf, Workspace, sweep_pieces
from servesync.jobs import Ended, Job, JobContext, JobKind, RoomWanted
from servesync.planning.fleet_facts import Key
from servesync.planning.reserve import next_to_drop

REREAD_AGAIN_SECONDS: Final = 30.0
"""After how long a version is read again whose reading failed for a cause outside it."""

# -- the trash ------------------------------------------------------------------------------------------


def begin_emptying(context: AgentContext) -> None:
    """Start to empty the trash if something was put into it."""
    if not context.state.upkeep.trash_is_due or context.is_busy(JobKind.EMPTY_TRASH):
        return
    context.state.upkeep.trash_is_due = False
    context.start(Job(JobKind.EMPTY_TRASH, partial(_empty, context.workspace)))


def _empty(workspace: Workspace, job: JobContext) -> list[OSError]:
    """Remove what is in the trash, and the tables of pieces of versions that are gone."""
    return [*disk.empty_dir(workspace.trash, job.check), *sweep_pieces(workspace)]


def try_again(context: AgentContext) -> None:
    """Try again to remove what could not be removed: entries of the trash, and strays in staging.

    Strays are searched for only while no transfer is at work: no name tells which attempt belongs to a job.
    """
    state = context.state
    state.upkeep.trash_is_due |= state.upkeep.trash_resists
    if not state.upkeep.may_have_strays or context.is_busy(JobKind.TRANSFER):
        return
    leftovers.look(context)
    ready = [item.staged.tree for item in state.transfers.values() if item.staged]
    ready += [item.tree for item in state.upkeep.interrupted.values()]
    try:
        state.upkeep.trash_is_due |= bool(context.workspace.stray_attempts(ready))
    except OSError as problem:
        context.failed(disk.describe(problem, "removing what a transfer left in staging"))
    else:
        state.upkeep.may_have_strays = False


def take_in_emptied(context: AgentContext, message: Ended) -> None:
    """Report what could not be removed, for a later poll, and wake the transfers that wait for space."""
    problems = message.result if isinstance(message.result, list) else []
    if isinstance(message.error, OSError):
        problems = [message.error]
    context.state.upkeep.trash_resists = bool(problems)
    for problem in problems:
        announce.trash_resists(context, disk.describe(problem, "removing what has left the shelf"))
    waiting, context.state.upkeep.room_wanted = context.state.upkeep.room_wanted, []
    for wanted in waiting:
        wanted.answer(True)


def make_room(context: AgentContext, wanted: RoomWanted, seen: Seen | None) -> None:
    """Drop something for a transfer that lacks space; it waits until that is removed.

    What an interrupted transfer has left goes first, then a version of the reserve.
    """
    if leftovers.give_way(context, wanted.short.reason):
        context.state.upkeep.room_wanted.append(wanted)
        return
    key = _give_way(context, seen) if seen else None
    if key is not None:
        announce.gave_way(key, wanted.short.reason)
        context.state.upkeep.trash_is_due = True
    elif not context.state.upkeep.trash_is_due and not context.is_busy(JobKind.EMPTY_TRASH):
        wanted.answer(False)
        return
    context.state.upkeep.room_wanted.append(wanted)


def _give_way(context: AgentContext, seen: Seen) -> Key | None:
    """Drop the version that gives way first, of those that are still there; return which it was."""
    left = {model: dict(versions) for model, versions in seen.snapshot.fleet.reserve.items()}
    while (key := next_to_drop(left, seen.plan.awaited)) is not None:
        if _drop(context, key):
            return key
        model, version = key
        del left[model][version]
    return None


def _drop(context: AgentContext, key: Key) -> bool:
    model, version = key
    reserve = context.reserve(model)
    try:
        if version not in reserve.versions():
            return False
        reserve.drop(version)
    except OSError as problem:
        context.failed(disk.describe(problem, f"giving up {model} {version} of the reserve"))
        return False
    return True


# -- what is installed ----------------------------------------------------------------------------------


def begin_rereading(context: AgentContext, seen: Seen) -> None:
    """Start to read one version whole whose files have changed since they were proven.

    A version whose reading has just failed waits, and holds up no other.
    """
    if context.is_busy(JobKind.REREAD):
        return
    now, again_at = context.now(), context.state.upkeep.reread_again_at
    for model, found in seen.snapshot.models.items():
        for version, record in found.inventory.to_check.items():
            if now < again_at.get((model, version), now):
                continue
            work = partial(_reread, context.shelf(model), version, record)
            context.start(Job(JobKind.REREAD, work, model, version))
            return


def _reread(shelf: Shelf, version: Version, record: Record, job: JobContext) -> object:
    return shelf.is_right(version, record, job.check)


def take_in_reread(context: AgentContext, message: Ended) -> None:
    """Remember the result of a reading; it counts while the version's stamps stay the same."""
    job, error, again_at = message.job, message.error, context.state.upkeep.reread_again_at
    if job.model is None or job.version is None:
        return
    again_at.pop((job.model, job.version), None)
    if isinstance(error, Stopped):
        return
    if isinstance(error, OSError | SyncError):
        again_at[job.model, job.version] = context.now() + REREAD_AGAIN_SECONDS
        if isinstance(error, FileNotFoundError):  # it leaves meanwhile
            return
        if isinstance(error, OSError):
            error = disk.describe(error, f"reading {job.model} {job.version} again")
        context.failed(error, job.model)
        return
    if isinstance(message.result, tuple):
        context.state.know_stamps(job.model, job.version, message.result)


def next_reread(context: AgentContext) -> float | None:
    """Return the seconds until a version is read again that could not be read; None if none waits."""
    now, again_at = context.now(), context.state.upkeep.reread_again_at
    return min((at - now for at in again_at.values() if at > now), default=None)


def is_checking(seen: Seen) -> bool:
    """Whether a version is still to be read whole."""
    return any(found.inventory.to_check for found in seen.snapshot.models.values())
