"""When a running agent turns again by itself."""

from pathlib import Path

import pytest

from agent_parts import World, one_model
from servesync.agent.outcome import Outcome
from servesync.agent.snapshot import Seen
from servesync.agent.state import AgentState
from servesync.jobs import JobKind
from servesync.runtime.pace import FIRST_WAIT_SECONDS, Pace
from servesync.settings import Poll


@pytest.fixture
def seen(tmp_path: Path) -> Seen:
    """Anything that was seen."""
    world, settings = World(), one_model(tmp_path)
    with world.agent_at_work(settings, AgentState.fresh(settings, durable=True)) as agent:
        agent.turn()
        world.jobs.let_end(JobKind.ASK_SERVER)
        seen = agent.turn(refresh=False).seen
    assert seen is not None
    return seen


def test_what_else_wakes_the_agent_puts_off_no_look(seen: Seen) -> None:
    """While a server loads it is asked again soon, however many other things happen."""
    pace, begun = Pace(), 1000.0
    pace.polled(Poll(), begun)
    pace.refreshed()
    waiting = Outcome(waiting=True, seen=seen)
    assert pace.pause(waiting, begun) == FIRST_WAIT_SECONDS
    for tick in range(1, 10):
        now = begun + tick * FIRST_WAIT_SECONDS / 10
        assert not pace.is_refresh_due(now)
        assert now + pace.pause(waiting, now) == pytest.approx(begun + FIRST_WAIT_SECONDS)

    assert pace.is_refresh_due(begun + FIRST_WAIT_SECONDS)
