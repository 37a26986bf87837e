"""Lists the members of a version's directory for the archive: sorted, only files and directories.

Training, or somebody else, may still write there. So every step starts from an open directory, never from a
path and never through a link. A file that changes between its listing and the end of packing is refused.
"""

import errno
import io
import os
import stat
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from servesync import disk
from servesync.domain.paths import RENAMING, flaw_of_path
from servesync.errors import Reason, ReleaseRefused

STILL_WRITTEN: Final = "while it was packed: is it still written?"

_ROOT: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FOLDER: Final = _ROOT | os.O_NOFOLLOW
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""Without O_NONBLOCK, opening a pipe that has replaced a file would block."""

_CHANGED: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO})
"""The errors of opening an entry that was replaced by nothing, a file, a link, or a socket."""


class Stamp(NamedTuple):
    """The facts that show that a file is unchanged: size in bytes, time of the last write, and inode."""

    size: int
    written_ns: int
    device: int
    inode: int


@dataclass(frozen=True, slots=True)
class Made:
    """A file that is packed beside what lies in the directory; its folder must lie there."""

    path: str
    data: bytes

    @property
    def size(self) -> int:
        """How many bytes it has."""
        return len(self.data)

    @property
    def source(self) -> Path:
        """How it is called in a message."""
        return Path(self.path)

    @contextmanager
    def opened(self) -> Iterator[io.BytesIO]:
        """Lend the file for reading."""
        yield io.BytesIO(self.data)


@dataclass(frozen=True, slots=True)
class Member:
    """One directory or file: its path relative to the version; `stamp` is None for a directory.

    `folder`: the handle of its directory, open until the next member is requested.
    """

    path: str
    stamp: Stamp | None
    source: Path
    folder: int

    @property
    def size(self) -> int | None:
        """How many bytes a file has; None for a directory."""
        return self.stamp.size if self.stamp else None

    @contextmanager
    def opened(self) -> Iterator[io.FileIO]:
        """Lend the file for reading.

        Raises:
            ReleaseRefused: `PACK_REFUSED`: on entering or leaving, the file is not the one that was listed.
            OSError: the file cannot be read.
        """
        with io.FileIO(_open(self.source, _FILE, self.folder)) as file:
            if self.stamp != _stamp(os.fstat(file.fileno())):
                raise refused(self.source, f"it changed {STILL_WRITTEN}")
            yield file
            if self.stamp != _stamp(os.fstat(file.fileno())):
                raise refused(self.source, f"it changed {STILL_WRITTEN}")


def members(root: Path) -> Iterator[Member]:
    """Yield everything below `root`, in the order of the paths, a directory before what it holds.

    Raises:
        ReleaseRefused: `PACK_REFUSED`: a link, a special file, or a name that a version may not hold.
        DiskError: this process does not read file names in UTF-8.
        OSError: a directory cannot be read.
    """
    handle = os.open(root, _ROOT)
    try:
        yield from _below(handle, root, "")
    finally:
        os.close(handle)


def _below(folder: int, shown: Path, prefix: str) -> Iterator[Member]:
    with os.scandir(folder) as entries:
        listed = sorted(entries, key=lambda entry: entry.name)
    for entry in listed:
        path, source = prefix + entry.name, shown / entry.name
        disk.check_name(entry.name)
        flaw = flaw_of_path(path)
        if flaw:
            raise refused(source, f"it {flaw} ({RENAMING})")
        status = _status(entry, source)
        if stat.S_ISDIR(status.st_mode):
            yield Member(path, None, source, folder)
            handle = _open(source, _FOLDER, folder)
            try:
                yield from _below(handle, source, f"{path}/")
            finally:
                os.close(handle)
        elif stat.S_ISREG(status.st_mode):
            yield Member(path, _stamp(status), source, folder)
        else:
            raise refused(source, "it is neither a file nor a directory: copy what it stands for")


def survey(root: Path) -> dict[str, Stamp | None]:
    """Return the stamps of all members below `root`, by path. Raises as `members` does."""
    return {member.path: member.stamp for member in members(root)}


def check_unchanged(root: Path, before: Mapping[str, Stamp | None]) -> None:
    """Make sure that nothing below `root` has changed since an earlier survey.

    Raises:
        ReleaseRefused: `PACK_REFUSED`: something has changed, appeared or gone.
    """
    now = survey(root)
    if now != before:
        paths = now.keys() | before.keys()
        first = min(path for path in paths if now.get(path, "") != before.get(path, ""))
        raise refused(root / first, f"it changed {STILL_WRITTEN}")


def refused(path: Path, why: str) -> ReleaseRefused:
    """Return the error for a directory that cannot be packed as it is."""
    return ReleaseRefused(Reason.PACK_REFUSED, f"{os.fspath(path)!a} cannot be packed: {why}")


def header(top: str, path: str, size: int | None) -> bytes:
    """Return the tar header of a member below the folder `top`: no owner, no time, the usual modes.

    `size`: in bytes, None for a directory. POSIX ustar; pax records (POSIX.1-2001) only where a path or a
    size does not fit.
    """
    info = tarfile.TarInfo(f"{top}/{path}" if path else top)
    info.type = tarfile.DIRTYPE if size is None else tarfile.REGTYPE
    info.mode = 0o755 if size is None else 0o644
    info.size = size or 0
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")


def _open(source: Path, flags: int, folder: int) -> int:
    try:
        return os.open(source.name, flags, dir_fd=folder)
    except OSError as error:
        if error.errno in _CHANGED:
            raise refused(source, f"it changed {STILL_WRITTEN}") from error
        raise


def _status(entry: os.DirEntry[str], source: Path) -> os.stat_result:
    try:
        return entry.stat(follow_symlinks=False)
    except FileNotFoundError as error:
        raise refused(source, f"it went away {STILL_WRITTEN}") from error


def _stamp(status: os.stat_result) -> Stamp:
    return Stamp(status.st_size, status.st_mtime_ns, status.st_dev, status.st_ino)
