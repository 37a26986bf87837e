"""The state of one open stream: which parts are pending, being read, ready, and lent to the consumer."""

import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from servesync.domain.versions import Proof
from servesync.errors import SyncError
from servesync.fetch.parts import Part
from servesync.fetch.reading import Read, Retries

Sink: TypeAlias = Callable[[Proof, memoryview], None]
"""Takes the bytes of one range, which are proven, and valid until it returns; several threads call it."""

FAVOUR_SECONDS: Final = 30.0


@dataclass(slots=True, eq=False)
class Piece:
    """One part that was started. It keeps its buffer while it pauses after a failed attempt."""

    number: int
    part: Part
    buffer: memoryview | None = None
    attempt: int = 0
    differed: bool = False
    due_at: float = -math.inf
    give_up_at: float = math.inf


@dataclass(slots=True, eq=False)
class Lease:
    """One running read: a connection and a buffer. After `revoked_at` its bytes are discarded.

    Where there is a sink, it keeps the buffer while the sink is at work, but no connection.
    """

    flow: "Flow"
    piece: Piece
    buffer: memoryview
    worker: threading.Thread
    revoked_at: float = math.inf

    def is_over(self) -> bool:
        """Tell the read to end."""
        return self.revoked_at < math.inf or self.flow.should_stop()


@dataclass(slots=True, eq=False)
class Flow:
    """One open stream. All its buffers have `size` bytes. Everything but `should_stop` needs the lock.

    With a `sink` the parts are handed on by the workers, in any order, and none is ever ready or lent.
    """

    parts: Iterator[Part]
    size: int
    read: Read
    should_stop: Callable[[], bool]
    retries: Retries
    first: bool
    most: int
    moved_at: float
    sink: Sink | None = None
    is_admitted: bool = False
    error: SyncError | OSError | None = None
    again: list[Piece] = field(default_factory=list)
    reading: dict[int, Lease] = field(default_factory=dict)
    landing: dict[int, Lease] = field(default_factory=dict)
    delivered_bytes: int = 0
    ready: dict[int, Piece] = field(default_factory=dict)
    lent: memoryview | None = None
    upcoming: Piece | None = None
    last_turn: int = 0
    short_since: float = math.inf
    _count: int = 0

    def __post_init__(self) -> None:
        """Take the first part."""
        self.advance()

    def advance(self) -> None:
        """Go on to the next part that was not requested yet."""
        part = next(self.parts, None)
        self.upcoming = None if part is None else Piece(self._count, part)
        self._count += 1

    @property
    def is_hungry(self) -> bool:
        """Whether there are parts to request, now or after a pause."""
        return self.is_admitted and self.error is None and bool(self.again or self.upcoming is not None)

    @property
    def is_done(self) -> bool:
        """Whether the consumer has everything."""
        return not (self.upcoming or self.again or self.reading or self.landing or self.ready)

    @property
    def buffers(self) -> int:
        """How many buffers it holds."""
        pausing = sum(piece.buffer is not None for piece in self.again)
        return len(self.reading) + len(self.landing) + len(self.ready) + pausing + (self.lent is not None)

    def is_favoured(self, now: float) -> bool:
        """Whether the stream has precedence; it loses it after half a minute without progress."""
        return self.first and now - self.moved_at < FAVOUR_SECONDS

    def due(self, now: float, connections: int) -> list[Piece]:
        """Return the parts that may be requested now, in order.

        While a failed part pauses, other streams may use its connection, but further parts of this stream may
        not: a store in trouble would get more and more requests.
        """
        found = sorted((piece for piece in self.again if piece.due_at <= now), key=lambda one: one.number)
        if self.upcoming is not None and len(self.again) + len(self.reading) < connections:
            found.append(self.upcoming)
        return found

    def gives_up_at(self, number: int | None = None) -> float:
        """Return when the consumer stops waiting for a part, or for any of them."""
        waited = [one for one in self._outstanding() if number in (None, one.number)]
        return min((one.give_up_at for one in waited), default=math.inf)

    def last_with_buffer(self) -> Piece | None:
        """Return the part with a buffer that the consumer needs last; None if it has none."""
        found = [one for one in [*self._outstanding(), *self.ready.values()] if one.buffer is not None]
        return max(found, key=lambda one: one.number, default=None)

    def take_back(self, piece: Piece) -> memoryview:
        """Return the buffer of a part that is ready or pauses; the part must be read anew."""
        buffer = piece.buffer
        assert buffer is not None  # noqa: S101 (the caller has looked)
        piece.buffer = None
        if self.ready.pop(piece.number, None):
            self.again.append(piece)
        return buffer

    def _outstanding(self) -> list[Piece]:
        return [*self.again, *(lease.piece for lease in self.reading.values())]
