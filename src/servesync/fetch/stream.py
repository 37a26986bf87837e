"""Parallel ranged reads, handed on in order; the first error ends all, and nothing outlives the stream.

Every worker takes the next part and a free buffer in one step under one lock, so the part that the
consumer waits for always has a buffer, and no more than `memory_bytes` are ever held.
"""

import hashlib
import math
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Protocol

from servesync.errors import Reason, ReleaseRefused, Stopped, SyncError, TransferError, bug
from servesync.fetch.parts import Part, RateLimit, cut, cut_by_proofs, part_bytes
from servesync.plan.versions import Proof, StoredObject
from servesync.settings import Fetch

LOOK_FOR_STOP_SECONDS: Final = 0.2
JOIN_SECONDS: Final = 2.0
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
    """How often a part is asked for, how long the pauses between are (full jitter), and when to give up.

    `silent_seconds` is the last line of defence: an attempt that has taken longer, on top of the time that
    its bytes take at `slowest_bytes_per_second`, ends the stream, whatever it is hanging in.
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


@contextmanager
def stream(
    objects: Sequence[StoredObject],
    read: Read,
    settings: Fetch,
    should_stop: Callable[[], bool],
    retries: Retries | None = None,
    proofs: Sequence[Proof] = (),
) -> Iterator[Iterator[tuple[StoredObject, memoryview]]]:
    """Lend an iterator over the bytes of `objects`, in order, as `(object, piece)`.

    `proofs`: if there are any, they cover the only object, in order and without a gap; nothing is handed on
    before its range is proven. The largest of them may make a buffer larger than `memory_bytes`.

    A piece is valid until the next one is asked for. An empty object gives one empty piece. Leaving the
    context ends all workers; one that hangs in the network is left behind for its own time-out to end.

    Raises (from the iterator):
        Stopped: `should_stop` said so.
        ReleaseRefused: `PART_DIFFERS`: bytes that were read twice are not those of the proof.
        SyncError: a part could not be read, after all its retries; the first error counts.
    """
    run = _Run(objects, read, settings, should_stop, retries or Retries(), proofs)
    try:
        run.start()
        yield run.pieces()
    finally:
        run.end()


def read_whole(item: StoredObject, read: Read, settings: Fetch, should_stop: Callable[[], bool]) -> bytes:
    """Return all bytes of a small object; the caller has looked at its size. Raises as `stream` does."""
    data = bytearray(item.size)
    with stream([item], read, settings, should_stop) as parts:
        done = 0
        for _, piece in parts:
            data[done : done + len(piece)] = piece
            done += len(piece)
    return bytes(data)


def _prove(part: Part, buffer: memoryview, *, again: bool) -> None:
    """Compare what was read with its proofs; a difference may have come about on the way, once.

    Raises:
        TransferError: `TRANSFER_DIFFERS`: it is worth to read the part again.
        ReleaseRefused: `PART_DIFFERS`: it has been read `again`, with the same result.
    """
    for proof in part.proofs:
        start = proof.offset - part.offset
        if hashlib.sha256(buffer[start : start + proof.size]).hexdigest() == proof.sha256:
            continue
        where = f"{part.item.key!a}: bytes {proof.offset} to {proof.offset + proof.size}"
        if not again:
            text = f"{where} arrived other than the manifest says; read again"
            raise TransferError(Reason.TRANSFER_DIFFERS, text)
        text = f"{where} are not those that the manifest names, read twice: publish under a new number"
        raise ReleaseRefused(Reason.PART_DIFFERS, text, key=part.item.key, offset=proof.offset)


class _Run:
    def __init__(
        self,
        objects: Sequence[StoredObject],
        read: Read,
        settings: Fetch,
        should_stop: Callable[[], bool],
        retries: Retries,
        proofs: Sequence[Proof],
    ) -> None:
        size = max(part_bytes(settings), max((proof.size for proof in proofs), default=0))
        total = sum(item.size for item in objects)
        needed = -(-total // size) + len(objects) if not proofs else len(proofs)
        count = max(1, min(settings.memory_bytes // size, needed))
        self._read = read
        self._should_stop = should_stop
        self._retries = retries
        parts = cut_by_proofs(objects[0], proofs, size) if proofs else cut(objects, size)
        self._parts = enumerate(parts)
        self._rate = RateLimit(settings.max_bytes_per_second)
        self._changed = threading.Condition()
        self._free = [memoryview(bytearray(min(size, max(total, 1)))) for _ in range(count)]
        self._ready: dict[int, tuple[Part, memoryview]] = {}
        self._handed_out = 0
        self._all_taken = False
        self._ended = False
        self._error: SyncError | None = None
        self._workers = min(settings.connections, count)
        self._threads: list[threading.Thread] = []
        self._give_up_at: dict[int, float] = {}

    def start(self) -> None:
        """Start the workers, or as many as the machine allows.

        Raises:
            TransferError: it allows none.
        """
        for number in range(self._workers):
            thread = threading.Thread(target=self._work, name=f"fetch-{number}", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                if self._threads:
                    return
                text = "cannot start a thread to read with: raise the limit on processes and threads"
                raise TransferError(Reason.TRANSFER_BROKEN, text) from error
            self._threads.append(thread)

    # -- the consumer ---------------------------------------------------------------------------------

    def pieces(self) -> Iterator[tuple[StoredObject, memoryview]]:
        """Yield the parts in order; a buffer goes back when the next piece is asked for."""
        number = 0
        while (found := self._wait_for(number)) is not None:
            part, buffer = found
            try:
                yield part.item, buffer[: part.length]
            finally:
                with self._changed:
                    self._free.append(buffer)
                    self._changed.notify_all()
            number += 1

    def _wait_for(self, number: int) -> tuple[Part, memoryview] | None:
        """Return a part when it is there; None after the last."""
        with self._changed:
            while True:
                if self._should_stop():
                    raise Stopped
                if self._error is not None:
                    raise self._error
                if number in self._ready:
                    return self._ready.pop(number)
                if self._all_taken and number >= self._handed_out:
                    return None
                if time.monotonic() > self._give_up_at.get(number, math.inf):
                    text = f"part {number} hangs: the store neither answers nor fails; tried again later"
                    raise TransferError(Reason.TRANSFER_TOO_SLOW, text)
                self._changed.wait(LOOK_FOR_STOP_SECONDS)

    def end(self) -> None:
        """End all workers."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        deadline = time.monotonic() + JOIN_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    # -- the workers ----------------------------------------------------------------------------------

    def _work(self) -> None:
        while (taken := self._take()) is not None:
            number, part, buffer, delay = taken
            try:
                self._sleep(delay)
                self._fetch(number, part, buffer)
            except SyncError as error:
                self._fail(error)
                return
            except BaseException as error:  # noqa: BLE001 (a worker must not die in silence)
                self._fail(bug(error, f"reading {part.item.key!a}"))
                return
            with self._changed:
                self._ready[number] = (part, buffer)
                self._changed.notify_all()

    def _take(self) -> tuple[int, Part, memoryview, float] | None:
        """Wait for a free buffer and take the next part with it; None when there is nothing more to do."""
        with self._changed:
            while not self._free and not self._all_taken and not self._is_over():
                self._changed.wait(LOOK_FOR_STOP_SECONDS)
            if self._all_taken or self._is_over():
                return None
            number, part = next(self._parts, (-1, None))
            if part is None:
                self._all_taken = True
                self._changed.notify_all()
                return None
            self._handed_out = number + 1
            return number, part, self._free.pop(), self._rate.delay(part.length)

    def _fetch(self, number: int, part: Part, buffer: memoryview) -> None:
        attempt = 0
        differed = False
        patience = self._retries.attempt_seconds(part.length)
        while part.length:
            attempt += 1
            self._give_up_at[number] = time.monotonic() + patience
            try:
                self._read(part.item, part.offset, part.length, buffer[: part.length], self._is_over)
                _prove(part, buffer, again=differed)
            except SyncError as error:
                if error.reason not in AGAIN or attempt >= self._retries.attempts:
                    raise
                differed = differed or error.reason is Reason.TRANSFER_DIFFERS
                del self._give_up_at[number]
                self._sleep(self._retries.pause(attempt))
            else:
                del self._give_up_at[number]
                return

    def _sleep(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if self._is_over():
                raise Stopped
            with self._changed:
                self._changed.wait(min(left, LOOK_FOR_STOP_SECONDS))

    def _fail(self, error: SyncError) -> None:
        with self._changed:
            if self._error is None and not self._ended:
                self._error = error
            self._changed.notify_all()

    def _is_over(self) -> bool:
        return self._ended or self._error is not None or self._should_stop()
