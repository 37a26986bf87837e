"""The small effects of the deciding thread: each is a rename and a record, with its arguments spelled out."""

from collections.abc import Mapping
from datetime import datetime

from servesync.domain.versions import Stamp, Version
from servesync.errors import DiskError, Reason, ReleaseRefused
from servesync.install import Leaving, Record, Refusals, Reserve, Shelf
from servesync.install.trash import take_off
from servesync.planning.actions import Prune, Quarantine
from servesync.planning.facts import Condition
from servesync.transfer.transfer import Staged

# -- a version comes onto the shelf, or into the reserve ------------------------------------------------


def install(shelf: Shelf, staged: Staged, said_before: str) -> Record:
    """Make a staged version visible under its number. Raises as `Shelf.publish` does."""
    return shelf.publish(staged.tree, staged.release, staged.proven, said_before)


def repair(shelf: Shelf, staged: Staged, said_before: str) -> Record:
    """Swap a damaged version for the staged one; the damaged tree is in staging afterwards.

    Raises as `Shelf.replace` does.
    """
    return shelf.replace(staged.tree, staged.release, staged.proven, said_before)


def take_over(
    shelf: Shelf, staged: Staged, condition: Condition, stamps: Mapping[str, Stamp] | None
) -> Record:
    """Take over a directory that somebody else put on the shelf, if it holds what was staged.

    `stamps`: those under which it was found to be the same; None: it is not.

    Raises:
        ReleaseRefused: `VERSION_FOREIGN`: it holds other bytes; nothing was changed.
        DiskError: it has changed since it was compared.
        OSError: the disk refused.
    """
    if stamps is not None:
        return shelf.adopt(staged.release, staged.proven, stamps)
    was = (
        "has an unreadable record" if condition is Condition.UNRECORDED else "was not put there by servesync"
    )
    text = (
        f"{shelf.path / str(staged.release.version)} {was} and holds other bytes than the store's release: "
        "left alone; move it away by hand to let the store's version in"
    )
    raise ReleaseRefused(Reason.VERSION_FOREIGN, text)


def set_aside(reserve: Reserve, staged: Staged) -> Record:
    """Move a staged version into the reserve, where it waits for room. Raises as `Reserve.set_aside` does."""
    return reserve.set_aside(staged.tree, staged.release, staged.proven)


def restore(shelf: Shelf, reserve: Reserve, version: Version, said_before: str) -> Record:
    """Put a version of the reserve back on the shelf.

    Raises:
        DiskError: `VERSION_DAMAGED`: its files have changed; it was dropped from the reserve. Or as
            `Shelf.put_back` does.
        OSError: the disk refused; the version is complete, on the shelf or in the reserve.
    """
    record = reserve.versions()[version]
    if not reserve.stamps_match(version, record):
        reserve.drop(version)
        text = f"{version} is no longer in the reserve as it was proven; dropped from there"
        raise DiskError(Reason.VERSION_DAMAGED, text)
    done = shelf.put_back(reserve.path / str(version), version, record, said_before)
    reserve.forget(version)
    return done


# -- a version leaves the shelf, for the reserve or the trash -------------------------------------------


def prune(shelf: Shelf, reserve: Reserve, action: Prune, now: datetime) -> bool:
    """Take a version off the shelf; return whether it is in the reserve now.

    Without a record, or with one in the reserve that cannot be read, it goes to the trash. In the reserve its
    record keeps for which version it made room, if it did.

    Raises:
        DiskError: its record cannot be read; nothing was changed.
        OSError: the disk refused; the version is complete, on the shelf, in the reserve or in the trash.
    """
    version = action.version
    record = shelf.record(version)
    kept = action.to_reserve and record is not None and reserve.is_free(version)
    if kept and record is not None:
        why = Leaving(retired_for=action.retired_for, need_bytes=action.need_bytes)
        reserve.take(shelf.path / str(version), version, record, now, why=why)
    else:
        _to_trash(shelf, version)
    shelf.forget(version)
    return kept


def step_aside(shelf: Shelf, reserve: Reserve, version: Version, now: datetime) -> int:
    """Take a version off the shelf until the server has seen it gone; return how often it had left before.

    Raises:
        DiskError: its record cannot be read, or is gone; nothing was changed.
        OSError: the disk refused; the version is complete, on the shelf or in the reserve.
    """
    record = shelf.record(version)
    if record is None:
        text = f"{shelf.model} {version} has no record any more: the agent reads the shelf again"
        raise DiskError(Reason.RECORD_UNREADABLE, text)
    reserve.take(shelf.path / str(version), version, record, now, why=Leaving(returning=True))
    shelf.forget(version)
    return record.tries


def quarantine(
    shelf: Shelf, refusals: Refusals, action: Quarantine, identity: str, now: datetime
) -> OSError | None:
    """Record why a version is refused, then take it off the shelf; return why no record could be written.

    After a crash in between, the planner refuses the version again. The version also leaves when no record
    can be written: on the shelf it may end the server at its next start, and taking it off may free the
    space that the record needs. `identity`: of its bytes.

    Raises:
        OSError: the disk refused; the version is complete, on the shelf or in the trash.
    """
    version = action.version
    try:
        refusals.remember(version, identity, action.reason, action.because, now)
    except OSError:
        _to_trash(shelf, version)
        shelf.forget(version)
        try:
            refusals.remember(version, identity, action.reason, action.because, now)
        except OSError as problem:
            return problem
    else:
        _to_trash(shelf, version)
        shelf.forget(version)
    return None


def _to_trash(shelf: Shelf, version: Version) -> None:
    take_off(shelf.path / str(version), shelf.workspace.trash_name(shelf.model, version))
