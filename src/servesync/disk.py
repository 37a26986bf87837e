"""The only module that syncs, renames and removes; everything else asks it by name (`disk.sync_dir(x)`).

Tests replace single functions of this module to fail or to die there; production code has no hooks.
Functions raise plain `OSError`; `describe` turns one into the error that a user reads.
"""

import contextlib
import ctypes
import errno
import os
import shutil
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from servesync.errors import DiskError, Reason
from servesync.files import NotRegular, check_regular
from servesync.mounts import mount_of

_AT_FDCWD: Final = -100
_RENAME_NOREPLACE: Final = 1
_RENAME_EXCHANGE: Final = 2
_SYNC_FILE_RANGE_WRITE: Final = 2
_UNFINISHED: Final = ".new"
_NEW_CONTENT: Final = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_libc: Final = ctypes.CDLL(None, use_errno=True)

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
    errno.EINVAL: Reason.DISK_UNSUPPORTED,
    errno.ENOSYS: Reason.DISK_UNSUPPORTED,
    errno.EOPNOTSUPP: Reason.DISK_UNSUPPORTED,
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
_MOVE_AWAY: Final = "move it away, so that a file can be there"
_MORE_HANDLES: Final = "let this process, or the machine, have more files open (ulimit -n, LimitNOFILE=)"
_GONE: Final = "who provides this filesystem has gone (FUSE's process, the file server); mount it again"
_UNMOUNT: Final = "something is mounted there: unmount it, and mount serving.models_dir as a whole"
_SPECIAL_ADVICE: Final = {
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
    fallback = _MOVE_AWAY if isinstance(error, NotRegular) else _SPECIAL_ADVICE.get(number, _ADVICE[reason])
    text = f"{doing}: {error.strerror or error}{where}: {advice or fallback}"
    return DiskError(reason, text, errno=errno.errorcode.get(number, str(error.errno)))


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


def check_name(name: str) -> None:
    """Make sure that a name is the same on the disk as in a graph: in UTF-8, whatever the locale.

    Raises:
        DiskError: this process has file names in another encoding.
    """
    encoding = sys.getfilesystemencoding()
    if not name.isascii() and encoding != "utf-8":
        text = f"{name!a}: this process has file names in {encoding}, and graphs have them in UTF-8"
        raise DiskError(Reason.DISK_FAILED, f"{text}: set PYTHONUTF8=1, or a locale with UTF-8")


def free_bytes(path: Path) -> int:
    """Return how many bytes an unprivileged process may still write to the filesystem of `path`."""
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize


def free_inodes(path: Path) -> int | None:
    """Return how many files an unprivileged process may still make; None where inodes are not counted."""
    found = os.statvfs(path)
    return found.f_favail if found.f_files > 0 else None


def make_dir(path: Path, mode: int) -> None:
    """Make sure that `path` is a real directory; one that is made here gets `mode`, whatever the umask.

    Raises:
        OSError: it cannot be made, or something else (a file, a symbolic link) has the name.
    """
    try:
        path.mkdir()
    except FileExistsError:
        if not stat.S_ISDIR(path.lstat().st_mode):
            raise NotADirectoryError(errno.ENOTDIR, "is not a directory", str(path)) from None
        return
    path.chmod(mode)


def rename_noreplace(source: Path, target: Path) -> None:
    """Rename atomically; unlike `os.rename`, never replace what is there, not even an empty directory.

    Raises:
        FileExistsError: `target` exists; nothing was changed.
        OSError: the rename is impossible (another filesystem, no permission); nothing was changed.
    """
    _renameat2(source, target, _RENAME_NOREPLACE, "RENAME_NOREPLACE")


def exchange(one: Path, other: Path) -> None:
    """Swap two names atomically: neither is absent at any instant.

    Raises:
        OSError: one is missing, or the filesystem cannot do it; nothing was changed.
    """
    _renameat2(one, other, _RENAME_EXCHANGE, "RENAME_EXCHANGE")


def _renameat2(source: Path, target: Path, flags: int, shown: str) -> None:
    result = _libc.renameat2(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), flags)
    if result != 0:
        number = ctypes.get_errno()
        text = os.strerror(number)
        if _REASONS.get(number) is Reason.DISK_UNSUPPORTED:
            text = f"renameat2 with {shown}, {text}"
        raise OSError(number, text, str(source), None, str(target))


def sync_file(path: Path) -> None:
    """Make the content of one file durable. Never call it again for a file on which it failed."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_dir(path: Path) -> None:
    """Make the entries of one directory durable."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_tree(root: Path, check: Callable[[], None]) -> None:
    """Make every file below `root`, then every directory from the leaves up, durable.

    `check` is called before each file and may raise, to stop early; nothing then counts as durable.
    """
    for folder, _, files in os.walk(root, topdown=False):
        for name in files:
            check()
            sync_file(Path(folder, name))
        sync_dir(Path(folder))


def start_writeback(fd: int, offset: int, length: int) -> None:
    """Ask the kernel to begin writing a range of `fd` to the disk now; waits for nothing, promises nothing.

    It keeps the later `fsync` short, so that the agent can stop quickly and the disk works evenly.
    """
    _libc.sync_file_range(fd, ctypes.c_int64(offset), ctypes.c_int64(length), _SYNC_FILE_RANGE_WRITE)


def write_file(
    path: Path, data: bytes, *, mode: int = 0o600, check: Callable[[], None] = lambda: None
) -> None:
    """Replace `path` by `data` atomically and durably: after a crash it holds the old or the new bytes.

    The file gets `mode`, whatever the umask. `check` is called just before the replacement, and may raise.

    Raises:
        OSError: the disk refused; the old content is still there.
    """
    temporary = path.with_name(f".{path.name}{_UNFINISHED}")
    handle = os.open(temporary, _NEW_CONTENT, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            check_regular(temporary, os.fstat(handle))
            os.fchmod(handle, mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        check()
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_dir(path.parent)


def remove_unfinished(folder: Path) -> list[OSError]:
    """Remove what a `write_file` into `folder` left when it died; return what could not be removed."""
    problems = []
    for entry in entries(folder):
        if entry.name.startswith(".") and entry.name.endswith(_UNFINISHED):
            try:
                remove_tree(Path(entry.path))
            except OSError as error:
                problems.append(error)
    return problems


def remove_file(path: Path) -> None:
    """Remove a file if it is there, durably."""
    try:
        path.unlink()
    except FileNotFoundError:
        return
    sync_dir(path.parent)


def remove_tree(path: Path) -> None:
    """Remove a directory and all below it, or a file; follows no symbolic link out of it.

    Raises:
        OSError: something could not be removed; the rest may be gone.
    """
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    shutil.rmtree(path, onerror=_make_writable_and_retry)


def _make_writable_and_retry(function: Callable[..., object], path: str, error: tuple[object, ...]) -> None:
    """Open up a folder that an operator closed, then try once more (a mode is no reason to keep rubbish)."""
    cause = error[1]
    if isinstance(cause, FileNotFoundError):
        return
    if isinstance(cause, PermissionError):
        parent = Path(path).parent
        if not parent.is_symlink():
            parent.chmod(0o700)
        if function in (os.unlink, os.rmdir):
            function(path)
            return
    raise cause if isinstance(cause, BaseException) else OSError(errno.EIO, "cannot remove", path)


def entries(path: Path) -> Iterator[os.DirEntry[str]]:
    """Yield the entries of a directory, sorted by name; none if it does not exist."""
    try:
        with os.scandir(path) as found:
            listed = sorted(found, key=lambda entry: entry.name)
    except FileNotFoundError:
        return
    yield from listed


def empty_dir(path: Path) -> list[OSError]:
    """Remove everything in a directory; return what could not be removed, which stays for the next time."""
    problems = []
    for entry in entries(path):
        try:
            remove_tree(Path(entry.path))
        except OSError as error:
            problems.append(error)
    return problems
