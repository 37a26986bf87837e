"""Whatever happens, in whatever order, the agent breaks no guarantee, and comes to rest as it should."""

import sys
from typing import Final

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from sim.machine import EXAMPLES, LONG, SCHEDULES, TALLY, BesideLatest, Machine, WithoutServer, summary

EFFORT: Final = settings(
    max_examples=EXAMPLES if LONG else 3,
    stateful_step_count=50 if LONG else 12,
    derandomize=not LONG,
    deadline=None,
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.parametrize("machine", [Machine, WithoutServer, BesideLatest])
def test_any_order_of_events(machine: type[Machine], capsys: pytest.CaptureFixture[str]) -> None:
    """No guarantee is broken on the way, and in the end what is wanted is served."""
    TALLY.clear()
    SCHEDULES.clear()
    try:
        run_state_machine_as_test(machine, settings=EFFORT)
    finally:
        if LONG:
            with capsys.disabled():
                sys.stdout.write(f"\n{machine.__name__}: {summary()}\n")
