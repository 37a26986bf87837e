"""How a proven version comes onto the shelf, or beside it."""

from collections.abc import Mapping

from servesync.domain.versions import Stamp, Version
from servesync.errors import DiskError, Reason, ReleaseRefused
from servesync.install import Record, Reserve, Shelf
from servesync.planning.facts import Condition
from servesync.transfer.transfer import Staged


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
