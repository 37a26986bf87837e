"""Publishers, operators, servers, disks and agents that do what they do, and fail as they fail."""

import errno
import os
from collections import Counter
from typing import Any, Final

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from servesync.domain.versions import Version
from servesync.errors import SyncError
from servesync.planning.facts import Latest, ServerPolicy
from sim.contents import Contents, Flaw, Loads
from sim.store import down
from sim.world import World

LONG: Final = os.environ.get("LONG_TESTS") == "1"
EXAMPLES: Final = int(os.environ.get("SIM_EXAMPLES", "400"))
"""How many examples the long form tries with each machine; `--hypothesis-seed` gives others."""

NUMBERS = st.integers(1, 5)
NAMES = st.sampled_from(["m", "n"])
CHANNELS = st.sampled_from(["stable", "canary"])
CONTENTS = st.sampled_from(
    [
        {},
        {},
        {},
        {},
        {"flaw": Flaw.NO_GRAPH},
        {"loads": Loads.FAILS},
        {"loads": Loads.HANGS},
        {"loads": Loads.ABORTS},
        {"loads": Loads.DEAF},
    ]
)
HOWS = st.sampled_from([{}, {"with_manifest": True}, {"ending": ".tar.gz"}, {"checksum": False}])
WANTED = st.one_of(
    st.fixed_dictionaries({"latest": st.integers(1, 2)}),
    st.fixed_dictionaries({"pin": st.lists(st.integers(1, 3), min_size=1, max_size=2, unique=True)}),
    st.just({"all": True}),
    st.sampled_from([{"channel": ["stable"]}, {"channel": ["stable", "canary"]}]),
)
POINTS = st.integers(1, 6)
TALLY: Final[Counter[str]] = Counter()
"""What all machines have done so far, and how often each guarantee was looked at."""

SCHEDULES: Final[set[int]] = set()
"""The orders in which jobs and turns came, as hashes: one for each example."""


def summary() -> str:
    """Return what was done and judged since the tally was cleared last."""
    counts = (f"{count} {what}" for what, count in TALLY.items())
    return ", ".join((*counts, f"{len(SCHEDULES)} different orders"))


class Machine(RuleBasedStateMachine):
    """Two models beside a server with policy all."""

    told = ServerPolicy.ALL
    has_server = True
    wanted = WANTED
    names = NAMES

    def __init__(self) -> None:
        super().__init__()
        self.world = World(
            {"m": {"latest": 1}, "n": {"latest": 1}}, told=self.told, has_server=self.has_server
        )
        self.world.__enter__()
        self.count = 0
        self.published = 0
        """How many releases there were since it was last calm."""
        self.is_steady = True
        """What is asked for has not changed since it was last calm, and no process was killed."""

    def contents(self, how: dict[str, Any]) -> Contents:
        """Return contents that there have never been."""
        self.count += 1
        self.published += 1
        return Contents(f"id{self.count}", **how)

    @initialize(data=st.data(), is_fresh=st.sampled_from([False, False, True]))
    def configure(self, data: st.DataObject, *, is_fresh: bool) -> None:
        """Settle what is asked for; the instance is fresh, or serves a version of each model."""
        for name in list(self.world.models):
            self.world.models[name] = data.draw(self.wanted)
            if not is_fresh:
                self.world.publish(1, self.contents({}), name)
                self.world.store.promote(name, "stable", 1)
                self.world.store.promote(name, "canary", 1)
        self.world.start()
        if not is_fresh:
            self.world.work(12)
        self.published = 0

    # -- publishers and operators -------------------------------------------------------------------------

    @rule(name=NAMES, number=NUMBERS, contents=CONTENTS, how=HOWS)
    def publish(self, name: str, number: int, contents: dict[str, Any], how: dict[str, Any]) -> None:
        """A release under a number, in place of what may be there."""
        self.world.publish(number, self.contents(contents), name, **how)

    @rule(name=NAMES, number=NUMBERS)
    def unpublish(self, name: str, number: int) -> None:
        """A release disappears."""
        self.world.store.unpublish(name, number)

    @rule(name=NAMES, data=st.data())
    def reload(self, name: str, data: st.DataObject) -> None:
        """Something else is asked for: also a rollback by a pin, and back."""
        self.is_steady = False
        self.world.models[name] = data.draw(self.wanted)
        try:
            self.world.reload()
        except SyncError:  # the disk refuses: the loop would try again
            self.world.restart()

    @rule(name=NAMES, channel=CHANNELS, number=NUMBERS)
    def promote(self, name: str, channel: str, number: int) -> None:
        """A channel moves; also back."""
        if Version(number) in self.world.store.offers(name):
            self.is_steady = False
            self.world.store.promote(name, channel, number)

    @rule(name=NAMES, number=NUMBERS)
    def withdraw(self, name: str, number: int) -> None:
        """A version is taken out everywhere."""
        if Version(number) in self.world.store.offers(name):
            self.is_steady = False
            self.world.store.withdraw(name, number)

    # -- faults of the store ------------------------------------------------------------------------------

    @rule(is_down=st.booleans(), is_empty=st.booleans(), breaks=st.booleans())
    def trouble(self, *, is_down: bool, is_empty: bool, breaks: bool) -> None:
        """The store is down, lists nothing, or breaks transfers; or does so no longer."""
        store = self.world.store
        store.list_error = down() if is_down else None
        store.lists_nothing, store.breaks = is_empty, breaks

    @rule(seconds=st.sampled_from([0, 12]))
    def flip(self, seconds: int) -> None:
        """A gateway damages what passes, for a while."""
        self.world.store.flips_until = self.world.clock.now + seconds

    @rule(name=NAMES, number=NUMBERS)
    def hang(self, name: str, number: int) -> None:
        """An archive hangs on the way."""
        if Version(number) in self.world.store.offers(name):
            self.world.store.hanging.add(self.world.store.key_of(name, number))

    @rule(reads=st.sampled_from([0, 0, 2, 7]), lists=st.sampled_from([0, 0, 5]))
    def slow(self, reads: int, lists: int) -> None:
        """Bodies and listings take their time."""
        self.world.store.read_seconds, self.world.store.list_seconds = reads, lists

    # -- faults of the machine ----------------------------------------------------------------------------

    @rule()
    def fill_disk(self) -> None:
        """Nothing new fits."""
        self.world.disk.fill()

    @rule()
    def break_disk(self) -> None:
        """Nothing can be changed."""
        self.world.disk.fail(errno.EIO)

    @rule()
    def heal_disk(self) -> None:
        """All is well again."""
        self.world.disk.heal()

    @rule(has_threads=st.booleans())
    def threads(self, *, has_threads: bool) -> None:
        """No thread can be started, or it can again."""
        self.world.jobs.has_threads = has_threads

    @rule(effects=st.integers(0, 12))
    def die_soon(self, effects: int) -> None:
        """The agent's process ends before one of its next effects."""
        self.is_steady = False
        self.world.disk.dies_at = effects

    @rule()
    def kill_agent(self) -> None:
        """It ends where it stands."""
        self.is_steady = False
        if self.world.agent is not None:
            self.world.kill()

    # -- the server ---------------------------------------------------------------------------------------

    @precondition(lambda self: self.has_server)
    @rule(seconds=st.sampled_from([1, 3, 30]))
    def kill_server(self, seconds: int) -> None:
        """It comes back after a while."""
        self.is_steady = False
        self.world.server.kill(seconds)

    @precondition(lambda self: self.has_server)
    @rule(is_silent=st.booleans(), seconds=st.sampled_from([0, 0, 3]))
    def silence(self, seconds: int, *, is_silent: bool) -> None:
        """It works, but says late how it is, or not at all."""
        self.world.server.is_silent, self.world.server.answer_seconds = is_silent, seconds

    # -- meddlers -----------------------------------------------------------------------------------------

    @rule(name=NAMES, number=NUMBERS)
    def damage(self, name: str, number: int) -> None:
        """A file of a version changes."""
        item = self.world.invariants.now(name).items.get(Version(number))
        if item is not None and item.record is not None and item.record.state == "installed":
            self.world.damage(number, name)

    @rule(name=NAMES, number=NUMBERS)
    def remove_by_hand(self, name: str, number: int) -> None:
        """Not the only one that serves: a server that loses it puts off what names it until it restarts."""
        if number in self.world.shelf(name) and self.world.answering(name).keys() != {number}:
            self.world.remove_by_hand(number, name)

    @precondition(lambda self: self.told is ServerPolicy.ALL)
    @rule(name=NAMES, number=NUMBERS, is_theirs=st.booleans())
    def put_by_hand(self, name: str, number: int, *, is_theirs: bool) -> None:
        """A version that is not ours, with the store's bytes or others."""
        folder = self.world.models_dir / name
        if number not in self.world.shelf(name) and folder.is_dir():
            there = self.world.store.contents(name, number)
            good = there if there is not None and there.is_good and is_theirs else None
            self.world.put_by_hand(number, good or self.contents({}), name)

    # -- time ---------------------------------------------------------------------------------------------

    @rule(poll=st.booleans(), refresh=st.booleans())
    def turn(self, *, poll: bool, refresh: bool) -> None:
        """One turn of the agent."""
        self.world.turn(poll=poll, refresh=refresh)

    @rule(data=st.data(), points=st.one_of(POINTS, st.none()))
    def run_job(self, data: st.DataObject, points: int | None) -> None:
        """One job works for a while."""
        alive = self.world.jobs.alive
        if alive:
            self.world.run(alive[data.draw(st.integers(0, len(alive) - 1))], points)

    @rule(steps=st.lists(st.tuples(st.integers(0, 9), st.one_of(POINTS, st.none())), max_size=12))
    def interleave(self, steps: list[tuple[int, int | None]]) -> None:
        """Jobs in some order, each for a while, and turns in between."""
        self.world.turn(poll=True)
        for which, points in steps:
            alive = self.world.jobs.alive
            if alive:
                self.world.run(alive[which % len(alive)], points)
            if which % 2:
                self.world.turn(refresh=which % 3 == 0)

    @rule(seconds=st.integers(1, 30))
    def work(self, seconds: int) -> None:
        """Everybody works."""
        self.world.work(seconds)

    @rule(seconds=st.sampled_from([1, 2, 5, 30]))
    def sleep(self, seconds: int) -> None:
        """Time without the agent."""
        self.world.wait(seconds)

    @rule()
    def calm(self) -> None:
        """Every fault ends, and all comes to rest as it should."""
        self.world.rest()
        self.is_steady, self.published = True, 0

    # -- what holds at every moment -----------------------------------------------------------------------

    @invariant()
    def counts(self) -> None:
        """One more step was made."""
        self.world.tally["steps"] += 1

    @invariant()
    def memory_is_capped(self) -> None:
        """At most old and new, and two that nobody has judged while nobody answered."""
        world = self.world
        if not self.is_steady or self.published > 2:
            return
        for name in world.models:
            policy = world.invariants.policy(name)
            if isinstance(policy, Latest) and name not in world.meddled:
                world.invariants.checks["memory"] += 1
                shelf = world.invariants.now(name)
                ours = [
                    v for v, item in shelf.items.items() if not world.invariants.is_foreign(name, v, item)
                ]
                assert len(ours) <= 2 * policy.count + 2, world.said()

    def teardown(self) -> None:
        """In the end everything is well again."""
        try:
            self.world.rest()
            self.at_rest()
        finally:
            self._sum_up()
            self.world.__exit__()

    def _sum_up(self) -> None:
        world = self.world
        TALLY.update({"examples": 1})
        TALLY.update(world.tally)
        TALLY.update({f"{name} judged": count for name, count in world.invariants.checks.items()})
        SCHEDULES.add(hash(tuple(world.schedule)))

    def at_rest(self) -> None:
        """What else is to be so in the end."""


class WithoutServer(Machine):
    """Installation is the end."""

    has_server = False


class BesideLatest(Machine):
    """A server with its default policy, which tries each number once."""

    told = ServerPolicy.LATEST
    wanted = st.just({"latest": 1})

    def at_rest(self) -> None:
        """A number that failed is dead here: a higher one is what helps."""
        for name in self.world.models:
            self.world.publish(99, self.contents({}), name)
        self.world.rest()
        for name in self.world.models:
            assert 99 in self.world.answering(name) or self.world.invariants.is_stuck, self.world.said()
