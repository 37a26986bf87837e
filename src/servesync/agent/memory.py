"""What the agent remembers between two looks and may forget at a restart; every clock value is passed in."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from servesync.errors import Reason, SyncError
from servesync.plan.facts import Hold
from servesync.plan.versions import Model, Version

FIRST_PAUSE_SECONDS: Final = 5.0
LONGEST_PAUSE_SECONDS: Final = 300.0
MOST_REMEMBERED: Final = 1000
MOST_PASSING: Final = 5

EVERYWHERE: Final = ("store_", "disk_")
LASTING: Final = frozenset({Reason.OBJECT_ARCHIVED, Reason.OBJECT_ENCRYPTED})
"""Only somebody else's work ends these, so the next good version is due at once."""

Key = tuple[Model, Version]


@dataclass(slots=True)
class _Failure:
    identity: str
    count: int
    not_before: float
    reason: Reason
    text: str


class Attempts:
    """Passing failures: an attempt is made again after a pause that doubles, up to five minutes.

    A failure of the store or of the disk would hit the model's other versions just as well: they pause, too,
    for a moment. What has failed five times counts as passing no longer: the next good version is due then.
    """

    def __init__(self) -> None:
        self._failures: dict[Key, _Failure] = {}
        self._everywhere: dict[Model, _Failure] = {}

    def failed(self, key: Key, identity: str, error: SyncError, now: float) -> float:
        """Note a failure; return the pause in seconds before the next attempt."""
        old = self._failures.get(key)
        count = old.count + 1 if old and old.identity == identity else 1
        pause = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(count - 1, 10))
        self._failures.pop(key, None)
        self._failures[key] = _Failure(identity, count, now + pause, error.reason, str(error))
        if len(self._failures) > MOST_REMEMBERED:
            del self._failures[next(iter(self._failures))]
        if error.reason.startswith(EVERYWHERE):
            until = now + FIRST_PAUSE_SECONDS
            self._everywhere[key[0]] = _Failure("", count, until, error.reason, str(error))
        return pause

    def count(self, key: Key, identity: str) -> int:
        """Return how often these bytes have failed so far."""
        old = self._failures.get(key)
        return old.count if old and old.identity == identity else 0

    def is_paused(self, key: Key, identity: str, now: float) -> bool:
        """Whether the pause after the last failure of `identity` is not over."""
        old = self._failures.get(key)
        return old is not None and old.identity == identity and now < old.not_before

    def end_pauses(self) -> None:
        """Let everything be tried at once; how often it has failed stays known."""
        for failure in (*self._failures.values(), *self._everywhere.values()):
            failure.not_before = 0.0

    def succeeded(self, key: Key) -> None:
        """Forget the failures of a version."""
        self._failures.pop(key, None)

    def holds(self, model: Model, identities: Mapping[Version, str], now: float) -> dict[Version, Hold]:
        """Return a hold for every offered version whose pause is not over."""
        holds = {}
        everywhere = self._everywhere.get(model)
        if everywhere is not None and now < everywhere.not_before:
            text = f"{everywhere.text} (met with another version; tried again soon)"
            holds = dict.fromkeys(identities, Hold(everywhere.reason, text, passing=True))
        for (name, version), failure in self._failures.items():
            if name == model and identities.get(version) == failure.identity and now < failure.not_before:
                text = f"{failure.text} (tried {failure.count} times, tried again soon)"
                passing = failure.count < MOST_PASSING and failure.reason not in LASTING
                holds[version] = Hold(failure.reason, text, passing)
        return holds

    def next_due(self, now: float) -> float | None:
        """Return the seconds until the first pause is over; None if none is under way."""
        failures = [*self._failures.values(), *self._everywhere.values()]
        due = [failure.not_before - now for failure in failures if failure.not_before > now]
        return min(due, default=None)


class Repeats:
    """Thins out identical messages: the 1st, 2nd, 4th, 8th ... is written, with the count."""

    def __init__(self) -> None:
        self._counts: dict[object, int] = {}

    def count(self, what: object) -> int | None:
        """Return how often `what` has happened if it is to be written now, else None."""
        number = self._counts.pop(what, 0) + 1
        self._counts[what] = number  # at the end: what has not happened for longest is forgotten first
        if len(self._counts) > MOST_REMEMBERED:
            del self._counts[next(iter(self._counts))]
        return number if number & (number - 1) == 0 else None

    def over(self, what: object) -> bool:
        """Forget `what`; return whether it had happened."""
        return self._counts.pop(what, None) is not None

    def over_with(self, *beginning: object) -> None:
        """Forget everything that is a tuple with this beginning."""
        size = len(beginning)
        for what in [what for what in self._counts if isinstance(what, tuple) and what[:size] == beginning]:
            del self._counts[what]
