"""Objects that streams read in tests, without a store."""

import gc
import hashlib
import threading
import weakref
from collections.abc import Callable, Sequence
from mmap import mmap

from servesync.domain.versions import Proof, StoredObject
from servesync.fetch import Retries

KIB = 1024
AT_ONCE = Retries(attempts=4, first_pause_seconds=0.001, longest_pause_seconds=0.002)


def content(key: str, size: int) -> bytes:
    """Return the bytes of an object: different for each key, never repeating."""
    seed = hashlib.sha256(key.encode()).digest()
    return b"".join(hashlib.sha256(seed + n.to_bytes(8, "big")).digest() for n in range(size // 32 + 1))[
        :size
    ]


class Remote:
    """Objects that can be read in ranges; `before` may fail a read, or be slow."""

    def __init__(
        self, sizes: dict[str, int], before: Callable[[str, int], None] = lambda _key, _at: None
    ) -> None:
        self.data = {key: content(key, size) for key, size in sizes.items()}
        self.objects = [StoredObject(key, size, "e") for key, size in sizes.items()]
        self._before = before
        self._lock = threading.Lock()
        self._reading = 0
        self.most_at_once = 0
        self.reads: list[tuple[str, int, int]] = []
        self.buffers: set[int] = set()
        self.may_weigh = 0
        """The bytes that all buffers together may have; 0 if nobody asks."""
        self.most_bytes = 0
        self._alive: weakref.WeakSet[mmap] = weakref.WeakSet()

    def read(
        self,
        item: StoredObject,
        offset: int,
        length: int,
        buffer: memoryview,
        should_stop: Callable[[], bool],
    ) -> None:
        """Fill the buffer as a store would."""
        with self._lock:
            self._reading += 1
            self.most_at_once = max(self.most_at_once, self._reading)
            self.reads.append((item.key, offset, length))
            self.buffers.add(id(buffer.obj))
            if isinstance(buffer.obj, mmap):
                self._alive.add(buffer.obj)
            if self.may_weigh:
                if sum(map(len, self._alive)) > self.may_weigh:
                    gc.collect()  # tracebacks of errors keep views alive
                self.most_bytes = max(self.most_bytes, sum(map(len, self._alive)))
        try:
            self._before(item.key, offset)
            buffer[:] = self.data[item.key][offset : offset + length]
        finally:
            with self._lock:
                self._reading -= 1


def never() -> bool:
    """Do not stop."""
    return False


def proofs_of(data: bytes, sizes: Sequence[int]) -> list[Proof]:
    """Cut `data` into ranges of these sizes, again and again, with their digests."""
    found = []
    offset = number = 0
    while offset < len(data):
        piece = data[offset : offset + sizes[number % len(sizes)]]
        found.append(Proof(offset, len(piece), hashlib.sha256(piece).hexdigest()))
        offset += len(piece)
        number += 1
    return found
