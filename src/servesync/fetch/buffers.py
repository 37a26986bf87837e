"""Keeps buffers for reuse; a buffer that is dropped gives its memory back to the system."""

import mmap
from typing import Final

PRIVATE: Final = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS


class Buffers:
    """The buffers that nobody uses at the moment. The pool calls it under its lock.

    Each buffer is a mapping of its own: the heap would keep parts of freed memory. A page that was never
    written takes no memory. A dropped buffer frees its pages at once, even if a view of it exists.
    """

    def __init__(self) -> None:
        self._free: list[memoryview] = []

    def take(self, size: int, room: int) -> memoryview:
        """Return a buffer of `size` bytes; with the free ones that are kept, it fits into `room` bytes.

        Raises:
            MemoryError: the system gives no more memory.
        """
        found = next((one for one in reversed(self._free) if len(one) == size), None)
        if found is not None:
            self._free = [one for one in self._free if one is not found]
        self.trim(room - size)
        if found is not None:
            return found
        try:
            return memoryview(mmap.mmap(-1, size, flags=PRIVATE))
        except OSError as error:
            raise MemoryError from error

    def give(self, buffer: memoryview) -> None:
        """Take back a buffer that nobody reads or writes any more."""
        self._free.append(buffer)

    def trim(self, room: int) -> None:
        """Drop free buffers, those unused for longest first, until the rest fits into `room` bytes."""
        kept = sum(map(len, self._free))
        while self._free and kept > room:
            dropped = self._free.pop(0)
            kept -= len(dropped)
            if isinstance(dropped.obj, mmap.mmap):
                dropped.obj.madvise(mmap.MADV_DONTNEED)
