"""The model server of the simulated world: the stand-in's rules, and a process that dies and comes back."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from servesync.demo.standin.codes import Code, LoadFailed
from servesync.demo.standin.manager import Job, Load, Manager, Options, Reserve, Unload
from servesync.demo.standin.monitor import State
from servesync.plan.facts import Served, ServerPolicy, ServerState
from servesync.plan.versions import Version

MODEL: Final = "m"
LOAD_SECONDS: Final = 2.0
HANGING_SECONDS: Final = 100.0
RESTART_SECONDS: Final = 3.0
TICKS_PER_SECOND: Final = 10


class Loads(Enum):
    """What comes of it when the server loads these bytes."""

    WELL = auto()
    FAILS = auto()
    HANGS = auto()


@dataclass(frozen=True)
class Bytes:
    """What lies under a number when the server looks."""

    identity: str
    loads: Loads


class Server:
    """One process after another. `look` is what its scanner sees; each step is one second of its life."""

    def __init__(self, policy: ServerPolicy, look: Callable[[], Mapping[Version, Bytes]]) -> None:
        self._policy = policy
        self._look = look
        self._manager: Manager | None = None
        self._loading: dict[int, tuple[Load, float, Bytes]] = {}
        self._starts_at = 0.0
        self.memory: dict[Version, str] = {}
        self.is_ready = False
        self.is_silent = False
        self.crashes = 0

    @property
    def answering(self) -> Mapping[Version, str]:
        """The versions that requests get an answer from, with the bytes that they were loaded from."""
        return self.memory if self.is_ready else {}

    @property
    def is_down(self) -> bool:
        """Whether nothing listens: it is not running, or only starting."""
        return self._manager is None or not self.is_ready

    @property
    def is_busy(self) -> bool:
        """Whether it loads something, or starts and has something to load."""
        loading = self._manager is not None and self._manager.is_loading
        return loading or (not self.is_ready and bool(self._look()))

    @property
    def in_memory(self) -> int:
        """How many versions hold memory now: loaded, or on the way in."""
        return len(self.memory) + len(self._loading)

    def status(self) -> dict[Version, Served] | None:
        """Return what it says of every version it has seen, or None: it does not answer."""
        if self._manager is None or not self.is_ready or self.is_silent:
            return None
        return {
            Version(number): Served(ServerState(status.state), str(status.error_code), status.error_message)
            for number, status in self._manager.monitor.statuses(MODEL).items()
        }

    def kill(self, now: float, seconds: float = RESTART_SECONDS) -> None:
        """End the process; something starts it again after a while."""
        self._manager, self._starts_at = None, now + seconds
        self._loading, self.memory, self.is_ready = {}, {}, False

    def step(self, now: float) -> None:
        """Live for a second: scan once, tick ten times, and end what loads are due."""
        if self._manager is None:
            if now < self._starts_at:
                return
            self._manager = Manager(self._options(8))
        seen = self._look()
        wanted = seen.keys() if self._policy is ServerPolicy.ALL else sorted(seen)[-1:]
        self._manager.aspire(MODEL, {number: str(number) for number in wanted})
        for _ in range(TICKS_PER_SECOND):
            self._carry_out(self._manager, self._manager.tick(now), now)
        self._end_loads(self._manager, now)
        if not self.is_ready:
            self._come_up(self._manager, now)

    @staticmethod
    def _options(load_threads: int) -> Options:
        return Options(max_num_load_retries=0, load_threads=load_threads, unload_threads=1)

    def _come_up(self, manager: Manager, now: float) -> None:
        """Open the port once a version is loaded, or die of one that is not."""
        outcome = manager.monitor.outcome([MODEL])
        if outcome is None:
            return
        if outcome[MODEL].state is State.END:
            self.crashes += 1
            self.kill(now)
        elif not manager.is_loading:
            manager.options = self._options(2)
            self.is_ready = True

    def _carry_out(self, manager: Manager, jobs: list[Job], now: float) -> None:
        for job in jobs:
            match job:
                case Reserve():
                    self._reserve(manager, job, now)
                case Load():
                    self._begin(manager, job, now)
                case Unload():
                    self.memory.pop(Version(job.version), None)
                    manager.succeeded(job)

    def _reserve(self, manager: Manager, job: Reserve, now: float) -> None:
        if Version(job.version) not in self._look():
            manager.failed(job, _gone(job), now)
            return
        manager.succeeded(job)
        self._carry_out(manager, manager.due(now), now)

    def _begin(self, manager: Manager, job: Load, now: float) -> None:
        found = self._look().get(Version(job.version))
        if found is None:
            manager.failed(job, _gone(job), now)
            return
        seconds = HANGING_SECONDS if found.loads is Loads.HANGS else LOAD_SECONDS
        self._loading[job.version] = (job, now + seconds, found)

    def _end_loads(self, manager: Manager, now: float) -> None:
        for number, (job, due, found) in list(self._loading.items()):
            if now < due:
                continue
            del self._loading[number]
            if Version(number) not in self._look():
                manager.failed(job, _gone(job), now)
            elif found.loads is not Loads.WELL:
                manager.failed(job, LoadFailed(Code.DATA_LOSS, f"{found.identity} does not load"), now)
            else:
                if manager.keep(job):
                    self.memory[Version(number)] = found.identity
                manager.succeeded(job)
            self._carry_out(manager, manager.due(now), now)


def _gone(job: Job) -> LoadFailed:
    return LoadFailed(Code.NOT_FOUND, f"{job.version} is not there")
