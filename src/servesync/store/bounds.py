"""The bounds on an answer of the store: how long it may take, how slow and how large it may be."""

from dataclasses import dataclass

KIB = 1 << 10
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Bounds:
    """The bounds on one request, after which it is given up.

    `read_seconds` bounds silence, and how long a provider of credentials may take. The floor bounds an
    answer that is never silent but too slow. `answer_bytes` and `answer_seconds` bound answers that are no
    objects: pages of a listing, errors. `listing_seconds` bounds all pages of one listing together.
    """

    connect_seconds: float = 5.0
    read_seconds: float = 20.0
    floor_bytes_per_second: int = 16 * KIB
    floor_after_seconds: float = 15.0
    answer_bytes: int = 16 * MIB
    answer_seconds: float = 60.0
    listing_seconds: float = 300.0
    list_attempts: int = 3


class SpeedFloor:
    """Watches one transfer: its speed in every stretch of `floor_after_seconds` must reach the floor."""

    def __init__(self, bounds: Bounds, now: float) -> None:
        self._bounds = bounds
        self._since = now
        self._done = 0

    def holds(self, done_bytes: int, now: float) -> bool:
        """Tell whether the transfer is fast enough, given all its bytes until now (monotonic seconds)."""
        seconds = now - self._since
        if seconds < self._bounds.floor_after_seconds:
            return True
        fast_enough = done_bytes - self._done >= self._bounds.floor_bytes_per_second * seconds
        self._since, self._done = now, done_bytes
        return fast_enough
