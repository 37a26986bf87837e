"""The simulated world: the real agent on a real directory, with a store, a server and time that a test moves.

What a test does with it is what publishers, operators, machines and clocks do. After every step the
invariants are checked on the disk; `Broken` is raised when a guarantee does not hold.
"""

import os
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self
from unittest import mock

import structlog.testing

from servesync.domain.versions import Model, Version
from servesync.errors import SyncError
from servesync.install import Lock, Workspace
from servesync.jobs import JobKind
from servesync.planning.facts import ServerPolicy
from servesync.settings import Settings
from sim.clock import SimClock
from sim.contents import GRAPH, Contents, write_tree
from sim.disk_faults import DiskFaults
from sim.invariants import Invariants
from sim.jobs import ProcessEnded, SimJobs, Task, never
from sim.server import SimServer
from sim.shelves import Broken
from sim.store import URL, SimStore

if TYPE_CHECKING:
    from servesync.agent.agent import Agent
from servesync.agent.outcome import Outcome

FOLDER: Final = Path("/dev/shm")
MOST_ROUNDS: Final = 200
CALM_SECONDS: Final = 20
LONGEST_SECONDS: Final = 2 * 3600
REST_STEPS: Final = ((900, 30), (300, 5), (0, 1))
"""After so many seconds of a rest that does not come the agent turns once in so many seconds."""

CALM_STEP: Final = (3, 4)
"""After three quiet seconds it turns once in four: what still happens is seen all the same."""

STUCK_SECONDS: Final = 150
CHECK_ANYWAY: Final = 20
SMALL: Final = 1 << 20

DEFAULTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "store": {"url": URL, "region": "us-east-1", "settle_seconds": 3},
    "serving": {"load_timeout_seconds": 20},
    "poll": {"interval_seconds": 1, "jitter_seconds": 0},
    "limits": {"disk_reserve_bytes": 0, "disk_reserve_inodes": 0},
    "fetch": {"connections": 4, "part_bytes": SMALL, "memory_bytes": 4 * SMALL},
    "scrub": {"interval_hours": None},
    "admin": {"port": None},
}


def lowest(low: float, _high: float) -> float:
    """Return what dice show that always show the least: no pause is longer than it must be."""
    return low


@dataclass
class World:
    """Everything there is. `models`: what is asked for, by name (`{"m": {"latest": 1}}`)."""

    models: dict[str, dict[str, Any]] = field(default_factory=lambda: {"m": {"latest": 1}})
    told: ServerPolicy = ServerPolicy.ALL
    has_server: bool = True
    overrides: dict[str, dict[str, Any]] = field(default_factory=dict)
    """More settings, by section."""

    is_supervised: bool = True
    """An agent that has ended is started again a second later."""

    poll_seconds: int = 1
    """How often the store is listed, and disk and server are looked at without a cause."""

    meddled: set[str] = field(default_factory=set)
    """Models whose shelf somebody else has changed since it was last calm: that is not our doing."""

    trace: list[str] = field(default_factory=list)
    deaths: int = 0
    """How often the agent's process has ended in the middle of something."""

    tally: Counter[str] = field(default_factory=Counter)
    """How often the agent turned or ended, and jobs worked: in all, and out of turn."""

    schedule: list[tuple[object, ...]] = field(default_factory=list)
    """Who worked, in which order, and where each job stood afterwards."""

    def __enter__(self) -> Self:
        """Make the world; no agent works in it yet."""
        self._stack = ExitStack()
        base = FOLDER if os.access(FOLDER, os.W_OK) else None
        self.folder = Path(tempfile.mkdtemp(prefix="servesync-sim-", dir=base))
        self._stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
        self.log: list[Any] = self._stack.enter_context(structlog.testing.capture_logs())
        self._stack.enter_context(mock.patch.object(random, "uniform", lowest))
        self.disk = self._stack.enter_context(DiskFaults())
        self.models_dir = self.folder / "models"
        self.clock = SimClock()
        self.store = SimStore(self.clock, self._gate)
        self.server = SimServer(self.models_dir, self.clock, tuple(self.models), self.told, self._gate)
        self.jobs = SimJobs()
        self.invariants = Invariants(self)
        self._steps = self._seen = 0
        self._poll_at = 0.0
        self.agent: Agent | None = None
        self._lock: Lock | None = None
        return self

    def __exit__(self, *_: object) -> None:
        """End all, and remove the directory."""
        self.disk.heal()
        if self.agent is not None:
            self.kill()
        self._stack.close()

    def _gate(
        self, what: str, holds: Callable[[], bool] = never, key: str = "", *, is_ahead: bool = False
    ) -> None:
        self.jobs.at_point(what, holds, key, is_ahead=is_ahead)

    # -- the agent ----------------------------------------------------------------------------------------

    def settings(self) -> Settings:
        """Return the settings that are in force for the next agent."""
        found: dict[str, dict[str, Any]] = {name: dict(section) for name, section in DEFAULTS.items()}
        found["serving"] |= {"models_dir": str(self.models_dir), "version_policy": self.told.value}
        if not self.has_server:
            found["serving"]["rest_url"] = None
        for name, section in self.overrides.items():
            found.setdefault(name, {}).update(section)
        models = [{"name": name, "versions": wanted} for name, wanted in self.models.items()]
        return Settings.model_validate({**found, "models": models})

    def start(self, *, one_pass: bool = False) -> None:
        """Start an agent, as a new process does: it knows what lies on the disk.

        One that cannot use the disk ends at once.
        """
        assert self.agent is None, "one is at work"
        try:
            self._alive(lambda: self._begin(one_pass=one_pass))
        except (SyncError, OSError) as error:
            self.trace.append(f"{self.clock.now:g}: the agent cannot start: {error}")
            self.kill()
        self._check_invariants("start")

    def _begin(self, *, one_pass: bool) -> None:
        workspace = Workspace(self.models_dir)
        workspace.claim()
        self._lock = Lock(workspace.lock)
        self._lock.__enter__()
        self.agent = self._built(None, one_pass=one_pass)
        self.agent.prepare()

    def _built(self, old: "Agent | None", *, one_pass: bool = False) -> "Agent":
        from servesync.agent.ports import Ports  # noqa: PLC0415 (the same)
        from servesync.runtime.build import build_agent  # noqa: PLC0415 (the parts can be tested without it)

        assert self._lock is not None
        ports = Ports(
            store=self.store,
            server=self.server if self.has_server else None,
            clock=self.clock,
            jobs=self.jobs,
            footprint=self.server,
        )
        state = None if old is None else old.context.state
        return build_agent(self.settings(), self._lock, ports, state=state, one_pass=one_pass)

    def reload(self) -> None:
        """Put the settings in force as they are now: a new agent takes over what the old one has in mind.

        Raises:
            SyncError: they cannot be put in force; the old agent works on.
        """
        old = self.agent
        if old is None:  # the next one reads them when it starts
            return
        self.trace.append(f"{self.clock.now:g}: reload {self.models}")
        state, models = old.context.state, old.context.state.models
        fresh = self._built(old)
        try:
            self._alive(fresh.prepare)
        except SyncError:
            state.models = models
            raise
        if self.agent is not None:  # it did not die of it
            state.follow(old.context.settings, fresh.context.settings)
            self.agent = fresh
        self.server.serve(self.models)
        self._check_invariants("reload")

    def stop(self, seconds: float = 1.0) -> bool:
        """End the agent as SIGTERM does; return whether all its jobs have ended."""
        assert self.agent is not None
        have_ended = self.jobs.close(seconds)
        self.agent.close()
        self.kill()
        return have_ended

    def kill(self) -> None:
        """End the agent's process where it stands, and every job of it."""
        self.trace.append(f"{self.clock.now:g}: the agent ends")
        self.tally["agent ended"] += 1
        self.schedule.append(("end",))
        self.disk.is_gone = True
        self.jobs.end_with_process()
        self.jobs = SimJobs()
        self.disk.is_gone, self.disk.dies_at = False, None
        if self._lock is not None:
            self._lock.__exit__()
        self.agent = self._lock = None
        self._check_invariants("kill")

    def restart(self) -> None:
        """Kill the agent, and start another one."""
        self.kill()
        self.start()

    def _alive(self, work: Callable[[], Any]) -> Any:
        """Do something as the agent's process, which may end of it; None if it did."""
        found = None
        try:
            found = work()
        except ProcessEnded:
            assert self.disk.is_gone, "something else ended the process"
        if self.disk.is_gone:
            self.deaths += 1
            self.kill()
            return None
        return found

    # -- time ---------------------------------------------------------------------------------------------

    def turn(self, **how: bool) -> "Outcome | None":
        """Let the agent turn once; None if it died of it."""
        if self.agent is None:
            if not self.is_supervised:
                return None
            self.start()
        agent = self.agent
        if agent is None:  # it died at its start
            return None
        self.tally["turns"] += 1
        self.schedule.append(("turn", *sorted(how.items())))
        outcome: Outcome | None = self._alive(lambda: agent.turn(**how))
        self._check_invariants("turn")
        return outcome

    def run(self, task: Task, points: int | None = None) -> bool:
        """Let a job work; return whether it got any further."""
        before = task.at
        self.tally["jobs worked"] += 1
        self.tally["jobs out of turn"] += task is not self.jobs.alive[0]
        self._alive(lambda: self.jobs.resume(task, points))
        self.tally["jobs left midway"] += points is not None and not task.has_ended
        self.schedule.append((task.job.kind, task.job.model, task.job.version, task.at))
        self._check_invariants(f"{task.job.kind}")
        return task.has_ended or task.at != before

    def run_jobs(self, *kinds: JobKind) -> bool:
        """Let every job work, or those of some kinds; return whether any got further."""
        moved = False
        for task in self.jobs.alive:
            if (not kinds or task.job.kind in kinds) and not task.has_ended:
                moved = self.run(task) or moved
        return moved

    def cycle(self) -> bool:
        """Let everything happen that needs no time, beginning with a poll; return whether the agent acted."""
        is_due = self.clock.now >= self._poll_at
        if is_due:
            self._poll_at = self.clock.now + self.poll_seconds
        outcome = self.turn(poll=is_due, refresh=is_due)
        acted = False
        for _ in range(MOST_ROUNDS):
            if outcome is None:
                return True
            acted = acted or outcome.acted
            moved = self.run_jobs()
            if not (moved or outcome.acted or self.jobs.has_news):
                return acted
            outcome = self.turn(refresh=False)
        raise Broken(f"{MOST_ROUNDS} rounds in one moment: {self.said()}")

    def wait(self, seconds: int, step: int = 1) -> None:
        """Let time pass for everybody but the agent."""
        for _ in range(seconds // step):
            self.clock.advance(step)
            if self.has_server:
                self.invariants.before_step()
                self.server.step()
                self.invariants.after_step()

    def work(self, seconds: int) -> None:
        """Let agent and server work."""
        for _ in range(seconds):
            self.cycle()
            self.wait(1)

    def until(self, happened: Callable[[], object], seconds: int = 600) -> float:
        """Work until something is so, and return after how many seconds.

        Raises:
            Broken: it does not come.
        """
        begun = self.clock.now
        while not happened():
            if self.clock.now > begun + seconds:
                raise Broken(f"not after {seconds} s: {self.said()}")
            self.work(1)
        return self.clock.now - begun

    def pass_time(self, seconds: int, step: int) -> None:
        """Let much time pass: agent and server live only now and then."""
        for _ in range(seconds // step):
            self.cycle()
            self.wait(step, step)

    def rest(self, calm_seconds: int = CALM_SECONDS) -> None:
        """End every fault, let the agent work until nothing happens any more, and check what it came to.

        Raises:
            Broken: it never comes to rest, or not to what is wanted.
        """
        self.store.heal()
        self.disk.heal()
        self.server.is_silent, self.server.answer_seconds = False, 0.0
        self.jobs.has_threads = True
        quiet, begun = 0.0, self.clock.now
        why = ""
        while self.clock.now < begun + LONGEST_SECONDS:
            elapsed = self.clock.now - begun
            step = next(step for after, step in REST_STEPS if elapsed >= after)
            if quiet >= CALM_STEP[0]:
                step = max(step, CALM_STEP[1])
            acted = self.cycle()
            quiet = 0.0 if acted or (self.has_server and self.server.is_busy) else quiet + step
            self.wait(step, max(1, step // 5))
            if self.clock.now > begun + STUCK_SECONDS and self.invariants.is_stuck:
                return
            if quiet >= calm_seconds:
                why = self.invariants.flaw_of_rest()
                if not why:
                    self.meddled.clear()
                    return
        raise Broken(f"no rest after {LONGEST_SECONDS} s; {why or 'it is never quiet'}: {self.said()}")

    def _check_invariants(self, what: str) -> None:
        """Check the invariants if anything was done since the last check, and now and then in any case."""
        self._steps += 1
        done = len(self.disk.effects)
        if done != self._seen or not self._steps % CHECK_ANYWAY:
            self._seen = done
            self.invariants.check(what)

    # -- what can be seen ---------------------------------------------------------------------------------

    def answering(self, model: str = "m") -> dict[int, str]:
        """Return the versions that requests get an answer from, and whose bytes those are."""
        return {int(v): identity for v, identity in self.server.answering(model).items()}

    def shelf(self, model: str = "m") -> set[int]:
        """Return the numbers on the shelf."""
        return {int(version) for version in self.invariants.now(model).items}

    def reserve(self, model: str = "m") -> set[int]:
        """Return the numbers in the reserve."""
        return {int(version) for version in self.invariants.now(model).reserve}

    def refusals(self, model: str = "m") -> dict[int, str]:
        """Return why numbers are refused."""
        return {int(v): refusal.reason for v, refusal in self.invariants.now(model).refusals.items()}

    def events(self, name: str, **facts: object) -> list[Any]:
        """Return the events of that name, with these facts, that the agents have written."""
        return [
            event
            for event in self.log
            if event["event"] == name and all(event.get(key) == value for key, value in facts.items())
        ]

    def transfer(self, model: str = "m", number: int | None = None) -> Task | None:
        """Return the transfer that is at work, if there is one."""
        return self.jobs.find(JobKind.TRANSFER, model, number)

    def said(self) -> str:
        """Return what happened last, for who reads of a failure."""
        jobs = ", ".join(f"{task.job.kind} {task.job.model} {task.job.version}" for task in self.jobs.alive)
        return f"{self.trace[-14:]}; at work: {jobs or 'nothing'}"

    # -- what the world does ------------------------------------------------------------------------------

    def publish(
        self, number: int, contents: Contents | None = None, model: str = "m", **how: Any
    ) -> Contents:
        """Publish a version; by default a good one that is called by model and number."""
        contents = contents or Contents(f"{model}{number}")
        self.store.publish(model, number, contents, **how)
        return contents

    def _path(self, model: str, number: int) -> Path:
        return self.models_dir / model / str(number)

    def damage(self, number: int, model: str = "m") -> None:
        """Change a file of a version under its number."""
        path = self._path(model, number)
        self.meddled.add(model)
        self.invariants.damaged.add((Model(model), Version(number), path.stat().st_ino))
        (path / GRAPH).write_bytes(b"damaged")

    def remove_by_hand(self, number: int, model: str = "m") -> None:
        """Remove a version from the shelf, as `rm -r` does, but at once."""
        self.meddled.add(model)
        self._path(model, number).rename(self.folder / f"removed.{self.clock.now:g}")
        shutil.rmtree(self.folder / f"removed.{self.clock.now:g}")
        self.invariants.forget(model, number)

    def put_by_hand(self, number: int, contents: Contents, model: str = "m") -> None:
        """Put a version on the shelf that is not ours."""
        self.meddled.add(model)
        write_tree(self._path(model, number), contents)
        self.invariants.put(model, number)

    def remove_folder(self, model: str = "m") -> None:
        """Remove all of a model, its folder first."""
        self.meddled.add(model)
        gone = self.folder / f"removed.{self.clock.now:g}"
        (self.models_dir / model).rename(gone)
        shutil.rmtree(gone)
        self.invariants.forget(model)
