"""Stories of versions that end the server, of memory, and of folders that somebody removed."""

import pytest

from sim.conftest import NewWorld
from sim.contents import Contents, Loads
from sim.world import World

ABORTS = Contents("aborts", loads=Loads.ABORTS)
MIB = 1 << 20
NOISE = 15 * MIB
DEAF = Contents("deaf", loads=Loads.DEAF)


def outage(world: World, seconds: int) -> int:
    """Work for a while, and return for how many seconds of it nothing of `m` answered."""
    silent = 0
    for _ in range(seconds):
        world.work(1)
        silent += not world.answering()
    return silent


# -- a version that is AVAILABLE and does not answer ------------------------------------------------------


def test_a_version_that_does_not_answer_replaces_nothing(serving_one: World) -> None:
    """It is refused with what the server said, and the old one answers all the time."""
    world = serving_one
    world.publish(2, DEAF)

    silent = outage(world, 60)

    assert (silent, world.answering(), world.shelf()) == (0, {1: "m1"}, {1})
    assert world.refusals() == {2: "smoke_failed"}
    world.publish(3)
    world.until(lambda: world.answering() == {3: "m3"}, 60)


def test_on_a_fresh_instance_the_next_good_version_comes(new_world: NewWorld) -> None:
    """There is nothing to compare with; that a part is missing is clear all the same."""
    world = new_world()
    world.publish(1)
    world.publish(2, DEAF)

    world.until(lambda: world.answering() == {1: "m1"}, 120)

    assert set(world.refusals()) == {2}


def test_a_trial_that_gets_no_answer_is_repeated_after_a_restart_of_the_server(serving_one: World) -> None:
    """The server ends before it answers: nothing is said of the version."""
    world = serving_one
    world.publish(2)
    world.until(lambda: 2 in world.shelf(), 10)
    world.server.kill(5)

    world.until(lambda: world.answering() == {2: "m2"}, 120)

    assert world.refusals() == {}


# -- a version that ends the server costs seconds ---------------------------------------------------------


def test_a_version_that_ends_a_serving_server_costs_it_at_most_three_starts(serving_one: World) -> None:
    """It steps aside at once, twice at most; then it is refused, and the old one answers all the time."""
    world = serving_one
    world.publish(2, ABORTS)

    silent = outage(world, 200)
    world.pass_time(900, 10)

    assert world.answering() == {1: "m1"}
    assert set(world.refusals()) == {2}
    assert world.server.ends <= 3
    assert silent <= 30


def test_a_version_that_ends_the_server_alternates_with_the_next_good_one(new_world: NewWorld) -> None:
    """On a fresh instance nothing ever served, and nobody knows of which version the server ends."""
    world = new_world()
    world.publish(1)
    world.publish(2, ABORTS)

    seconds = world.until(lambda: world.answering() == {1: "m1"}, 300)

    assert seconds <= 60
    world.pass_time(600, 10)
    assert world.answering() == {1: "m1"}
    assert world.server.ends <= 5


def test_a_withdrawn_version_that_never_served_leaves_at_once(new_world: NewWorld) -> None:
    """Whether the server answers or not; the older one comes up with the next start."""
    world = new_world()
    world.publish(1)
    world.publish(2, ABORTS)
    world.until(lambda: world.server.ends >= 1, 60)

    world.store.withdraw("m", 2)
    world.work(3)
    assert 2 not in world.shelf()

    assert world.until(lambda: world.answering() == {1: "m1"}, 60) <= 20


def test_a_good_version_that_stepped_aside_by_a_false_alarm_comes_back(serving_one: World) -> None:
    """Somebody killed the server at the wrong moment."""
    world = serving_one
    world.publish(2)
    world.until(lambda: 2 in world.shelf(), 10)
    world.server.kill(3)

    world.until(lambda: world.answering() == {2: "m2"}, 300)

    assert world.refusals() == {}


def test_a_bad_version_of_one_model_does_not_refuse_that_of_another(new_world: NewWorld) -> None:
    """Both are new when the server ends; only one of them is to blame."""
    world = new_world({"m": {"latest": 1}, "n": {"latest": 1}})
    world.publish(1)
    world.publish(1, model="n")
    world.rest()
    world.publish(2, ABORTS)
    world.publish(2, model="n")

    world.rest()

    assert world.answering("m") == {1: "m1"}
    assert world.answering("n") == {2: "n2"}
    assert world.refusals("n") == {}


# -- memory -----------------------------------------------------------------------------------------------


def test_what_does_not_fit_is_refused_and_said(new_world: NewWorld) -> None:
    """And comes once there is more memory."""
    world = new_world(overrides={"memory": {"budget_bytes": 100_000, "factor": 1.0, "headroom_bytes": 0}})
    world.publish(1, Contents("m1", weight=60_000))
    world.work(20)
    world.publish(2, Contents("m2", weight=60_000))
    world.work(30)
    assert world.answering() == {1: "m1"}
    assert world.events("memory_short")

    world.overrides["memory"]["budget_bytes"] = 200_000
    world.reload()
    world.rest()

    assert world.answering() == {2: "m2"}


def test_retire_first_brings_the_new_version_after_the_old_one_has_left(new_world: NewWorld) -> None:
    """For a moment nothing answers, as was asked for."""
    world = new_world(
        overrides={
            "memory": {
                "budget_bytes": 100_000,
                "factor": 1.0,
                "headroom_bytes": 0,
                "when_short": "retire_first",
            }
        }
    )
    world.publish(1, Contents("m1", weight=60_000))
    world.work(20)
    world.publish(2, Contents("m2", weight=60_000))

    world.until(lambda: world.answering() == {2: "m2"}, 120)


@pytest.mark.slow
@pytest.mark.parametrize("restart", [False, True])
def test_retire_first_never_loses_a_model_to_noise(new_world: NewWorld, restart: bool) -> None:  # noqa: FBT001
    """The server grows by some megabytes while it loads small models; one of them always answers again."""
    models = {name: {"latest": 1} for name in ("m", "n", "o")}
    memory = {"limit_bytes": 64 * MIB, "headroom_bytes": 0, "when_short": "retire_first"}
    world = new_world(models, overrides={"memory": memory})
    for name in models:
        world.publish(1, Contents(f"{name}1", weight=1 << 20), name)
    world.work(60)
    for number in (2, 3):
        for name in models:
            world.publish(number, Contents(f"{name}{number}", weight=1 << 20), name)
            for _ in range(20):
                world.server.noise_bytes += NOISE // 20
                world.work(1)
        if restart:
            world.restart()

    world.pass_time(300, 3)

    assert {name: set(world.answering(name)) for name in models} == {name: {3} for name in models}


def test_at_most_one_model_loads_while_pauses_are_asked_for(new_world: NewWorld) -> None:
    """One after the other, each after a pause."""
    models = {name: {"latest": 1} for name in ("m", "n")}
    world = new_world(models, overrides={"serving": {"pause_between_loads_seconds": 10}})
    for name in models:
        world.publish(1, model=name)
    world.rest()
    for name in models:
        world.publish(2, model=name)
    at: list[float] = []
    for _ in range(60):
        world.work(1)
        at += [world.clock.now] * (len(world.server.loads) - 2 - len(at))

    assert len(at) == 2
    assert at[1] - at[0] >= 10


# -- folders ----------------------------------------------------------------------------------------------


def test_a_folder_that_somebody_removed_comes_back_with_its_version_in_it(serving_one: World) -> None:
    """The server goes on serving until an empty one appears; so none does."""
    world = serving_one
    world.remove_folder()
    folder = world.models_dir / "m"
    for _ in range(30):
        world.work(1)
        assert world.answering() == {1: "m1"}
        assert not folder.exists() or any(folder.iterdir())

    assert world.shelf() == {1}


def test_a_version_that_somebody_removed_comes_back(new_world: NewWorld) -> None:
    """It is in the store."""
    world = new_world({"m": {"latest": 2}})
    world.publish(1)
    world.publish(2)
    world.rest()
    world.remove_by_hand(2)

    world.rest()

    assert world.shelf() == {1, 2}


# -- silence ----------------------------------------------------------------------------------------------


def test_a_server_that_never_answers_holds_up_no_other_work(serving_one: World) -> None:
    """New versions are still fetched; the agent's turns never wait."""
    world = serving_one
    world.server.is_silent = True
    world.publish(2)

    assert world.until(lambda: 2 in world.shelf(), 60) <= 10


def test_a_server_that_answers_slowly_is_heard(new_world: NewWorld) -> None:
    """Each answer takes three seconds, and it is asked every ten."""
    world = new_world(poll_seconds=10)
    world.publish(1)
    world.until(lambda: world.answering() == {1: "m1"}, 60)
    world.server.answer_seconds = 3
    world.publish(2)

    world.until(lambda: world.shelf() == {2}, 120)
    assert world.answering() == {2: "m2"}


def test_what_a_server_said_before_it_fell_silent_lets_nothing_leave(new_world: NewWorld) -> None:
    """It said of both that they serve; while it keeps the agent waiting, that may be so no more."""
    world = new_world({"m": {"latest": 2}})
    world.publish(1)
    world.publish(2)
    world.rest()
    world.server.is_silent = True
    world.models["m"] = {"latest": 1}
    world.reload()

    world.work(30)

    assert world.shelf() == {1, 2}
    world.rest()
    assert world.shelf() == {2}
