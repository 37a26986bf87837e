"""An agent among ports that a test controls: what the store offers, what the server answers, and the time.

With `Parts`, each job runs at once, in the thread of the test. With `World`, it runs when the test says so.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from servesync.admin import AgentStatus
from servesync.agent.agent import Agent
from servesync.agent.outcome import Outcome
from servesync.agent.ports import FootprintPort, Ports
from servesync.agent.state import AgentState
from servesync.domain.methods import Method
from servesync.domain.versions import Model, Release, StoredObject, Version
from servesync.errors import DiskError, Reason, ServerError, Stopped, StoreError, SyncError
from servesync.install import Lock, Workspace
from servesync.jobs import Ended, Job, JobKind, Jobs, Message, Running
from servesync.planning.facts import Served, ServerState
from servesync.runtime.build import build_agent
from servesync.serving import Limit
from servesync.settings import Settings
from servesync.store import Listing
from servesync.store.port import ObjectFacts

MOST_TURNS: Final = 30
ONE: Final = {Version(1): Served(ServerState.AVAILABLE)}


def settings_of(
    models_dir: Path, *models: str | Mapping[str, Any], **sections: Mapping[str, Any]
) -> Settings:
    """Return settings for models (a name, "*", or the settings of one); `sections`: the other settings."""
    defaults: dict[str, dict[str, Any]] = {
        "store": {"url": "s3://bucket", "endpoint_url": "http://127.0.0.1:9", "region": "us-east-1"},
        "serving": {"models_dir": str(models_dir), "rest_url": None},
    }
    merged = {name: {**defaults.get(name, {}), **sections.get(name, {})} for name in defaults | sections}
    listed = [{"name": model} if isinstance(model, str) else model for model in models]
    return Settings.model_validate({**merged, "models": listed})


def one_model(folder: Path, url: str = "http://127.0.0.1:8501", **versions: object) -> Settings:
    """Return settings with a server and one model, which is not required; `versions`: its policy."""
    model = {"name": "m", "required": False, "versions": versions or {"latest": 1}}
    return settings_of(folder / "models", model, serving={"rest_url": url})


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
    """Answers for each model with what `said` has for it, and for the others with `otherwise`."""

    said: dict[Model, Mapping[Version, Served] | ServerError] = field(default_factory=dict)
    otherwise: Mapping[Version, Served] | ServerError = field(default_factory=dict)

    def status(self, model: Model, should_stop: Callable[[], bool] | None = None) -> Mapping[Version, Served]:
        """Return the answer, or raise it."""
        if should_stop is not None and should_stop():
            raise Stopped
        answer = self.said.get(model, self.otherwise)
        if isinstance(answer, ServerError):
            raise answer
        return answer

    def ask(
        self,
        model: Model,
        version: Version,
        request: tuple[Method, bytes],
        seconds: float,
        should_stop: Callable[[], bool],
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


@dataclass
class StartedJob:
    """A job that an agent has started."""

    job: Job
    context: Context = field(default_factory=Context)

    def cancel(self) -> None:
        """Tell it to end."""
        self.context.is_cancelled = True


def run_job(job: Job, context: Context | None = None) -> Ended:
    """Do the work of a job here and now; an error that no job should raise fails the test."""
    try:
        return Ended(job, job.work(context or Context()))
    except (SyncError, OSError) as error:
        return Ended(job, error=error)


class PromptJobs:
    """Runs each job while it is started."""

    def __init__(self) -> None:
        self._inbox: deque[Message] = deque()

    def start(self, job: Job) -> Running:
        """Run it, and keep its result."""
        self.put(run_job(job))
        return StartedJob(job)

    def put(self, message: Message) -> None:
        """Let the agent find a message at its next turn."""
        self._inbox.append(message)

    def take(self) -> Iterator[Message]:
        """Yield the messages."""
        while self._inbox:
            yield self._inbox.popleft()

    def close(self, seconds: float) -> bool:
        """No job runs any more."""
        return True


class HeldJobs(PromptJobs):
    """Keeps each job until the test lets it end."""

    def __init__(self) -> None:
        super().__init__()
        self.held: list[StartedJob] = []
        self.started: list[JobKind] = []

    def start(self, job: Job) -> Running:
        """Keep a job."""
        self.started.append(job.kind)
        self.held.append(StartedJob(job))
        return self.held[-1]

    def let_end(self, *kinds: JobKind) -> None:
        """Run the jobs of these kinds."""
        for held in self._released(*kinds):
            self.put(run_job(held.job, held.context))

    def let_fail(self, kind: JobKind, error: OSError) -> None:
        """End the jobs of a kind with an error, without their work."""
        for held in self._released(kind):
            self.put(Ended(held.job, error=error))

    def _released(self, *kinds: JobKind) -> list[StartedJob]:
        released = [held for held in self.held if held.job.kind in kinds]
        self.held = [held for held in self.held if held not in released]
        return released


@dataclass
class Parts:
    """The ports of one agent. `server` None: there is none to ask."""

    store: StoreStub = field(default_factory=StoreStub)
    server: ServerStub | None = None
    clock: HandClock = field(default_factory=HandClock)
    footprint: FootprintPort = field(default_factory=FootprintStub)
    jobs: Jobs = field(default_factory=PromptJobs)

    def ports(self) -> Ports:
        """Return them as the agent takes them."""
        return Ports(self.store, self.server, self.clock, self.jobs, self.footprint)

    def agent(self, settings: Settings, lock: Lock | None = None, *, one_pass: bool = False) -> Agent:
        """Return an agent among them; with `lock` None it changes nothing."""
        return build_agent(settings, lock, self.ports(), one_pass=one_pass)


@dataclass
class World(Parts):
    """Ports without a store, a server that serves version 1, and jobs that end when the test says so."""

    store: StoreStub = field(default_factory=lambda: StoreStub(StoreError(Reason.STORE_UNREACHABLE, "away")))
    server: ServerStub = field(default_factory=lambda: ServerStub(otherwise=ONE))
    jobs: HeldJobs = field(default_factory=HeldJobs)

    @contextmanager
    def agent_at_work(self, settings: Settings, state: AgentState) -> Iterator[Agent]:
        """Lend an agent that holds the lock of the models directory."""
        workspace = Workspace(settings.serving.models_dir)
        workspace.claim()
        with Lock(workspace.lock) as lock:
            agent = build_agent(settings, lock, self.ports(), state=state, agent_status=AgentStatus())
            agent.prepare()
            yield agent


def turn_until_idle(agent: Agent, *, poll: bool = False) -> Outcome:
    """Take turns until one has nothing more to do; return its outcome."""
    for number in range(MOST_TURNS):
        outcome = agent.turn(poll=poll and not number, refresh=not number)
        if outcome.seen is not None and not (outcome.acted or outcome.busy):
            return outcome
    raise AssertionError(f"still at work after {MOST_TURNS} turns")
