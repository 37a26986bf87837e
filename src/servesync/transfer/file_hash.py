"""The SHA-256 of a file whose pieces land in any order, from several threads."""

import errno
import hashlib
import os
import threading
from collections.abc import Callable
from typing import Final

_READ_BYTES: Final = 256 << 10


class FileHash:
    """Hashes a file from its beginning to its end: each byte once, when all before it have landed.

    One thread hashes at a time. Others only say what has landed, and the one that hashes goes on with it.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._digest = hashlib.sha256()
        self._hashed = 0
        self._landed: dict[int, int] = {}
        self._is_hashing = False
        self._lock = threading.Lock()

    def landed(self, offset: int, data: memoryview, handle: int, check: Callable[[], None]) -> bool:
        """Note that `data` lies at `offset` of the file `handle`; hash as far as there is no gap.

        Return whether the whole file is hashed now; only one call of all returns True. What had to wait for
        this piece is read back from the file. `check` may raise, to stop early; then the hash is of no use.

        Raises:
            OSError: the file cannot be read back.
        """
        with self._lock:
            self._landed[offset] = offset + len(data)
            if self._is_hashing:
                return False
            self._is_hashing = True
        while (end := self._next()) is not None:
            check()
            if self._hashed == offset:
                self._digest.update(data)
            else:
                self._read_back(handle, end)
            self._hashed = end
            if end == self._size:
                return True
        return False

    def hexdigest(self) -> str:
        """Return the SHA-256 of what was hashed."""
        return self._digest.hexdigest()

    def _next(self) -> int | None:
        """Return where the next piece ends that may be hashed; None if it has not landed."""
        with self._lock:
            end = self._landed.pop(self._hashed, None)
            if end is None:
                self._is_hashing = False
            return end

    def _read_back(self, handle: int, end: int) -> None:
        buffer = memoryview(bytearray(_READ_BYTES))
        at = self._hashed
        while at < end:
            count = os.preadv(handle, [buffer[: end - at]], at)
            if not count:
                raise OSError(errno.EIO, "the file became shorter")
            self._digest.update(buffer[:count])
            at += count
