"""When the next turn is due: the pauses of a running agent, by the monotonic clock."""

import math
from dataclasses import dataclass
from typing import Final

from servesync.agent.outcome import Outcome
from servesync.runtime.triggers import longest_wait
from servesync.settings import Poll

FIRST_WAIT_SECONDS: Final = 0.25
LONGEST_WAIT_SECONDS: Final = 2.0
AFTER_A_BUG_SECONDS: Final = 10.0
SERVER_AGAIN_SECONDS: Final = 5.0
SUSPECTS_AGAIN_SECONDS: Final = 1.0
"""A supervisor may start the server a second after each end. A start that nobody sees counts for nothing."""

MOST_SUSPICIOUS_LOOKS: Final = 120
"""After so many, it is no server that ends at each start, but one that is not started."""

SETTLED_AGAIN_SECONDS: Final = 1.0
SHORTEST_PAUSE_SECONDS: Final = 0.05


@dataclass
class Pace:
    """Decides whether a turn lists the store or takes a fresh snapshot, and how long to sleep after it.

    The poll does not depend on the timer alone, since the timer follows the wall clock.
    """

    _poll_at: float = 0.0
    _refresh_at: float = 0.0
    _waits: int = 0
    _suspicious: int = 0

    def is_poll_due(self, now: float) -> bool:
        """Whether the store must be listed now, even if the timer has not fired."""
        return now >= self._poll_at

    def polled(self, poll: Poll, now: float) -> None:
        """Note that the store is being listed."""
        self._poll_at = now + longest_wait(poll)

    def is_refresh_due(self, now: float) -> bool:
        """Whether disk and server must be read again although no change is known."""
        return now >= self._refresh_at

    def refreshed(self) -> None:
        """Note that a turn reads disk and server; `pause` sets when that is due again."""
        self._refresh_at = math.inf

    def pause(self, outcome: Outcome | None, now: float) -> float:
        """Return how many seconds to sleep if nothing happens. `outcome` None: the turn failed with a bug."""
        if outcome is None:
            self._refresh_at = now + AFTER_A_BUG_SECONDS
            return AFTER_A_BUG_SECONDS
        if outcome.acted:
            self._waits = 0
        if outcome.is_due:
            self._refresh_at = now
            return 0.0
        pause = min(max(SHORTEST_PAUSE_SECONDS, seconds) for seconds in self._due(outcome, now))
        if outcome.seen is not None:
            self._suspicious = self._suspicious + 1 if outcome.suspects else 0
            self._refresh_at = min(self._refresh_at, now + pause)  # another wake-up must not delay it
            pause = max(0.0, self._refresh_at - now)
        return pause

    def _due(self, outcome: Outcome, now: float) -> list[float]:
        """Return in how many seconds each piece of periodic work is due."""
        if outcome.settling_seconds is not None and not outcome.store_failed:
            settled_at = now + max(SETTLED_AGAIN_SECONDS, outcome.settling_seconds)
            self._poll_at = min(self._poll_at, settled_at)
        due = [self._poll_at - now]
        if outcome.retry_seconds is not None:
            due.append(outcome.retry_seconds)
        if not outcome.server_answers:
            is_quick = outcome.suspects and self._suspicious < MOST_SUSPICIOUS_LOOKS
            due.append(SUSPECTS_AGAIN_SECONDS if is_quick else SERVER_AGAIN_SECONDS)
        if outcome.waiting:
            due.append(min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2.0 ** min(self._waits, 8)))
            self._waits += 1
        return due
