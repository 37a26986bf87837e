"""Stories of transfers: several at once, cancelled ones, damage on the way, and disks that have no room."""

import errno
from typing import Any

import pytest

from servesync.errors import SyncError
from servesync.jobs import JobKind
from sim.conftest import NewWorld
from sim.contents import Contents, Flaw, content_of
from sim.machine import LONG
from sim.world import World

pytestmark = pytest.mark.slow

TWO_MODELS = {"m": {"latest": 1}, "n": {"latest": 1}}


def staging(world: World) -> list[str]:
    """Return what lies in staging."""
    return [path.name for path in (world.models_dir / ".servesync/staging").iterdir()]


def hang(world: World, number: int, model: str = "m") -> None:
    """Publish a version whose archive hangs on the way, and let its transfer begin."""
    world.publish(number, model=model)
    world.store.hanging.add(world.store.key_of(model, number))
    world.until(lambda: world.transfer(model, number), 10)
    world.work(1)


def tables(world: World) -> set[str]:
    """Return the digests of the versions that have a table of pieces."""
    return {path.stem for path in (world.models_dir / ".servesync/pieces").iterdir()}


def test_every_version_on_the_disk_has_a_table_of_its_pieces(serving_one: World) -> None:
    """On the shelf and in the reserve; what is removed takes its table along."""
    world = serving_one
    for number in (2, 3):
        world.publish(number, Contents(f"new {number}"))
        world.rest()
    assert (world.shelf(), world.reserve()) == ({3}, {2})

    assert tables(world) == {content_of(Contents(f"new {number}")).digest for number in (2, 3)}


# -- nothing waits for a transfer -------------------------------------------------------------------------


def test_a_rollback_of_another_model_does_not_wait_for_a_transfer(new_world: NewWorld) -> None:
    """It is done within two seconds of the poll that sees it."""
    world = new_world({"m": {"latest": 1}, "n": {"channel": "stable"}})
    world.publish(1)
    for number in (1, 2):
        world.publish(number, model="n")
        world.store.promote("n", "stable", number)
        world.rest()
    hang(world, 2)

    world.store.promote("n", "stable", 1, back=True)

    assert world.until(lambda: 1 in world.shelf("n"), 10) <= 2
    assert world.transfer("m", 2) is not None


def test_a_transfer_that_hangs_takes_nothing_from_another(new_world: NewWorld) -> None:
    """Two come at once; one of them never arrives."""
    world = new_world(dict(TWO_MODELS))
    world.publish(1)
    world.publish(1, model="n")
    world.rest()
    hang(world, 2)

    world.publish(2, model="n")

    world.until(lambda: world.answering("n") == {2: "n2"}, 20)


def test_no_more_transfers_are_at_work_than_settings_say(new_world: NewWorld) -> None:
    """Five models, two transfers; all arrive in the end."""
    models = {name: {"latest": 1} for name in "mnopq"}
    world = new_world(models)
    world.store.read_seconds = 3
    for name in models:
        world.publish(1, model=name)
    most = 0
    for _ in range(40):
        world.work(1)
        most = max(most, sum(task.job.kind is JobKind.TRANSFER for task in world.jobs.alive))

    assert most == 2
    assert {name for name in models if world.answering(name)} == set(models)


def test_quarantine_prune_and_confirm_go_on_during_a_transfer(new_world: NewWorld) -> None:
    """Of other models."""
    world = new_world(dict(TWO_MODELS))
    world.publish(1)
    world.publish(1, model="n")
    world.rest()
    hang(world, 2)
    world.publish(2, model="n")

    world.until(lambda: world.shelf("n") == {2}, 30)
    assert world.reserve("n") == {1}


def test_a_store_whose_listing_drips_holds_up_nothing_else(new_world: NewWorld) -> None:
    """A pin to what is in the reserve needs no listing."""
    world = new_world()
    for number in (1, 2):
        world.publish(number)
        world.rest()
    world.store.list_seconds = 1000
    world.work(2)
    world.models["m"] = {"pin": [1]}
    world.reload()

    world.until(lambda: world.answering() == {1: "m1"}, 20)


def test_sigterm_ends_everything_whatever_it_is_in(new_world: NewWorld) -> None:
    """A transfer that hangs, a listing that drips, a server that does not answer."""
    world = new_world(dict(TWO_MODELS))
    world.publish(1)
    world.publish(1, model="n")
    world.rest()
    hang(world, 2)
    world.store.list_seconds, world.server.is_silent = 1000, True
    world.cycle()
    assert {task.job.kind for task in world.jobs.alive} >= {JobKind.TRANSFER, JobKind.LIST}

    assert world.stop()

    world.is_supervised = False
    assert staging(world) == []


# -- what nobody wants any more ---------------------------------------------------------------------------


def test_a_transfer_is_cancelled_when_its_version_is_withdrawn(serving_one: World) -> None:
    """Its staging is given back, and it never comes."""
    world = serving_one
    hang(world, 2)

    world.store.withdraw("m", 2)
    world.work(3)

    assert world.transfer() is None
    assert staging(world) == []
    world.rest()
    assert world.answering() == {1: "m1"}


def test_a_transfer_is_cancelled_when_a_channel_moves_on(new_world: NewWorld) -> None:
    """To a version that is there: the rollback of the same model does not wait for it."""
    world = new_world({"m": {"channel": "stable"}})
    world.publish(1)
    world.store.promote("m", "stable", 1)
    world.rest()
    world.publish(2)
    world.store.promote("m", "stable", 2)
    world.store.hanging.add(world.store.key_of("m", 2))
    world.until(world.transfer, 10)

    world.store.promote("m", "stable", 1, back=True)

    assert world.until(lambda: world.transfer() is None, 10) <= 3
    assert world.answering() == {1: "m1"}
    assert world.events("fetch_cancelled")


def test_a_transfer_is_cancelled_when_its_release_is_replaced(serving_one: World) -> None:
    """The new one comes instead."""
    world = serving_one
    hang(world, 2)

    world.publish(2, Contents("other"))
    world.rest()

    assert world.answering() == {2: "other"}


def test_a_transfer_is_cancelled_when_another_version_is_pinned(serving_one: World) -> None:
    """Or its model is gone from the settings."""
    world = serving_one
    hang(world, 2)
    world.models["m"] = {"pin": [1]}
    world.reload()
    world.work(2)
    assert world.transfer() is None

    world.models["m"] = {"latest": 1}
    world.reload()
    world.until(world.transfer, 10)
    del world.models["m"]
    world.models["n"] = {"latest": 1}
    world.reload()
    world.work(2)

    assert world.transfer() is None
    assert staging(world) == []


def test_a_newer_version_takes_the_place_of_one_that_is_coming(serving_one: World) -> None:
    """The older one would be loaded for nothing."""
    world = serving_one
    hang(world, 2)
    world.publish(3)

    world.until(lambda: world.answering() == {3: "m3"}, 30)


@pytest.mark.parametrize("points", range(14))
def test_a_version_withdrawn_during_its_transfer_never_goes_live(serving_one: World, points: int) -> None:
    """Wherever the transfer is at that moment; it is looked at once more right before the rename."""
    world = serving_one
    world.publish(2)
    world.turn(poll=True)
    world.run_jobs(JobKind.LIST, JobKind.ASK_SERVER, JobKind.DOCUMENT)
    world.turn()
    task = world.transfer()
    assert task is not None
    world.run(task, points)

    world.store.withdraw("m", 2)
    for _ in range(10):
        world.work(1)
        assert world.shelf() == {1}

    world.rest()
    assert world.answering() == {1: "m1"}


def test_a_version_withdrawn_between_two_polls_never_goes_live(new_world: NewWorld) -> None:
    """Its transfer ends before the next poll is due: the rename waits for a listing, which takes its time."""
    world = new_world(poll_seconds=60)
    world.publish(1)
    world.work(5)
    world.publish(2)
    key = world.store.key_of("m", 2)
    world.store.hanging.add(key)
    world.until(world.transfer, 90)
    world.work(5)
    world.store.withdraw("m", 2)
    world.store.hanging.discard(key)
    world.store.list_seconds = 3

    for _ in range(10):
        world.work(1)
        assert world.shelf() == {1}

    assert world.transfer() is None


@pytest.mark.parametrize("points", range(14))
def test_an_agent_that_dies_in_a_transfer_brings_the_version_later(serving_one: World, points: int) -> None:
    """And leaves nothing in staging."""
    world = serving_one
    world.publish(2)
    world.turn(poll=True)
    world.run_jobs(JobKind.LIST, JobKind.ASK_SERVER, JobKind.DOCUMENT)
    world.turn()
    task = world.transfer()
    assert task is not None
    world.run(task, points)

    world.restart()
    world.rest()

    assert world.answering() == {2: "m2"}


# -- damage on the way ------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [{}, {"with_manifest": True}, {"checksum": False}])
@pytest.mark.parametrize("ending", [".tar", ".tar.gz"])
def test_a_bit_that_flips_on_the_way_for_a_while_refuses_nothing(
    serving_one: World, how: dict[str, Any], ending: str
) -> None:
    """A gateway damages every body for twelve seconds; the version is there within a minute."""
    world = serving_one
    world.publish(2, ending=ending, **how)
    world.store.flips_until = world.clock.now + 12

    seconds = world.until(lambda: world.answering() == {2: "m2"}, 300)

    assert seconds <= 90
    assert world.refusals() == {}


def test_an_error_page_in_place_of_every_body_refuses_nothing(serving_one: World) -> None:
    """It comes with the ETag of the object, and of the right length."""
    world = serving_one
    world.publish(2)
    world.store.pages_until = world.clock.now + 12

    world.until(lambda: world.answering() == {2: "m2"}, 300)


def test_a_release_that_is_really_damaged_is_read_a_few_times_and_then_refused(serving_one: World) -> None:
    """Within some hours; the old one answers all the time."""
    world = serving_one
    key = world.store.publish("m", 2, Contents("cut", flaw=Flaw.CUT), ending=".tar.gz", checksum=False)
    reads = []
    for _ in range(6):
        before = world.store.asked[key]
        world.pass_time(3600, 60)
        reads.append(world.store.asked[key] - before)

    assert world.refusals() == {2: "archive_truncated"}
    assert 1 < sum(reads) <= 40
    assert reads[-1] == 0
    assert world.answering() == {1: "m1"}


def test_a_damaged_release_has_no_more_tries_after_restarts(serving_one: World) -> None:
    """Pauses are kept over restarts: an agent that restarts every minute does not read it every minute."""
    world = serving_one
    key = world.store.publish("m", 2, Contents("cut", flaw=Flaw.CUT), ending=".tar.gz", checksum=False)
    for _ in range(30):
        world.pass_time(60, 10)
        world.restart()

    assert world.store.asked[key] <= 40


def test_a_damaged_release_whose_bytes_the_store_confirms_is_refused_at_once(serving_one: World) -> None:
    """Nothing on the way can explain it."""
    world = serving_one
    world.publish(2, Contents("cut", flaw=Flaw.CUT), ending=".tar.gz")

    assert world.until(lambda: world.refusals() == {2: "archive_truncated"}, 60) <= 5


# -- what is held -----------------------------------------------------------------------------------------


def test_a_newest_version_that_may_not_be_read_is_passed_over(new_world: NewWorld) -> None:
    """The next good one is served, and that is said once."""
    world = new_world()
    world.publish(1)
    world.publish(2)
    world.store.denied.add(world.store.key_of("m", 2))

    world.until(lambda: world.answering() == {1: "m1"}, 60)

    world.work(60)
    assert len(world.events("newest_held")) == 1


def test_one_pass_passes_over_a_newest_version_that_may_not_be_read(new_world: NewWorld) -> None:
    """As `run` does in time: a fresh pod is not empty."""
    world = new_world(is_supervised=False)
    world.publish(1)
    world.publish(2)
    world.store.denied.add(world.store.key_of("m", 2))
    world.start(one_pass=True)

    world.until(lambda: world.shelf() == {1}, 60)


def test_an_ambiguous_newest_version_is_one_warning(serving_one: World) -> None:
    """Until it changes; then the version comes."""
    world = serving_one
    world.publish(2, ending=".tar.gz")
    world.store.add_archive("m", 2, Contents("m2"), ".tar.zst")
    world.work(60)
    held = world.events("newest_held")
    assert [event["reason"] for event in held] == ["release_ambiguous"]
    assert world.answering() == {1: "m1"}

    world.publish(2, ending=".tar.zst")
    world.rest()

    assert world.answering() == {2: "m2"}


# -- machines that lack something -------------------------------------------------------------------------


def test_a_full_disk_keeps_a_version_away_until_there_is_room(serving_one: World) -> None:
    """Nothing that is there is lost."""
    world = serving_one
    world.disk.fill()
    world.publish(2)
    world.work(60)
    assert world.answering() == {1: "m1"}

    world.disk.heal()
    world.until(lambda: world.answering() == {2: "m2"}, 600)


def test_the_reserve_gives_way_to_a_version_that_needs_the_space(serving_one: World) -> None:
    """The transfer asks, waits, and goes on."""
    world = serving_one
    world.publish(2)
    world.rest()
    assert world.reserve() == {1}
    world.disk.free_bytes = 0
    world.publish(3)
    world.work(10)

    world.disk.free_bytes = 1 << 40
    world.rest()

    assert world.answering() == {3: "m3"}


def test_a_disk_that_reads_and_writes_no_more_takes_nothing_away(serving_one: World) -> None:
    """Every change fails with EIO."""
    world = serving_one
    world.publish(2)
    world.disk.fail(errno.EIO)
    world.work(30)
    assert world.answering() == {1: "m1"}

    world.rest()

    assert world.answering() == {2: "m2"}


def test_settings_that_cannot_be_put_in_force_now_can_be_later(serving_one: World) -> None:
    """At a full disk a new model gets no folder; the agent works on, and a later reload does all."""
    world = serving_one
    world.publish(1, model="n")
    world.models["n"] = {"latest": 1}
    world.disk.fill()
    try:
        world.reload()
    except SyncError:
        world.work(5)
        assert world.answering() == {1: "m1"}
        world.disk.heal()
        world.reload()

    world.rest()

    assert world.answering("n") == {1: "n1"}


def test_an_agent_that_can_start_no_thread_works_on(serving_one: World) -> None:
    """It does nothing new, and ends neither; later all is done."""
    world = serving_one
    world.jobs.has_threads = False
    world.publish(2)
    world.work(20)
    assert world.answering() == {1: "m1"}

    world.jobs.has_threads = True
    world.rest()

    assert world.answering() == {2: "m2"}


# -- the end, between any two effects ---------------------------------------------------------------------

STRIDE = 1 if LONG else 3
"""The short form dies before every third effect; each of its stories before other ones."""


def is_tidy(world: World, shelf: set[int], reserve: set[int]) -> bool:
    """Whether an update has ended, to its last effect."""
    return (world.shelf(), world.reserve(), world.invariants.leftovers) == (shelf, reserve, [])


@pytest.mark.parametrize(("first", "how"), [(0, {}), (1, {"with_manifest": True})])
def test_an_agent_may_die_before_any_effect_of_an_update(
    serving_one: World, first: int, how: dict[str, Any]
) -> None:
    """Another one finishes it; the disk is right all the time. Each update dies a little later."""
    world, number, died = serving_one, 1, 0
    while number == 1 or world.deaths > died:
        number, died = number + 1, world.deaths
        world.publish(number, **how)
        world.disk.dies_at = (number - 2) * STRIDE + first % STRIDE
        world.until(lambda number=number: is_tidy(world, {number}, {number - 1}), 120)  # type: ignore[misc]
        world.disk.dies_at = None

    assert number > 20
    world.rest()
    assert world.answering() == {number: f"m{number}"}


def test_an_agent_may_die_before_any_effect_of_a_rollback(serving_one: World) -> None:
    """The old version or the new one answers all the time, and in the end the right one."""
    world, effect, died = serving_one, 2 % STRIDE - STRIDE, 0
    world.publish(2)
    world.rest()
    while effect < 0 or world.deaths > died:
        effect, died = effect + STRIDE, world.deaths
        there, other = (1, 2) if 2 in world.shelf() else (2, 1)
        world.models["m"] = {"pin": [there]}
        world.reload()
        world.disk.dies_at = effect
        world.until(lambda there=there, other=other: is_tidy(world, {there}, {other}), 120)  # type: ignore[misc]
        world.disk.dies_at = None

    assert effect > 10
