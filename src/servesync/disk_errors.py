"""Turns an error of the disk into the one that a user reads: which reason, and what to do about it."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from servesync.errors import DiskError, Reason
from servesync.files import NotRegular
from servesync.mounts import mount_of

LACKS: Final = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP})
"""How a filesystem, or a kernel, says that it cannot do what it was asked for."""

_REASONS: Final = {
    errno.ENOSPC: Reason.DISK_FULL,
    errno.EDQUOT: Reason.DISK_FULL,
    errno.EFBIG: Reason.DISK_FULL,
    errno.EROFS: Reason.DISK_READ_ONLY,
    errno.EACCES: Reason.DISK_PERMISSION,
    errno.EPERM: Reason.DISK_PERMISSION,
    errno.EXDEV: Reason.DISK_OTHER_FILESYSTEM,
    errno.ENOTDIR: Reason.DISK_NOT_A_DIRECTORY,
    errno.ELOOP: Reason.DISK_NOT_A_DIRECTORY,
    **dict.fromkeys(LACKS, Reason.DISK_UNSUPPORTED),
}
LOCAL: Final = "put serving.models_dir on a local filesystem (ext4, xfs, btrfs); `servesync doctor` tries it"
_ADVICE: Final = {
    Reason.DISK_FULL: "free space on this filesystem or give it more; the agent tries again by itself",
    Reason.DISK_INODES: "the filesystem has no inodes left (df -i); remove files or make it anew with more",
    Reason.DISK_READ_ONLY: "the filesystem is mounted read-only; remount it writable",
    Reason.DISK_PERMISSION: "give the agent's user write permission on serving.models_dir",
    Reason.DISK_OTHER_FILESYSTEM: "serving.models_dir and everything below it must be one filesystem",
    Reason.DISK_NOT_A_DIRECTORY: "it must be a real directory, not a file or a symbolic link",
    Reason.DISK_UNSUPPORTED: LOCAL,
    Reason.DISK_FAILED: "look at the kernel log (dmesg) for errors of this disk",
}
_MORE_HANDLES: Final = "let this process, or the machine, have more files open (ulimit -n, LimitNOFILE=)"
_GONE: Final = "who provides this filesystem has gone (FUSE's process, the file server); mount it again"
_UNMOUNT: Final = "something is mounted there: unmount it, and mount serving.models_dir as a whole"
_MOVE_AWAY: Final = "move it away, so that a file of servesync can be there"
_ADVICE_FOR: Final = {
    errno.ENOENT: "something else removes files there; keep other programs out of serving.models_dir and of "
    ".servesync in it; the agent tries again by itself",
    errno.ENOTEMPTY: "a directory with something in it has the name of a file of servesync: move it away",
    errno.EBUSY: _UNMOUNT,
    errno.EISDIR: _MOVE_AWAY,
    errno.EMFILE: _MORE_HANDLES,
    errno.ENFILE: _MORE_HANDLES,
    errno.ENOTCONN: _GONE,
    errno.ESTALE: _GONE,
}


def describe(error: OSError, doing: str, advice: str | None = None) -> DiskError:
    """Return the error that a user reads for `error`, met while `doing` something.

    `advice`: what to do about it, where it is not the disk of an agent.
    """
    number = error.errno or 0
    reason = Reason.DISK_FAILED if isinstance(error, NotRegular) else _REASONS.get(number, Reason.DISK_FAILED)
    place = Path(os.fsdecode(error.filename)) if error.filename else None
    if reason is Reason.DISK_FULL and place is not None and _inodes_exhausted(place):
        reason = Reason.DISK_INODES
    who = f" (uid {os.getuid()}, gid {os.getgid()})" if reason is Reason.DISK_PERMISSION else ""
    name = f" {os.fsdecode(error.filename)!a}" if error.filename else ""
    where = f"{name}{who}{_lacking(place)}" if reason is Reason.DISK_UNSUPPORTED else f"{name}{who}"
    fallback = _MOVE_AWAY if isinstance(error, NotRegular) else _ADVICE_FOR.get(number, _ADVICE[reason])
    what, code = f"{doing}: {error.strerror or error}{where}", errno.errorcode.get(number, str(error.errno))
    return DiskError(reason, what, advice or fallback, errno=code)


def _lacking(place: Path | None) -> str:
    """Return which filesystem cannot do what it was asked for, in words; empty if that is not known."""
    mount = mount_of(place.parent.resolve()) if place is not None else None
    return f" (the filesystem there, {mount}, cannot do this)" if mount is not None else ""


@contextlib.contextmanager
def described(doing: str, advice: str | None = None) -> Iterator[None]:
    """Raise the error that a user reads for an `OSError` inside, while the disk is still as it was then.

    Raises:
        DiskError: instead of any `OSError`.
    """
    try:
        yield
    except OSError as error:
        raise describe(error, doing, advice) from error


def _inodes_exhausted(path: Path) -> bool:
    for place in (path, *path.parents):
        with contextlib.suppress(OSError):
            found = os.statvfs(place)
            return found.f_files > 0 and found.f_favail == 0
    return False
