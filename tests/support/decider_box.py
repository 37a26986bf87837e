"""The deciding thread with a clock that a test moves, and jobs that end when a test says so."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from servesync.admin import AgentStatus
from servesync.agent.agent import Agent
from servesync.agent.ports import Ports
from servesync.agent.state import AgentState
from servesync.domain.versions import Model, Version
from servesync.errors import DiskError, Reason, Stopped, StoreError, SyncError
from servesync.install import Lock, Workspace
from servesync.jobs import Ended, Job, JobKind, Message, Running
from servesync.planning.facts import Served, ServerState
from servesync.runtime.build import build_agent
from servesync.serving import Limit
from servesync.settings import Settings
from servesync.store import Listing

ONE = {Version(1): Served(ServerState.AVAILABLE)}


class World:
    """A clock that a test moves, jobs that end when a test says so, a store that is away, and a server."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.waiting: list[StartedJob] = []
        self.inbox: list[Message] = []
        self.started: list[JobKind] = []
        self.said: Mapping[Version, Served] | SyncError = ONE
        self.listing: Listing | None = None
        self.bytes = b""

    # -- clock, footprint and server ----------------------------------------------------------------

    def monotonic(self) -> float:
        """Return the test's time."""
        return self.now

    def wall(self) -> float:
        """Return the same as the time of day."""
        return self.now

    def limit(self) -> Limit:
        """Return none."""
        return Limit(None, "none")

    def used_bytes(self) -> int | None:
        """Return nothing."""

    def started_at(self) -> float | None:
        """Return nothing."""

    def status(self, _: Model, should_stop: Callable[[], bool] | None = None) -> Mapping[Version, Served]:
        """Answer."""
        if should_stop is not None and should_stop():
            raise Stopped
        if isinstance(self.said, SyncError):
            raise self.said
        return self.said

    # -- jobs ---------------------------------------------------------------------------------------

    def start(self, job: Job) -> Running:
        """Take a job; it does its work when the test lets it."""
        self.started.append(job.kind)
        running = StartedJob(job)
        self.waiting.append(running)
        return running

    def take(self) -> Iterator[Message]:
        """Yield what has ended."""
        while self.inbox:
            yield self.inbox.pop(0)

    def close(self, seconds: float = 0.0) -> bool:
        """End, as jobs, store or server."""
        return seconds >= 0

    def let_end(self, *kinds: JobKind) -> None:
        """Let jobs do their work."""
        for running in [item for item in self.waiting if item.job.kind in kinds]:
            self.waiting.remove(running)
            self.inbox.append(running.end())

    def let_fail(self, kind: JobKind, error: OSError) -> None:
        """Let jobs come to nothing."""
        for running in [item for item in self.waiting if item.job.kind is kind]:
            self.waiting.remove(running)
            self.inbox.append(Ended(running.job, error=error))

    # -- store --------------------------------------------------------------------------------------

    def list(self, _: Callable[[Model], bool], *, should_stop: Callable[[], bool]) -> Listing:
        """Return the test's listing, or fail."""
        assert not should_stop()
        if self.listing is None:
            raise StoreError(Reason.STORE_UNREACHABLE, "away")
        return self.listing

    def read(self, _: object, offset: int, length: int, buffer: memoryview, *__: object) -> None:
        """Fill a buffer with the only document."""
        buffer[:length] = self.bytes[offset : offset + length]


class StartedJob:
    """A job that has been started."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.cancelled = threading.Event()

    def cancel(self) -> None:
        """Make it end."""
        self.cancelled.set()

    def should_stop(self) -> bool:
        """Whether it is cancelled."""
        return self.cancelled.is_set()

    def check(self) -> None:
        """Stop if it is cancelled."""
        if self.should_stop():
            raise Stopped

    def make_room(self, short: DiskError) -> bool:
        """Not called."""
        raise AssertionError(short)

    def end(self) -> Ended:
        """Do the work."""
        try:
            return Ended(self.job, self.job.work(self))
        except SyncError as error:
            return Ended(self.job, error=error)


def settings_of(folder: Path, url: str = "http://127.0.0.1:8501", **versions: object) -> Settings:
    """Return settings with one model, which nobody requires; `versions`: its policy."""
    return Settings.model_validate(
        {
            "store": {"url": "s3://b/p"},
            "serving": {"models_dir": str(folder / "models"), "rest_url": url},
            "models": [{"name": "m", "required": False, "versions": versions or {"latest": 1}}],
        }
    )


def ports_of(world: World) -> Ports:
    """Return a world as an agent's surroundings."""
    return Ports(store=world, server=world, clock=world, jobs=world, footprint=world)  # type: ignore[arg-type]


@contextmanager
def agent_at_work(
    folder: Path, world: World, state: AgentState, settings: Settings | None = None
) -> Iterator[Agent]:
    """Lend an agent that has the models directory."""
    settings = settings or settings_of(folder)
    workspace = Workspace(settings.serving.models_dir)
    workspace.claim()
    with Lock(workspace.lock) as lock:
        agent = build_agent(settings, lock, ports_of(world), state=state, agent_status=AgentStatus())
        agent.prepare()
        yield agent
