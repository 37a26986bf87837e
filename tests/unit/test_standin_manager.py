"""What the stand-in's manager does, in made-up time: each row is what the real server was seen to do."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count

import pytest

from servesync.demo.standin.codes import Code, LoadFailed
from servesync.demo.standin.config import ModelConfig, Policy
from servesync.demo.standin.manager import Job, Load, Manager, Options, Reserve, Unload
from servesync.demo.standin.monitor import State
from servesync.demo.standin.scan import BasePathMissing, poll

LATEST, LATEST_2, ALL = Policy("latest"), Policy("latest", count=2), Policy("all")
RECOMMENDED = Options(max_num_load_retries=0, load_threads=2, unload_threads=1)
DEFAULT = Options()
A_WHILE = 20.0
TICKS_PER_SECOND = 10


@dataclass
class World:
    """Directories, a manager and a clock. Directories are listed once a second, jobs take time."""

    options: Options = RECOMMENDED
    policies: dict[str, Policy] = field(default_factory=dict)
    disk: dict[str, set[int] | None] = field(default_factory=dict)
    bad: set[int] = field(default_factory=set)
    files: set[int] = field(default_factory=set)
    """Versions that are plain files: their directory cannot be walked over."""
    load_seconds: float = 1.0
    unload_seconds: float = 0.5
    log: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.manager = Manager(self.options)
        self.ticks = 0
        self.running: list[tuple[float, Job]] = []

    @classmethod
    def one(cls, policy: Policy, *versions: int, options: Options = RECOMMENDED, **rest: object) -> "World":
        """Return a world with one model, after it has come to rest, its log empty."""
        world = cls(options, {"m": policy}, {"m": set(versions)}, **rest)  # type: ignore[arg-type]
        world.pass_time()
        world.log.clear()
        return world

    @property
    def now(self) -> float:
        """Seconds since the start."""
        return self.ticks / TICKS_PER_SECOND

    def set(self, *versions: int, model: str = "m") -> "World":
        """Let the directory hold exactly these, and let a while pass."""
        self.disk[model] = set(versions)
        self.pass_time()
        return self

    def pass_time(self, seconds: float = A_WHILE) -> None:
        """Run the clock."""
        for _ in range(round(seconds * TICKS_PER_SECOND)):
            if self.ticks % TICKS_PER_SECOND == 0:
                self._poll()
            self._start(self.manager.tick(self.now))
            self.ticks += 1
            for job in [job for ends, job in self.running if ends <= self.now]:
                self._finish(job)

    def _poll(self) -> None:
        def list_names(path: str) -> list[str]:
            versions = self.disk[path.removeprefix("/")]
            if versions is None:
                raise FileNotFoundError(2, "No such file or directory", path)
            return [str(version) for version in versions]

        try:
            found = poll([ModelConfig(n, f"/{n}", p) for n, p in self.policies.items()], list_names)
        except BasePathMissing:
            return
        for model, wanted in found.wanted.items():
            self.manager.aspire(model, wanted)

    def _start(self, jobs: list[Job]) -> None:
        for job in jobs:
            seconds = self.unload_seconds if isinstance(job, Unload) else self.load_seconds
            self.running.append((self.now + (0 if isinstance(job, Reserve) else seconds), job))
            if not isinstance(job, Reserve):
                self.log.append(f"{type(job).__name__.lower()} {job.version}")

    def _finish(self, job: Job) -> None:
        self.running = [entry for entry in self.running if entry[1] is not job]
        if isinstance(job, Reserve) and job.version in self.files:
            self.manager.failed(job, LoadFailed(Code.FAILED_PRECONDITION, "no directory"), self.now)
        elif isinstance(job, Load) and job.version in self.bad:
            self.manager.failed(job, LoadFailed(Code.DATA_LOSS, "bad"), self.now)
        else:
            if isinstance(job, Load):
                self.manager.keep(job)
            self.manager.succeeded(job)
        self._start(self.manager.due(self.now))

    def states(self, model: str = "m") -> dict[int, str]:
        """Return the states, with the code of those that ended badly."""
        return {
            number: str(status.state)
            if status.error_code is Code.OK
            else f"{status.state} {status.error_code}"
            for number, status in self.manager.monitor.statuses(model).items()
        }

    def serving(self, model: str = "m") -> list[int]:
        """Return what serves, lowest first."""
        return sorted(n for n, state in self.states(model).items() if state == State.AVAILABLE)


# -- the table of rule 1.7 ----------------------------------------------------------------------------


def test_a_new_version_comes_before_the_old_one_goes() -> None:
    """O8: {4} -> {4, 5}: 5 is loaded, then 4 unloaded."""
    world = World.one(LATEST, 4).set(4, 5)

    assert world.log == ["load 5", "unload 4"]
    assert world.states() == {5: "AVAILABLE", 4: "END"}


def test_there_is_no_gap_when_the_old_directory_goes_in_the_same_poll() -> None:
    """O8: {4} -> {5}: still 5 first."""
    assert World.one(LATEST, 4).set(5).log == ["load 5", "unload 4"]


def test_the_old_version_stays_when_the_new_one_fails() -> None:
    """{4} -> {4, 5 bad}: 4 is kept although it is not wanted."""
    world = World.one(LATEST, 4, bad={5}).set(4, 5)

    assert world.states() == {5: "END DATA_LOSS", 4: "AVAILABLE"}


def test_the_old_version_stays_even_without_its_directory() -> None:
    """O8: {4} -> {5 bad}: what serves is in memory."""
    assert World.one(LATEST, 4, bad={5}).set(5).serving() == [4]


def test_a_failed_version_is_never_tried_again_under_latest_one() -> None:
    """O7: removed, long absent, back and repaired: nothing happens."""
    world = World.one(LATEST, 4, bad={5}).set(4, 5).set(4)
    world.pass_time(1000)
    world.bad.clear()
    world.set(4, 5)

    assert world.log == ["load 5"]
    assert world.states() == {5: "END DATA_LOSS", 4: "AVAILABLE"}


def test_a_higher_version_recovers_from_a_failed_one() -> None:
    """... then 6: it is loaded, 4 is unloaded, 5 stays listed with its error."""
    world = World.one(LATEST, 4, bad={5}).set(4, 5).set(4).set(4, 5, 6)

    assert world.states() == {6: "AVAILABLE", 5: "END DATA_LOSS", 4: "END"}


def test_nothing_left_after_a_failed_version_is_an_outage() -> None:
    """{4} -> {4, 5 bad} -> {5} -> {}: everything is unloaded."""
    assert World.one(LATEST, 4, bad={5}).set(4, 5).set(5).set().serving() == []


@pytest.mark.parametrize("policy", [ALL, LATEST_2], ids=["all", "latest 2"])
def test_a_failed_version_that_was_gone_is_tried_again_where_the_older_is_wanted(policy: Policy) -> None:
    """O7: under `all` and `latest 2` one poll without it is enough, and 4 serves throughout."""
    world = World.one(policy, 4, bad={5}).set(4, 5).set(4)
    world.bad.clear()
    world.set(4, 5)

    assert world.log == ["load 5", "load 5"]
    assert world.serving() == [4, 5]


def test_repairing_a_failed_version_in_place_is_not_noticed() -> None:
    """Rule 6: while its directory stays, it is not tried again."""
    world = World.one(ALL, 4, bad={5}).set(4, 5)
    world.bad.clear()
    world.pass_time(1000)

    assert world.serving() == [4]


def test_retrying_by_a_specific_list() -> None:
    """{4} -> {4, 5 bad} -> {4} -> {4, 5} -> {5}: tried again, and without a gap."""
    world = World.one(Policy("specific", versions=(4,)), 4, 5, bad={5})
    for versions in [(4, 5), (4,), (4, 5), (5,)]:
        world.policies["m"] = Policy("specific", versions=versions)
        world.pass_time()
        world.bad = set() if versions == (4,) else world.bad

    assert world.log == ["load 5", "load 5", "unload 4"]


def test_a_rollback_has_no_gap() -> None:
    """O9: {4, 5} with 5 serving -> {4}: 4 is loaded, then 5 unloaded."""
    assert World.one(LATEST, 4, 5).set(4).log == ["load 4", "unload 5"]


def test_a_rollback_to_nothing_is_an_outage() -> None:
    """O9: {5} -> {}."""
    assert World.one(LATEST, 5).set().log == ["unload 5"]


def test_latest_two_makes_room_first() -> None:
    """{1, 2} serve, 3 and 4 appear at once: unload 1, load 4, unload 2, load 3."""
    world = World.one(LATEST_2, 1, 2, options=DEFAULT).set(1, 2, 3, 4)

    assert world.log == ["unload 1", "load 4", "unload 2", "load 3"]


# -- what else was observed -----------------------------------------------------------------------------


@pytest.mark.parametrize("policy", [LATEST, ALL], ids=["latest", "all"])
def test_an_emptied_directory_unloads_everything(policy: Policy) -> None:
    """O5: even the last version."""
    world = World.one(policy, 1, 2).set()

    assert world.serving() == []


def test_a_missing_base_path_stops_all_models_and_unloads_none() -> None:
    """O5 and rule 3: what serves goes on, what is new is not seen, until the path is back."""
    world = World(policies={"a": ALL, "b": ALL}, disk={"a": {1}, "b": {1}})
    world.pass_time()
    world.disk["b"] = None
    world.set(1, 2, model="a")
    assert (world.serving("a"), world.serving("b")) == ([1], [1])

    world.set(1, model="b")
    assert world.serving("a") == [1, 2]


def test_a_version_that_was_gone_and_is_back_is_loaded_anew() -> None:
    """O6: for more than one poll."""
    assert World.one(ALL, 1, 2).set(1).set(1, 2).log == ["unload 2", "load 2"]


def test_vanishing_and_returning_between_two_polls_is_not_noticed() -> None:
    """O6: only polls count."""
    world = World.one(ALL, 1, 2)
    world.pass_time(0.5)
    world.disk["m"] = {1}
    world.pass_time(0.3)
    world.set(1, 2)

    assert world.log == []


def test_specific_with_an_absent_version_is_an_outage() -> None:
    """O10: what serves is unloaded."""
    world = World.one(Policy("specific", versions=(1,)), 1)
    world.policies["m"] = Policy("specific", versions=(9,))
    world.pass_time()

    assert world.serving() == []


def test_the_status_forgets_nothing() -> None:
    """O11: versions that are gone stay listed, highest first."""
    states = World.one(ALL, 1).set(10).set(9).states()

    assert list(states.items()) == [(10, "END"), (9, "AVAILABLE"), (1, "END")]


def test_the_highest_new_version_is_loaded_first() -> None:
    """Under `all`, one after the other where there is one queue."""
    assert World.one(ALL, options=DEFAULT).set(1, 2, 3).log == ["load 3", "load 2", "load 1"]


# -- one action a tick, retries, threads --------------------------------------------------------------


def actions_per_tick(world: World, ticks: int) -> Iterator[int]:
    """Yield how many versions left START or AVAILABLE in each tick."""
    for _ in range(ticks):
        before = len(world.log)
        world.pass_time(1 / TICKS_PER_SECOND)
        yield len(world.log) - before


def test_there_is_one_action_a_tick_for_all_models_together() -> None:
    """Four versions of two models with threads enough: four ticks."""
    world = World(Options(load_threads=8), {"a": ALL, "b": ALL}, {"a": {1, 2}, "b": {1, 2}}, load_seconds=9)

    assert max(actions_per_tick(world, 20)) == 1
    assert len(world.log) == 4


def test_unloading_goes_before_loading() -> None:
    """Of two models, the one that gives memory back is served first."""
    world = World(policies={"a": ALL, "b": ALL}, disk={"a": {1}, "b": {1}})
    world.pass_time()
    world.log.clear()
    world.disk["a"] = {1, 2}
    world.disk["b"] = set()
    world.pass_time()

    assert world.log == ["unload 1", "load 2"]


def test_retries_are_counted_and_spaced() -> None:
    """Rule 6: six attempts, a minute apart, LOADING all along, then the error for good."""
    world = World.one(ALL, options=DEFAULT, bad={1})
    world.disk["m"] = {1}
    world.pass_time(300)
    assert world.log == ["load 1"] * 5
    assert world.states() == {1: "LOADING"}

    world.pass_time(1000)
    assert world.log == ["load 1"] * 6
    assert world.states() == {1: "END DATA_LOSS"}


def test_a_version_repaired_during_its_retries_recovers() -> None:
    """O2: while attempts are left."""
    world = World.one(ALL, options=DEFAULT, bad={1}).set(1)
    world.bad.clear()
    world.pass_time(60)

    assert world.serving() == [1]


def test_without_load_threads_everything_waits_for_the_retries() -> None:
    """O2: a good version and another model wait for five minutes behind a bad one."""
    world = World(DEFAULT, {"a": ALL, "b": ALL}, {"a": {1, 5}, "b": set()}, bad={5})
    world.pass_time(5)
    world.disk["b"] = {1}
    world.pass_time(290)
    assert world.states("a") == {5: "LOADING", 1: "START"}
    assert world.states("b") == {}

    world.pass_time(60)
    assert world.serving("a") == [1]
    assert world.serving("b") == [1]


def test_with_load_threads_only_the_queue_waits() -> None:
    """With two threads a good version overtakes the retries of a bad one; with one it waits."""
    for threads, expected in [(1, []), (2, [1])]:
        options = Options(load_threads=threads, unload_threads=1)
        world = World(options, {"a": ALL}, {"a": {1, 5}}, bad={5})
        world.pass_time()

        assert world.serving("a") == expected


def test_a_version_that_cannot_be_walked_over_blocks_everything_in_start() -> None:
    """A plain file: retries of the reservation hold the manager, however many threads there are."""
    world = World(Options(max_num_load_retries=1, load_threads=2), {"a": ALL}, {"a": {1, 9}}, files={9})
    world.pass_time(50)
    assert world.states("a") == {9: "START", 1: "START"}

    world.pass_time(50)
    assert world.states("a") == {9: "END FAILED_PRECONDITION", 1: "AVAILABLE"}


def test_retries_of_what_nobody_wants_are_cancelled() -> None:
    """A higher version under `latest` ends the retries of a bad one: its next failure is its last."""
    world = World.one(LATEST, 4, options=Options(load_threads=2, unload_threads=1), bad={5}).set(4, 5)
    world.set(4, 5, 6)
    world.pass_time(1000)

    assert world.log.count("load 5") == 2
    assert world.states() == {6: "AVAILABLE", 5: "END DATA_LOSS", 4: "END"}


def test_a_load_that_nobody_wants_any_more_is_thrown_away() -> None:
    """5 appears, 6 while it loads: 5 ends as CANCELLED and never serves; 4 serves until 6 does."""
    world = World.one(LATEST, 4, load_seconds=5)
    world.disk["m"] = {4, 5}
    world.pass_time(3)
    world.set(4, 5, 6)

    assert world.log == ["load 5", "load 6", "unload 4"]
    assert world.states() == {6: "AVAILABLE", 5: "END CANCELLED", 4: "END"}


def test_a_request_that_names_what_is_leaving_waits() -> None:
    """Absent for one poll while 2 loads: 1 is unloaded first, and only then loaded anew."""
    world = World.one(LATEST_2, 1, 2, unload_seconds=4)
    world.disk["m"] = {2}
    world.pass_time(2)
    world.set(1, 2)

    assert world.log == ["unload 1", "load 1"]


# -- the start ----------------------------------------------------------------------------------------


def outcome(world: World, *models: str) -> dict[str, State] | None:
    """Return how the start came out."""
    found = world.manager.monitor.outcome(models)
    return None if found is None else {model: status.state for model, status in found.items()}


def test_the_start_is_lost_when_the_highest_version_fails() -> None:
    """O3: an older good one does not help."""
    assert outcome(World.one(ALL, 1, 2, bad={2}), "m") == {"m": State.END}


def test_the_start_waits_for_every_model() -> None:
    """O4: a model without a version keeps the port closed, for as long as it takes."""
    world = World(policies={"a": ALL, "b": ALL}, disk={"a": {1}, "b": set()})
    world.pass_time(1000)
    assert outcome(world, "a", "b") is None

    world.set(1, model="b")
    assert outcome(world, "a", "b") == {"a": State.AVAILABLE, "b": State.AVAILABLE}


def test_nothing_is_loaded_while_a_base_path_is_missing() -> None:
    """O4: not even the models whose paths are there."""
    world = World(policies={"a": ALL, "b": ALL}, disk={"a": {1}, "b": None})
    world.pass_time()

    assert world.states("a") == {}


@pytest.mark.parametrize("seed", range(20))
def test_the_manager_always_comes_to_rest(seed: int) -> None:
    """Whatever the disk did: nothing loads for ever, and the last status is the truth."""
    numbers = (pow(48271, seed + n, 2**31 - 1) for n in count(1))
    world = World(RECOMMENDED, {"m": [LATEST, LATEST_2, ALL][seed % 3]}, {"m": {1}}, bad={3})
    for _ in range(12):
        world.disk["m"] = {v for v in range(1, 6) if next(numbers) % 2}
        world.pass_time(next(numbers) % 5)
    world.set(7)

    assert not world.manager.is_loading
    assert world.serving() == [7]
    assert world.log.count("load 7") == 1
