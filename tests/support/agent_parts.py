"""An agent among ports that a test holds in its hand: what the store offers, what the server says, the time.

Jobs run at once, in the thread of the test, unless it hands over others.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from servesync.agent.agent import Agent
from servesync.agent.outcome import Outcome
from servesync.agent.ports import FootprintPort, Ports
from servesync.domain.versions import Model, Release, StoredObject, Version
from servesync.errors import DiskError, ServerError, Stopped, SyncError
from servesync.install import Lock
from servesync.jobs import Ended, Job, Jobs, Message, Running
from servesync.planning.facts import Served
from servesync.runtime.build import build_agent
from servesync.serving import Limit
from servesync.settings import Settings
from servesync.store import Listing
from servesync.store.port import ObjectFacts

MOST_TURNS: Final = 30


def settings_of(models_dir: Path, *names: str, **sections: Mapping[str, Any]) -> Settings:
    """Return settings for some models (or "*"); `sections`: what else they say."""
    defaults: dict[str, dict[str, Any]] = {
        "store": {"url": "s3://bucket", "endpoint_url": "http://127.0.0.1:9", "region": "us-east-1"},
        "serving": {"models_dir": str(models_dir), "rest_url": None},
    }
    merged = {name: {**defaults.get(name, {}), **sections.get(name, {})} for name in defaults | sections}
    return Settings.model_validate({**merged, "models": [{"name": name} for name in names]})


def listing_of(*releases: Release) -> Listing:
    """Return a listing of just these releases."""
    found: dict[Model, tuple[Release, ...]] = {}
    for release in releases:
        found[release.model] = (*found.get(release.model, ()), release)
    return Listing(found, {}, 0, (), 1)


@dataclass
class StoreStub:
    """Offers what `listing` says, or fails as it says; objects by key."""

    listing: Listing | SyncError = field(default_factory=listing_of)
    objects: dict[str, bytes] = field(default_factory=dict)

    def list(self, wants: Callable[[Model], bool], *, should_stop: Callable[[], bool]) -> Listing:
        """Return the listing, whatever is wanted."""
        if isinstance(self.listing, SyncError):
            raise self.listing
        return self.listing

    def describe(self, item: StoredObject) -> ObjectFacts:
        """Nothing is known of an object."""
        return ObjectFacts(None, manifest_to_come=False)

    def read(
        self,
        item: StoredObject,
        offset: int,
        length: int,
        buffer: memoryview,
        should_stop: Callable[[], bool],
    ) -> None:
        """Fill the buffer."""
        buffer[:] = self.objects[item.key][offset : offset + length]

    def close(self) -> None:
        """Nothing is open."""


@dataclass
class ServerStub:
    """Says of each model what `said` has for it: by default that it knows no version."""

    said: dict[Model, Mapping[Version, Served] | ServerError] = field(default_factory=dict)

    def status(self, model: Model, should_stop: Callable[[], bool] | None = None) -> Mapping[Version, Served]:
        """Return it, or raise it."""
        found = self.said.get(model, {})
        if isinstance(found, ServerError):
            raise found
        return found

    def predict(
        self, model: Model, version: Version, body: bytes, seconds: float, should_stop: Callable[[], bool]
    ) -> tuple[int, bytes]:
        """Answer every request."""
        return 200, b'{"outputs": 0.0}'

    def close(self) -> None:
        """Nothing is open."""


@dataclass
class FootprintStub:
    """A server of which only this is seen."""

    used: int | None = None

    def limit(self) -> Limit:
        """No limit is visible."""
        return Limit(None, "a test")

    def used_bytes(self) -> int | None:
        """Return what it holds."""
        return self.used

    def started_at(self) -> float | None:
        """Nobody knows when it started."""
        return None


@dataclass
class HandClock:
    """Moves when a test moves it, and by a microsecond each time it is read: no two moments are the same."""

    seconds: float = 1000.0

    def monotonic(self) -> float:
        """Return the time."""
        self.seconds += 1e-6
        return self.seconds

    def wall(self) -> float:
        """Return it as a time of day in 2026."""
        return 1_780_000_000.0 + self.seconds


class Context:
    """What a job gets that a test runs itself."""

    def __init__(self) -> None:
        self.is_cancelled = False

    def should_stop(self) -> bool:
        """Whether it is cancelled."""
        return self.is_cancelled

    def check(self) -> None:
        """Raise if it is."""
        if self.is_cancelled:
            raise Stopped

    def make_room(self, short: DiskError) -> bool:
        """There is none."""
        return False


class _Done:
    def __init__(self, job: Job) -> None:
        self.job = job

    def cancel(self) -> None:
        """It has ended."""


def run_job(job: Job, context: Context | None = None) -> Ended:
    """Do the work of a job here and now; what is no failure of its own is a failure of the test."""
    try:
        return Ended(job, job.work(context or Context()))
    except (SyncError, OSError) as error:
        return Ended(job, error=error)


class PromptJobs:
    """Runs each job while it is started."""

    def __init__(self) -> None:
        self._inbox: deque[Message] = deque()

    def start(self, job: Job) -> Running:
        """Run it, and keep what it says."""
        self.put(run_job(job))
        return _Done(job)

    def put(self, message: Message) -> None:
        """Let the agent find a message at its next turn."""
        self._inbox.append(message)

    def take(self) -> Iterator[Message]:
        """Yield what they said."""
        while self._inbox:
            yield self._inbox.popleft()

    def close(self, seconds: float) -> bool:
        """None is at work."""
        return True


@dataclass
class Parts:
    """The ports of one agent. `server` None: there is none to ask."""

    store: StoreStub = field(default_factory=StoreStub)
    server: ServerStub | None = None
    clock: HandClock = field(default_factory=HandClock)
    footprint: FootprintPort = field(default_factory=FootprintStub)
    jobs: Jobs = field(default_factory=PromptJobs)

    def agent(self, settings: Settings, lock: Lock | None = None, *, one_pass: bool = False) -> Agent:
        """Return an agent among them; with `lock` None it only looks."""
        ports = Ports(self.store, self.server, self.clock, self.jobs, self.footprint)
        return build_agent(settings, lock, ports, one_pass=one_pass)


def turn_until_idle(agent: Agent, *, poll: bool = False) -> Outcome:
    """Take turns until one has nothing more to do; return what that one said."""
    for number in range(MOST_TURNS):
        outcome = agent.turn(poll=poll and not number, look=not number)
        if outcome.seen is not None and not (outcome.acted or outcome.busy):
            return outcome
    raise AssertionError(f"still at work after {MOST_TURNS} turns")
