"""Time that passes only when a test lets it."""

from dataclasses import dataclass
from typing import Final

BEGIN: Final = 1_790_000_000.0
"""Some day in 2026, in seconds since 1970."""


@dataclass
class SimClock:
    """Both clocks of one machine; `advance` moves them together."""

    now: float = 1000.0
    begin: float = BEGIN

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        return self.now

    def wall(self) -> float:
        """Return the seconds since 1970."""
        return self.begin + self.now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        assert seconds >= 0, "time never goes back"
        self.now += seconds

    def set_wall(self, seconds: float) -> None:
        """Set the wall clock, as an operator or NTP does; the other clock does not notice."""
        self.begin = seconds - self.now
