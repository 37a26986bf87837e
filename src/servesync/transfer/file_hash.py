"""The SHA-256 of a file whose pieces are written in any order, by several threads."""

import errno
import hashlib
import os
import threading
from collections.abc import Callable
from typing import Final

_CHUNK_BYTES: Final = 1 << 20
"""So much is hashed and then written while it is still in the processor's cache."""

_READ_BYTES: Final = 256 << 10

_POLL_SECONDS: Final = 0.2

Write = Callable[[memoryview, int], None]
"""Writes bytes at an offset of the file."""


class FileHash:
    """Hashes a file from its beginning to its end: each byte once, when all before it have been written.

    One thread hashes at a time. A piece that comes next waits for its turn, and is hashed from memory. One
    that comes too early is written, and read back by the thread that closes the gap.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._digest = hashlib.sha256()
        self._hashed = 0
        self._busy_until: int | None = None
        """Where the piece ends that a thread is hashing."""
        self._early: dict[int, int] = {}
        self._is_broken = False
        self._changed = threading.Condition()

    def take(
        self, offset: int, data: memoryview, handle: int, write: Write, check: Callable[[], None]
    ) -> bool:
        """Write a piece of the file `handle`, and hash as far as there is no gap; True when all is hashed.

        Only one call of all returns True. `check` may raise, to stop early; the hash is of no use then.

        Raises:
            OSError: the disk refused, or the file cannot be read back.
        """
        end = offset + len(data)
        is_next = self._turn(offset, end, check)
        try:
            for start in range(0, len(data), _CHUNK_BYTES):
                chunk = data[start : start + _CHUNK_BYTES]
                if is_next:
                    self._digest.update(chunk)
                write(chunk, offset + start)
            if not is_next and not self._close_gap(offset, end):
                return False
            return self._go_on(handle, end if is_next else None, check)
        except BaseException:
            with self._changed:
                self._is_broken = True
                self._changed.notify_all()
            raise

    def hexdigest(self) -> str:
        """Return the SHA-256 of what was hashed."""
        return self._digest.hexdigest()

    def _turn(self, offset: int, end: int, check: Callable[[], None]) -> bool:
        """Tell whether a piece is the next one; wait if it comes after the one that is being hashed."""
        while True:
            check()
            with self._changed:
                if self._busy_until is None and self._hashed == offset:
                    self._busy_until = end
                    return True
                if self._busy_until != offset or self._is_broken:
                    return False
                self._changed.wait(_POLL_SECONDS)

    def _close_gap(self, offset: int, end: int) -> bool:
        """Note a piece that came early; tell whether this thread has to go on with what waits now."""
        with self._changed:
            self._early[offset] = end
            if self._busy_until is not None or self._hashed not in self._early:
                return False
            self._busy_until = self._hashed
            return True

    def _go_on(self, handle: int, hashed: int | None, check: Callable[[], None]) -> bool:
        """Hash the pieces that came early, up to the next gap; True at the end of the file."""
        while (end := self._next(hashed)) is not None:
            check()
            self._read_back(handle, end)
            hashed = end
        return hashed == self._size

    def _next(self, hashed: int | None) -> int | None:
        """Note how far the file is hashed; return where the next piece ends, or None at a gap."""
        with self._changed:
            if hashed is not None:
                self._hashed = hashed
            self._busy_until = self._early.pop(self._hashed, None)
            self._changed.notify_all()
            return self._busy_until

    def _read_back(self, handle: int, end: int) -> None:
        buffer = memoryview(bytearray(_READ_BYTES))
        at = self._hashed
        while at < end:
            count = os.preadv(handle, [buffer[: end - at]], at)
            if not count:
                raise OSError(errno.EIO, "the file became shorter")
            self._digest.update(buffer[:count])
            at += count
