"""Trees that interrupted transfers have left in staging: the next one of the same offer goes on with it.

They take space for somebody who may come, so each is given up as soon as nobody will, or space is short.
"""

from collections.abc import Mapping
from pathlib import Path

from servesync import disk
from servesync.agent import announce
from servesync.agent.context import AgentContext
from servesync.domain.versions import Release
from servesync.errors import Reason
from servesync.install import Interrupted, interrupted
from servesync.planning.fleet_facts import Key


def look(context: AgentContext) -> None:
    """Take in what lies in staging and belongs to no transfer that is known; of one version, one tree."""
    state = context.state
    found: dict[Key, Interrupted] = {}
    try:
        there = interrupted(context.workspace)
    except OSError as problem:
        context.failed(disk.describe(problem, "looking what transfers have left in staging"))
        there = ()
    for item in there:
        key = (item.model, item.version)
        if key in state.transfers:
            continue
        if key in found:
            _give_up(context, item)
        else:
            found[key] = item
    state.upkeep.interrupted = found


def take(context: AgentContext, release: Release) -> Path | None:
    """Return the tree with which a transfer of `release` goes on; None if there is none."""
    found = context.state.upkeep.interrupted.pop((release.model, release.version), None)
    if found is None or found.offer == release.offer:
        return found.tree if found else None
    _give_up(context, found)
    return None


def drop(context: AgentContext, key: Key) -> None:
    """Give up what a transfer has left, if it has left something."""
    found = context.state.upkeep.interrupted.pop(key, None)
    if found is not None:
        _give_up(context, found)


def give_up_outdated(context: AgentContext, outdated: Mapping[Key, str]) -> None:
    """Give up the trees that nobody will go on with; `outdated` says why."""
    for key, because in outdated.items():
        found = context.state.upkeep.interrupted.pop(key, None)
        if found is not None:
            _give_up(context, found)
            announce.fetch_cancelled(key, because)


def give_way(context: AgentContext, reason: Reason) -> bool:
    """Give up one tree because space is short; return whether there was one."""
    kept = context.state.upkeep.interrupted
    if not kept:
        return False
    key = next(iter(kept))
    _give_up(context, kept.pop(key))
    what = "inodes are" if reason is Reason.DISK_INODES else "space is"
    announce.fetch_cancelled(key, f"{what} needed: what its interrupted transfer had brought comes again")
    return True


def _give_up(context: AgentContext, item: Interrupted) -> None:
    try:
        context.workspace.give_up_attempt(item.tree)
    except OSError as problem:
        context.state.upkeep.may_have_strays = True
        what = f"giving up what a transfer of {item.model} {item.version} left"
        context.failed(disk.describe(problem, what), item.model)
    context.state.upkeep.trash_is_due = True
