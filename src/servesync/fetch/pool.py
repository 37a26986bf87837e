"""Parallel ranged reads for several streams at once.

The parts of a stream are handed on in order, to one consumer; or, if they are delivered, by the worker that
has read them, as soon as they are there.

A worker takes the next part, a connection and a buffer in one step under one lock. The part that a consumer
waits for always gets a buffer; if none is free, the pool takes that of a later part, which is read again.

The file is longer than others because every method works on the same state under the same lock: divided, it
would show only half of what may happen between two steps.
"""

import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from servesync.domain.versions import Proof, StoredObject
from servesync.errors import Reason, Stopped, SyncError, TransferError
from servesync.fetch.buffers import Buffers
from servesync.fetch.flow import Flow, Lease, Piece, Sink
from servesync.fetch.parts import RateLimit, cut, cut_by_proofs, part_bytes
from servesync.fetch.reading import AGAIN, Read, Retries
from servesync.fetch.shares import FORGET_SECONDS, GRACE_SECONDS, Shares
from servesync.fetch.work import hand_on, read_part
from servesync.settings import MIB, Fetch

POLL_SECONDS: Final = 0.2
LEAVE_SECONDS: Final = 0.5
PATIENCE_SECONDS: Final = 2.0
DOCUMENTS: Final = Fetch(connections=1, part_bytes=4 * MIB, memory_bytes=4 * MIB, transfers=1)


class FetchPool:
    """Buffers, connections and bandwidth that all transfers of one agent share; safe in several threads.

    Together the streams never take more than `memory_bytes` of buffers, nor more than `connections` reads at
    once; a single one may take all. A read that hangs although it was told to end counts against the others
    for a minute, against a stream that has nothing else for two seconds.
    """

    def __init__(
        self,
        settings: Fetch,
        patience_seconds: float = PATIENCE_SECONDS,
        at_start: Callable[[], None] = lambda: None,
    ) -> None:
        """Take nothing yet: buffers and threads exist only while streams are open.

        `patience_seconds`: how long a stream stays below its share before it takes from one above its share.
        `at_start`: called by each thread that reads, before it reads.
        """
        self._settings = settings
        self._patience_seconds = patience_seconds
        self._at_start = at_start
        self._changed = threading.Condition()
        self._rate = RateLimit(settings.max_bytes_per_second)
        self._buffers = Buffers()
        self._flows: list[Flow] = []
        self._revoked: list[Lease] = []
        self._workers: list[threading.Thread] = []
        self._turns = 0

    def apply(self, settings: Fetch) -> None:
        """Use these settings from now on; open streams keep the size of their parts."""
        with self._changed:
            self._settings = settings
            self._rate.bytes_per_second = settings.max_bytes_per_second
            self._admit()
            self._changed.notify_all()

    @contextmanager
    def stream(
        self,
        objects: Sequence[StoredObject],
        read: Read,
        should_stop: Callable[[], bool],
        retries: Retries | None = None,
        proofs: Sequence[Proof] = (),
        *,
        first: bool = False,
    ) -> Iterator[Iterator[tuple[StoredObject, memoryview]]]:
        """Lend an iterator over the bytes of `objects`, in order, as `(object, piece)`.

        `proofs`: if there are any, they cover the only object, in order and without a gap; nothing is handed
        on before its range is proven. A stream whose largest range has no room beside those of the other
        streams waits until one of them ends; if it is larger than `memory_bytes`, it gets one buffer of that
        size. `first`: the stream goes before those without it, which keep one connection and one buffer.

        A piece is valid until the next one is requested. An empty object gives one empty piece. Leaving the
        context gives everything back; a read that hangs in the network is abandoned, with its buffer, until
        its own time-out ends it.

        Raises (from the iterator):
            Stopped: `should_stop` returned True.
            ReleaseRefused: `PART_DIFFERS`: a range was read twice and did not match its proof.
            SyncError: a part could not be read, after all its retries; the first error counts.
        """
        flow = self._flow(objects, read, should_stop, retries or Retries(), proofs, first=first)
        pieces = self._pieces(flow)
        try:
            self._open(flow)
            yield pieces
        finally:
            flow.lent = None  # not reused: the consumer may still read it
            pieces.close()
            self._close(flow)

    @contextmanager
    def delivery(  # noqa: PLR0913 (what is read, how, and who takes it)
        self,
        item: StoredObject,
        proofs: Sequence[Proof],
        read: Read,
        sink: Sink,
        should_stop: Callable[[], bool],
        retries: Retries | None = None,
        *,
        first: bool = False,
    ) -> Iterator[Iterator[int]]:
        """Read ranges of an object, and have `sink` take each, in any order, in the thread that has read it.

        `proofs` are the ranges, in order. A range is handed on when it is proven; until `sink` returns, it
        keeps its buffer, but no connection. Lend an iterator over how many bytes have been taken so far; it
        ends when all are. Leaving the context waits half a second for calls of `sink`, and abandons those
        that hang. For everything else see `stream`.

        Raises (from the iterator): as `stream` does, and what `sink` raises.
        """
        flow = self._flow([item], read, should_stop, retries or Retries(), proofs, first=first)
        flow.sink = sink
        if not proofs:
            flow.upcoming = None
        try:
            self._open(flow)
            yield self._deliveries(flow)
        finally:
            self._close(flow)

    def read_whole(self, item: StoredObject, read: Read, should_stop: Callable[[], bool]) -> bytes:
        """Return all bytes of a small object; the caller has checked its size. Raises as `stream` does.

        It waits for no other stream: it has a connection and a buffer of its own. Its bytes count for the
        rate limit of the others.
        """
        with self._changed:
            self._rate.book(item.size, time.monotonic())
        data = bytearray(item.size)
        done = 0
        with FetchPool(DOCUMENTS).stream([item], read, should_stop) as parts:
            for _, piece in parts:
                data[done : done + len(piece)] = piece
                done += len(piece)
        return bytes(data)

    # -- opening and closing --------------------------------------------------------------------------

    def _flow(
        self,
        objects: Sequence[StoredObject],
        read: Read,
        should_stop: Callable[[], bool],
        retries: Retries,
        proofs: Sequence[Proof],
        *,
        first: bool,
    ) -> Flow:
        settings = self._settings
        size = max(part_bytes(settings), max((proof.size for proof in proofs), default=0))
        needed = len(proofs) or sum(-(-item.size // size) or 1 for item in objects)
        most = max(1, min(settings.memory_bytes // size, needed))
        parts = cut_by_proofs(objects[0], proofs, size) if proofs else cut(objects, size)
        return Flow(parts, size, read, should_stop, retries, first, most, time.monotonic())

    def _open(self, flow: Flow) -> None:
        with self._changed:
            self._flows.append(flow)
            self._admit()

    def _admit(self) -> None:
        """Let the streams begin for which a buffer fits beside the others; needs the lock."""
        waiting = [flow for flow in self._flows if not flow.is_admitted and flow.error is None]
        for flow in sorted(waiting, key=lambda one: not one.first):
            if self._shares().fits_in(flow.size):
                flow.is_admitted = True
                flow.moved_at = time.monotonic()
            elif flow.size <= self._settings.memory_bytes:
                break
        self._hire()

    def _close(self, flow: Flow) -> None:
        """Give back everything; wait a moment for the reads to end that were told to."""
        deadline = time.monotonic() + LEAVE_SECONDS
        with self._changed:
            self._clear(flow)
            flow.upcoming = None
            if flow in self._flows:
                self._flows.remove(flow)
            self._admit()
            self._changed.notify_all()
            while (
                any(one.flow is flow for one in self._revoked) and (left := deadline - time.monotonic()) > 0
            ):
                self._changed.wait(left)
            if self._flows:
                return
            self._buffers.trim(0)
            workers = list(self._workers)
        for worker in workers:
            worker.join(max(0.0, deadline - time.monotonic()))

    def _clear(self, flow: Flow) -> None:
        """End the stream's reads, and take its buffers except the one that was lent."""
        while (piece := flow.last_with_buffer()) is not None:
            self._take_back(flow, piece)
        for lease in flow.landing.values():
            lease.revoked_at = time.monotonic()
            self._revoked.append(lease)
        flow.landing.clear()
        flow.again.clear()
        flow.ready.clear()

    # -- the consumer ---------------------------------------------------------------------------------

    def _pieces(self, flow: Flow) -> Generator[tuple[StoredObject, memoryview]]:
        """Yield the parts in order; a buffer goes back when the next piece is requested."""
        number = 0
        while (piece := self._wait_for(flow, number)) is not None:
            buffer = flow.lent
            assert buffer is not None  # noqa: S101 (it was lent just now)
            try:
                yield piece.part.item, buffer[: piece.part.length]
            finally:
                del buffer
                with self._changed:
                    if flow.lent is not None:
                        self._buffers.give(flow.lent)
                    flow.lent = None
                    self._changed.notify_all()
            number += 1

    def _wait_for(self, flow: Flow, number: int) -> Piece | None:
        """Wait for a part and return it with its buffer lent; None after the last."""
        while True:
            if flow.should_stop():
                raise Stopped
            with self._changed:
                if flow.error is not None:
                    raise flow.error
                if (piece := flow.ready.pop(number, None)) is not None:
                    flow.lent, piece.buffer = piece.buffer, None
                    flow.moved_at = time.monotonic()
                    return piece
                if flow.is_done:
                    return None
                self._wait(flow, number)

    def _deliveries(self, flow: Flow) -> Iterator[int]:
        """Yield how many bytes the sink has taken, whenever there are more."""
        done = 0
        while True:
            if flow.should_stop():
                raise Stopped
            with self._changed:
                if flow.error is not None:
                    raise flow.error
                if flow.delivered_bytes == done:
                    if flow.is_done:
                        return
                    self._wait(flow)
                    continue
                done = flow.delivered_bytes
            yield done

    def _wait(self, flow: Flow, number: int | None = None) -> None:
        """Wait a moment for a part, or for any, after a look whether it hangs; needs the lock."""
        now = time.monotonic()
        if now > flow.gives_up_at(number):
            what = "a part" if number is None else f"part {number}"
            text = f"{what} hangs: the store neither answers nor fails; repeated later"
            raise TransferError(Reason.TRANSFER_TOO_SLOW, text)
        self._claim(flow, now)
        self._changed.wait(POLL_SECONDS)

    def _claim(self, flow: Flow, now: float) -> None:
        """Take a connection or a buffer from another stream if this one has waited too long for its share."""
        self._write_off(now)
        shares = self._shares()
        lacks_connection = shares.lacks_connection(flow)
        if not lacks_connection and not shares.lacks_buffer(flow):
            flow.short_since = now
            return
        flow.short_since = min(flow.short_since, now)
        if now - flow.short_since < self._patience_seconds:
            return
        flow.short_since = now
        victim = shares.most_connected(flow) if lacks_connection else shares.richest(flow)
        if victim is None:
            return
        last = max(victim.reading.values(), key=lambda one: one.piece.number, default=None)
        piece = last.piece if lacks_connection and last is not None else victim.last_with_buffer()
        if piece is not None:
            self._take_back(victim, piece)
            self._hire()
            self._changed.notify_all()

    def _take_back(self, flow: Flow, piece: Piece) -> None:
        """Take the buffer of a part, which must be read again; tell a running read of it to end."""
        lease = flow.reading.pop(piece.number, None)
        if lease is None:
            self._buffers.give(flow.take_back(piece))
            return
        lease.revoked_at = time.monotonic()
        piece.buffer = None
        flow.again.append(piece)
        self._revoked.append(lease)

    # -- the workers ----------------------------------------------------------------------------------

    def _hire(self) -> None:
        """Start the workers that the open streams can use, or as many as the machine allows.

        Workers that are reading do not count for a stream with parts to request: their reads may hang.
        """
        hungry = [flow for flow in self._flows if flow.is_hungry]
        reading = sum(len(flow.reading) + len(flow.landing) for flow in self._flows)
        reading += sum(lease.worker in self._workers for lease in self._revoked)
        more = sum(max(0, flow.most - len(flow.reading) - len(flow.landing)) for flow in hungry)
        wanted = min(self._settings.connections, reading + more)
        try:
            while len(self._workers) < wanted:
                worker = threading.Thread(target=self._work, name=f"fetch-{len(self._workers)}", daemon=True)
                worker.start()
                self._workers.append(worker)
        except RuntimeError as error:
            if self._workers:
                return
            text = "cannot start a thread to read with: raise the limit on processes and threads"
            for flow in hungry:
                flow.error = TransferError(Reason.TRANSFER_BROKEN, text)
                flow.error.__cause__ = error

    def _work(self) -> None:
        self._at_start()
        while self._work_once():
            pass

    def _work_once(self) -> bool:
        """Read one part, and hand it on; keep no reference to it while the worker waits for the next."""
        lease = self._next()
        if lease is None:
            return False
        error = read_part(lease)
        with self._changed:
            is_landing = self._finish(lease, error)
            self._changed.notify_all()
        if is_landing:
            failed = hand_on(lease)
            with self._changed:
                self._finish_landing(lease, failed)
                self._changed.notify_all()
        return True

    def _next(self) -> Lease | None:
        """Wait for a part that may be read; return None when this worker is not needed any more."""
        me = threading.current_thread()
        with self._changed:
            while True:
                now = time.monotonic()
                self._write_off(now)
                if me not in self._workers:
                    return None
                if len(self._workers) > self._settings.connections or not self._is_work_left():
                    self._workers.remove(me)
                    return None
                if (lease := self._grant(now)) is not None:
                    return lease
                self._changed.wait(self._pause(now))

    def _is_work_left(self) -> bool:
        return any(flow.is_hungry for flow in self._flows)

    def _pause(self, now: float) -> float:
        """Return for how many seconds a worker may wait: until the next retry, or until the rate allows."""
        pauses = [one.due_at - now for flow in self._flows for one in flow.again if one.due_at > now]
        return min([POLL_SECONDS, *pauses, *filter(None, [self._rate.wait(now)])])

    def _grant(self, now: float) -> Lease | None:
        """Give a connection and a buffer to the stream whose turn it is; None if no stream can start."""
        if self._rate.wait(now) > 0:
            return None
        shares = self._shares()
        able = [(flow, piece) for flow in self._flows if (piece := shares.startable(flow)) is not None]
        able = [(flow, piece) for flow, piece in able if shares.may_connect(flow)]
        if not able:
            return None
        flow, piece = min(able, key=lambda one: shares.order(one[0]))
        try:
            buffer = piece.buffer or self._buffer_for(flow, shares)
        except MemoryError as error:
            text = (
                f"no memory for a buffer of {flow.size} bytes: lower fetch.memory_bytes, or allow more memory"
            )
            self._fail(flow, TransferError(Reason.TRANSFER_BROKEN, text))
            del error
            return None
        return self._lend(flow, piece, buffer, now)

    def _buffer_for(self, flow: Flow, shares: Shares) -> memoryview:
        """Return a free buffer, or that of the part which the consumer needs last."""
        if shares.may_hold(flow):
            return self._buffers.take(flow.size, shares.memory_bytes - shares.used_bytes)
        return flow.take_back(flow.ready[max(flow.ready)])

    def _lend(self, flow: Flow, piece: Piece, buffer: memoryview, now: float) -> Lease:
        lease = Lease(flow, piece, buffer, threading.current_thread())
        if piece is flow.upcoming:
            flow.advance()
        else:
            flow.again.remove(piece)
        piece.buffer = buffer
        piece.give_up_at = min(piece.give_up_at, now + flow.retries.attempt_seconds(piece.part.length))
        flow.reading[piece.number] = lease
        flow.short_since = now
        self._turns += 1
        flow.last_turn = self._turns
        self._rate.book(piece.part.length, now)
        return lease

    def _finish(self, lease: Lease, error: SyncError | None) -> bool:
        """Record the result of a read; tell whether the sink is to take it."""
        flow, piece = lease.flow, lease.piece
        if flow.reading.get(piece.number) is not lease:
            self._finish_revoked(lease)
            return False
        del flow.reading[piece.number]
        piece.give_up_at = float("inf")
        if error is None:
            flow.moved_at = time.monotonic()
            if flow.sink is None:
                flow.ready[piece.number] = piece
                return False
            flow.landing[piece.number] = lease
            return True
        self._repeat(flow, piece, error)
        return False

    def _repeat(self, flow: Flow, piece: Piece, error: SyncError) -> None:
        """Have a part read again, or give up."""
        piece.attempt += 1
        flow.again.append(piece)
        if error.reason not in AGAIN or piece.attempt >= flow.retries.attempts:
            self._fail(flow, error)
            return
        piece.differed = piece.differed or error.reason is Reason.TRANSFER_DIFFERS
        piece.due_at = time.monotonic() + flow.retries.pause(piece.attempt)
        self._hire()

    def _finish_landing(self, lease: Lease, error: SyncError | OSError | None) -> None:
        """Record that the sink is done with a part."""
        flow = lease.flow
        if flow.landing.pop(lease.piece.number, None) is None:
            self._finish_revoked(lease)
            return
        lease.piece.buffer = None
        self._buffers.give(lease.buffer)
        if error is not None:
            self._fail(flow, error)
            return
        flow.delivered_bytes += lease.piece.part.length
        flow.moved_at = time.monotonic()

    def _finish_revoked(self, lease: Lease) -> None:
        """Give back the buffer of a read that was told to end, and has ended."""
        if lease.piece.number not in lease.flow.reading:
            lease.piece.give_up_at = float("inf")
        if lease in self._revoked:
            self._revoked.remove(lease)
            if self._flows:
                self._buffers.give(lease.buffer)

    def _fail(self, flow: Flow, error: SyncError | OSError) -> None:
        if flow.error is None:
            flow.error = error
        self._clear(flow)
        self._changed.notify_all()

    def _write_off(self, now: float) -> None:
        """Replace the workers whose reads hang although they were told to end."""
        for lease in self._revoked:
            if now - lease.revoked_at >= GRACE_SECONDS and lease.worker in self._workers:
                self._workers.remove(lease.worker)
                self._hire()
        self._revoked = [one for one in self._revoked if now - one.revoked_at < FORGET_SECONDS]

    def _shares(self) -> Shares:
        return Shares(self._settings, self._flows, self._revoked, time.monotonic())
