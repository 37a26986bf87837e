"""What the agent remembers between two looks and may forget at a restart; every clock value is passed in."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from servesync.plan.facts import Served, ServerState
from servesync.plan.versions import Model, Version

LONGEST_STEP_SECONDS: Final = 10.0
MOST_REMEMBERED: Final = 1000

Key = tuple[Model, Version]


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
