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
STALE_SECONDS: Final = 60.0
REST_SECONDS: Final = 5.0

EVERYWHERE: Final = ("store_", "disk_")

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
                passing = failure.count < MOST_PASSING and failure.reason is not Reason.OBJECT_ARCHIVED
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
    a server that was down, or an agent that was suspended, makes nobody late.
    """

    _waited: dict[Model, dict[Version, float]] = field(default_factory=dict)
    _last_answer: dict[Model, float] = field(default_factory=dict)
    _silent_since: dict[Model, float] = field(default_factory=dict)
    _before_install: dict[Key, tuple[str, str]] = field(default_factory=dict)
    _taken_off: dict[Key, float] = field(default_factory=dict)

    def saw(
        self,
        model: Model,
        versions: Mapping[Version, Served] | None,
        now: float,
        shelf: Iterable[Version] = (),
    ) -> Mapping[Version, Served] | None:
        """Take note of an answer (None: there was none); return it with what is stale marked as such.

        `shelf`: the versions that the server should know of.
        """
        last = self._last_answer.pop(model, None)
        if versions is None:
            self._silent_since.setdefault(model, now)
            return None
        self._last_answer[model] = now
        self._silent_since.pop(model, None)
        step = 0.0 if last is None else min(now - last, LONGEST_STEP_SECONDS)
        known = self._waited.get(model, {})
        available = {v for v, served in versions.items() if served.state is ServerState.AVAILABLE}
        late = (versions.keys() | set(shelf)) - available
        self._waited[model] = {version: known.get(version, 0.0) + step for version in late}
        for version, served in versions.items():
            if served.state is not ServerState.END:
                self._before_install.pop((model, version), None)
        return {version: self._marked((model, version), served) for version, served in versions.items()}

    def _marked(self, key: Key, served: Served) -> Served:
        """Mark what was said before the version came; after a minute of the same it is no longer stale."""
        model, version = key
        same = self._before_install.get(key) == (served.error_code, served.message)
        stale = same and self._waited[model].get(version, 0.0) < STALE_SECONDS
        return Served(served.state, served.error_code, served.message, stale=stale) if stale else served

    def installed(self, key: Key, served: Served | None) -> None:
        """Note what the server said of a number before new bytes came under it: the same again is no news."""
        model, version = key
        self._waited.get(model, {}).pop(version, None)
        if served is not None and served.state is ServerState.END:
            self._before_install[key] = (served.error_code, served.message)

    def taken_off(self, key: Key, now: float) -> None:
        """Note that a number has left the shelf: the server must miss it at a scan before it comes again."""
        self._taken_off[key] = now

    def resting(self, model: Model, now: float) -> dict[Version, Hold]:
        """Return a hold for every number that left the shelf a moment ago."""
        self._taken_off = {key: at for key, at in self._taken_off.items() if now - at < REST_SECONDS}
        text = "taken off the shelf a moment ago; the server must see it gone before it may come again"
        hold = Hold(Reason.SERVER_REFUSED, text)
        return {version: hold for name, version in self._taken_off if name == model}

    def next_due(self, now: float) -> float | None:
        """Return the seconds until the first number may come again; None if there is none."""
        return min((at + REST_SECONDS - now for at in self._taken_off.values()), default=None)

    def waited_for(self, model: Model) -> Mapping[Version, float]:
        """Return the seconds waited for each version of `model`."""
        return dict(self._waited.get(model, {}))

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
