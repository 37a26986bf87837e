"""How a version leaves the shelf: into the reserve, or into the trash."""

from datetime import datetime

from servesync.domain.versions import Version
from servesync.errors import DiskError, Reason
from servesync.install import Leaving, Refusals, Reserve, Shelf
from servesync.install.trash import take_off
from servesync.planning.actions import Prune, Quarantine


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
        text = f"{shelf.model} {version} has no record any more: looked at again"
        raise DiskError(Reason.RECORD_UNREADABLE, text)
    reserve.take(shelf.path / str(version), version, record, now, why=Leaving(returning=True))
    shelf.forget(version)
    return record.tries


def quarantine(
    shelf: Shelf, refusals: Refusals, action: Quarantine, identity: str, now: datetime
) -> OSError | None:
    """Remember why a version is refused, then take it off: a crash in between leaves one refused again.

    It leaves all the same where no record can be written: on the shelf it may end the server at its next
    start, and taking the version off may free the space that the record needs. `identity`: of its bytes.
    Returns why the refusal could
    not be recorded; None if it was.

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
