"""Tries a version with requests on the live server, in a job, before anything depends on it."""

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from servesync import disk
from servesync.agent import announce
from servesync.agent.context import AgentContext
from servesync.agent.model_snapshot import ModelSnapshot
from servesync.agent.ports import ServerPort
from servesync.agent.state import TrialUnderWay
from servesync.domain.versions import Model, Version
from servesync.errors import NoRequests, ReleaseRefused, Stopped
from servesync.jobs import Ended, Job, JobContext, JobKind
from servesync.planning.actions import Try
from servesync.planning.facts import Trial
from servesync.verify import read_signatures
from servesync.verify.golden import read_golden
from servesync.verify.live import Judgement, Outcome, judge
from servesync.verify.live_replies import Reply
from servesync.verify.live_requests import TrialRequest, golden_requests, made_requests
from servesync.verify.methods import read_askings
from servesync.verify.signatures import Signatures

MOST_LATE: Final = 2
"""So many trials without an answer in time count against a version: a busy machine may cause one."""

MOST_MISSES: Final = 5
"""After so many trials that told nothing, the server's AVAILABLE has to do."""

FIRST_PAUSE_SECONDS: Final = 1.0
SLOW_FACTOR: Final = 5.0
SLOW_SECONDS: Final = 0.1
"""A version counts as slow if it takes both so many times as long, and so much longer, as the one before."""


@dataclass(frozen=True, slots=True)
class TrialReport:
    """What a trial came to. `seconds`: of the requests, for the new version and for the old one (0: none)."""

    judgement: Judgement
    requests: int = 0
    seconds: tuple[float, float] = (0.0, 0.0)
    is_late: bool = False


@dataclass(frozen=True, slots=True)
class TrialOrder:
    """What the job has to know.

    `against`: the version that is replaced; None if nothing else serves. `required`: signatures that clients
    need by the settings. `seconds`: for one reply.
    """

    model: Model
    version: Version
    against: Version | None
    only_golden: bool
    required: Signatures
    seconds: float


def begin_trial(context: AgentContext, found: ModelSnapshot, action: Try) -> bool:
    """Start the job that tries a version, unless it is at work or pauses; return whether it was started."""
    key = (found.facts.model, action.version)
    trial = context.state.trials.setdefault(key, TrialUnderWay())
    server = context.ports.server
    if server is None or trial.is_running or context.now() < trial.not_before:
        return False
    serving, wish = context.settings.serving, found.settings.signatures
    required = wish if wish is not None and wish != "as_served" else {}
    order = TrialOrder(
        *key, action.against, serving.smoke == "golden", required, serving.smoke_timeout_seconds
    )
    root = context.shelf(key[0]).path / str(action.version)

    trial.is_running = True
    context.start(Job(JobKind.TRIAL, partial(try_version, server, order, root), *key))
    return True


def take_in_trial(context: AgentContext, message: Ended) -> None:
    """Remember what a trial came to, or when it is repeated; it counts only for the bytes that were tried."""
    job, result, error = message.job, message.result, message.error
    if job.model is None or job.version is None:
        return
    key = (job.model, job.version)
    trial = context.state.trials.get(key)
    if trial is None or not trial.is_running:
        return  # the version has left meanwhile
    trial.is_running = False
    if isinstance(error, Stopped):
        return
    report = result if isinstance(result, TrialReport) else TrialReport(_failed(error))
    if report.judgement.outcome is Outcome.UNKNOWN or (report.is_late and trial.misses + 1 < MOST_LATE):
        trial.misses += 1
        trial.not_before = context.now() + FIRST_PAUSE_SECONDS * 2.0**trial.misses
        if trial.misses < MOST_MISSES:
            return
    is_bad = report.judgement.outcome is Outcome.BAD
    trial.result = Trial(is_bad, report.judgement.text)
    new, old = report.seconds
    facts = {"requests": report.requests, "seconds": round(new, 4), "seconds_before": round(old, 4)}
    is_slow = 0 < old * SLOW_FACTOR < new and new - old > SLOW_SECONDS
    is_untold = report.judgement.outcome is Outcome.UNKNOWN
    announce.tried(key, trial.result, facts, is_odd=is_slow or is_untold)


def next_trial(context: AgentContext) -> float | None:
    """Return the seconds until a trial is repeated; None if none waits."""
    now = context.now()
    due = [trial.not_before - now for trial in context.state.trials.values() if trial.result is None]
    return min((seconds for seconds in due if seconds > 0), default=None)


def _failed(error: Exception | None) -> Judgement:
    """Return what it means that a trial could not be made: nothing of it says that the version is bad."""
    if isinstance(error, NoRequests):
        return Judgement(Outcome.GOOD, f"not tried: {error}")
    if isinstance(error, ReleaseRefused):  # the proofs before the installation judge the files, not this
        return Judgement(Outcome.GOOD, f"it could not be tried with a request: {error}")
    said = disk.describe(error, "trying it with a request") if isinstance(error, OSError) else error
    return Judgement(Outcome.UNKNOWN, f"it could not be tried with a request: {said}")


# -- the job --------------------------------------------------------------------------------------------


def try_version(server: ServerPort, order: TrialOrder, root: Path, job: JobContext) -> TrialReport:
    """Send the trial requests of the version that lies in `root`, and return what its replies come to.

    Raises:
        ReleaseRefused: no signatures can be read, or its golden file is wrong.
        ServerError: the server could not be asked.
        Stopped: the job is cancelled.
        OSError: `root` cannot be read.
    """
    signatures = read_signatures(root)
    requests = golden_requests(read_golden(root, signatures), signatures)
    if not requests and not order.only_golden:
        requests = list(made_requests(signatures, order.required, read_askings(root, signatures)))
    if not requests:
        why = "no golden requests" if order.only_golden else "no request can be made from its signatures"
        return TrialReport(Judgement(Outcome.GOOD, f"not tried: {why}"))
    took, took_before, notes = 0.0, 0.0, []
    for number, request in enumerate(requests, 1):
        for body in filter(None, (request.body, request.instead)):
            new, old = _both(server, order, request, body, job)
            judgement = judge(request, new, old)
            if judgement.outcome is not Outcome.BAD or new.is_late:
                break
        took += new.seconds
        took_before += old.seconds if old is not None else 0.0
        if judgement.outcome is not Outcome.GOOD:
            return TrialReport(judgement, number, (took, took_before), new.is_late)
        notes += [judgement.text] if judgement.text else []
    what = "golden requests" if requests[0].golden else "requests made from its signatures"
    text = f"it has answered {len(requests)} {what} in {took:.3f} s"
    return TrialReport(Judgement(Outcome.GOOD, "; ".join([text, *notes])), len(requests), (took, took_before))


def _both(
    server: ServerPort, order: TrialOrder, request: TrialRequest, body: bytes, job: JobContext
) -> tuple[Reply, Reply | None]:
    """Ask the new version, and the old one where its reply is needed to judge the new one's."""

    def ask(version: Version) -> Reply:
        job.check()
        began = time.monotonic()
        status, answer = server.ask(
            order.model, version, (request.method, body), order.seconds, job.should_stop
        )
        job.check()
        return Reply(status, answer, time.monotonic() - began)

    new = ask(order.version)
    if request.golden is not None and not new.is_late:
        return new, None
    return new, ask(order.against) if order.against is not None else None
