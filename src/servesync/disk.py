"""The only module that syncs, renames and removes; everything else asks it by name (`disk.sync_dir(x)`).

Every change is made relative to an open directory, which `folders` opens. Functions raise plain `OSError`;
`describe` turns one into the error that a user reads. Tests replace single functions of this module to fail
or to die there; production code has no hooks.
"""

import contextlib
import ctypes
import errno
import os
import shutil
import stat
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final

from servesync.disk_errors import LACKS
from servesync.disk_errors import describe as describe  # noqa: PLC0414 (who meets an error has `disk` at hand)
from servesync.disk_errors import described as described  # noqa: PLC0414 (the same)
from servesync.errors import DiskError, Reason
from servesync.files import check_regular
from servesync.folders import READ_DIR, descend, named, opened_dir, opened_file

_RENAME_NOREPLACE: Final = 1
_RENAME_EXCHANGE: Final = 2
_SYNC_FILE_RANGE_WRITE: Final = 2
_UNFINISHED: Final = ".new"
_NEW_CONTENT: Final = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_libc: Final = ctypes.CDLL(None, use_errno=True)


def check_name(name: str) -> None:
    """Make sure that a name is the same on the disk as in a graph: in UTF-8, whatever the locale.

    Raises:
        DiskError: this process has file names in another encoding.
    """
    encoding = sys.getfilesystemencoding()
    if not name.isascii() and encoding != "utf-8":
        text = f"{name!a}: this process has file names in {encoding}, and graphs have them in UTF-8"
        raise DiskError(Reason.DISK_UNSUPPORTED, f"{text}: set PYTHONUTF8=1, or a locale with UTF-8")


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

    It is an `OSError` if something else (a file, a symbolic link) has the name.
    """
    with opened_dir(path.parent) as parent, named(path):
        try:
            _make(path.name, mode, parent)
        except FileExistsError:
            if not stat.S_ISDIR(os.stat(path.name, dir_fd=parent, follow_symlinks=False).st_mode):
                raise NotADirectoryError(errno.ENOTDIR, "is not a directory") from None


def make_new_dir(path: Path, mode: int) -> None:
    """Make a directory with `mode`, whatever the umask; it is an `OSError` if something has the name."""
    with opened_dir(path.parent) as parent, named(path):
        _make(path.name, mode, parent)


def _make(name: str, mode: int, parent: int) -> None:
    os.mkdir(name, mode, dir_fd=parent)  # readable at once: who dies before the next line leaves it so
    handle = os.open(name, READ_DIR, dir_fd=parent)
    try:
        os.fchmod(handle, mode)
    finally:
        os.close(handle)


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
    with opened_dir(source.parent) as old, opened_dir(target.parent) as new:
        result = _libc.renameat2(old, os.fsencode(source.name), new, os.fsencode(target.name), flags)
        number = ctypes.get_errno()
    if result != 0:
        text = os.strerror(number)
        if number in LACKS:
            text = f"renameat2 with {shown}, {text}"
        raise OSError(number, text, str(source), None, str(target))


def read_file(path: Path, most_bytes: int) -> bytes:
    """Return the content of a regular file; a symbolic link is not followed, and a pipe is not waited for.

    Raises:
        FileNotFoundError: nothing has the name.
        OSError: it cannot be read; `ELOOP` for a link, `EISDIR` for a directory, `EINVAL` for anything else
            that is no regular file, `EFBIG` for one with more than `most_bytes`.
    """
    with opened_file(path) as handle, named(path), os.fdopen(handle, "rb", closefd=False) as file:
        data = file.read(most_bytes + 1)
        if len(data) > most_bytes:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        return data


def sync_file(path: Path) -> None:
    """Make the content of one file durable. Never call it again for a file on which it failed."""
    with opened_dir(path.parent) as parent, named(path):
        _sync(os.open(path.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent))


def sync_dir(path: Path) -> None:
    """Make the entries of one directory durable."""
    with opened_dir(path) as folder, named(path):
        _sync(os.open(".", READ_DIR, dir_fd=folder))


def _sync(handle: int) -> None:
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_tree(root: Path, check: Callable[[], None]) -> None:
    """Make every file below `root`, then every directory from the leaves up, durable.

    What is no regular file is passed over. `check` is called before each file and may raise, to stop early;
    nothing then counts as durable.
    """
    for folder, _, files in os.walk(root, topdown=False, onerror=_raise_unless_gone):
        for name in files:
            check()
            path = Path(folder, name)
            if stat.S_ISREG(path.lstat().st_mode):
                sync_file(path)
        sync_dir(Path(folder))


def _raise_unless_gone(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


def allocate(fd: int, offset: int, length: int) -> bool:
    """Take the disk space of a range of `fd`, which gets at least that long; what was not written is zeros.

    Return False, and change nothing, where the filesystem cannot do it.

    Raises:
        OSError: there is not that much space; some of it may have been taken.
    """
    while _libc.fallocate(fd, 0, ctypes.c_int64(offset), ctypes.c_int64(length)) != 0:
        number = ctypes.get_errno()
        if number in LACKS:
            return False
        if number != errno.EINTR:
            raise OSError(number, os.strerror(number))
    return True


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
    An empty directory that has the name goes.

    Raises:
        OSError: the disk refused; the old content is still there. `ENOTEMPTY`: a directory with something in
            it has the name.
    """
    temporary = f".{path.name}{_UNFINISHED}"
    with opened_dir(path.parent) as folder:
        with named(path.with_name(temporary)):
            handle = os.open(temporary, _NEW_CONTENT, 0o600, dir_fd=folder)
        try:
            with named(path), os.fdopen(handle, "wb") as file:
                check_regular(path.with_name(temporary), os.fstat(handle))
                os.fchmod(handle, mode)
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            check()
            with named(path):
                _replace(temporary, path.name, folder)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=folder)
            raise
    sync_dir(path.parent)


def _replace(source: str, target: str, folder: int) -> None:
    try:
        os.replace(source, target, src_dir_fd=folder, dst_dir_fd=folder)
    except IsADirectoryError:
        os.rmdir(target, dir_fd=folder)
        os.replace(source, target, src_dir_fd=folder, dst_dir_fd=folder)


def remove_unfinished(folder: Path) -> list[OSError]:
    """Remove what a `write_file` into `folder` left when it died; return what could not be removed."""
    return _remove_each(folder, lambda name: name.startswith(".") and name.endswith(_UNFINISHED))


def remove_file(path: Path) -> None:
    """Remove a file if it is there, or an empty directory that has its name, durably.

    Raises:
        OSError: it cannot be removed; `ENOTEMPTY` for a directory with something in it.
    """
    try:
        with opened_dir(path.parent) as parent, named(path):
            try:
                os.unlink(path.name, dir_fd=parent)
            except (IsADirectoryError, PermissionError):
                if not stat.S_ISDIR(os.stat(path.name, dir_fd=parent, follow_symlinks=False).st_mode):
                    raise
                os.rmdir(path.name, dir_fd=parent)
    except FileNotFoundError:
        return
    sync_dir(path.parent)


def remove_tree(path: Path) -> None:
    """Remove a directory and all below it, or a file; follows no symbolic link out of it.

    Raises:
        OSError: something could not be removed; the rest may be gone.
    """
    with contextlib.suppress(FileNotFoundError), opened_dir(path.parent) as parent:
        with named(path):
            is_dir = stat.S_ISDIR(os.stat(path.name, dir_fd=parent, follow_symlinks=False).st_mode)
            if not is_dir:
                os.unlink(path.name, dir_fd=parent)
        if is_dir:
            retry = partial(_make_writable_and_retry, parent, path.parent)
            shutil.rmtree(path.name, dir_fd=parent, onerror=retry)


def _make_writable_and_retry(
    root: int, at: Path, function: Callable[..., object], name: str, error: tuple[object, ...]
) -> None:
    """Open up a folder that an operator closed (a mode is no reason to keep rubbish), and try once more.

    What could not be listed is removed by the next call.
    """
    cause = error[1]
    if isinstance(cause, FileNotFoundError):
        return
    with named(at / name):
        if isinstance(cause, PermissionError):
            closed = Path(name) if function is os.open else Path(name).parent
            folder = descend(os.dup(root), at, closed.parts)
            try:
                Path(f"/proc/self/fd/{folder}").chmod(0o700)
                if function in (os.unlink, os.rmdir):
                    function(Path(name).name, dir_fd=folder)
                    return
            finally:
                os.close(folder)
        raise cause if isinstance(cause, BaseException) else OSError(errno.EIO, "cannot remove")


def entries(path: Path) -> Iterator[os.DirEntry[str]]:
    """Yield the entries of a directory, sorted by name; none if it does not exist.

    Raises:
        OSError: it cannot be read, or is no directory.
    """
    try:
        with opened_dir(path), os.scandir(path) as found:
            listed = sorted(found, key=lambda entry: entry.name)
    except FileNotFoundError:
        return
    yield from listed


def empty_dir(path: Path, check: Callable[[], None] = lambda: None) -> list[OSError]:
    """Remove everything in a directory; return what could not be removed, which stays for the next time.

    What comes into it meanwhile, by a rename under a fresh name, stays for the next time, too. `check` is
    called before each entry and may raise, to stop early.
    """
    return _remove_each(path, lambda _: True, check)


def _remove_each(
    folder: Path, unwanted: Callable[[str], bool], check: Callable[[], None] = lambda: None
) -> list[OSError]:
    problems = []
    try:
        names = [entry.name for entry in entries(folder) if unwanted(entry.name)]
    except OSError as error:
        return [error]
    for name in names:
        check()
        try:
            remove_tree(folder / name)
        except OSError as error:
            problems.append(error)
    return problems
