"""`sync` takes turns until nothing is left to do, for init containers and cron; `plan` only plans once."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import FrameType
from typing import Final

from servesync.admin import AgentStatus
from servesync.agent.agent import Agent
from servesync.agent.forecasts import forecasts
from servesync.agent.outcome import Outcome
from servesync.agent.snapshot import Seen
from servesync.domain.versions import Model, Version
from servesync.errors import Reason, Stopped
from servesync.jobs import ThreadJobs
from servesync.logs import Event, drain, get_logger
from servesync.planning.facts import Condition, Facts, ModelPlan
from servesync.runtime.build import build_agent, make_ports
from servesync.runtime.claim import GRACE_SECONDS, POLL_SECONDS, claimed
from servesync.settings import Settings
from servesync.transfer.attempts import may_pass

CHECK_AGAIN_SECONDS: Final = 0.5
STORE_AGAIN_SECONDS: Final = 5.0
JOBS_END_SECONDS: Final = 1.0
LONGEST_PLAN_SECONDS: Final = 120.0
MAY_PASS: Final = frozenset({Reason.STORE_UNREACHABLE, Reason.STORE_THROTTLED, Reason.STORE_FAILED})
"""Failures of the store for which `sync` waits if a required model is missing."""

NOT_IN_PLACE: Final = 3
"""The exit code if a required model is not in place."""


@dataclass(frozen=True, slots=True)
class Result:
    """How a pass ended.

    `missing`: the required models that lack a wanted version on the shelf; after a timeout also the models of
    which a version failed for a cause that may pass.

    `passed_over`: the newest version of each model that is held while an older one is in place, and why.
    """

    missing: tuple[Model, ...]
    plans: Mapping[Model, ModelPlan]
    because: str
    passed_over: Mapping[Model, tuple[Version, str]]


class _Limit:
    """Ends a pass at a deadline or on a signal. A handler only sets a plain attribute: it cannot hang."""

    def __init__(self, seconds: float) -> None:
        self._deadline = time.monotonic() + seconds
        self.signal = ""

    def catch(self, number: int, _frame: FrameType | None) -> None:
        self.signal = signal.Signals(number).name

    def reached(self) -> bool:
        return bool(self.signal) or time.monotonic() > self._deadline

    def because(self) -> str:
        if self.signal:
            return self.signal
        return "--timeout" if self.reached() else "nothing left to do"


def complain(missing: Iterable[Model], because: str) -> None:
    """Say on standard error what is not in place."""
    text = f"servesync: not in place: {', '.join(missing)} ({because}); `servesync plan` says why\n"
    sys.stderr.write(text)


@contextmanager
def _ended_in_time(limit: _Limit, models: tuple[Model, ...]) -> Iterator[None]:
    """End the process if the body runs on long after the limit, since a disk may hang for ever."""
    done = threading.Event()

    def watch() -> None:
        while not limit.reached():
            if done.wait(POLL_SECONDS):
                return
        if not done.wait(GRACE_SECONDS):
            because = limit.because()
            get_logger().info(Event.AGENT_STOPPED, because=because, missing=list(models), in_time=False)
            complain(models, because)
            drain(0.5)
            os._exit(NOT_IN_PLACE)

    threading.Thread(target=watch, name="servesync-watches", daemon=True).start()
    try:
        yield
    finally:
        done.set()


def one_pass(settings: Settings, timeout_seconds: float) -> Result:
    """Install what is wanted, wait until a server that answers has confirmed or refused it, and prune.

    The pass does not wait for a server that does not answer: in an init container it has not started yet. The
    pass repeats what fails for a cause that may pass until the timeout. If a step runs long past the limit or
    a signal, the process ends with exit code 3.

    Raises:
        LockHeld: another agent has the models directory.
        DiskError: the models directory cannot be used.
    """
    limit = _Limit(timeout_seconds)
    heeded = [n for n in (signal.SIGTERM, signal.SIGINT) if signal.getsignal(n) is not signal.SIG_IGN]
    old = {number: signal.signal(number, limit.catch) for number in heeded}
    models = tuple(Model(item.name) for item in settings.models)
    outcome: Outcome | None = None
    try:
        with _ended_in_time(limit, models), claimed(settings) as lock:
            woken, agent_status = threading.Event(), AgentStatus()
            jobs = ThreadJobs(woken.set)
            ports = make_ports(settings, jobs, agent_status)
            agent = build_agent(settings, lock, ports, agent_status=agent_status, one_pass=True)
            agent.prepare()
            try:
                outcome = _work(agent, limit, woken)
            finally:
                in_time = jobs.close(JOBS_END_SECONDS)
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
    missing = models if outcome is None else outcome.missing
    if outcome is not None and limit.reached():
        missing += tuple(model for model in _pending(outcome) if model not in missing)
    because = limit.because()
    get_logger().info(Event.AGENT_STOPPED, because=because, missing=list(missing), in_time=in_time)
    return Result(missing, outcome.plans if outcome else {}, because, _passed_over(outcome))


def _passed_over(outcome: Outcome | None) -> dict[Model, tuple[Version, str]]:
    """Return the newest version of each model that is held while an older one is in place."""
    if outcome is None or outcome.seen is None:
        return {}
    return {
        model: (held.version, f"{held.reason.value}: {held.text}")
        for model, held in outcome.seen.held.items()
    }


def _work(agent: Agent, limit: _Limit, woken: threading.Event) -> Outcome | None:
    """Take turns until one finds nothing to do; return the last outcome with a snapshot."""
    last: Outcome | None = None
    next_poll, refresh = 0.0, True
    try:
        while not limit.reached():
            now = time.monotonic()
            poll = now >= next_poll
            if poll:
                next_poll = now + agent.context.settings.poll.interval_seconds
            outcome = agent.turn(poll=poll, refresh=refresh)
            refresh = False
            if outcome.seen is not None:
                last = outcome
                next_poll = min(next_poll, _next_poll(outcome))
                if _is_done(outcome):
                    break
            pause = 0.0 if outcome.is_due else CHECK_AGAIN_SECONDS
            refresh = not woken.wait(pause) and (outcome.is_due or (last is not None and last.waiting))
            woken.clear()
    except Stopped:
        pass
    return last


def _next_poll(outcome: Outcome) -> float:
    now = time.monotonic()
    if outcome.store_failed:
        return now + STORE_AGAIN_SECONDS
    if outcome.settling_seconds is None:
        return float("inf")
    return now + max(CHECK_AGAIN_SECONDS, outcome.settling_seconds)


def _is_done(outcome: Outcome) -> bool:
    if outcome.acted or outcome.busy or outcome.waiting:
        return False
    if outcome.seen is not None and outcome.seen.store_error is not None:
        return not outcome.missing or outcome.seen.store_error.reason not in MAY_PASS
    return outcome.settling_seconds is None and not _pending(outcome)


def _pending(outcome: Outcome) -> tuple[Model, ...]:
    """Return the models of which a version has failed for a cause that may pass by itself.

    A failed version counts if it is wanted, if it is the newest, or if the model has nothing in place yet. A
    version that is good on the shelf does not count.
    """
    seen = outcome.seen
    if seen is None:
        return ()
    return tuple(
        model
        for model, plan in outcome.plans.items()
        if _awaits(plan, seen.snapshot.models[model].facts)
        or (model in seen.held and may_pass(seen.held[model].reason))
    )


def _awaits(plan: ModelPlan, facts: Facts) -> bool:
    good = {version for version, item in facts.shelf.items() if item.condition is Condition.GOOD}
    return any(
        hold.passing and version not in good and (version in plan.wanted or not plan.in_place)
        for version, hold in facts.held.items()
    )


def take_snapshot(settings: Settings) -> Seen:
    """Return what there is and what is to be done; changes nothing.

    Raises:
        TimeoutError: the store answered nothing for two minutes.
    """
    woken, agent_status = threading.Event(), AgentStatus()
    jobs = ThreadJobs(woken.set)
    agent = build_agent(
        settings, None, make_ports(settings, jobs, agent_status), agent_status=agent_status, one_pass=True
    )
    until, poll = time.monotonic() + LONGEST_PLAN_SECONDS, True
    try:
        while True:
            outcome = agent.turn(poll=poll, refresh=poll)
            poll = False
            if outcome.seen is not None and (not outcome.busy or time.monotonic() > until):
                return replace(outcome.seen, forecasts=forecasts(agent.context, outcome.seen, until))
            woken.wait(CHECK_AGAIN_SECONDS)
            woken.clear()
    finally:
        jobs.close(0.5)
        agent.close()
