"""Single stories in the simulated world: those that once went wrong, and those that still do (xfail)."""

from dataclasses import replace

from servesync.plan.facts import Latest, Pin, ServerPolicy
from servesync.plan.versions import Version
from sim.server import Loads
from sim.values import Item, Release
from sim.world import World

ONE, TWO, THREE = Version(1), Version(2), Version(3)


def world_with(*numbers: Version, count: int = 1) -> World:
    """Return a world that serves these versions of its store."""
    world = World(policy=Latest(count))
    for number in numbers:
        world.store[number] = Release(f"id{number}")
    world.calm_down()
    return world


def work(world: World, seconds: int) -> None:
    """Let the agent and the server work."""
    for _ in range(seconds):
        world.cycle()
        world.wait(1)


def test_a_new_version_takes_over() -> None:
    """The world itself works: the new one answers before the old one leaves, which is then in the reserve."""
    world = world_with(ONE)
    world.store[TWO] = Release("id2")

    world.calm_down()

    assert world.server.answering == {TWO: "id2"}
    assert world.reserve.keys() == {ONE}


def test_a_rollback_comes_from_the_reserve_without_the_store() -> None:
    """A pin to the older version, while nothing can be fetched."""
    world = world_with(ONE)
    world.store[TWO] = Release("id2")
    world.calm_down()

    world.policy, world.store_answers = Pin(frozenset({ONE})), False
    work(world, 20)

    assert world.server.answering == {ONE: "id1"}


def test_a_version_that_does_not_load_leaves_and_the_old_one_answers() -> None:
    """It is not fetched again until its release changes."""
    world = world_with(ONE)
    world.store[TWO] = Release("bad", loads=Loads.FAILS)
    world.calm_down()
    assert world.server.answering == {ONE: "id1"}
    assert world.shelf.keys() == {ONE}

    world.store[TWO] = Release("mended")
    world.calm_down()

    assert world.server.answering == {TWO: "mended"}


def test_an_empty_listing_takes_nothing_away() -> None:
    """However long it lasts."""
    world = world_with(ONE)
    world.listing_is_empty = True

    work(world, 60)

    assert world.server.answering == {ONE: "id1"}


def test_a_version_that_the_listing_lacks_stays() -> None:
    """Also where it still has an older one."""
    world = world_with(ONE, TWO)
    del world.store[TWO]

    world.calm_down()

    assert world.server.answering == {TWO: "id2"}


def test_the_only_version_that_answers_stays_though_a_foreign_one_is_loading() -> None:
    """Beside a server with policy latest: 3 is not ours and loads, 2 is ours and ignored, 1 answers."""
    world = World(policy=Latest(1), told=ServerPolicy.LATEST)
    world.store[ONE] = Release("id1")
    world.calm_down()
    world.store[TWO] = Release("id2")
    world.shelf[THREE] = Item(Release("theirs"), is_ours=False)

    world.calm_down()


def test_a_damaged_version_that_nobody_can_mend_does_not_keep_others_away() -> None:
    """It is neither served nor in the store: the next good one is due."""
    world = world_with(ONE, TWO)
    world.shelf[TWO] = replace(world.shelf[TWO], is_damaged=True)
    world.meddled = True
    world.server.kill(world.now)
    del world.store[TWO]

    world.calm_down()

    assert world.is_stuck or world.server.answering == {ONE: "id1"}


def test_a_refused_version_that_policy_does_not_want_leaves_once() -> None:
    """It is taken off as refused, and not a second time as unwanted."""
    world = world_with(TWO)
    world.store[THREE] = Release("bad", loads=Loads.FAILS)
    work(world, 1)
    world.policy = Pin(frozenset({TWO}))

    world.calm_down()

    assert world.shelf.keys() == {TWO}
    assert world.refusals.keys() == {THREE}


def test_a_server_that_ignores_a_number_is_shown_it_anew() -> None:
    """Version 2 was damaged while the server read it, is mended, and is read again in the end."""
    world = world_with(ONE)
    world.store[TWO] = Release("id2")
    world.cycle()
    world.shelf[TWO] = replace(world.shelf[TWO], is_damaged=True)
    world.meddled = True

    world.calm_down()

    assert world.server.answering == {TWO: "id2"}


def test_no_word_of_the_server_about_older_bytes_refuses_mended_ones() -> None:
    """The server read the damaged bytes, says so when it is up, and by then they are mended."""
    assert mended_during_a_start().server.answering.keys() == {ONE, TWO}


def mended_during_a_start() -> World:
    """Damage the lower of two versions, restart the server, and mend it while the server reads."""
    world = world_with(ONE, TWO, count=2)
    world.meddled = True
    world.shelf[ONE] = replace(world.shelf[ONE], is_damaged=True, confirmed=False)
    world.server.kill(world.now, 1)
    world.wait(1)
    try:
        world.calm_down()
    except AssertionError:
        assert world.refusals.keys() == {ONE}
    return world


def test_versions_that_come_faster_than_they_load_do_not_pile_up() -> None:
    """A release every three seconds, two to load one: at most old and new are in memory."""
    world = World(policy=Latest(1))
    most = 0
    for number in range(1, 9):
        world.store[Version(number)] = Release(f"id{number}")
        for _ in range(3):
            world.cycle()
            world.wait(1)
            most = max(most, world.server.in_memory)

    assert most <= 2


def test_a_server_killed_while_it_judges_a_bad_version_comes_back_with_the_old_one() -> None:
    """Version 1 served; 2 is bad, and the server dies of it at every start."""
    world = world_with(ONE)
    world.store[TWO] = Release("bad", loads=Loads.FAILS)
    world.cycle()
    world.server.kill(world.now)

    work(world, 700)

    assert world.server.answering == {ONE: "id1"}


def test_a_server_that_falls_silent_with_a_version_again_and_again_is_spared_it() -> None:
    """It comes up without it each time, and answers nothing any more soon after it has come back."""
    world = world_with(ONE)
    world.store[TWO] = Release("bad", loads=Loads.HANGS)
    for _ in range(600):
        world.cycle()
        world.wait(1)
        if TWO in world.shelf:
            world.server.kill(world.now)

    assert TWO not in world.shelf
    assert TWO in world.refusals
    assert world.server.answering == {ONE: "id1"}


def test_a_server_that_hangs_but_serves_keeps_what_it_serves() -> None:
    """Only its answers to us are missing: nobody knows that it serves the new version, but it does."""
    world = world_with(ONE)
    world.store[TWO] = Release("id2")
    world.cycle()
    world.server.is_silent = True
    work(world, 300)

    assert world.server.answering == {ONE: "id1", TWO: "id2"}


def test_a_version_that_stepped_aside_comes_back_with_the_server() -> None:
    """Silence refuses nothing."""
    world = world_with(ONE)
    world.store[TWO] = Release("id2")
    world.cycle()
    world.server.kill(world.now, 300)
    work(world, 200)
    assert world.shelf.keys() == {ONE}

    work(world, 200)

    assert world.server.answering == {TWO: "id2"}
    assert world.refusals == {}


def test_a_server_that_dies_of_its_first_version_is_saved_by_a_higher_one() -> None:
    """What the plan tells the person who looks."""
    world = World(policy=Latest(1))
    world.store[TWO] = Release("bad", loads=Loads.FAILS)
    world.cycle()
    world.server.kill(world.now)
    work(world, 60)
    assert world.is_stuck

    world.store[THREE] = Release("id3")
    work(world, 60)

    assert world.server.answering == {THREE: "id3"}


def test_a_foreign_version_is_never_touched() -> None:
    """Whatever policy says; with the store's bytes it is taken over."""
    world = world_with(ONE)
    world.shelf[TWO] = Item(Release("theirs"), is_ours=False)
    world.store[TWO] = Release("id2")
    world.calm_down()
    assert not world.shelf[TWO].is_ours
    assert world.shelf.keys() == {ONE, TWO}

    world.store[TWO] = world.shelf[TWO].release
    world.calm_down()

    assert world.shelf[TWO].is_ours
    assert world.server.answering.keys() == {TWO}
