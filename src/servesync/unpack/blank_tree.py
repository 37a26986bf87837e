"""Directories, and files at their final size, whose bytes come in any order, from several threads.

Nothing is reached through a path: every step is relative to an open directory, and follows no link. A file is
opened for each write, so that a version of ten thousand files needs few descriptors.
"""

import errno
import os
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from servesync import disk
from servesync.errors import DiskError, Reason, Stopped
from servesync.folders import READ_DIR, descend, named, opened_dir
from servesync.unpack.paths import Parts
from servesync.unpack.tree_writer import NEW_FILE, Wrote, open_or_make, open_to_all

_ALLOCATED_AT_ONCE: Final = 256 << 20
_WRITEBACK_FROM: Final = 256 << 10
"""Shorter writes wait for the sync of the whole file."""
_THERE: Final = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class BlankTree:
    """A tree below one directory; as a context manager it leaves no descriptor behind.

    Directories get mode 0755, files 0644, whatever the umask. When the context is left while another thread
    is still in `opened`, that thread ends first; a later one gets `Stopped`.
    """

    def __init__(self, into: Path, wrote: Wrote | None = None) -> None:
        self._into = into
        self._wrote = wrote or (lambda _size, _inodes: None)
        self._root = -1
        self._inodes: dict[str, tuple[int, int]] = {}
        self._lock = threading.Lock()
        self._users = 0
        self._is_closed = False
        self.is_allocated = True
        """Whether the files have their space already; False where the filesystem cannot do that."""

    def __enter__(self) -> Self:
        """Open the directory that everything goes into.

        Raises:
            OSError: the directory is missing or a symbolic link.
        """
        with opened_dir(self._into.parent) as parent:
            self._root = os.open(self._into.name, READ_DIR, dir_fd=parent)
        try:
            open_to_all(self._root)
        except OSError:
            os.close(self._root)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let nobody open a file any more; what was written stays."""
        with self._lock:
            self._is_closed = True
            self._close_unused()

    # -- making ---------------------------------------------------------------------------------------

    def make(
        self, files: Sequence[tuple[Parts, int]], check: Callable[[], None], *, is_kept: bool = False
    ) -> None:
        """Make every file at its size in bytes, with the directories above it.

        `is_kept`: what an earlier attempt has made stays, with its bytes, which are worth nothing until they
        are read. `check` is called often and may raise, to stop early.

        Raises:
            FileExistsError: one is there, and was not to be kept, or is a link or something else.
            OSError: the disk refused, or has not enough space.
            DiskError: this process cannot write such a name in UTF-8.
        """
        stack: list[tuple[str, int]] = []
        try:
            for parts, size in files:
                check()
                folder = self._enter(stack, parts[:-1])
                self._make_file(folder, parts, size, check, is_kept=is_kept)
        finally:
            for _, handle in stack:
                os.close(handle)

    def _enter(self, stack: list[tuple[str, int]], parts: Parts) -> int:
        """Return the open directory `parts`, made where it was missing; `stack` leads to the last one."""
        common = 0
        while common < min(len(parts), len(stack)) and stack[common][0] == parts[common]:
            common += 1
        while len(stack) > common:
            os.close(stack.pop()[1])
        for depth in range(common, len(parts)):
            disk.check_name(parts[depth])
            with named(self._into.joinpath(*parts[: depth + 1])):
                above = stack[-1][1] if stack else self._root
                stack.append((parts[depth], open_or_make(above, parts[depth])))
            self._wrote(0, 1)
        return stack[-1][1] if stack else self._root

    def _make_file(
        self, folder: int, parts: Parts, size: int, check: Callable[[], None], *, is_kept: bool
    ) -> None:
        disk.check_name(parts[-1])
        path = "/".join(parts)
        with named(self._into / path):
            handle = _open_file(folder, parts[-1], is_kept=is_kept)
            try:
                found = os.fstat(handle)
                self._inodes[path] = (found.st_dev, found.st_ino)
                os.fchmod(handle, 0o644)
                if found.st_size > size:
                    os.ftruncate(handle, size)
                self._allocate(handle, size, check)
            finally:
                os.close(handle)
        self._wrote(0, 1)

    def _allocate(self, handle: int, size: int, check: Callable[[], None]) -> None:
        """Give a file its size, and its space where the filesystem can."""
        for start in range(0, size, _ALLOCATED_AT_ONCE):
            check()
            length = min(_ALLOCATED_AT_ONCE, size - start)
            if not (self.is_allocated and disk.allocate(handle, start, length)):
                self.is_allocated = False
                os.ftruncate(handle, size)
                return
            self._wrote(length, 0)

    # -- using ----------------------------------------------------------------------------------------

    @contextmanager
    def opened(self, parts: Parts) -> Iterator[int]:
        """Lend one of the files, to read and write it; any thread may ask for it.

        Raises:
            Stopped: the tree is closed.
            DiskError: `DISK_FAILED`: somebody else has replaced the file.
            OSError: it cannot be opened.
        """
        path = "/".join(parts)
        with self._in_use(), named(self._into / path):
            folder = descend(os.dup(self._root), self._into, parts[:-1])
            try:
                handle = os.open(parts[-1], _THERE, dir_fd=folder)
            finally:
                os.close(folder)
            try:
                found = os.fstat(handle)
                if self._inodes[path] != (found.st_dev, found.st_ino):
                    raise self._meddled(path)
                yield handle
            finally:
                os.close(handle)

    def write(self, handle: int, data: memoryview, offset: int) -> None:
        """Write `data` at its place in a file that is open."""
        rest, at = data, offset
        while rest:
            count = os.pwrite(handle, rest, at)
            rest, at = rest[count:], at + count
        if not self.is_allocated:
            self._wrote(len(data), 0)

    def start_writeback(self, handle: int, offset: int, size: int) -> None:
        """Have the disk begin with what was written there, if that is much."""
        if size >= _WRITEBACK_FROM:
            disk.start_writeback(handle, offset, size)

    @contextmanager
    def _in_use(self) -> Iterator[None]:
        with self._lock:
            if self._is_closed:
                raise Stopped
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                self._close_unused()

    def _close_unused(self) -> None:
        """Close the root when the tree is closed and nobody is in it any more; needs the lock."""
        if self._is_closed and not self._users:
            os.close(self._root)

    def _meddled(self, path: str) -> DiskError:
        text = (
            f"{self._into / path} is another file than the one that servesync made: something else changes "
            "the staging directory; keep other programs out of .servesync. Nothing is wrong with the "
            "release: it is fetched again"
        )
        return DiskError(Reason.DISK_FAILED, text, files=[path])


def _open_file(folder: int, name: str, *, is_kept: bool) -> int:
    """Return a new file, or one of our own that an earlier attempt has made, open for writing."""
    try:
        return os.open(name, NEW_FILE, 0o600, dir_fd=folder)
    except FileExistsError:
        if not is_kept:
            raise
    handle = os.open(name, _THERE, dir_fd=folder)
    found = os.fstat(handle)
    if stat.S_ISREG(found.st_mode) and found.st_nlink == 1:
        return handle
    os.close(handle)
    raise FileExistsError(errno.EEXIST, "is not a file of servesync's own")
