"""Tries what the agent does with its directories, on files of its own, which are removed again.

The names begin with a dot, so neither the server nor the agent takes them for anything, and no lock is
needed. What a doctor that was killed has left is removed by the next one.
"""

import contextlib
import errno
import os
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from servesync import disk
from servesync.doctor.findings import Check, Finding, fail, ok
from servesync.mounts import mount_of

PROBE: Final = ".servesync-doctor-"
FORGOTTEN_SECONDS: Final = 3600
_CANNOT: Final = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSUP})
_LOCAL: Final = "put serving.models_dir on a local filesystem (ext4, xfs, btrfs)"


@contextmanager
def _folder(base: Path) -> Iterator[Path]:
    """Lend an empty directory in `base`, and remove it afterwards."""
    _remove_forgotten(base)
    folder = base / f"{PROBE}{uuid.uuid4().hex}"
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        disk.remove_tree(folder)


def _remove_forgotten(base: Path) -> None:
    for entry in disk.entries(base):
        if entry.name.startswith(PROBE):
            with contextlib.suppress(OSError):
                if time.time() - entry.stat(follow_symlinks=False).st_ctime > FORGOTTEN_SECONDS:
                    disk.remove_tree(Path(entry.path))


def try_sync(base: Path) -> Iterator[Finding]:
    """Write a file and make it durable.

    Raises:
        OSError: nothing can be written there.
    """
    with _folder(base) as folder:
        file = folder / "file"
        file.write_bytes(b"servesync doctor\n")
        try:
            disk.sync_file(file)
            disk.sync_dir(folder)
            disk.sync_dir(base)
        except OSError as error:
            text = f"what is written cannot be made durable: {error.strerror}{_on(base)}"
            yield fail(Check.DISK_SYNC, text, _LOCAL)
        else:
            yield ok(Check.DISK_SYNC, "files and directories can be synced")


def try_renames(base: Path, shelves: Sequence[Path]) -> Iterator[Finding]:
    """Rename without replacing, exchange two names, and go from the workspace to each shelf and back."""
    with _folder(base) as folder:
        trouble = _no_replace(folder) or _exchange(folder)
        if trouble is not None:
            yield trouble
            return
        for shelf in shelves:
            trouble = _to_shelf(folder, shelf)
            if trouble is not None:
                yield trouble
                return
    yield ok(Check.DISK_RENAME, f"renames are atomic and replace nothing; shelves tried: {len(shelves)}")


def _no_replace(folder: Path) -> Finding | None:
    """Rename onto a free name, which the filesystem itself does, and onto one that the kernel may refuse."""
    one, other = folder / "one", folder / "other"
    (folder / "first").mkdir()
    other.mkdir()
    try:
        disk.rename_noreplace(folder / "first", one)
        disk.rename_noreplace(one, other)
    except FileExistsError:
        return None
    except OSError as error:
        return _cannot(folder, "rename without replacing (renameat2, RENAME_NOREPLACE)", error)
    return fail(Check.DISK_RENAME, "a rename replaced what was there, though asked not to", _LOCAL)


def _exchange(folder: Path) -> Finding | None:
    try:
        disk.exchange(folder / "one", folder / "other")
    except OSError as error:
        return _cannot(folder, "exchange two names (renameat2, RENAME_EXCHANGE)", error)
    return None


def _cannot(place: Path, what: str, error: OSError) -> Finding:
    kind = "this filesystem" if error.errno in _CANNOT else "this user"
    return fail(
        Check.DISK_RENAME, f"{kind} cannot {what}: {os.strerror(error.errno or 0)}{_on(place)}", _LOCAL
    )


def _on(place: Path) -> str:
    """Return which filesystem `place` is on, in words; empty where the kernel does not say."""
    mount = mount_of(place.resolve())
    return f" ({mount})" if mount is not None else ""


def _to_shelf(folder: Path, shelf: Path) -> Finding | None:
    _remove_forgotten(shelf)
    visitor = folder / "visitor"
    guest = shelf / f"{PROBE}{uuid.uuid4().hex}"
    if not visitor.exists():
        visitor.mkdir()
    try:
        disk.rename_noreplace(visitor, guest)
        disk.rename_noreplace(guest, visitor)
    except OSError as error:
        if error.errno == errno.EXDEV:
            text = f"{shelf} is another filesystem than the workspace, so nothing can be renamed onto it"
            advice = "mount one volume at serving.models_dir, and none below it"
        elif error.errno in _CANNOT:
            return _cannot(shelf, f"rename onto {shelf}", error)
        else:
            text = f"nothing can be renamed onto {shelf}: {error.strerror}"
            advice = "give the agent's user write permission on it"
        return fail(Check.DISK_RENAME, text, advice, shelf.name)
    return None
