"""The cache of this host: stored parts that any agent of the machine has fetched."""

import mmap
import threading
from collections.abc import Callable
from typing import Final

from servesync.domain.manifest import Part
from servesync.errors import Stopped, TransferError
from servesync.install import HostCache
from servesync.transfer.landing import Landing

_PRIVATE: Final = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS


class CacheSource:
    """Takes stored parts from the cache, and proves each; what is wrong is removed from it."""

    name = "cache"

    def __init__(self, cache: HostCache) -> None:
        self._cache = cache
        self._free: list[mmap.mmap] = []
        self._lock = threading.Lock()

    def may_have(self, part: Part) -> bool:
        """Tell whether there is something of the right name and size."""
        return self._cache.has(part.sha256, part.size)

    def bring(self, part: Part, landing: Landing, should_stop: Callable[[], bool]) -> bool:
        """Land a part from its stored bytes, if they are there and right."""
        if should_stop():
            raise Stopped
        if not self._cache.has(part.sha256, part.size):
            return False
        room = self._take(part.size)
        try:
            stored = memoryview(room)[: part.size]
            if not self._cache.read(part.sha256, stored):
                return False
            landing.land_stored(part, stored)
        except TransferError:
            self._cache.drop(part.sha256)
            return False
        finally:
            self._give(room)
        return True

    def _take(self, size: int) -> mmap.mmap:
        """Return a buffer of at least `size` bytes; there are as many as threads that bring something."""
        with self._lock:
            for room in self._free:
                if len(room) >= size:
                    self._free.remove(room)
                    return room
            self._free.clear()
        return mmap.mmap(-1, size, flags=_PRIVATE)

    def _give(self, room: mmap.mmap) -> None:
        with self._lock:
            self._free.append(room)
