"""Remembers the model server's answers and ends; callers pass in every clock value.

The server is one process and ends for all models at once. For each model this module keeps which versions may
be the cause: those that were on the shelf at that time and were never AVAILABLE.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from servesync.domain.versions import Model, Version
from servesync.errors import ServerDown, ServerError
from servesync.planning.facts import Condition, Ends, Served, Server, ServerState, Shelved
from servesync.planning.facts_index import STABLE_SECONDS
from servesync.planning.load_gate import UNSEEN_SECONDS

LONGEST_STEP_SECONDS: Final = 10.0
MOST_TRACES: Final = 100

Key = tuple[Model, Version]
Said = Mapping[Version, Served] | ServerError


@dataclass(slots=True)
class _Process:
    """The server's process, as far as it can be seen: whether it listens, answers, or has ended."""

    listened: bool = False
    answered: bool = False
    ever_answered: bool = False
    answering_since: float | None = None
    started_at: float | None = None
    counted: float | None = None
    """When the process started whose end was counted last: an end shows more than once."""
    ends: int = 0
    had_answered: bool = False
    """Whether the process that ended last had answered."""

    def record_status(self, said: Said, now: float, started_at: float | None) -> None:
        """Take note of one answer, or of none."""
        is_down = isinstance(said, ServerDown)
        if (is_down and self.listened) or self._is_another(started_at, is_down=is_down):
            self._ended()
        if started_at is not None or is_down:
            self.started_at = started_at
        self.listened = not is_down
        if is_down:
            self.answering_since = None
        elif not isinstance(said, ServerError):
            self.answered = self.ever_answered = True
            self.answering_since = now if self.answering_since is None else self.answering_since

    def _is_another(self, started_at: float | None, *, is_down: bool) -> bool:
        """Whether the process that was seen last is gone; one that answers is there, visible or not."""
        if self.started_at is None:
            return False
        return is_down if started_at is None else started_at != self.started_at

    def _ended(self) -> None:
        if self.started_at is not None and self.started_at == self.counted:
            return
        self.ends += 1
        self.counted = self.started_at
        self.had_answered, self.answered = self.answered, False
        self.answering_since = None


@dataclass(slots=True)
class _Trace:
    """The server's ends while one version of unknown merit lay on the shelf: see `Ends`."""

    identity: str
    now: int = 0
    ever: int = 0
    had_answered: bool = False


@dataclass(slots=True)
class _Suspects:
    """The versions of one model that may be why the server ends."""

    counted: int
    """How many of the server's ends have been counted for them."""
    versions: set[Version] = field(default_factory=set)
    known: set[Version] = field(default_factory=set)
    traces: dict[Version, _Trace] = field(default_factory=dict)

    def count(self, process: _Process, unproven: Mapping[Version, str]) -> None:
        """Count the ends since the last check; `unproven`: identities of what never served."""
        new, self.counted = process.ends - self.counted, process.ends
        for version in self.versions & unproven.keys() if new else ():
            trace = self.traces.pop(version, None)
            if trace is None or trace.identity != unproven[version]:
                trace = _Trace(unproven[version])
            self.traces[version] = trace
            trace.now += new
            trace.ever += new
            trace.had_answered = process.had_answered
        while len(self.traces) > MOST_TRACES:
            del self.traces[next(iter(self.traces))]

    def no_answer(self, shelf: Iterable[Version], unproven: Iterable[Version]) -> None:
        """Keep the suspects, and add the versions that have come since."""
        found = set(unproven)
        self.versions = (self.versions & found) | (found - self.known)
        self.known = set(shelf)

    def answer(
        self,
        said: Mapping[Version, Served],
        waited: Mapping[Version, float],
        shelf: Iterable[Version],
        unproven: Iterable[Version],
    ) -> None:
        """Suspect what the server has still to load, but not the versions that it serves or ignores."""
        up = {version for version, served in said.items() if served.state is ServerState.AVAILABLE}
        ignored = {v for v, seconds in waited.items() if v not in said and seconds >= UNSEEN_SECONDS}
        self.versions = set(unproven) - up - ignored
        self.known = set(shelf)
        for version in up:
            self.traces.pop(version, None)

    def installed(self, version: Version) -> None:
        """Start a new count for a version that has just come."""
        self.versions.add(version)
        self.known.add(version)
        if version in self.traces:
            self.traces[version].now = 0

    def taken_off(self, version: Version) -> None:
        """Start new counts for the others if this version counts as the cause of the server's end."""
        self.versions.discard(version)
        self.known.discard(version)
        trace = self.traces.get(version)
        if trace is not None and trace.now:
            self.traces = {version: trace}
            trace.now = 0


@dataclass(slots=True)
class _Waits:
    """For how long one model's versions have waited for the server."""

    waited: dict[Version, float] = field(default_factory=dict)
    unreachable: dict[Version, float] = field(default_factory=dict)
    last_answer: float | None = None
    last_down: float | None = None
    silent_since: float | None = None

    def answer(self, said: Mapping[Version, Served], shelf: Iterable[Version], now: float) -> None:
        step = 0.0 if self.last_answer is None else min(now - self.last_answer, LONGEST_STEP_SECONDS)
        self.last_answer, self.last_down, self.silent_since = now, None, None
        self.unreachable = {}
        up = {version for version, served in said.items() if served.state is ServerState.AVAILABLE}
        late = (said.keys() | set(shelf)) - up
        self.waited = {version: self.waited.get(version, 0.0) + step for version in late}

    def no_answer(self, shelf: Iterable[Version], now: float, *, is_down: bool) -> None:
        """Count for how long nothing has listened; a server that hangs may well be serving a version."""
        since = self.last_down if is_down else None
        step = 0.0 if since is None else min(now - since, LONGEST_STEP_SECONDS)
        self.last_answer, self.last_down = None, now if is_down else None
        self.silent_since = now if self.silent_since is None else self.silent_since
        self.unreachable = {version: self.unreachable.get(version, 0.0) + step for version in shelf}

    def installed(self, version: Version) -> None:
        self.waited.pop(version, None)
        self.unreachable.pop(version, None)


class ServerWatch:
    """How long versions have waited for the server, since when it is silent, and how often it ended.

    Time counts only between two looks at which the server answered, and at most ten seconds for each:
    a server that was down, or an agent that was suspended, makes nobody late. Time in which nothing listened
    counts likewise, apart. An end is counted once for the server, and once for each version that was on
    the shelf then and had never been AVAILABLE. It shows as a refused connection where something listened
    before, or as a process that is gone or another one.
    """

    def __init__(self) -> None:
        self._process = _Process()
        self._waits: dict[Model, _Waits] = {}
        self._suspects: dict[Model, _Suspects] = {}
        self._cools_down_until: dict[Key, float] = {}

    def record_status(
        self,
        model: Model,
        said: Said,
        shelf: Mapping[Version, Shelved],
        now: float,
        started_at: float | None = None,
    ) -> None:
        """Take note of the server's status of `model`, or of the error in its place.

        `shelf`: what the server should know of. `started_at`: when its process started, if that can be seen;
        the caller must have read it after it received `said`.
        """
        suspects, waits = self._suspects_of(model), self._waits.setdefault(model, _Waits())
        self._process.record_status(said, now, started_at)
        unproven = {version: item.identity for version, item in shelf.items() if _is_unproven(item)}
        suspects.count(self._process, unproven)
        if isinstance(said, ServerError):
            waits.no_answer(shelf, now, is_down=isinstance(said, ServerDown))
            suspects.no_answer(shelf, unproven)
        else:
            waits.answer(said, shelf, now)
            suspects.answer(said, waits.waited, shelf, unproven)

    def _suspects_of(self, model: Model) -> _Suspects:
        return self._suspects.setdefault(model, _Suspects(self._process.ends))

    def installed(self, key: Key) -> None:
        """Note that a version has just come onto the shelf: its time begins anew."""
        model, version = key
        self._waits.setdefault(model, _Waits()).installed(version)
        self._suspects_of(model).installed(version)

    def taken_off(self, key: Key, now: float, cool_down_seconds: float) -> None:
        """Note that a number has left the shelf: the server must miss it at a scan before it comes again."""
        self._cools_down_until[key] = now + cool_down_seconds
        self._suspects_of(key[0]).taken_off(key[1])

    def cooling_down(self, model: Model, now: float) -> frozenset[Version]:
        """Return the numbers that have left the shelf too short a time ago to come again."""
        self._cools_down_until = {key: until for key, until in self._cools_down_until.items() if now < until}
        return frozenset(version for name, version in self._cools_down_until if name == model)

    def next_due(self, now: float) -> float | None:
        """Return the seconds until a number may come again, as far as that is known; None if none waits."""
        due = [until - now for until in self._cools_down_until.values() if until > now]
        if self._process.answering_since is not None:
            due.append(self._process.answering_since + STABLE_SECONDS - now)
        return min((seconds for seconds in due if seconds > 0), default=None)

    def silent_seconds(self, model: Model, now: float) -> float:
        """Return for how long the server has not answered for `model`, as far as is known; 0 if it does."""
        waits = self._waits.get(model)
        return 0.0 if waits is None or waits.silent_since is None else now - waits.silent_since

    def answered_seconds(self, now: float) -> float:
        """Return for how long the server has answered without interruption; 0 if it does not."""
        since = self._process.answering_since
        return 0.0 if since is None else now - since

    def waited_for(self, model: Model) -> Mapping[Version, float]:
        """Return the seconds for which an answering server has had versions that are not AVAILABLE."""
        return dict(self._waits.get(model, _Waits()).waited)

    def unreachable_seconds(self, model: Model) -> Mapping[Version, float]:
        """Return the seconds for which versions of `model` have lain there and nothing listened."""
        return dict(self._waits.get(model, _Waits()).unreachable)

    def ends(self, model: Model) -> Mapping[Version, Ends]:
        """Return how often the server has ended while versions of `model` were there that never served."""
        traces = self._suspects_of(model).traces
        return {v: Ends(trace.now, trace.ever, trace.had_answered) for v, trace in traces.items()}

    def facts(self, model: Model, now: float, server: Server) -> Server:
        """Return `server` with all that is known here filled in for the planner."""
        return replace(
            server,
            waited_seconds=self.waited_for(model),
            unreachable_seconds=self.unreachable_seconds(model),
            ends=self.ends(model),
            has_answered=self._process.ever_answered,
            answered_seconds=self.answered_seconds(now),
        )


def _is_unproven(item: Shelved) -> bool:
    return item.condition is Condition.GOOD and not item.confirmed
