"""Writes and removes files in directories that other agents use as well; `disk` does all other work on disks.

What lies there is a copy of something else, and whoever reads it proves it: so nothing here is synced.
"""

import contextlib
import os
import uuid
from pathlib import Path
from typing import Final

from servesync.folders import named, opened_dir

_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def make_dir(path: Path) -> None:
    """Make sure that something has the name; a directory that is made here has the mode of the umask.

    Raises:
        OSError: the disk refused.
    """
    with contextlib.suppress(FileExistsError), opened_dir(path.parent) as parent, named(path):
        os.mkdir(path.name, 0o777, dir_fd=parent)


def put_file(path: Path, data: memoryview) -> None:
    """Let a file appear with `data`, or replace one; it has the mode of the umask.

    Any number of processes may put the same file at the same time. One that dies leaves a file whose name
    begins with a dot and ends in `.new`.

    Raises:
        OSError: the disk refused; the name has what it had.
    """
    temporary = f".{path.name}.{uuid.uuid4().hex}.new"
    with opened_dir(path.parent) as folder, named(path):
        handle = os.open(temporary, _NEW, 0o666, dir_fd=folder)
        try:
            with os.fdopen(handle, "wb", buffering=0) as file:
                while len(data):
                    data = data[file.write(data) :]
            os.replace(temporary, path.name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary, dir_fd=folder)
            raise


def drop_file(path: Path) -> None:
    """Remove a file that is there.

    Raises:
        OSError: it is not, or it cannot be removed.
    """
    with opened_dir(path.parent) as parent, named(path):
        os.unlink(path.name, dir_fd=parent)
