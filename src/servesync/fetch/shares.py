"""Decides which stream may have one more connection or buffer, and which has too many.

Every open stream may have one of each. The rest is shared evenly among those that have parts to ask for; the
favoured ones share it among themselves. A read that hangs after it was told to end counts for a while.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from servesync.fetch.flow import Flow, Lease, Piece
from servesync.settings import Fetch

GRACE_SECONDS: Final = 2.0
FORGET_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Shares:
    """The state of one moment; valid under the pool's lock."""

    settings: Fetch
    flows: Sequence[Flow]
    revoked: Sequence[Lease]
    now: float

    @property
    def memory_bytes(self) -> int:
        """The bytes that all buffers together may take; after a reload at least one buffer of each stream."""
        return max(self.settings.memory_bytes, sum(flow.size for flow in self.flows if self._counts(flow)))

    @property
    def used_bytes(self) -> int:
        """The bytes of all buffers in use, including those of reads that hang."""
        return self._used_bytes(FORGET_SECONDS)

    def fits_in(self, size: int) -> bool:
        """Tell whether one more stream may have a buffer of `size`; only one may exceed all memory."""
        if size > self.settings.memory_bytes:
            return not any(flow.is_admitted and flow.size > self.settings.memory_bytes for flow in self.flows)
        taken = sum(flow.size for flow in self.flows if self._counts(flow))
        return taken + size <= self.settings.memory_bytes

    def startable(self, flow: Flow) -> Piece | None:
        """Return the part that the stream may begin to read: in order, if there are buffers for it."""
        if not flow.is_hungry:
            return None
        due = flow.due(self.now, self.settings.connections)
        if any(piece.buffer is None for piece in due) and self.may_hold(flow):
            return due[0]
        last_ready = max(flow.ready, default=-1)
        return next((one for one in due if one.buffer is not None or one.number < last_ready), None)

    def may_connect(self, flow: Flow) -> bool:
        """Tell whether the stream may begin one more read."""
        limit = self.settings.connections
        if not flow.reading:
            return self._used_connections(GRACE_SECONDS) < limit
        owed = sum(1 for one in self._readers() if not one.reading)
        if self._used_connections(FORGET_SECONDS) + owed >= limit:
            return False
        return len(flow.reading) < self._connections_for(flow, math.ceil)

    def may_hold(self, flow: Flow) -> bool:
        """Tell whether the stream may have one more buffer."""
        if not self._counts(flow):
            return not flow.buffers
        if not flow.buffers:
            return self._used_bytes(GRACE_SECONDS) + flow.size <= self.memory_bytes
        owed = sum(one.size for one in self._holders() if not one.buffers and one is not flow)
        if self.used_bytes + owed + flow.size > self.memory_bytes:
            return False
        return flow.buffers < self._buffers_for(flow, math.ceil)

    def lacks_connection(self, flow: Flow) -> bool:
        """Tell whether others keep the stream from its share of the connections."""
        if self.startable(flow) is None or self.may_connect(flow):
            return False
        return len(flow.reading) < self._connections_for(flow, math.floor)

    def lacks_buffer(self, flow: Flow) -> bool:
        """Tell whether others keep the stream from its share of the memory."""
        if (
            not flow.is_hungry
            or self.startable(flow) is not None
            or not flow.due(self.now, self.settings.connections)
        ):
            return False
        return flow.buffers < self._buffers_for(flow, math.floor)

    def most_connected(self, flow: Flow) -> Flow | None:
        """Return the stream with most connections above its share, or above one if `flow` has none."""

        def excess(other: Flow) -> int:
            return len(other.reading) - (self._connections_for(other, math.floor) if flow.reading else 1)

        return _most([one for one in self.flows if one is not flow], excess)

    def richest(self, flow: Flow) -> Flow | None:
        """Return the stream with most memory above its share, or above one buffer if `flow` has none."""

        def excess(other: Flow) -> int:
            keeps = self._buffers_for(other, math.floor) if flow.buffers else 1
            return (other.buffers - keeps) * other.size

        return _most([one for one in self.flows if one is not flow and self._counts(one)], excess)

    def order(self, flow: Flow) -> tuple[bool, int, int]:
        """Return the sort key of streams that may read: favoured, then few reads, then longest unserved."""
        return not flow.is_favoured(self.now), len(flow.reading), flow.last_turn

    # -- shares ---------------------------------------------------------------------------------------

    def _connections_for(self, flow: Flow, rounded: Callable[[float], int]) -> int:
        readers = self._readers()
        others = sum(len(one.reading) for one in self.flows if one not in readers)
        hanging = self._owing(FORGET_SECONDS)
        return max(1, rounded(self._fair(self.settings.connections - others - len(hanging), flow, readers)))

    def _buffers_for(self, flow: Flow, rounded: Callable[[float], int]) -> int:
        holders = self._holders()
        others = sum(one.buffers * one.size for one in self.flows if self._counts(one) and one not in holders)
        left = self.memory_bytes - others - self._hanging_bytes(FORGET_SECONDS)
        return max(1, rounded(self._fair(left, flow, holders) / flow.size))

    def _fair(self, total: int, flow: Flow, sharers: Sequence[Flow]) -> float:
        favoured = [one for one in sharers if one.is_favoured(self.now)]
        if favoured and flow not in favoured:
            return 0.0
        return total / max(1, len(favoured or sharers))

    def _readers(self) -> list[Flow]:
        return [one for one in self.flows if one.is_hungry and (one.reading or self.startable(one))]

    def _holders(self) -> list[Flow]:
        return [one for one in self.flows if one.is_hungry and self._counts(one)]

    # -- what is in use -------------------------------------------------------------------------------

    def _counts(self, flow: Flow) -> bool:
        """Whether a stream counts: one whose only buffer is larger than all memory does not."""
        return flow.is_admitted and flow.size <= self.settings.memory_bytes

    def _owing(self, seconds: float) -> list[Lease]:
        return [lease for lease in self.revoked if self.now - lease.revoked_at < seconds]

    def _used_connections(self, seconds: float) -> int:
        return sum(len(flow.reading) for flow in self.flows) + len(self._owing(seconds))

    def _used_bytes(self, seconds: float) -> int:
        held = sum(flow.buffers * flow.size for flow in self.flows if self._counts(flow))
        return held + self._hanging_bytes(seconds)

    def _hanging_bytes(self, seconds: float) -> int:
        sizes = (len(lease.buffer) for lease in self._owing(seconds))
        return sum(size for size in sizes if size <= self.settings.memory_bytes)


def _most(flows: Sequence[Flow], excess: Callable[[Flow], int]) -> Flow | None:
    found = max(flows, key=excess, default=None)
    return found if found is not None and excess(found) > 0 else None
