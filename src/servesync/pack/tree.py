"""The members of a version's directory, as they go into the archive: sorted, plain, and nothing else."""

import os
import stat
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from servesync import disk
from servesync.errors import Reason, ReleaseRefused
from servesync.plan.paths import NAME_RULE, is_plain_path


@dataclass(frozen=True, slots=True)
class Member:
    """One directory or file: its path relative to the version; `size` in bytes, None for a directory.

    `stamp`: which file it was when it was listed.
    """

    path: str
    size: int | None
    source: Path
    stamp: "Stamp | None" = None


Stamp = tuple[int, int, int, int]
"""Device, inode, size and mtime (ns) of a file."""


def stamp_of(found: os.stat_result) -> Stamp:
    """Return the stamp of a file."""
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def members(root: Path) -> Iterator[Member]:
    """Yield everything below `root`, in the order of the paths, a directory before what it holds.

    Raises:
        ReleaseRefused: `PACK_REFUSED`: a link, a special file, or a name that a version may not hold.
        OSError: a directory cannot be read.
    """
    yield from _below(root, "")


def _below(folder: Path, prefix: str) -> Iterator[Member]:
    for entry in sorted(disk.entries(folder), key=lambda entry: entry.name):
        path = prefix + entry.name
        if not is_plain_path(path):
            raise refused(Path(entry.path), f"its name is not one that a version may hold ({NAME_RULE})")
        mode = entry.stat(follow_symlinks=False)
        if stat.S_ISDIR(mode.st_mode):
            yield Member(path, None, Path(entry.path))
            yield from _below(Path(entry.path), f"{path}/")
        elif stat.S_ISREG(mode.st_mode):
            yield Member(path, mode.st_size, Path(entry.path), stamp_of(mode))
        else:
            raise refused(Path(entry.path), "it is neither a file nor a directory: copy what it stands for")


def refused(path: Path, why: str) -> ReleaseRefused:
    """Return the error for a directory that cannot be packed as it is."""
    return ReleaseRefused(Reason.PACK_REFUSED, f"{os.fspath(path)!a} cannot be packed: {why}")


def header(top: str, member: Member) -> bytes:
    """Return the tar header of a member below the folder `top`: no owner, no time, the usual modes.

    POSIX ustar; pax records (POSIX.1-2001) only where a path or a size does not fit.
    """
    info = tarfile.TarInfo(f"{top}/{member.path}" if member.path else top)
    info.type = tarfile.DIRTYPE if member.size is None else tarfile.REGTYPE
    info.mode = 0o755 if member.size is None else 0o644
    info.size = member.size or 0
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")
