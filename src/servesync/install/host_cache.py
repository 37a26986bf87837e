"""Stored parts of releases in a directory that the agents of one machine share, each under its SHA-256.

Nothing in it is trusted: not a name, not a size, not a time. No symbolic link below the directory is
followed, and whoever reads a part proves it. What fails here fails nothing else: then there is no cache for a
while.
"""

import contextlib
import errno
import fcntl
import os
import re
import stat
import struct
import threading
import time
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from servesync import disk, disk_shared
from servesync.folders import follow_no_links, opened_dir, opened_file

PAUSE_SECONDS: Final = 60.0
"""How long nothing is written after the disk has refused."""

KEPT_OF_FULL: Final = 0.9
"""What is kept when the cache is full: room for many parts is made at once."""

LOOK_AGAIN_BYTES: Final = 64 << 20
"""After so many bytes of its own an agent looks again what the others have written."""

FORGOTTEN_SECONDS: Final = 3600.0
CLAIM_SECONDS: Final = 15.0
CLAIMS_OFF_SECONDS: Final = 300.0
CLAIM_POLL_SECONDS: Final = 0.05
_CLAIMS: Final = ".claims"
_FOLDER: Final = re.compile(r"[0-9a-f]{2}", re.ASCII)
_PART: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
_UNFINISHED: Final = re.compile(r"\.[0-9a-f]{64}\.[0-9a-f]{32}\.new", re.ASCII)
_LOCK: Final = "hhqqi4x"
"""`struct flock` of Linux with 64 bits: kind, whence, start, length, pid."""


@dataclass(slots=True)
class _Books:
    """What this agent knows of the cache. `total_bytes` None: it has not looked yet."""

    total_bytes: int | None = None
    put_bytes: int = 0
    quiet_until: float = 0.0
    claims_off_until: float = 0.0
    claims: int | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)


class HostCache:
    """The cache in one directory; any thread, and any number of agents, may use it at the same time.

    It holds at most `max_bytes`, but for what agents write at the same moment, and leaves `reserve_bytes` of
    its filesystem free. What was used last stays longest.
    """

    def __init__(self, folder: Path, max_bytes: int, reserve_bytes: int) -> None:
        """Take nothing yet: the directory is made when the first part comes."""
        follow_no_links(folder)
        self.folder = folder
        self.max_bytes = max_bytes
        self._reserve_bytes = reserve_bytes
        self._books = _Books()

    def has(self, sha256: str, size: int) -> bool:
        """Tell whether there is something of the right name and size; it may still be wrong."""
        try:
            with opened_dir(self._path(sha256).parent) as folder:
                found = os.stat(sha256, dir_fd=folder, follow_symlinks=False)
        except OSError:
            return False
        return stat.S_ISREG(found.st_mode) and found.st_size == size

    def read(self, sha256: str, buffer: memoryview) -> bool:
        """Fill `buffer` with a part of its length; False: there is none. The caller proves what came."""
        try:
            with opened_file(self._path(sha256)) as handle:
                if os.fstat(handle).st_size != len(buffer) or not _fill(handle, buffer):
                    self.drop(sha256)
                    return False
                with contextlib.suppress(OSError):  # another user's
                    os.utime(handle)
        except OSError:
            return False
        return True

    def put(self, sha256: str, data: memoryview) -> bool:
        """Keep a part that was proven; return whether it is kept. Others that were not used for long go."""
        books, now = self._books, time.monotonic()
        if now < books.quiet_until or len(data) > self.max_bytes:
            return False
        path = self._path(sha256)
        try:
            if not self._make_room_for(len(data)):
                return False
            disk_shared.make_dir(self.folder)
            disk_shared.make_dir(path.parent)
            disk_shared.put_file(path, data)
        except OSError:
            books.quiet_until = now + PAUSE_SECONDS
            return False
        with books.lock:
            books.put_bytes += len(data)
            books.total_bytes = (books.total_bytes or 0) + len(data)
        return True

    def drop(self, sha256: str) -> None:
        """Remove a part that is wrong; what cannot be removed stays, and is found wrong again."""
        with contextlib.suppress(OSError):
            disk_shared.drop_file(self._path(sha256))

    def give_way(self, device: int, size: int) -> bool:
        """Remove what was not used for longest until `size` bytes are free; return whether anything went.

        `device`: the number of the filesystem that is short; a cache on another one keeps what it has.
        """
        with self._books.lock:
            try:
                if self.folder.lstat().st_dev != device:
                    return False
                return self._trim(max(0, self._look() - size)) > 0
            except OSError:
                return False

    # -- several agents at once -----------------------------------------------------------------------

    @contextlib.contextmanager
    def claimed(self, sha256: str) -> Iterator[bool]:
        """Say to the other agents that this one fetches a part; False: another one does.

        It is no promise: who cannot claim anything, or has waited in vain, fetches all the same.
        """
        handle, start = self._claims(), int(sha256[:15], 16)
        if handle is None or time.monotonic() < self._books.claims_off_until:
            yield True
            return
        try:
            _lock(handle, fcntl.F_WRLCK, start)
        except OSError as error:  # what takes no locks claims nothing
            yield error.errno not in {errno.EAGAIN, errno.EACCES}
            return
        try:
            yield True
        finally:
            with contextlib.suppress(OSError):
                _lock(handle, fcntl.F_UNLCK, start)

    def waited_in_vain(self) -> None:
        """Note that another agent claimed a part and did not bring it: for a while no claim counts."""
        self._books.claims_off_until = time.monotonic() + CLAIMS_OFF_SECONDS

    def _claims(self) -> int | None:
        with self._books.lock:
            if self._books.claims is None:
                flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
                with contextlib.suppress(OSError):
                    disk_shared.make_dir(self.folder)
                    with opened_dir(self.folder) as folder:
                        handle = os.open(_CLAIMS, flags, 0o666, dir_fd=folder)
                    weakref.finalize(self, os.close, handle)
                    self._books.claims = handle
            return self._books.claims

    # -- the size -------------------------------------------------------------------------------------

    def _make_room_for(self, size: int) -> bool:
        """Keep the cache below its size, and the filesystem's reserve free; False: there is no room."""
        books = self._books
        with books.lock:
            step = min(LOOK_AGAIN_BYTES, self.max_bytes // 32)
            total = books.total_bytes
            if total is None or books.put_bytes > step or total + size > self.max_bytes:
                total = self._look()
            if total + size > self.max_bytes:
                self._trim(int(self.max_bytes * KEPT_OF_FULL) - size)
            place = self.folder if self.folder.is_dir() else self.folder.parent
            return disk.free_bytes(place) - size >= self._reserve_bytes

    def _look(self) -> int:
        """Add up what is there; needs the lock."""
        total = sum(size for _, size, _ in self._parts())
        self._books.total_bytes, self._books.put_bytes = total, 0
        return total

    def _trim(self, keep_bytes: int) -> int:
        """Remove what was not used for longest; return how many parts went. Needs the lock."""
        total, gone = self._books.total_bytes or 0, 0
        for _, size, path in sorted(self._parts()):
            if total <= keep_bytes:
                break
            with contextlib.suppress(OSError):
                with contextlib.suppress(FileNotFoundError):  # another agent was first
                    disk_shared.drop_file(path)
                total, gone = total - size, gone + 1
        self._books.total_bytes = total
        return gone

    def _parts(self) -> Iterator[tuple[float, int, Path]]:
        """Yield when each part was last used, its size and its path; remove what dead writers left.

        What does not look like a part of this cache is somebody else's, and stays.
        """
        for folder in disk.entries(self.folder):
            if not _FOLDER.fullmatch(folder.name):
                continue
            with contextlib.suppress(OSError):
                for entry in disk.entries(Path(folder.path)):
                    with contextlib.suppress(OSError):
                        found = entry.stat(follow_symlinks=False)
                        if _PART.fullmatch(entry.name) and stat.S_ISREG(found.st_mode):
                            yield found.st_mtime, found.st_size, Path(entry.path)
                        elif _UNFINISHED.fullmatch(entry.name):
                            _drop_forgotten(Path(entry.path), found.st_mtime)

    def _path(self, sha256: str) -> Path:
        return self.folder / sha256[:2] / sha256


def _drop_forgotten(path: Path, modified_at: float) -> None:
    if abs(time.time() - modified_at) > FORGOTTEN_SECONDS:
        disk_shared.drop_file(path)


def _fill(handle: int, buffer: memoryview) -> bool:
    done = 0
    while done < len(buffer):
        count = os.preadv(handle, [buffer[done:]], done)
        if count == 0:
            return False
        done += count
    return True


def _lock(handle: int, kind: int, start: int) -> None:
    fcntl.fcntl(handle, fcntl.F_OFD_SETLK, struct.pack(_LOCK, kind, os.SEEK_SET, start, 1, 0))
