"""Whatever happens, in whatever order, the agent breaks no guarantee, and comes to rest as it should."""

from typing import Final

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from sim.machine import LONG, BesideLatest, Machine, WithoutServer

EFFORT: Final = settings(
    max_examples=400 if LONG else 8,
    stateful_step_count=50 if LONG else 20,
    derandomize=not LONG,
    deadline=None,
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.parametrize("machine", [Machine, WithoutServer, BesideLatest])
def test_any_order_of_events(machine: type[Machine]) -> None:
    """No guarantee is broken on the way, and in the end what is wanted is served."""
    run_state_machine_as_test(machine, settings=EFFORT)
