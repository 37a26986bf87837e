"""A version that ends the server, from its arrival to its end: watch and planner in made-up time."""

from dataclasses import dataclass, field, replace

import pytest

from servesync.agent.server_watch import ServerWatch
from servesync.domain.versions import Model, Version
from servesync.errors import Reason, ServerDown
from servesync.planning.actions import Action, Confirm, Install, Prune, Quarantine, Repair, Restore, Retry
from servesync.planning.facts import (
    Condition,
    Everything,
    Facts,
    Hold,
    Latest,
    ModelPlan,
    Pin,
    Policy,
    Role,
    Served,
    Server,
    ServerPolicy,
    ServerState,
    Shelved,
)
from servesync.planning.planner import plan

M = Model("m")
STEP = 0.25
LOAD_SECONDS = 2.0
RESTART_SECONDS = 1.0
REST_SECONDS = 5.0
DOWN = ServerDown(Reason.SERVER_UNREACHABLE, "refused")
POLICIES = pytest.mark.parametrize("told", list(ServerPolicy))


@dataclass
class FakeServer:
    """A server whose process some versions end at the end of their load, under a supervisor.

    Its port opens when what it found at its start is loaded. What vanishes meanwhile ends it.
    """

    told: ServerPolicy
    killers: set[int] = field(default_factory=set)
    broken: bool = False
    """It ends at each start, whatever lies there."""
    started_at: float | None = None
    restart_at: float = 0.0
    is_open: bool = False
    ready_at: dict[Version, float] = field(default_factory=dict)
    ends: int = 0

    def end(self, now: float, seconds: float = RESTART_SECONDS) -> None:
        """End the process; the supervisor waits before it starts another."""
        self.ends += 1
        self.started_at, self.is_open, self.ready_at = None, False, {}
        self.restart_at = now + seconds

    def tick(self, now: float, shelf: set[Version]) -> None:
        """Look at the shelf, and load what is there."""
        if self.started_at is None:
            if now < self.restart_at:
                return
            self.started_at = now
        found = shelf if self.told is ServerPolicy.ALL else set(sorted(shelf)[-1:])
        gone = self.ready_at.keys() - found
        if any(not self.is_open and self.ready_at[version] > now for version in gone):
            self.end(now)
            return
        up = {version for version, ready_at in self.ready_at.items() if ready_at <= now}
        for version in gone if found & up or not found or self.told is ServerPolicy.ALL else ():
            del self.ready_at[version]
        for version in found - self.ready_at.keys():
            self.ready_at[version] = now + LOAD_SECONDS
        done = [version for version, ready_at in self.ready_at.items() if ready_at <= now]
        if (self.broken and done) or any(version in self.killers for version in done):
            self.end(now)
        elif done and len(done) == len(self.ready_at):
            self.is_open = True

    def says(self, now: float) -> dict[Version, Served] | ServerDown:
        """Return what it answers."""
        if not self.is_open:
            return DOWN
        return {
            version: Served(ServerState.AVAILABLE if ready_at <= now else ServerState.LOADING)
            for version, ready_at in self.ready_at.items()
        }


@dataclass
class World:
    """One model on one instance: store, shelf, reserve, server and agent."""

    server: FakeServer
    store: set[int]
    policy: Policy = field(default_factory=lambda: Latest(1))
    sees_processes: bool = True
    load_timeout_seconds: float = 60.0
    now: float = 0.0
    shelf: dict[Version, Shelved] = field(default_factory=dict)
    reserve: dict[Version, Shelved] = field(default_factory=dict)
    returning: set[Version] = field(default_factory=set)
    refused: dict[Version, Quarantine] = field(default_factory=dict)
    withdrawn: set[int] = field(default_factory=set)
    done: list[Action] = field(default_factory=list)
    watch: ServerWatch = field(default_factory=ServerWatch)
    plan: ModelPlan | None = None
    answered: float = 0.0

    def run(self, seconds: float) -> "World":
        """Let everybody act for so long."""
        until = self.now + seconds
        while self.now < until:
            self.server.tick(self.now, set(self.shelf))
            self._act()
            self.answered += STEP if self.server.is_open else 0.0
            self.now += STEP
        return self

    def restart_agent(self) -> None:
        """Forget what was not written down."""
        self.watch = ServerWatch()

    def of(self, *kinds: type) -> list[tuple[type, int]]:
        """Return which actions of some kinds were done, and on what."""
        return [(type(action), action.version) for action in self.done if isinstance(action, kinds)]

    def why(self, version: int) -> str:
        """Return the last plan's word on a version."""
        assert self.plan is not None
        return self.plan.verdicts[Version(version)].why

    def _act(self) -> None:
        said = self.server.says(self.now)
        started_at = self.server.started_at if self.sees_processes else None
        self.watch.record_status(M, said, self.shelf, self.now, started_at)
        self.plan = plan(self._facts(None if isinstance(said, ServerDown) else said))
        for action in self.plan.actions:
            self._do(action)
        for version in self.returning - self.plan.wanted:
            self.returning.remove(version)
            self.reserve[version] = replace(self.reserve[version], tries=0, confirmed=False)

    def _facts(self, versions: dict[Version, Served] | None) -> Facts:
        cooling_down = self.watch.cooling_down(M, self.now)
        silent = self.watch.silent_seconds(M, self.now)
        server = Server(
            policy=self.server.told,
            versions=versions,
            load_timeout_seconds=self.load_timeout_seconds,
            may_be_starting=silent < self.load_timeout_seconds,
        )
        rests = dict.fromkeys(cooling_down - self.returning, Hold(Reason.SERVER_REFUSED, "rests"))
        return Facts(
            model=M,
            policy=self.policy,
            offered={Version(number): "id" for number in self.store},
            held=rests | {v: Hold(Reason.SERVER_REFUSED, order.because) for v, order in self.refused.items()},
            shelf=dict(self.shelf),
            server=self.watch.facts(M, self.now, server),
            reserve=dict.fromkeys(self.reserve, "id"),
            returning=frozenset(self.returning),
            cooling_down=cooling_down,
            withdrawn=frozenset(map(Version, self.withdrawn)),
        )

    def _do(self, action: Action) -> None:
        version = action.version
        match action:
            case Install() | Repair():
                self.shelf[version] = Shelved(Condition.GOOD, identity="id")
                self.watch.installed((M, version))
            case Restore():
                self.shelf[version] = self.reserve.pop(version)
                self.returning.discard(version)
                self.watch.installed((M, version))
            case Confirm():
                self.shelf[version] = replace(self.shelf[version], confirmed=True, tries=0)
            case Retry():
                tries = self.shelf[version].tries
                self.reserve[version] = replace(self.shelf.pop(version), tries=tries + 1)
                self.returning.add(version)
                self.watch.taken_off((M, version), self.now, REST_SECONDS * 4.0 ** min(tries, 3))
            case Quarantine() | Prune():
                del self.shelf[version]
                self.watch.taken_off((M, version), self.now, REST_SECONDS)
                if isinstance(action, Quarantine):
                    self.refused[version] = action
            case _:
                return
        self.done.append(action)


def serving(told: ServerPolicy, *, sees_processes: bool = True) -> World:
    """Return an instance whose version 1 has served for a while."""
    world = World(FakeServer(told), {1}, sees_processes=sees_processes).run(20)
    assert world.shelf[Version(1)].confirmed
    assert world.server.ends == 0
    return world


@POLICIES
@pytest.mark.parametrize("sees_processes", [True, False])
def test_a_serving_instance_loses_seconds(told: ServerPolicy, *, sees_processes: bool) -> None:
    """The server ends three times, each time for a restart and one load; then the version is refused."""
    world = serving(told, sees_processes=sees_processes)
    world.server.killers = {2}
    world.store.add(2)
    before = world.answered
    world.run(300)

    assert world.server.ends == 3
    assert world.of(Retry, Quarantine) == [(Retry, 2), (Retry, 2), (Quarantine, 2)]
    assert 300 - (world.answered - before) <= 3 * (RESTART_SECONDS + LOAD_SECONDS + 4 * STEP)
    assert world.refused[Version(2)].reason is Reason.SERVER_REFUSED
    assert "the server ended 3 times while it had this version to load" in world.refused[Version(2)].because
    assert set(world.shelf) == {Version(1)}


@POLICIES
def test_a_fresh_instance_gives_way_to_the_next_good_version(told: ServerPolicy) -> None:
    """After two failed starts version 1 is tried; once that has served for a while, version 2 again, once."""
    world = World(FakeServer(told, {2}), {1, 2}).run(300)

    assert world.server.ends <= 4
    assert world.of(Retry, Quarantine) == [(Retry, 2), (Quarantine, 2)]
    assert (Install, 1) in world.of(Install)
    assert world.shelf == {Version(1): Shelved(Condition.GOOD, identity="id", confirmed=True)}
    assert world.server.is_open
    assert world.answered > 300 - 30


@POLICIES
def test_a_fresh_instance_in_another_container_is_patient(told: ServerPolicy) -> None:
    """Nobody sees the starts that fail: a long load looks the same, and is not disturbed before its time."""
    world = World(FakeServer(told, {2}), {1, 2}, sees_processes=False).run(59)
    assert not world.of(Retry)

    world.run(100)
    assert (Retry, 2) in world.of(Retry)
    assert set(world.refused) == {Version(2)}
    assert world.shelf[Version(1)].confirmed


@POLICIES
def test_a_slow_first_start_is_left_alone(told: ServerPolicy) -> None:
    """A process that runs and has not opened its port loads a large model."""
    world = World(FakeServer(told), {1, 2})
    world.shelf[Version(2)] = Shelved(Condition.GOOD, identity="id")
    world.server.started_at = 0.0
    world.server.ready_at = {Version(2): 50.0}
    world.run(60)

    assert world.server.ends == 0
    assert not world.of(Retry)
    assert world.shelf[Version(2)].confirmed


@POLICIES
def test_a_server_that_always_ends_refuses_nothing(told: ServerPolicy) -> None:
    """It has a reason of its own. The versions take turns, ever more slowly, and serve when it is mended."""
    world = World(FakeServer(told, broken=True), {1, 2, 3}).run(400)
    assert not world.refused
    turns = len(world.of(Retry))
    assert 3 <= turns <= 20

    world.server.broken = False
    world.run(400)
    assert set(world.shelf) == {Version(3)}
    assert world.shelf[Version(3)].confirmed


def test_each_round_of_turns_takes_longer() -> None:
    """Two failed starts, then four: the same version gets more time each time."""
    world = World(FakeServer(ServerPolicy.ALL, broken=True), {1, 2})
    ends = []
    for number in range(1, 4):
        while len(world.of(Retry)) < number:
            world.run(STEP)
        ends.append(world.server.ends)

    assert world.of(Retry) == [(Retry, 2), (Retry, 1), (Retry, 2)]
    assert ends == [2, 4, 8]


def test_a_server_that_comes_up_no_more_refuses_nothing() -> None:
    """It answered once, and now ends whatever lies there: that says nothing about the version."""
    world = serving(ServerPolicy.ALL)
    world.store.add(2)
    while Version(2) not in world.shelf:
        world.run(STEP)
    del world.shelf[Version(1)], world.server.ready_at[Version(1)]
    world.store.remove(1)
    world.server.broken = True
    world.run(500)

    assert len(world.of(Retry)) >= 3
    assert not world.refused


@POLICIES
def test_one_version_alone_stays(told: ServerPolicy) -> None:
    """There is nothing to take turns with, and nothing serves that it takes down."""
    world = World(FakeServer(told, {2}), {2}).run(60)

    assert set(world.shelf) == {Version(2)}
    assert not world.of(Retry)
    assert "there is no other to try" in world.why(2)


@POLICIES
@pytest.mark.parametrize("store", [{2}, {1, 2}])
def test_a_withdrawn_version_leaves_a_server_that_never_comes_up(told: ServerPolicy, store: set[int]) -> None:
    """At once, also if nothing is left; the next good one is tried."""
    world = World(FakeServer(told, {2}), store, sees_processes=False).run(20)
    world.withdrawn.add(2)
    world.run(STEP)
    assert Version(2) not in world.shelf

    world.store.add(1)
    world.run(20)
    assert world.shelf[Version(1)].confirmed
    assert world.of(Prune) == [(Prune, 2)]


@POLICIES
def test_a_withdrawn_version_that_is_parked_stays_away(told: ServerPolicy) -> None:
    """What stepped aside does not come back."""
    world = serving(told)
    world.server.killers = {2}
    world.store.add(2)
    while not world.of(Retry):
        world.run(STEP)
    world.withdrawn.add(2)
    world.run(100)

    assert world.server.ends == 1
    assert set(world.shelf) == {Version(1)}


@POLICIES
def test_a_withdrawn_version_is_not_touched_while_it_loads(told: ServerPolicy) -> None:
    """The server reads its directory again after the load."""
    world = serving(told)
    world.store.add(2)
    while Version(2) not in world.server.ready_at:
        world.run(STEP)
    world.withdrawn.add(2)
    world.run(STEP)
    assert Version(2) in world.shelf

    world.run(20)
    assert set(world.shelf) == {Version(1)}
    assert world.server.ends == 0


@POLICIES
@pytest.mark.parametrize("restarts", [1, 2])
def test_restarts_on_purpose_only_delay_a_good_version(told: ServerPolicy, restarts: int) -> None:
    """An operator restarts the server while it loads version 2: that steps aside, comes back, and serves."""
    world = serving(told)
    world.store.add(2)
    for _ in range(restarts):
        while Version(2) not in world.server.ready_at:
            world.run(STEP)
        world.run(LOAD_SECONDS / 2)
        world.server.end(world.now, seconds=30)
    world.run(120)

    assert world.of(Retry) == [(Retry, 2)] * restarts
    assert not world.refused
    assert set(world.shelf) == {Version(2)}
    assert world.shelf[Version(2)].tries == 0


@POLICIES
def test_a_restart_while_nothing_loads_moves_nothing(told: ServerPolicy) -> None:
    """What has served before stays."""
    world = serving(told)
    world.server.end(world.now, seconds=70)
    world.run(90)

    assert not world.of(Retry, Quarantine, Prune)


@POLICIES
def test_an_agent_that_restarts_in_between_refuses_it_as_soon(told: ServerPolicy) -> None:
    """How often a version was taken off stands in its record."""
    world = serving(told)
    world.server.killers = {2}
    world.store.add(2)
    for tries in (1, 2):
        while len(world.of(Retry)) < tries:
            world.run(STEP)
        world.restart_agent()
    world.run(200)

    assert world.server.ends == 3
    assert set(world.refused) == {Version(2)}


def test_an_agent_that_comes_to_a_server_in_a_loop_sees_its_starts() -> None:
    """One version has served; the other steps aside at the first start that fails before its eyes."""
    world = serving(ServerPolicy.ALL)
    world.server.killers = {2}
    world.shelf[Version(2)] = Shelved(Condition.GOOD, identity="id")
    world.store.add(2)
    world.server.end(world.now)
    world.restart_agent()
    world.run(RESTART_SECONDS + LOAD_SECONDS + 2 * STEP)

    assert world.of(Retry) == [(Retry, 2)]


def test_the_only_version_of_a_model_leaves_a_server_that_serves_others() -> None:
    """It answered without it before; so it takes down what other models serve."""
    world = World(FakeServer(ServerPolicy.ALL, {2}), {2})
    world.watch.record_status(Model("other"), {}, {}, 0.0)
    world.watch.record_status(Model("other"), {}, {}, 0.25)
    world.run(LOAD_SECONDS + 4 * STEP)

    assert world.of(Retry) == [(Retry, 2)]


def test_one_of_many_is_tried_alone() -> None:
    """Nobody knows which one it is: all but the first step aside, and come back one after the other."""
    world = World(FakeServer(ServerPolicy.ALL, {3}), {1, 2, 3, 4}, policy=Everything()).run(400)

    assert set(world.refused) == {Version(3)}
    assert set(world.shelf) == {Version(1), Version(2), Version(4)}
    assert all(item.confirmed for item in world.shelf.values())
    assert world.server.ends <= 6


def test_a_pin_has_no_stand_in() -> None:
    """Policy names one version, so no other is tried; what is pinned beside it is."""
    alone = World(FakeServer(ServerPolicy.ALL, {2}), {1, 2}, policy=Pin(frozenset({Version(2)}))).run(60)
    both = Pin(frozenset({Version(1), Version(2)}))
    beside = World(FakeServer(ServerPolicy.ALL, {2}), {1, 2}, policy=both).run(200)

    assert set(alone.shelf) == {Version(2)}
    assert set(beside.shelf) == {Version(1)}
    assert set(beside.refused) == {Version(2)}


def test_the_plan_says_what_was_seen_and_what_happens_next() -> None:
    """While it waits, while another is tried, and while the server has not answered for long enough."""
    world = World(FakeServer(ServerPolicy.ALL, {2}), {1, 2})
    world.run(RESTART_SECONDS + LOAD_SECONDS)
    assert "it steps aside for 1 after 2 failed starts, of which 1 were seen" in world.why(2)
    while not world.of(Retry):
        world.run(STEP)
    (retry,) = [action for action in world.done if isinstance(action, Retry)]
    assert "the server ended 2 times with it on the shelf, and has not come up" in retry.because
    world.run(STEP)
    assert world.why(2).endswith("has answered for 10 s; until then 1 is tried")
    while not world.server.is_open:
        world.run(STEP)
    world.run(3)
    assert "(so far 3 s)" in world.why(2)
    assert world.plan is not None
    assert world.plan.verdicts[Version(2)].role is Role.WAITING
