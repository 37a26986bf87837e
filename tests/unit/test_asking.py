"""How the deciding thread has the model server asked, and what it does while no answer comes."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from agent_parts import Context, World, one_model
from servesync.admin import AgentStatus
from servesync.agent.agent import Agent
from servesync.agent.state import AgentState
from servesync.errors import Reason, ServerDown
from servesync.jobs import Ended, JobKind
from servesync.runtime.build import build_agent


@pytest.fixture
def world() -> World:
    """Nothing has been asked yet."""
    return World()


@pytest.fixture
def state(tmp_path: Path) -> AgentState:
    """An agent's memory of nothing."""
    return AgentState.fresh(one_model(tmp_path), durable=True)


@pytest.fixture
def agent(tmp_path: Path, world: World, state: AgentState) -> Iterator[Agent]:
    """An agent at work."""
    with world.agent_at_work(one_model(tmp_path), state) as agent:
        yield agent


def shown(agent: Agent) -> bool | None:
    """Return what people are told about the server."""
    snapshot = agent.context.agent_status.snapshot
    assert snapshot is not None
    return snapshot.server.answers


def test_nothing_is_decided_until_the_server_has_had_its_time(agent: Agent, world: World) -> None:
    """One that accepts and says nothing is waited for a second, and nobody says then that it answers."""
    assert agent.turn().seen is None
    world.clock.seconds += 0.9
    assert agent.turn(refresh=False).seen is None
    world.clock.seconds += 0.2

    assert agent.turn(refresh=False).seen is not None
    assert shown(agent) is False


def test_an_answer_is_decided_upon_at_once_and_asked_for_once(agent: Agent, world: World) -> None:
    """Every wake-up without news leaves the server alone."""
    agent.turn()
    world.jobs.let_end(JobKind.ASK_SERVER)
    for _ in range(5):
        assert agent.turn(refresh=False).seen is not None

    assert shown(agent) is True
    assert world.jobs.started.count(JobKind.ASK_SERVER) == 1


def test_news_without_end_keep_nothing_from_being_decided(agent: Agent, world: World) -> None:
    """Each piece of news asks for a newer answer; one of the last second does for all of them."""
    decided = 0
    for _ in range(40):
        decided += agent.turn(refresh=True).seen is not None
        world.clock.seconds += 0.1
        world.jobs.let_end(JobKind.ASK_SERVER)

    assert decided >= 25


def test_a_server_that_does_not_listen_is_asked_once_for_all_models(agent: Agent, world: World) -> None:
    """Its error is shown."""
    world.server.otherwise = ServerDown(Reason.SERVER_UNREACHABLE, "connection refused")
    agent.turn()
    world.jobs.let_end(JobKind.ASK_SERVER)
    outcome = agent.turn(refresh=False)

    assert not outcome.server_answers
    assert shown(agent) is False


def test_what_another_server_said_does_not_count(
    tmp_path: Path, agent: Agent, world: World, state: AgentState
) -> None:
    """The settings name another one while the old one is asked: its answer comes too late."""
    agent.turn()
    (old,) = [item for item in world.jobs.held if item.job.kind is JobKind.ASK_SERVER]
    other = one_model(tmp_path, "http://127.0.0.1:8502")
    fresh = build_agent(other, None, world.ports(), state=state, agent_status=AgentStatus())
    state.follow(agent.context.settings, other)
    assert old.context.should_stop()
    world.jobs.held.remove(old)
    world.jobs.put(Ended(old.job, old.job.work(Context())))  # it was at its end already

    assert fresh.turn(refresh=False).seen is None
    assert state.server.answers is None
    world.jobs.let_end(JobKind.ASK_SERVER)
    assert fresh.turn(refresh=False).seen is not None


def test_one_answer_is_one_line_however_often_it_is_looked_at(agent: Agent, world: World) -> None:
    """What repeats is that the server was asked in vain, not that the agent turned."""
    world.server.otherwise = ServerDown(Reason.SERVER_UNREACHABLE, "connection refused")
    agent.turn()
    world.jobs.let_end(JobKind.ASK_SERVER)
    with capture_logs() as logs:
        for _ in range(20):
            agent.turn(refresh=False)
        for _ in range(3):
            world.clock.seconds += 1.0
            agent.turn()
            world.jobs.let_end(JobKind.ASK_SERVER)
            agent.turn(refresh=False)

    found = [line["repeats"] for line in logs if line["event"] == "server_unreachable"]
    assert found == [1, 2, 4]
