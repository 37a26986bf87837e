"""Writes files below one directory, never through a path: every step is relative to an open directory.

One helper thread hashes and writes each file. Meanwhile the caller decodes the next bytes, which is the
slowest part of the work. If the helper fails, one of the next calls raises its error.
"""

import errno
import hashlib
import os
import stat
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from servesync import disk
from servesync.domain.versions import FileFact, Stamp
from servesync.folders import READ_DIR, opened_dir, stamp_of
from servesync.unpack.paths import Parts
from servesync.unpack.source import Chunk

_PENDING_PIECES: Final = 8
_WRITEBACK_BYTES: Final = 8 << 20
Wrote = Callable[[int, int], None]
"""Called by two threads with how many bytes, and how many files and directories, were just written."""

NEW_FILE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class TreeWriter:
    """A tree that is being written; as a context manager it leaves no thread and no descriptor behind."""

    def __init__(self, into: Path, wrote: Wrote | None = None) -> None:
        self._into = into
        self._wrote = wrote or (lambda _size, _inodes: None)
        self._stack: list[tuple[str, int]] = []
        self._open_files: set[int] = set()
        self._pending: deque[Future[None]] = deque()
        self._facts: list[FileFact] = []
        self.stamps: dict[str, Stamp] = {}
        """The stamp of every file when its last byte was written; complete after `finish`."""
        self._helper = ThreadPoolExecutor(1, thread_name_prefix="unpack-write")

    def __enter__(self) -> Self:
        """Open the directory that everything goes into.

        Raises:
            OSError: the directory is missing or a symbolic link, or no thread can be started.
        """
        with opened_dir(self._into.parent) as parent:
            handle = os.open(self._into.name, READ_DIR, dir_fd=parent)
        self._stack = [("", handle)]
        try:
            open_to_all(handle)
            self._submit(lambda: None)  # the helper thread starts, or fails to, before anything is written
        except OSError:
            self._close_all()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for the helper and close everything; what was written stays."""
        self._close_all()

    def make_directory(self, parts: Parts) -> None:
        """Make a directory and those above it, each with mode 0755 whatever the umask."""
        self._enter(parts)

    def write_file(self, parts: Parts, pieces: Iterable[Chunk]) -> None:
        """Write a new file with mode 0644 whatever the umask; each piece must stay as it is until `finish`.

        Raises:
            OSError: the disk refused this file or an earlier one, or the name exists already.
            DiskError: this process cannot write such a name in UTF-8.
        """
        folder = self._enter(parts[:-1])
        path = "/".join(parts)
        disk.check_name(parts[-1])
        with self._naming(path):
            handle = os.open(parts[-1], NEW_FILE, 0o600, dir_fd=folder)
        self._open_files.add(handle)
        file = _File(handle)
        with self._naming(path):
            os.fchmod(handle, 0o644)
        for piece in pieces:
            self._submit(partial(self._append, file, path, piece))
        self._submit(partial(self._finish, file, path))

    def finish(self) -> list[FileFact]:
        """Return every file that was written, after the last byte went out.

        Raises:
            OSError: the disk refused one of them.
        """
        while self._pending:
            self._pending.popleft().result()
        return self._facts

    def _enter(self, parts: Parts) -> int:
        """Return the open directory `parts`, made where it was missing."""
        common = 0
        while common < min(len(parts), len(self._stack) - 1) and self._stack[common + 1][0] == parts[common]:
            common += 1
        while len(self._stack) > common + 1:
            os.close(self._stack.pop()[1])
        for depth in range(common, len(parts)):
            disk.check_name(parts[depth])
            with self._naming("/".join(parts[: depth + 1])):
                self._stack.append((parts[depth], open_or_make(self._stack[-1][1], parts[depth])))
            self._wrote(0, 1)
        return self._stack[-1][1]

    def _submit(self, job: Callable[[], None]) -> None:
        while len(self._pending) >= _PENDING_PIECES or (self._pending and self._pending[0].done()):
            self._pending.popleft().result()
        try:
            self._pending.append(self._helper.submit(job))
        except RuntimeError as error:
            raise OSError(errno.EAGAIN, "cannot start a thread") from error

    def _append(self, file: "_File", path: str, piece: Chunk) -> None:
        file.digest.update(piece)
        with self._naming(path):
            file.write(piece)
        self._wrote(len(piece), 0)

    def _finish(self, file: "_File", path: str) -> None:
        self._open_files.discard(file.handle)
        with self._naming(path):
            try:
                self.stamps[path] = stamp_of(os.fstat(file.handle))
            finally:
                os.close(file.handle)
        self._wrote(0, 1)
        self._facts.append(FileFact(path, file.size, file.digest.hexdigest()))

    def _close_all(self) -> None:
        self._helper.shutdown(wait=True, cancel_futures=True)
        for handle in (*self._open_files, *(handle for _, handle in self._stack)):
            os.close(handle)
        self._open_files.clear()
        self._stack.clear()

    @contextmanager
    def _naming(self, path: str) -> Iterator[None]:
        """Give errors the full path: a bare name, or none, would not tell where the disk refused."""
        try:
            yield
        except OSError as error:
            error.filename = str(self._into / path)
            raise


class _File:
    """One file that is being written; used by the helper thread only."""

    def __init__(self, handle: int) -> None:
        self.handle = handle
        self.digest = hashlib.sha256()
        self.size = 0
        self._sent = 0

    def write(self, piece: Chunk) -> None:
        rest = memoryview(piece)
        while rest:
            count = os.write(self.handle, rest)
            rest = rest[count:]
            self.size += count
        if self.size - self._sent >= _WRITEBACK_BYTES:
            disk.start_writeback(self.handle, self._sent, self.size - self._sent)
            self._sent = self.size


def open_or_make(parent: int, name: str) -> int:
    """Return the open directory `name` of `parent`; one that is made here is open to all readers."""
    try:
        os.mkdir(name, 0o700, dir_fd=parent)
    except FileExistsError:
        return os.open(name, READ_DIR, dir_fd=parent)
    handle = os.open(name, READ_DIR, dir_fd=parent)
    try:
        open_to_all(handle)
    except OSError:
        os.close(handle)
        raise
    return handle


def open_to_all(handle: int) -> None:
    """Give a directory mode 0755, and keep the set-group-ID bit that a volume's group relies on."""
    os.fchmod(handle, 0o755 | (os.fstat(handle).st_mode & stat.S_ISGID))
