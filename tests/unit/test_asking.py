"""How the deciding thread has the model server asked, and what it does while no answer comes."""

import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from servesync.admin import Board
from servesync.agent.agent import Agent
from servesync.agent.build import build_agent
from servesync.agent.jobs import Ended, Job, JobKind, Message, Running
from servesync.agent.ports import Ports
from servesync.agent.state import AgentState
from servesync.confirm import Limit
from servesync.errors import DiskError, Reason, ServerDown, Stopped, StoreError, SyncError
from servesync.install import Lock, Workspace
from servesync.plan.facts import Served, ServerState
from servesync.plan.versions import Model, Version
from servesync.settings import Settings

M = Model("m")
ONE = {Version(1): Served(ServerState.AVAILABLE)}


class World:
    """A clock that a test moves, jobs that end when a test says so, a store that is away, and a server."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.waiting: list[_Running] = []
        self.inbox: list[Message] = []
        self.started: list[JobKind] = []
        self.said: Mapping[Version, Served] | SyncError = ONE

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
        running = _Running(job)
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

    # -- store --------------------------------------------------------------------------------------

    def list(self, _: Callable[[Model], bool], *, should_stop: Callable[[], bool]) -> Any:
        """Fail."""
        assert not should_stop()
        raise StoreError(Reason.STORE_UNREACHABLE, "away")

    def read(self, *_: object) -> None:
        """Not called."""
        raise AssertionError


class _Running:
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

    def tell(self, news: object) -> None:
        """Not called."""
        raise AssertionError(news)

    def make_room(self, short: DiskError) -> bool:
        """Not called."""
        raise AssertionError(short)

    def end(self) -> Ended:
        """Do the work."""
        try:
            return Ended(self.job, self.job.work(self))
        except SyncError as error:
            return Ended(self.job, error=error)


def settings_of(folder: Path, url: str = "http://127.0.0.1:8501") -> Settings:
    """Return settings with one model, which nobody requires."""
    return Settings.model_validate(
        {
            "store": {"url": "s3://b/p"},
            "serving": {"models_dir": str(folder / "models"), "rest_url": url},
            "models": [{"name": "m", "required": False}],
        }
    )


def ports_of(world: World) -> Ports:
    """Return a world as an agent's surroundings."""
    return Ports(store=world, server=world, clock=world, jobs=world, footprint=world)  # type: ignore[arg-type]


@pytest.fixture
def world() -> World:
    """Nothing has been asked yet."""
    return World()


@pytest.fixture
def state(tmp_path: Path) -> AgentState:
    """An agent's memory of nothing."""
    return AgentState.fresh(settings_of(tmp_path), durable=True)


@pytest.fixture
def agent(tmp_path: Path, world: World, state: AgentState) -> Iterator[Agent]:
    """An agent at work."""
    settings = settings_of(tmp_path)
    workspace = Workspace(settings.serving.models_dir)
    workspace.claim()
    with Lock(workspace.lock) as lock:
        agent = build_agent(settings, lock, ports_of(world), state=state, board=Board())
        agent.prepare()
        yield agent


def shown(agent: Agent) -> bool | None:
    """Return what people are told about the server."""
    snapshot = agent.context.board.snapshot
    assert snapshot is not None
    return snapshot.server.answers


def test_nothing_is_decided_until_the_server_has_had_its_time(agent: Agent, world: World) -> None:
    """One that accepts and says nothing is waited for a second, and nobody says then that it answers."""
    assert agent.turn().seen is None
    world.now += 0.9
    assert agent.turn(look=False).seen is None
    world.now += 0.2

    assert agent.turn(look=False).seen is not None
    assert shown(agent) is False


def test_an_answer_is_decided_upon_at_once_and_asked_for_once(agent: Agent, world: World) -> None:
    """Every wake-up without news leaves the server alone."""
    agent.turn()
    world.let_end(JobKind.ASK_SERVER)
    for _ in range(5):
        assert agent.turn(look=False).seen is not None

    assert shown(agent) is True
    assert world.started.count(JobKind.ASK_SERVER) == 1


def test_news_without_end_keep_nothing_from_being_decided(agent: Agent, world: World) -> None:
    """Each piece of news asks for a newer answer; one of the last second does for all of them."""
    decided = 0
    for _ in range(40):
        decided += agent.turn(look=True).seen is not None
        world.now += 0.1
        world.let_end(JobKind.ASK_SERVER)

    assert decided >= 25


def test_a_server_that_does_not_listen_is_asked_once_for_all_models(agent: Agent, world: World) -> None:
    """Its error is shown."""
    world.said = ServerDown(Reason.SERVER_UNREACHABLE, "connection refused")
    agent.turn()
    world.let_end(JobKind.ASK_SERVER)
    outcome = agent.turn(look=False)

    assert not outcome.server_answers
    assert shown(agent) is False


def test_what_another_server_said_does_not_count(
    tmp_path: Path, agent: Agent, world: World, state: AgentState
) -> None:
    """The settings name another one while the old one is asked: its answer comes too late."""
    agent.turn()
    (old,) = [item for item in world.waiting if item.job.kind is JobKind.ASK_SERVER]
    other = settings_of(tmp_path, "http://127.0.0.1:8502")
    fresh = build_agent(other, None, ports_of(world), state=state, board=Board())
    state.follow(agent.context.settings, other)
    assert old.should_stop()
    world.waiting.remove(old)
    world.inbox.append(Ended(old.job, old.job.work(_Running(old.job))))  # it was at its end already

    assert fresh.turn(look=False).seen is None
    assert state.server.answers is None
    world.let_end(JobKind.ASK_SERVER)
    assert fresh.turn(look=False).seen is not None
