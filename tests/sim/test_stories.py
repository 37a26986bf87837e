"""Stories of one model: those that once went wrong, told with the real agent."""

import pytest

from servesync.planning.facts import ServerPolicy
from sim.conftest import NewWorld
from sim.contents import Contents, Flaw, Loads
from sim.store import down
from sim.world import World

pytestmark = pytest.mark.slow

BAD = Contents("bad", loads=Loads.FAILS)


def test_a_new_version_takes_over(serving_one: World) -> None:
    """The new one answers before the old one leaves, which is then in the reserve."""
    world = serving_one
    world.publish(2)

    world.rest()

    assert world.answering() == {2: "m2"}
    assert world.reserve() == {1}


def test_a_rollback_comes_from_the_reserve_without_the_store(serving_one: World) -> None:
    """A pin to the older version, while nothing can be fetched."""
    world = serving_one
    world.publish(2)
    world.rest()

    world.models["m"], world.store.error = {"pin": [1]}, down()
    world.reload()
    world.work(20)

    assert world.answering() == {1: "m1"}


def test_a_rollback_by_channel_is_followed(new_world: NewWorld) -> None:
    """To the version before, and on again."""
    world = new_world({"m": {"channel": "stable"}})
    world.publish(1)
    world.publish(2)
    world.store.promote("m", "stable", 2)
    world.rest()
    assert world.answering() == {2: "m2"}

    world.store.promote("m", "stable", 1, back=True)
    world.rest()
    assert world.answering() == {1: "m1"}

    world.store.promote("m", "stable", 2)
    world.rest()
    assert world.answering() == {2: "m2"}


def test_a_version_that_does_not_load_leaves_and_the_old_one_answers(serving_one: World) -> None:
    """It is not fetched again until its release changes."""
    world = serving_one
    key = world.store.publish("m", 2, BAD)
    world.rest()
    assert world.answering() == {1: "m1"}
    assert world.shelf() == {1}
    read = world.store.asked[key]
    world.work(60)
    assert world.store.asked[key] == read

    world.publish(2, Contents("mended"))
    world.rest()

    assert world.answering() == {2: "mended"}


def test_a_release_that_is_not_sound_never_comes(serving_one: World) -> None:
    """Its record says why; the old one answers."""
    world = serving_one
    world.publish(2, Contents("no model", flaw=Flaw.NO_GRAPH))

    world.rest()

    assert world.answering() == {1: "m1"}
    assert world.refusals() == {2: "saved_model_corrupt"}


def test_an_empty_listing_takes_nothing_away(serving_one: World) -> None:
    """However long it lasts."""
    world = serving_one
    world.store.lists_nothing = True

    world.work(60)

    assert world.answering() == {1: "m1"}


def test_a_version_that_the_listing_lacks_stays(serving_one: World) -> None:
    """Also where it still has an older one."""
    world = serving_one
    world.publish(2)
    world.rest()
    world.store.unpublish("m", 2)

    world.rest()

    assert world.answering() == {2: "m2"}


def test_the_only_version_that_answers_stays_though_a_foreign_one_is_loading(beside_latest: World) -> None:
    """Beside a server with policy latest: 3 is not ours and loads, 2 is ours and ignored, 1 answers."""
    world = beside_latest
    world.publish(2)
    world.put_by_hand(3, Contents("theirs"))

    world.rest()

    assert 3 in world.shelf()


def test_a_damaged_version_that_nobody_can_mend_does_not_keep_others_away(serving_one: World) -> None:
    """It is neither served nor in the store: the next good one is due."""
    world = serving_one
    world.publish(2)
    world.rest()
    world.damage(2)
    world.server.kill()
    world.store.unpublish("m", 2)

    world.rest()

    assert world.invariants.is_stuck or world.answering() == {1: "m1"}


def test_a_refused_version_that_policy_does_not_want_leaves_once(serving_one: World) -> None:
    """It is taken off as refused, and not a second time as unwanted."""
    world = serving_one
    world.publish(2, BAD)
    world.until(lambda: 2 in world.shelf(), 10)
    world.models["m"] = {"pin": [1]}
    world.reload()

    world.rest()

    assert world.shelf() == {1}
    assert set(world.refusals()) <= {2}


def test_a_server_that_ignores_a_number_is_shown_it_anew(serving_one: World) -> None:
    """Version 2 was damaged while the server read it, is mended, and is read again in the end."""
    world = serving_one
    world.publish(2)
    world.until(lambda: 2 in world.shelf(), 10)
    world.damage(2)

    world.rest()

    assert world.answering() == {2: "m2"}


def test_no_word_of_the_server_about_older_bytes_refuses_mended_ones(new_world: NewWorld) -> None:
    """The server read the damaged bytes, says so when it is up, and by then they are mended."""
    world = new_world({"m": {"latest": 2}})
    world.publish(1)
    world.publish(2)
    world.rest()
    world.damage(1)
    world.server.kill(1)
    world.wait(1)

    world.rest()

    assert world.answering() == {1: "m1", 2: "m2"}


def test_versions_that_come_faster_than_they_load_do_not_pile_up(new_world: NewWorld) -> None:
    """A release every three seconds, two to load one: at most old and new are in memory."""
    world = new_world()
    most = 0
    for number in range(1, 9):
        world.publish(number)
        for _ in range(3):
            world.work(1)
            most = max(most, len(world.server.in_memory("m")))

    assert most <= 2


def test_a_server_killed_while_it_judges_a_bad_version_comes_back_with_the_old_one(
    serving_one: World,
) -> None:
    """Version 1 served; 2 is bad, and the server dies of it at every start."""
    world = serving_one
    world.publish(2, BAD)
    world.until(lambda: 2 in world.shelf(), 10)
    world.server.kill()

    world.until(lambda: world.answering() == {1: "m1"}, 120)


def test_a_server_that_falls_silent_with_a_version_again_and_again_is_spared_it(serving_one: World) -> None:
    """It comes up without it each time, and answers nothing any more soon after it has come back."""
    world = serving_one
    world.publish(2, Contents("hangs", loads=Loads.HANGS))
    for _ in range(200):
        world.work(1)
        if 2 in world.shelf():
            world.server.kill(3)

    assert world.shelf() == {1}
    assert set(world.refusals()) == {2}
    world.until(lambda: world.answering() == {1: "m1"}, 20)


def test_a_server_that_hangs_but_serves_keeps_what_it_serves(serving_one: World) -> None:
    """Only its answers to us are missing; what it has served so far stays on the shelf."""
    world = serving_one
    world.publish(2)
    world.until(lambda: 2 in world.shelf(), 10)
    world.server.is_silent = True

    world.work(120)

    assert 1 in world.answering()


def test_a_version_that_stepped_aside_comes_back_with_the_server(serving_one: World) -> None:
    """Silence refuses nothing."""
    world = serving_one
    world.publish(2)
    world.until(lambda: 2 in world.shelf(), 10)
    world.server.kill(100)
    world.work(90)
    assert 1 in world.shelf()

    world.rest()

    assert world.answering() == {2: "m2"}
    assert world.refusals() == {}


def test_a_server_that_dies_of_its_first_version_is_saved_by_a_higher_one(new_world: NewWorld) -> None:
    """Nothing ever served here."""
    world = new_world()
    world.publish(2, BAD)
    world.work(60)
    assert world.answering() == {}

    world.publish(3)
    world.rest()

    assert world.answering() == {3: "m3"}


def test_a_foreign_version_is_never_touched(serving_one: World) -> None:
    """Whatever policy says; with the store's bytes it is taken over."""
    world = serving_one
    theirs = Contents("theirs")
    world.put_by_hand(2, theirs)
    world.publish(2)
    world.rest()
    assert world.invariants.now("m").items[2].record is None  # type: ignore[index]
    assert world.shelf() == {1, 2}

    world.publish(2, theirs)
    world.rest()

    assert world.answering() == {2: "theirs"}
    assert world.shelf() == {2}


def test_without_a_server_installation_is_the_end(new_world: NewWorld) -> None:
    """The old one leaves as soon as the new one is there."""
    world = new_world(has_server=False)
    world.publish(1)
    world.rest()
    world.publish(2)

    world.rest()

    assert (world.shelf(), world.reserve()) == ({2}, {1})


def test_a_number_that_failed_is_dead_beside_latest_and_a_higher_one_helps(beside_latest: World) -> None:
    """The server tries each number once."""
    world = beside_latest
    world.publish(2, BAD)
    world.rest()
    assert 1 in world.answering()

    world.publish(3)
    world.rest()

    assert 3 in world.answering()
    assert world.told is ServerPolicy.LATEST


def test_a_folder_in_the_store_is_installed_when_it_has_settled(new_world: NewWorld) -> None:
    """Not before: nobody knows whether its upload has ended."""
    world = new_world()
    world.store.publish_folder("m", 1, Contents("m1"))
    world.work(2)
    assert world.shelf() == set()

    world.rest()

    assert world.answering() == {1: "m1"}


def test_an_upload_that_is_not_complete_is_waited_for(serving_one: World) -> None:
    """The archive says that a manifest is to come."""
    world = serving_one
    world.store.publish_archive_of_two("m", 2, Contents("m2"), ".tar.gz")
    world.rest()
    assert world.answering() == {1: "m1"}

    world.store.complete("m", 2, ".tar.gz")
    world.rest()

    assert world.answering() == {2: "m2"}


def test_a_withdrawn_version_leaves_and_the_one_before_answers(serving_one: World) -> None:
    """From the reserve."""
    world = serving_one
    world.publish(2)
    world.rest()

    world.store.withdraw("m", 2)
    world.rest()

    assert world.answering() == {1: "m1"}
    assert 2 not in world.reserve()
