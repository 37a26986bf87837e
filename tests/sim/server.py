"""The model server of the simulated world: the stand-in's rules, and a process that ends and comes back.

Its scanner looks at the real directory. What comes of a load is what the directory's files say.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from servesync.demo.standin.codes import Code, LoadFailed
from servesync.demo.standin.config import ModelConfig, Policy
from servesync.demo.standin.manager import Job, Load, Manager, Options, Reserve, Unload
from servesync.demo.standin.monitor import State
from servesync.demo.standin.scan import BasePathMissing, poll
from servesync.domain.methods import Method
from servesync.domain.versions import Model, Version
from servesync.errors import Reason, ServerDown, ServerError, Stopped
from servesync.planning.facts import Served, ServerPolicy, ServerState
from servesync.serving import Limit
from sim.clock import SimClock
from sim.contents import Loads, OnDisk, found_in
from sim.store import Gate, no_gate

LOAD_SECONDS: Final = 2.0
HANGING_SECONDS: Final = 100.0
PATIENCE_SECONDS: Final = 10.0
"""After which whoever asks a server that does not answer gives up."""

RESTART_SECONDS: Final = 1.0
"""After which a supervisor starts it again."""

TICKS_PER_SECOND: Final = 10

Key = tuple[str, int]


@dataclass
class SimServer:
    """One process after another. Each `step` is one second of its life."""

    models_dir: Path
    clock: SimClock = field(default_factory=SimClock)
    names: tuple[str, ...] = ("m",)
    policy: ServerPolicy = ServerPolicy.ALL
    gate: Gate = no_gate
    restart_seconds: float = RESTART_SECONDS
    load_seconds: float = LOAD_SECONDS

    # what goes wrong
    is_silent: bool = False
    """It accepts connections, and never answers."""

    answer_seconds: float = 0.0
    noise_bytes: int = 0
    """What it holds besides versions; may change at any time."""

    # what is true
    memory: dict[Key, OnDisk] = field(default_factory=dict)
    """What is loaded, by model and number."""

    is_ready: bool = False
    ends: int = 0
    """How often its process has ended of a version."""

    loads: list[Key] = field(default_factory=list)
    """Every load that was begun."""

    limit_bytes: int | None = None
    wall_started: float | None = None
    _manager: Manager | None = None
    _loading: dict[Key, tuple[Load, float, OnDisk]] = field(default_factory=dict)
    _starts_at: float = 0.0

    # -- what is true -------------------------------------------------------------------------------------

    def answering(self, model: str) -> dict[Version, str]:
        """Return the versions that requests get an answer from, with the bytes that they came from."""
        if not self.is_ready:
            return {}
        return {
            Version(v): item.identity
            for (name, v), item in self.memory.items()
            if name == model and item.loads is not Loads.DEAF
        }

    @property
    def is_busy(self) -> bool:
        """Whether it loads something, or starts and has something to load."""
        loading = self._manager is not None and (self._manager.is_loading or bool(self._loading))
        return loading or (not self.is_ready and all(map(self._has_versions, self.names)))

    @property
    def waits_for_a_model(self) -> bool:
        """Whether it cannot come up, since one of its models has no version at all."""
        return not self.is_ready and not all(map(self._has_versions, self.names))

    def _has_versions(self, model: str) -> bool:
        try:
            return any(path.name.isdecimal() for path in (self.models_dir / model).iterdir())
        except OSError:
            return False

    def in_memory(self, model: str) -> set[Version]:
        """Return the versions that hold memory now: loaded, or on the way in."""
        return {Version(v) for name, v in self.memory.keys() | self._loading.keys() if name == model}

    # -- what ops and the world do ------------------------------------------------------------------------

    def kill(self, seconds: float | None = None) -> None:
        """End the process; something starts it again after a while."""
        self._manager, self.wall_started = None, None
        self._starts_at = self.clock.now + (self.restart_seconds if seconds is None else seconds)
        self._loading, self.memory, self.is_ready = {}, {}, False

    def serve(self, names: Iterable[str]) -> None:
        """Change which models it has, as a new configuration file does."""
        self.names = tuple(names)
        if self._manager is not None:
            for name in {model for model, _ in self.memory} - set(self.names):
                self._manager.aspire(name, {})

    # -- the agent's side ---------------------------------------------------------------------------------

    def status(self, model: Model, should_stop: Callable[[], bool] | None = None) -> Mapping[Version, Served]:
        """Return what it says of every version of a model that it has seen."""
        asked = self.clock.now
        self.gate("status", lambda: self._keeps_waiting(asked))
        if should_stop is not None and should_stop():
            raise Stopped
        if self._manager is None or not self.is_ready:
            raise ServerDown(Reason.SERVER_UNREACHABLE, "connection refused")
        if self.is_silent:
            raise ServerError(Reason.SERVER_UNREACHABLE, "no answer")
        return {
            Version(number): Served(ServerState(status.state), str(status.error_code), status.error_message)
            for number, status in self._manager.monitor.statuses(model).items()
        }

    def ask(
        self,
        model: Model,
        version: Version,
        request: tuple[Method, bytes],
        seconds: float,
        should_stop: Callable[[], bool],
    ) -> tuple[int, bytes]:
        """Answer a request to one version."""
        asked = self.clock.now
        self.gate("predict", lambda: self._keeps_waiting(asked))
        if self._manager is None or not self.is_ready:
            raise ServerDown(Reason.SERVER_UNREACHABLE, "connection refused")
        if self.is_silent or should_stop():
            return 0, b""
        item = self.memory.get((model, version))
        if item is None:
            return 404, b'{"error": "Servable not found for request"}'
        if item.loads is Loads.DEAF:
            return 404, b'{"error": "Op type not registered NoSuch in binary"}'
        return 200, b'{"outputs": 0.0}'

    def _keeps_waiting(self, asked: float) -> bool:
        if not self.is_ready:
            return False
        return self.clock.now < asked + (PATIENCE_SECONDS if self.is_silent else self.answer_seconds)

    def close(self) -> None:
        """Close all connections."""

    def limit(self) -> Limit:
        """Return the limit of its memory."""
        return Limit(self.limit_bytes, "the simulated server's limit")

    def used_bytes(self) -> int | None:
        """Return what it holds; None while it does not run."""
        if self._manager is None:
            return None
        loading = sum(item.bytes for _, _, item in self._loading.values())
        return self.noise_bytes + loading + sum(item.bytes for item in self.memory.values())

    def started_at(self) -> float | None:
        """Return when its process was started, in seconds since 1970; None while it does not run."""
        return self.wall_started

    # -- its life -----------------------------------------------------------------------------------------

    def step(self) -> None:
        """Live for a second: scan once, tick ten times, and end what loads are due."""
        now = self.clock.now
        if self._manager is None:
            if now < self._starts_at:
                return
            self._manager, self.wall_started = Manager(_options(8)), self.clock.wall()
        manager = self._manager
        self._scan(manager)
        for _ in range(TICKS_PER_SECOND):
            self._carry_out(manager, manager.tick(now))
        self._end_loads(manager)
        if self._manager is manager and not self.is_ready:
            self._come_up(manager)

    def _scan(self, manager: Manager) -> None:
        told = Policy("all" if self.policy is ServerPolicy.ALL else "latest")
        models = [ModelConfig(name, str(self.models_dir / name), told) for name in self.names]
        try:
            found = poll(models, os.listdir)
        except BasePathMissing:
            return
        for model, wanted in found.wanted.items():
            manager.aspire(model, wanted)

    def _come_up(self, manager: Manager) -> None:
        """Open the port once every model has a version, or end of one that has none that loads."""
        outcome = manager.monitor.outcome(self.names)
        if outcome is None:
            return
        if any(status.state is State.END for status in outcome.values()):
            self._end()
        elif not manager.is_loading:
            manager.options = _options(2)
            self.is_ready = True

    def _end(self) -> None:
        self.ends += 1
        self.kill()

    def _carry_out(self, manager: Manager, jobs: list[Job]) -> None:
        for job in jobs:
            match job:
                case Reserve():
                    self._reserve(manager, job)
                case Load():
                    self._begin(manager, job)
                case Unload():
                    self.memory.pop((job.model, job.version), None)
                    manager.succeeded(job)

    def _reserve(self, manager: Manager, job: Reserve) -> None:
        if not Path(job.path).is_dir():
            manager.failed(job, _gone(job), self.clock.now)
            return
        manager.succeeded(job)
        self._carry_out(manager, manager.due(self.clock.now))

    def _begin(self, manager: Manager, job: Load) -> None:
        found = found_in(Path(job.path))
        if found is None:
            manager.failed(job, _gone(job), self.clock.now)
            return
        self.loads.append((job.model, job.version))
        seconds = HANGING_SECONDS if found.loads is Loads.HANGS else self.load_seconds
        self._loading[job.model, job.version] = (job, self.clock.now + seconds, found)

    def _end_loads(self, manager: Manager) -> None:
        for key, (job, due, found) in list(self._loading.items()):
            if self.clock.now < due:
                continue
            if found.loads is Loads.ABORTS:
                self._end()
                return
            del self._loading[key]
            self._end_load(manager, job, found)
            self._carry_out(manager, manager.due(self.clock.now))

    def _end_load(self, manager: Manager, job: Load, found: OnDisk) -> None:
        if not Path(job.path).is_dir():
            manager.failed(job, _gone(job), self.clock.now)
        elif found.loads not in {Loads.WELL, Loads.DEAF}:
            error = LoadFailed(Code.DATA_LOSS, f"{found.identity} does not load")
            manager.failed(job, error, self.clock.now)
        else:
            if manager.keep(job):
                self.memory[job.model, job.version] = found
            manager.succeeded(job)


def _options(load_threads: int) -> Options:
    return Options(max_num_load_retries=0, load_threads=load_threads, unload_threads=1)


def _gone(job: Job) -> LoadFailed:
    return LoadFailed(Code.NOT_FOUND, f"{job.version} is not there")
