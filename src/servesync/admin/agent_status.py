"""What the agent knows, for those who show it; neither writers nor readers wait.

Writers replace a frozen value by one assignment. Two locks, of the activities and of the last events, are
held only while a few references are copied.
"""

import itertools
import os
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, Protocol

from servesync.admin.metrics import Metrics, Stage
from servesync.admin.snapshot import Snapshot
from servesync.domain.versions import Model, Version
from servesync.errors import Reason

MOST_EVENTS: Final = 100
MOST_CHARACTERS: Final = 600
MOST_AWAITED: Final = 1000
QUIET: Final = frozenset({"poll_finished", "fetch_progress"})
"""Events that `AgentStatus` shows in another way."""
TRANSFERRING: Final = frozenset({Stage.FETCH, Stage.VERIFY, Stage.INSTALL})
"""The stages of a version on its way to the shelf."""
_SHOWN: Final = ("timestamp", "level", "event", "model", "version", "reason", "because", "repeats", "seconds")

LogLine = Mapping[str, str | int | float]


class Counting(Protocol):
    """Takes the number of bytes that have been worked off so far."""

    def __call__(self, done_bytes: int, /) -> None:
        """Note that `done_bytes` are done."""


@dataclass(frozen=True, slots=True)
class Activity:
    """One piece of work that is going on; bytes only where they are counted."""

    stage: Stage
    since_at: float
    model: Model | None = None
    version: Version | None = None
    done_bytes: int | None = None
    total_bytes: int | None = None


def transfers_among(activities: Iterable[Activity]) -> tuple[Activity, ...]:
    """Return those that bring a version to the shelf."""
    return tuple(item for item in activities if item.stage in TRANSFERRING)


class AgentStatus:
    """Written by the deciding thread; `stage`, `note` and all that counts may be called by any thread.

    Only the deciding thread calls `heartbeat`, `sleeping`, `awake` and `publish`: busy jobs do not prove that
    it works.
    """

    def __init__(self, stuck_after_seconds: float = 600.0) -> None:
        self.metrics = Metrics()
        self.started_at = time.time()
        self.pid = os.getpid()
        self.snapshot: Snapshot | None = None
        self.activities: tuple[Activity, ...] = ()
        """What is going on now, the oldest first."""
        self.stuck_after_seconds = stuck_after_seconds
        self._due = time.monotonic()
        self.turned_at = time.time()
        """When the deciding thread last gave a sign, in seconds since 1970."""
        self.draining_since_at: float | None = None
        """Since when `/readyz` sends requests elsewhere; None unless somebody asked for that."""
        self._running: dict[int, Activity] = {}
        self._started = itertools.count()
        self._running_lock = threading.Lock()
        self._events: deque[LogLine] = deque(maxlen=MOST_EVENTS)
        self._events_lock = threading.Lock()
        self._installed: dict[tuple[Model, Version], float] = {}

    # -- is it alive? ---------------------------------------------------------------------------------

    def heartbeat(self) -> None:
        """Note that the deciding thread has begun or ended a step of a cycle."""
        self._due = max(self._due, time.monotonic())
        self.turned_at = time.time()

    def sleeping(self, seconds: float) -> None:
        """Note that the deciding thread sleeps for `seconds` at most."""
        self.heartbeat()
        self._due = time.monotonic() + seconds

    def awake(self) -> None:
        """Note that the sleep is over, even if it was shorter than announced."""
        self._due = time.monotonic()
        self.turned_at = time.time()

    @property
    def silent_seconds(self) -> float:
        """For how long the deciding thread has given no sign though it should have; 0 while it sleeps."""
        return max(0.0, time.monotonic() - self._due)

    @property
    def is_alive(self) -> bool:
        """Whether the deciding thread gave a sign within `stuck_after_seconds`."""
        return self.silent_seconds < self.stuck_after_seconds

    # -- what is going on -----------------------------------------------------------------------------

    def publish(self, snapshot: Snapshot) -> None:
        """Replace the snapshot."""
        self.snapshot = snapshot
        self.heartbeat()

    @contextmanager
    def stage(
        self,
        stage: Stage,
        model: Model | None = None,
        version: Version | None = None,
        total_bytes: int | None = None,
    ) -> Iterator[Counting]:
        """Show what is being done, and measure how long it took if it came to a good end.

        Any number of threads may be in here at once. The stages of one transfer come one after the other.
        """
        began = time.monotonic()
        with self._running_lock:
            key = next(self._started)
            done = 0 if total_bytes is not None else None
            self._running[key] = Activity(stage, time.time(), model, version, done, total_bytes)
            self.activities = tuple(self._running.values())
        try:
            yield partial(self._count, key)
        finally:
            with self._running_lock:
                del self._running[key]
                self.activities = tuple(self._running.values())
        self.metrics.took(stage, time.monotonic() - began)

    def _count(self, key: int, done_bytes: int, /) -> None:
        with self._running_lock:
            before = self._running.get(key)
            if before is None:
                return
            self._running[key] = replace(before, done_bytes=done_bytes)
            self.activities = tuple(self._running.values())
        self.metrics.fetched_bytes.inc(max(0, done_bytes - (before.done_bytes or 0)))

    @property
    def transfers(self) -> tuple[Activity, ...]:
        """The versions that are on their way to the shelf now, each at one stage, the oldest stage first."""
        return transfers_among(self.activities)

    def installed(self, model: Model, version: Version) -> None:
        """Note that a version came onto the shelf just now, to be confirmed by the server."""
        if len(self._installed) >= MOST_AWAITED:
            del self._installed[next(iter(self._installed))]
        self._installed[model, version] = time.monotonic()

    def available(self, model: Model, version: Version, published_at: float | None) -> None:
        """Note that a version has arrived: the server says AVAILABLE, or no server is configured.

        The time since its publication counts only if this agent ran then: a new agent installs versions that
        were published long ago.
        """
        installed = self._installed.pop((model, version), None)
        if installed is not None:
            self.metrics.took(Stage.CONFIRM, time.monotonic() - installed)
        if published_at is not None and published_at >= self.started_at:
            self.metrics.publish_to_available.observe(max(0.0, time.time() - published_at))

    # -- what happened --------------------------------------------------------------------------------

    def note(self, line: Mapping[str, object]) -> None:
        """Keep a line of the log among the last events."""
        if line.get("level") == "debug" or line.get("event") in QUIET:
            return
        shown = {key: _short(line[key]) for key in _SHOWN if key in line}
        with self._events_lock:
            self._events.append(shown)

    def events(self) -> tuple[LogLine, ...]:
        """Return the last events, the newest first."""
        with self._events_lock:
            found = tuple(self._events)
        return found[::-1]

    def came_from(self, source: str, size: int) -> None:
        """Count stored bytes of a release that came from a source, one of `SOURCES`."""
        self.metrics.source_bytes.labels(source).inc(size)

    def count_request(self, operation: str, outcome: str) -> None:
        """Count one request to the store; both words come from short lists of the store's."""
        self.metrics.s3_requests.labels(operation, outcome).inc()

    def acted(self, action: str, outcome: str) -> None:
        """Count an action of the planner that was `done`, `refused` or `failed`."""
        self.metrics.actions.labels(action, outcome).inc()

    def refused(self, reason: Reason) -> None:
        """Count a version that was refused, here or by the model server."""
        self.metrics.refusals.labels(reason.value).inc()

    def failed(self, reason: Reason) -> None:
        """Count something that failed in a way that may pass."""
        self.metrics.failures.labels(reason.value).inc()

    def reloaded(self, outcome: str) -> None:
        """Count a reading of the settings: `applied`, `unchanged` or `rejected`."""
        self.metrics.reloads.labels(outcome).inc()

    def polled(self, reason: Reason | None) -> None:
        """Count one look at the store; `reason`: why it failed."""
        self.metrics.polls.labels(reason.value if reason else "ok").inc()


def _short(value: object) -> str | int | float:
    if isinstance(value, int | float):
        return value
    text = str(value)
    return text if len(text) <= MOST_CHARACTERS else text[: MOST_CHARACTERS - 3] + "..."
