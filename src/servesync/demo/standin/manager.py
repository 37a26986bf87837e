"""Decides what is loaded and unloaded, and when (AspiredVersionsManager, BasicManager, LoaderHarness).

Pure: no clock, no thread, no disk. The caller passes the time, carries out the jobs that it is given, and
reports their results. The policy is the availability-preserving one, which the real server always uses.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto

from servesync.demo.standin.codes import Code, LoadFailed
from servesync.demo.standin.monitor import Monitor, State, Status


class Phase(Enum):
    """The phase of a managed version; finer than the states that are published."""

    NEW = auto()
    RESERVING = auto()
    QUEUED = auto()
    LOADING = auto()
    READY = auto()
    UNLOADING = auto()
    DISABLED = auto()
    ERROR = auto()


_AT_REST = frozenset({Phase.NEW, Phase.DISABLED, Phase.ERROR})


@dataclass(frozen=True)
class Options:
    """The flags on which the manager's behaviour depends."""

    max_num_load_retries: int = 5
    load_retry_interval_seconds: float = 60.0
    load_threads: int = 0
    unload_threads: int = 0


@dataclass(frozen=True)
class Reserve:
    """Walk over the version's directory: the real server reserves memory by the sizes of its files."""

    model: str
    version: int
    path: str


@dataclass(frozen=True)
class Load:
    """Try to load the version; walk over its directory again afterwards."""

    model: str
    version: int
    path: str


@dataclass(frozen=True)
class Unload:
    """Take the version out of memory."""

    model: str
    version: int


Job = Reserve | Load | Unload


@dataclass
class _Harness:
    """One managed version."""

    path: str
    phase: Phase = Phase.NEW
    is_wanted: bool = True
    is_cancelled: bool = False
    is_kept: bool = False
    attempts: int = 0
    next_try: float | None = None
    """When the next attempt is due; None while one is under way."""


@dataclass
class Manager:
    """All managed versions, and at most one pending request for each model."""

    options: Options = Options()
    monitor: Monitor = field(default_factory=Monitor)
    _managed: dict[str, dict[int, _Harness]] = field(default_factory=dict)
    _pending: dict[str, Mapping[int, str]] = field(default_factory=dict)

    # -- what the caller does -------------------------------------------------------------------------

    def aspire(self, model: str, wanted: Mapping[int, str]) -> None:
        """Request exactly these versions (number -> path); a new request replaces a pending one."""
        self._pending[model] = dict(wanted)

    def tick(self, now: float) -> list[Job]:
        """Apply pending requests, decide on one action, and return the jobs to start now.

        While a load or unload without a thread of its own runs, or memory is being reserved, nothing is
        applied or decided.
        """
        jobs: list[Job] = []
        if not self._is_blocked():
            self._flush()
            for model in list(self._pending):
                self._take_up(model)
            jobs = self._act(now)
        return jobs + self.due(now)

    def due(self, now: float) -> list[Job]:
        """Return the attempts to make now: retries whose time has come, and loads with a thread."""
        jobs: list[Job] = []
        for model, version, harness in self._all():
            if harness.phase is Phase.QUEUED and self._loading() < max(1, self.options.load_threads):
                harness.phase, harness.attempts, harness.next_try = Phase.LOADING, 0, now
                self.monitor.publish(model, version, Status(State.LOADING))
            if harness.next_try is not None and harness.next_try <= now:
                harness.next_try = None
                kind = Reserve if harness.phase is Phase.RESERVING else Load
                jobs.append(kind(model, version, harness.path))
        return jobs

    def succeeded(self, job: Job) -> None:
        """Note that a job succeeded."""
        harness = self._managed[job.model][job.version]
        match job:
            case Reserve():
                harness.phase = Phase.QUEUED
            case Load() if harness.is_cancelled and not harness.is_kept:
                self._end(
                    job, Phase.ERROR, Status(State.END, Code.CANCELLED, "Loading of servable cancelled")
                )
            case Load():
                harness.phase = Phase.READY
                self.monitor.publish(job.model, job.version, Status(State.AVAILABLE))
            case Unload():
                self._end(job, Phase.DISABLED, Status(State.END))

    def failed(self, job: Reserve | Load, error: LoadFailed, now: float) -> None:
        """Note that an attempt failed: it is repeated later, or the version ends with this error.

        A version that has ended is not tried again while it stays wanted.
        """
        harness = self._managed[job.model][job.version]
        harness.attempts += 1
        if harness.attempts <= self.options.max_num_load_retries and not harness.is_cancelled:
            harness.next_try = now + max(0.0, self.options.load_retry_interval_seconds)
        else:
            self._end(job, Phase.ERROR, Status(State.END, error.code, str(error)))

    def keep(self, job: Load) -> bool:
        """Tell whether a version that has just been loaded is still wanted; if not, the caller discards it.

        If it is, it can no longer be cancelled, and requests may use it.
        """
        harness = self._managed[job.model][job.version]
        harness.is_kept = not harness.is_cancelled
        return harness.is_kept

    @property
    def is_loading(self) -> bool:
        """Whether a load is under way or waits for a thread."""
        busy = {Phase.RESERVING, Phase.QUEUED, Phase.LOADING}
        return any(harness.phase in busy for _, _, harness in self._all())

    # -- one tick -------------------------------------------------------------------------------------

    def _is_blocked(self) -> bool:
        blocking = {Phase.RESERVING}
        if not self.options.load_threads:
            blocking |= {Phase.QUEUED, Phase.LOADING}
        if not self.options.unload_threads:
            blocking.add(Phase.UNLOADING)
        return any(harness.phase in blocking for _, _, harness in self._all())

    def _flush(self) -> None:
        """Forget versions that are not wanted and hold no memory."""
        for harnesses in self._managed.values():
            for version, harness in list(harnesses.items()):
                if not harness.is_wanted and harness.phase in _AT_REST:
                    del harnesses[version]

    def _take_up(self, model: str) -> None:
        """Apply a request, unless it names a version that is being unloaded: then it stays pending."""
        request = self._pending[model]
        harnesses = self._managed.setdefault(model, {})
        if any(not harnesses[version].is_wanted for version in request if version in harnesses):
            return
        del self._pending[model]
        for version, harness in harnesses.items():
            if version not in request:
                harness.is_wanted = False
                harness.is_cancelled = True
        for version, path in request.items():
            if version not in harnesses:
                harnesses[version] = _Harness(path)
                self.monitor.publish(model, version, Status(State.START))

    def _act(self, now: float) -> list[Job]:
        """Start the one action of this tick, an unload if any model has one."""
        actions = [action for model in sorted(self._managed) if (action := self._decide(model)) is not None]
        chosen = min(actions, key=lambda action: isinstance(action, Reserve), default=None)
        if chosen is None:
            return []
        harness = self._managed[chosen.model][chosen.version]
        if isinstance(chosen, Unload):
            harness.phase = Phase.UNLOADING
            self.monitor.publish(chosen.model, chosen.version, Status(State.UNLOADING))
            return [chosen]
        harness.phase, harness.next_try = Phase.RESERVING, now
        return []

    def _decide(self, model: str) -> Reserve | Unload | None:
        """Return the action that the policy chooses for one model."""
        harnesses = self._managed[model]
        ready = {version for version, harness in harnesses.items() if harness.phase is Phase.READY}
        wanted = {version for version, harness in harnesses.items() if harness.is_wanted}
        leaving = ready - wanted
        if leaving and (not wanted or wanted & ready or len(leaving) > 1):
            return Unload(model, min(leaving))
        new = [version for version in wanted if harnesses[version].phase is Phase.NEW]
        return Reserve(model, max(new), harnesses[max(new)].path) if new else None

    def _end(self, job: Job, phase: Phase, status: Status) -> None:
        self._managed[job.model][job.version].phase = phase
        self.monitor.publish(job.model, job.version, status)

    def _loading(self) -> int:
        return sum(harness.phase is Phase.LOADING for _, _, harness in self._all())

    def _all(self) -> list[tuple[str, int, _Harness]]:
        return [
            (model, version, harness)
            for model, harnesses in self._managed.items()
            for version, harness in harnesses.items()
        ]
