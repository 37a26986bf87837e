"""Whatever happens, in whatever order, the planner breaks no guarantee, and comes to rest as it should."""

import os
from typing import Final

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from servesync.plan.facts import Everything, Follow, Latest, Pin, ServerPolicy
from servesync.plan.versions import Version
from sim.server import Loads
from sim.values import Item, Release
from sim.world import World

LONG: Final = os.environ.get("LONG_TESTS") == "1"
EFFORT: Final = settings(
    max_examples=600 if LONG else 50,
    stateful_step_count=60 if LONG else 30,
    deadline=None,
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)

NUMBERS = st.integers(1, 6).map(Version)
CONTENTS = st.sampled_from(
    [{}, {}, {}, {}, {"is_sound": False}, {"loads": Loads.FAILS}, {"loads": Loads.HANGS}]
)
POLICIES = st.one_of(
    st.integers(1, 2).map(Latest),
    st.frozensets(NUMBERS, min_size=1, max_size=2).map(Pin),
    st.just(Everything()),
    st.sampled_from([Follow(("stable",)), Follow(("stable", "canary"))]),
)


class Machine(RuleBasedStateMachine):
    """Publishers, operators, servers and agents that do what they do, and fail as they fail."""

    told = ServerPolicy.ALL
    has_server = True
    policies = POLICIES

    def __init__(self) -> None:
        super().__init__()
        self.world = World(told=self.told, has_server=self.has_server)
        self.count = 0
        self.published = 0
        """How many releases there were since it was last calm."""
        self.is_steady = True
        """The policy has not changed since it was last calm."""

    def release(self, content: dict[str, object]) -> Release:
        """Return a release that there has never been."""
        self.count += 1
        self.published += 1
        return Release(f"id{self.count}", **content)  # type: ignore[arg-type]

    @initialize(data=st.data())
    def configure(self, data: st.DataObject) -> None:
        """Settle what is asked for."""
        self.world.policy = data.draw(self.policies)

    # -- publishers and operators -------------------------------------------------------------------------

    @rule(number=NUMBERS, content=CONTENTS)
    def publish(self, number: Version, content: dict[str, object]) -> None:
        """A release under a number that has none."""
        if number not in self.world.store:
            self.world.store[number] = self.release(content)

    @rule(number=NUMBERS, content=CONTENTS)
    def replace(self, number: Version, content: dict[str, object]) -> None:
        """Other bytes under a number, which nobody should do."""
        if number in self.world.store:
            self.world.store[number] = self.release(content)

    @rule(number=NUMBERS)
    def unpublish(self, number: Version) -> None:
        """A release disappears, or the listing lacks it."""
        self.world.store.pop(number, None)

    @rule(data=st.data())
    def other_policy(self, data: st.DataObject) -> None:
        """Also a rollback: a pin to an older version, and back."""
        self.is_steady = False
        self.world.policy = data.draw(self.policies)

    @rule(number=NUMBERS, name=st.sampled_from(["stable", "canary"]))
    def promote(self, number: Version, name: str) -> None:
        """A channel moves to what the store offers; also back."""
        if number in self.world.store:
            self.world.channels[name] = number

    @rule(number=NUMBERS)
    def withdraw(self, number: Version) -> None:
        """A version is taken out everywhere."""
        if number in self.world.store:
            self.is_steady = False
            self.world.withdrawn[number] = self.world.store[number].identity

    # -- faults -------------------------------------------------------------------------------------------

    @rule(answers=st.booleans(), is_empty=st.booleans(), breaks=st.booleans())
    def trouble(self, *, answers: bool, is_empty: bool, breaks: bool) -> None:
        """The store is down, lists nothing, or breaks transfers; or does so no longer."""
        self.world.store_answers, self.world.listing_is_empty = answers, is_empty
        self.world.transfers_break = breaks

    @rule()
    def restart_agent(self) -> None:
        """What an agent has only in mind is gone."""
        self.world.restart_agent()

    @precondition(lambda self: self.has_server)
    @rule(seconds=st.sampled_from([1, 3, 30]))
    def kill_server(self, seconds: int) -> None:
        """It comes back after a while."""
        self.world.server.kill(self.world.now, seconds)

    @precondition(lambda self: self.has_server)
    @rule(is_silent=st.booleans())
    def silence(self, *, is_silent: bool) -> None:
        """It works, but does not say how it is."""
        self.world.server.is_silent = is_silent

    @rule(number=NUMBERS)
    def lose_from_reserve(self, number: Version) -> None:
        """Somebody needed the space."""
        if number in self.world.reserve and not self.world.reserve[number].returning:
            del self.world.reserve[number]

    @rule(number=NUMBERS)
    def damage(self, number: Version) -> None:
        """Files of a version change under its number."""
        item = self.world.shelf.get(number)
        if item is not None and item.is_ours:
            self.world.meddled = True
            self.world.shelf[number] = Item(
                item.release, is_damaged=True, confirmed=item.confirmed, said_before=item.said_before
            )

    @rule(number=NUMBERS)
    def remove_by_hand(self, number: Version) -> None:
        """Not the only one that serves: a server that loses it puts off what names it until it restarts."""
        if number in self.world.shelf and self.world.server.answering.keys() != {number}:
            self.world.meddled = True
            del self.world.shelf[number]

    @precondition(lambda self: self.told is ServerPolicy.ALL)
    @rule(number=NUMBERS, is_theirs=st.booleans())
    def put_by_hand(self, number: Version, *, is_theirs: bool) -> None:
        """A version that is not ours, with the store's bytes or others."""
        if number not in self.world.shelf:
            self.world.meddled = True
            release = self.world.store.get(number) if is_theirs else None
            self.world.shelf[number] = Item(release or self.release({}), is_ours=False)

    # -- time ---------------------------------------------------------------------------------------------

    @rule()
    def look(self) -> None:
        """One cycle of the agent."""
        self.world.cycle()

    @rule(seconds=st.integers(1, 40))
    def work(self, seconds: int) -> None:
        """Cycles, a second apart."""
        for _ in range(seconds):
            self.world.cycle()
            self.world.wait(1)

    @rule(seconds=st.sampled_from([1, 2, 5, 30]))
    def sleep(self, seconds: int) -> None:
        """Time without the agent."""
        self.world.wait(seconds)

    @rule()
    def calm(self) -> None:
        """Every fault ends, and all comes to rest as it should."""
        self.world.calm_down()
        self.is_steady, self.published = True, 0

    # -- what holds at every moment -----------------------------------------------------------------------

    @invariant()
    def nothing_unproven_is_ours(self) -> None:
        """What is ours has passed the proofs, wherever it lies."""
        assert all(item.release.is_sound for item in self.world.shelf.values() if item.is_ours)
        assert all(item.release.is_sound for item in self.world.reserve.values())

    @invariant()
    def memory_is_capped(self) -> None:
        """At most old and new, and two that nobody has judged while nobody answered.

        What comes faster than it loads piles up: see `test_scripts.py`.
        """
        world = self.world
        if isinstance(world.policy, Latest) and not world.meddled and self.is_steady and self.published <= 2:
            ours = [item for item in world.shelf.values() if item.is_ours]
            assert len(ours) <= 2 * world.policy.count + 2, world.trace[-12:]

    def teardown(self) -> None:
        """In the end everything is well again."""
        self.world.calm_down()


class WithoutServer(Machine):
    """Installation is the end."""

    has_server = False


class BesideLatest(Machine):
    """A server with its default policy, which tries each number once."""

    told = ServerPolicy.LATEST
    policies = st.just(Latest(1))

    def teardown(self) -> None:
        """A number that failed is dead here: a higher one is what helps."""
        super().teardown()
        self.world.store[Version(99)] = self.release({})
        self.world.calm_down()
        assert Version(99) in self.world.server.answering or self.world.is_stuck, self.world.trace[-12:]


@pytest.mark.parametrize("machine", [Machine, WithoutServer, BesideLatest])
def test_any_order_of_events(machine: type[Machine]) -> None:
    """No guarantee is broken on the way, and in the end what is wanted is served."""
    run_state_machine_as_test(machine, settings=EFFORT)
