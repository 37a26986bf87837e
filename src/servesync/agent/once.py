"""`sync`: cycles until nothing is left to do, then an end; for init containers and cron."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Final

from servesync.agent.agent import Agent, Outcome
from servesync.agent.build import build_agent
from servesync.agent.process import GRACE_SECONDS, LOOK_SECONDS, claimed
from servesync.errors import Stopped
from servesync.logs import Event, drain, get_logger
from servesync.plan.facts import ModelPlan
from servesync.plan.versions import Model
from servesync.settings import Settings

LOOK_AGAIN_SECONDS: Final = 0.5
NOT_IN_PLACE: Final = 3
"""The exit code if a required model is not in place."""


@dataclass(frozen=True, slots=True)
class Result:
    """How a pass ended. `missing`: required models without every wanted version complete on the shelf."""

    missing: tuple[Model, ...]
    plans: Mapping[Model, ModelPlan]
    because: str


class _Limit:
    """Ends a pass at a deadline or on a signal. A handler only sets a plain attribute: it cannot hang."""

    def __init__(self, seconds: float) -> None:
        self._deadline = time.monotonic() + seconds
        self.signal = ""

    def catch(self, number: int, _frame: FrameType | None) -> None:
        self.signal = signal.Signals(number).name

    def reached(self) -> bool:
        return bool(self.signal) or time.monotonic() > self._deadline

    def because(self, outcome: Outcome | None) -> str:
        if self.signal:
            return self.signal
        if self.reached():
            return "--timeout"
        if outcome and (outcome.store_failed or outcome.retry_seconds is not None):
            return "not all could be done; what failed may work at the next call"
        return "nothing left to do"


def complain(missing: Iterable[Model], because: str) -> None:
    """Say on standard error what is not in place."""
    text = f"servesync: not in place: {', '.join(missing)} ({because}); `servesync plan` says why\n"
    sys.stderr.write(text)


@contextmanager
def _ended_in_time(limit: _Limit, models: tuple[Model, ...]) -> Iterator[None]:
    """End the process if what is done inside goes on long after the limit: a store may hang for a minute."""
    done = threading.Event()

    def watch() -> None:
        while not limit.reached():
            if done.wait(LOOK_SECONDS):
                return
        if not done.wait(GRACE_SECONDS):
            because = limit.because(None)
            get_logger().info(Event.AGENT_STOPPED, because=because, missing=list(models), in_time=False)
            complain(models, because)
            drain(0.5)
            os._exit(NOT_IN_PLACE)

    threading.Thread(target=watch, name="servesync-watches", daemon=True).start()
    try:
        yield
    finally:
        done.set()


def sync_once(settings: Settings, timeout_seconds: float) -> Result:
    """Bring the shelf to what is wanted, wait until an answering server has judged it, and prune.

    A server that does not answer is not waited for: in an init container it has not been started yet. What
    failed is not tried again: whoever calls does that. A step that goes on for long after the limit or a
    signal ends with the process, with exit code 3.

    Raises:
        LockHeld: another agent has the models directory.
        DiskError: the models directory cannot be used.
    """
    limit = _Limit(timeout_seconds)
    heeded = [n for n in (signal.SIGTERM, signal.SIGINT) if signal.getsignal(n) is not signal.SIG_IGN]
    old = {number: signal.signal(number, limit.catch) for number in heeded}
    models = tuple(Model(item.name) for item in settings.models)
    try:
        with _ended_in_time(limit, models), claimed(settings) as lock:
            agent = build_agent(settings, lock, limit.reached)
            agent.prepare()
            outcome = _work(agent, limit)
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
    missing = outcome.missing if outcome else models
    plans = outcome.plans if outcome else {}
    because = limit.because(outcome)
    get_logger().info(Event.AGENT_STOPPED, because=because, missing=list(missing))
    return Result(missing, plans, because)


def _work(agent: Agent, limit: _Limit) -> Outcome | None:
    """Run cycles until one finds nothing to do; return the last one that ended."""
    outcome = None
    next_poll = 0.0
    try:
        while not limit.reached():
            ask_store = time.monotonic() >= next_poll
            if ask_store:
                next_poll = time.monotonic() + agent.observer.settings.poll.interval_seconds
            outcome = agent.cycle(ask_store=ask_store)
            if outcome.settling_seconds is not None and not outcome.store_failed:
                next_poll = min(
                    next_poll, time.monotonic() + max(LOOK_AGAIN_SECONDS, outcome.settling_seconds)
                )
            settling = outcome.settling_seconds is not None and not outcome.store_failed
            if not outcome.acted and not outcome.waiting and not settling:
                break
            if not outcome.acted:
                time.sleep(LOOK_AGAIN_SECONDS)
    except Stopped:
        pass
    return outcome
