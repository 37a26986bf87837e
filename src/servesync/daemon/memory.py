"""What the agent remembers between two looks and may forget at a restart; every clock value is passed in."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from servesync.errors import Reason, SyncError
from servesync.plan.facts import Hold, Served, ServerState
from servesync.plan.versions import Model, Version

FIRST_PAUSE_SECONDS: Final = 5.0
LONGEST_PAUSE_SECONDS: Final = 300.0
LONGEST_STEP_SECONDS: Final = 10.0
MOST_REMEMBERED: Final = 1000

Key = tuple[Model, Version]


@dataclass(slots=True)
class _Failure:
    identity: str
    count: int
    not_before: float
    reason: Reason
    text: str


class Attempts:
    """Passing failures: an attempt is made again after a pause that doubles, up to five minutes."""

    def __init__(self) -> None:
        self._failures: dict[Key, _Failure] = {}

    def failed(self, key: Key, identity: str, error: SyncError, now: float) -> float:
        """Note a failure; return the pause in seconds before the next attempt."""
        old = self._failures.get(key)
        count = old.count + 1 if old and old.identity == identity else 1
        pause = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(count - 1, 10))
        self._failures.pop(key, None)
        self._failures[key] = _Failure(identity, count, now + pause, error.reason, str(error))
        if len(self._failures) > MOST_REMEMBERED:
            del self._failures[next(iter(self._failures))]
        return pause

    def succeeded(self, key: Key) -> None:
        """Forget the failures of a version."""
        self._failures.pop(key, None)

    def holds(self, model: Model, identities: Mapping[Version, str], now: float) -> dict[Version, Hold]:
        """Return a hold for every offered version whose pause is not over."""
        return {
            version: Hold(failure.reason, f"{failure.text} (tried {failure.count} times, tried again soon)")
            for (name, version), failure in self._failures.items()
            if name == model and identities.get(version) == failure.identity and now < failure.not_before
        }

    def next_due(self, now: float) -> float | None:
        """Return the seconds until the first pause is over; None if none is under way."""
        due = [failure.not_before - now for failure in self._failures.values() if failure.not_before > now]
        return min(due, default=None)


@dataclass(slots=True)
class ServerMemory:
    """How long an answering server has been seen with a version that is not available yet.

    Time counts only between two looks at which the server answered, and at most ten seconds for each:
    a server that was down, or an agent that was suspended, makes nobody late.
    """

    waited: dict[Key, float] = field(default_factory=dict)
    _last_answer: dict[Model, float] = field(default_factory=dict)
    _before_install: dict[Key, tuple[str, str]] = field(default_factory=dict)

    def saw(
        self, model: Model, versions: Mapping[Version, Served] | None, now: float
    ) -> Mapping[Version, Served] | None:
        """Take note of an answer (None: there was none); return it with what is stale marked as such."""
        last = self._last_answer.pop(model, None)
        if versions is None:
            return None
        self._last_answer[model] = now
        step = 0.0 if last is None else min(now - last, LONGEST_STEP_SECONDS)
        for version, served in versions.items():
            key = (model, version)
            if served.state in {ServerState.AVAILABLE, ServerState.END}:
                self.waited.pop(key, None)
            else:
                self.waited[key] = self.waited.get(key, 0.0) + step
            if served.state is not ServerState.END:
                self._before_install.pop(key, None)
        return {version: self._marked((model, version), served) for version, served in versions.items()}

    def _marked(self, key: Key, served: Served) -> Served:
        stale = self._before_install.get(key) == (served.error_code, served.message)
        return Served(served.state, served.error_code, served.message, stale=stale) if stale else served

    def installed(self, key: Key, served: Served | None) -> None:
        """Note what the server said of a number before new bytes came under it: the same again is no news."""
        self.waited.pop(key, None)
        if served is not None and served.state is ServerState.END:
            self._before_install[key] = (served.error_code, served.message)

    def waited_for(self, model: Model) -> dict[Version, float]:
        """Return the seconds waited for each version of `model`."""
        return {version: seconds for (name, version), seconds in self.waited.items() if name == model}


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
