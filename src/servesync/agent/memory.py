"""What the agent remembers between two looks and may forget at a restart; every clock value is passed in."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from servesync.errors import Reason, SyncError
from servesync.plan.facts import Hold, Served, ServerState
from servesync.plan.versions import Model, Version

FIRST_PAUSE_SECONDS: Final = 5.0
LONGEST_PAUSE_SECONDS: Final = 300.0
LONGEST_STEP_SECONDS: Final = 10.0
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


@dataclass(slots=True)
class ServerMemory:
    """How long an answering server has had a version that is not available, and since when it is silent.

    Time counts only between two looks at which the server answered, and at most ten seconds for each:
    a server that was down, or an agent that was suspended, makes nobody late. Time in which nothing listened
    counts likewise, apart.
    """

    _waited: dict[Model, dict[Version, float]] = field(default_factory=dict)
    _unheard: dict[Model, dict[Version, float]] = field(default_factory=dict)
    _last_answer: dict[Model, float] = field(default_factory=dict)
    _last_down: dict[Model, float] = field(default_factory=dict)
    _down: set[Model] = field(default_factory=set)
    _silent_since: dict[Model, float] = field(default_factory=dict)
    _rests_until: dict[Key, float] = field(default_factory=dict)

    def nothing_listens(self, model: Model) -> None:
        """Note, before `saw`, that there was no connection: the server is not running, or only starting."""
        self._down.add(model)

    def saw(
        self,
        model: Model,
        versions: Mapping[Version, Served] | None,
        now: float,
        shelf: Iterable[Version] = (),
    ) -> None:
        """Take note of an answer (None: there was none); `shelf`: what the server should know of."""
        last = self._last_answer.pop(model, None)
        if versions is None:
            self._silent_since.setdefault(model, now)
            self._lay_there(model, now, shelf)
            return
        self._last_answer[model] = now
        self._silent_since.pop(model, None)
        self._last_down.pop(model, None)
        self._unheard.pop(model, None)
        step = 0.0 if last is None else min(now - last, LONGEST_STEP_SECONDS)
        known = self._waited.get(model, {})
        available = {v for v, served in versions.items() if served.state is ServerState.AVAILABLE}
        late = (versions.keys() | set(shelf)) - available
        self._waited[model] = {version: known.get(version, 0.0) + step for version in late}

    def _lay_there(self, model: Model, now: float, shelf: Iterable[Version]) -> None:
        """Count for how long nothing has listened; a server that hangs may well be serving a version."""
        last = self._last_down.pop(model, now)
        known = self._unheard.get(model, {})
        step = 0.0
        if model in self._down:
            self._down.remove(model)
            self._last_down[model] = now
            step = min(now - last, LONGEST_STEP_SECONDS)
        self._unheard[model] = {version: known.get(version, 0.0) + step for version in shelf}

    def installed(self, key: Key) -> None:
        """Note that new bytes lie under a number: its time begins anew."""
        model, version = key
        self._waited.get(model, {}).pop(version, None)
        self._unheard.get(model, {}).pop(version, None)

    def taken_off(self, key: Key, now: float, rest_seconds: float) -> None:
        """Note that a number has left the shelf: the server must miss it at a scan before it comes again."""
        self._rests_until[key] = now + rest_seconds

    def resting(self, model: Model, now: float) -> frozenset[Version]:
        """Return the numbers that have left the shelf too short a time ago."""
        self._rests_until = {key: until for key, until in self._rests_until.items() if now < until}
        return frozenset(version for name, version in self._rests_until if name == model)

    def next_due(self, now: float) -> float | None:
        """Return the seconds until the first number may come again; None if there is none."""
        return min((until - now for until in self._rests_until.values() if until > now), default=None)

    def waited_for(self, model: Model) -> Mapping[Version, float]:
        """Return the seconds waited for each version of `model`."""
        return dict(self._waited.get(model, {}))

    def unheard(self, model: Model) -> Mapping[Version, float]:
        """Return the seconds for which versions of `model` have lain there and nothing listened."""
        return dict(self._unheard.get(model, {}))

    def silent_seconds(self, model: Model, now: float) -> float:
        """Return for how long the server has not answered, as far as is known; 0 if it does."""
        return now - self._silent_since.get(model, now)


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
