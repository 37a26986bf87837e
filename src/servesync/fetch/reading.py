"""Defines one ranged read: how often it is repeated, and how its bytes are proven."""

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from servesync.domain.versions import StoredObject
from servesync.errors import Reason, ReleaseRefused, TransferError
from servesync.fetch.parts import Part

AGAIN: Final = frozenset(
    {
        Reason.STORE_UNREACHABLE,
        Reason.STORE_THROTTLED,
        Reason.STORE_FAILED,
        Reason.TRANSFER_BROKEN,
        Reason.TRANSFER_TOO_SLOW,
        Reason.TRANSFER_DIFFERS,
    }
)


class Read(Protocol):
    """Fills a buffer with one range of an object; see `servesync.store.StorePort.read`."""

    def __call__(
        self,
        item: StoredObject,
        offset: int,
        length: int,
        buffer: memoryview,
        should_stop: Callable[[], bool],
        /,
    ) -> None:
        """Fill `buffer`, or raise a `SyncError`."""


@dataclass(frozen=True, slots=True)
class Retries:
    """How often a part is requested, how long the pauses between are (full jitter), and when to give up.

    `silent_seconds` is the last line of defence. An attempt may take so long in addition to the time of its
    bytes at `slowest_bytes_per_second`; a longer one ends the stream, wherever it hangs.
    """

    attempts: int = 5
    first_pause_seconds: float = 0.5
    longest_pause_seconds: float = 10.0
    silent_seconds: float = 60.0
    slowest_bytes_per_second: int = 8 * 1024

    def pause(self, attempt: int) -> float:
        """Return a random pause after the `attempt`-th failure (from 1)."""
        longest = min(self.longest_pause_seconds, self.first_pause_seconds * 2.0 ** (attempt - 1))
        return random.uniform(0, longest)  # noqa: S311 (jitter, not a secret)

    def attempt_seconds(self, length: int) -> float:
        """Return how long one attempt to read `length` bytes may take at most."""
        return self.silent_seconds + length / self.slowest_bytes_per_second


def prove(part: Part, buffer: memoryview, *, again: bool) -> None:
    """Compare the bytes of a part with its proofs; the first difference may be damage on the way.

    Raises:
        TransferError: `TRANSFER_DIFFERS`: reading the part again may help.
        ReleaseRefused: `PART_DIFFERS`: the part was read `again`, with the same result.
    """
    for proof in part.proofs:
        start = proof.offset - part.offset
        if hashlib.sha256(buffer[start : start + proof.size]).hexdigest() == proof.sha256:
            continue
        where = f"{part.item.key!a}: bytes {proof.offset} to {proof.offset + proof.size}"
        if not again:
            text = f"{where} do not match the manifest; they are read again"
            raise TransferError(Reason.TRANSFER_DIFFERS, text)
        text = f"{where} do not match the manifest, and were read twice: publish under a new number"
        raise ReleaseRefused(Reason.PART_DIFFERS, text, key=part.item.key, offset=proof.offset)
