"""Opens files that somebody else names or may replace, and only regular ones.

Opening a named pipe would wait until somebody writes to it, and a device may have no end.
"""

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO, Final

_FLAGS: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_KINDS: Final = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
    stat.S_IFLNK: "a symbolic link",
}


class NotRegular(OSError):
    """What has the name is no regular file; `strerror` says what it is."""


def open_regular(path: Path, *, follow: bool = True) -> BinaryIO:
    """Open a regular file for reading; never wait for anything else that has the name.

    `follow`: through a symbolic link, as the files of a ConfigMap are reached; else a link is refused.

    Raises:
        NotRegular: it is a directory, a pipe, a device or the like. Nothing of it was read.
        OSError: it is not there, or cannot be read.
    """
    check_regular(path, path.stat(follow_symlinks=follow))  # some devices do something when they are opened
    handle = os.open(path, _FLAGS | (0 if follow else os.O_NOFOLLOW))
    try:
        check_regular(path, os.fstat(handle))  # it may have been replaced meanwhile
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def read_regular(path: Path, most_bytes: int, *, follow: bool = True) -> bytes:
    """Return the content of a regular file; of one larger than `most_bytes`, the first `most_bytes` + 1.

    Raises:
        NotRegular, OSError: as `open_regular`.
    """
    with open_regular(path, follow=follow) as file:
        return file.read(most_bytes + 1)


def check_regular(path: Path, status: os.stat_result) -> None:
    """Make sure that `status`, found at `path`, is that of a regular file.

    Raises:
        NotRegular: it is not.
    """
    kind = stat.S_IFMT(status.st_mode)
    if kind == stat.S_IFREG:
        return
    number = {stat.S_IFDIR: errno.EISDIR, stat.S_IFLNK: errno.ELOOP}.get(kind, errno.EINVAL)
    raise NotRegular(number, f"it is {_KINDS.get(kind, 'something else')}, not a regular file", str(path))
