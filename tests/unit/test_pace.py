"""When a running agent turns again by itself."""

from dataclasses import replace
from pathlib import Path

import pytest

from agent_parts import World, one_model
from servesync.agent.outcome import Outcome
from servesync.agent.snapshot import Seen
from servesync.agent.state import AgentState
from servesync.errors import Reason, ServerDown
from servesync.jobs import JobKind
from servesync.runtime.pace import (
    FIRST_WAIT_SECONDS,
    MOST_SUSPICIOUS_LOOKS,
    SERVER_AGAIN_SECONDS,
    SUSPECTS_AGAIN_SECONDS,
    Pace,
)
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


def test_a_server_that_ends_at_each_start_is_looked_at_often(seen: Seen) -> None:
    """A start that nobody sees counts for nothing; a server that is not started at all is left alone."""
    refused = replace(seen, server_error=ServerDown(Reason.SERVER_UNREACHABLE, "refused"))
    suspects, none = Outcome(suspects=True, seen=refused), Outcome(seen=refused)
    pace = Pace()
    pace.polled(Poll(), 0.0)
    pace.refreshed()

    assert pace.pause(none, 0.0) == SERVER_AGAIN_SECONDS
    pauses = []
    for _ in range(MOST_SUSPICIOUS_LOOKS + 1):
        pace.refreshed()
        pauses.append(pace.pause(suspects, 0.0))
    assert pauses == [SUSPECTS_AGAIN_SECONDS] * MOST_SUSPICIOUS_LOOKS + [SERVER_AGAIN_SECONDS]
    pace.refreshed()
    pace.pause(none, 0.0)
    pace.refreshed()
    assert pace.pause(suspects, 0.0) == SUSPECTS_AGAIN_SECONDS
