"""Cuts objects into parts, and limits the rate at which parts are requested."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from servesync.domain.versions import Proof, StoredObject
from servesync.settings import Fetch

SMALLEST_PART_BYTES: Final = 64 * 1024
PARTS_A_SECOND: Final = 4


@dataclass(frozen=True, slots=True)
class Part:
    """One ranged read, and its proofs. `length` 0: an empty object, which needs no request."""

    item: StoredObject
    offset: int
    length: int
    proofs: tuple[Proof, ...] = ()


def part_bytes(settings: Fetch) -> int:
    """Return the bytes of a part: smaller if memory is short, or under a rate limit.

    Every transfer has room for one part, and so has one more transfer that is just ending.
    """
    shares = settings.transfers + 1 if settings.transfers > 1 else 1
    size = min(settings.part_bytes, max(SMALLEST_PART_BYTES, settings.memory_bytes // shares))
    if settings.max_bytes_per_second is not None:
        size = min(size, max(SMALLEST_PART_BYTES, settings.max_bytes_per_second // PARTS_A_SECOND))
    return size


def cut(objects: Sequence[StoredObject], size: int) -> Iterator[Part]:
    """Yield the parts of all objects in order; an empty object gives one empty part."""
    for item in objects:
        if item.size == 0:
            yield Part(item, 0, 0)
        for offset in range(0, item.size, size):
            yield Part(item, offset, min(size, item.size - offset))


def cut_by_proofs(item: StoredObject, proofs: Sequence[Proof], size: int) -> Iterator[Part]:
    """Yield parts that each hold whole ranges with a proof, together at most `size` bytes if they can.

    `proofs` come in order; what lies between them belongs to no part.
    """
    together: list[Proof] = []
    length = 0
    for proof in proofs:
        end = together[-1].offset + together[-1].size if together else proof.offset
        if together and (length + proof.size > size or proof.offset != end):
            yield Part(item, together[0].offset, length, tuple(together))
            together, length = [], 0
        together.append(proof)
        length += proof.size
    if together:
        yield Part(item, together[0].offset, length, tuple(together))


class RateLimit:
    """Says when the next bytes may be requested, so that the average stays below a rate; needs a lock."""

    def __init__(self, bytes_per_second: int | None) -> None:
        self.bytes_per_second = bytes_per_second
        self._free_at = -math.inf

    def wait(self, now: float) -> float:
        """Return the seconds until the next request is allowed."""
        return 0.0 if self.bytes_per_second is None else max(0.0, self._free_at - now)

    def book(self, length: int, now: float) -> None:
        """Count bytes that are requested now; later requests wait for as long as these take at the rate."""
        if self.bytes_per_second is not None:
            self._free_at = max(now, self._free_at) + length / self.bytes_per_second
