"""The parts of the simulated world do what they say: else no story that is told with them proves anything."""

import errno
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from servesync import disk
from servesync.domain import channel, manifest
from servesync.domain.versions import Model, Release, StoredObject, Version
from servesync.errors import (
    DiskError,
    Reason,
    ReleaseRefused,
    ServerDown,
    ServerError,
    Stopped,
    StoreError,
    TransferError,
)
from servesync.fetch import read_whole
from servesync.jobs import Ended, Job, JobContext, JobKind, RoomWanted
from servesync.planning.facts import ServerPolicy, ServerState
from servesync.settings import Fetch, Limits
from servesync.unpack import unpack_archive
from servesync.verify import verify_structure, verify_tensors
from sim.clock import SimClock
from sim.contents import Contents, Flaw, Loads, archive_of, found_in, manifest_of, write_tree
from sim.disk_faults import DiskFaults
from sim.jobs import NotInAJob, ProcessEnded, SimJobs, Task
from sim.server import SimServer
from sim.shelves import Broken
from sim.store import SimStore, down
from sim.world import World

M = Model("m")
ONE, TWO = Version(1), Version(2)
GOOD = Contents("good")


def go_on() -> bool:
    return False


def all_of(store: SimStore, item: StoredObject) -> bytes:
    """Read an object as jobs do."""
    return read_whole(item, store.read, Fetch(connections=1), go_on)


def only(store: SimStore) -> Release:
    """Return the one release that there is."""
    (release,) = store.list(lambda _: True, should_stop=go_on).releases[M]
    return release


def unpacked(data: bytes, root: Path) -> str:
    """Unpack an archive as a transfer does, and return the digest of what came."""
    root.mkdir()
    with memoryview(data) as view:
        found = unpack_archive(iter([view]), root, ONE, Limits(), archive_bytes=len(data))
    return found.content.digest


# -- contents ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [".tar", ".tar.gz", ".tar.zst"])
def test_an_archive_holds_a_version_that_passes_every_proof(ending: str, tmp_path: Path) -> None:
    """Structure and tensors; the digest is the one that is compared with later."""
    digest = unpacked(archive_of(GOOD, ending), tmp_path / "1")

    assert verify_structure(tmp_path / "1").tensor_bytes == GOOD.weight
    assert verify_tensors(tmp_path / "1").tensors == 1
    assert digest == GOOD.digest
    assert digest != Contents("other").digest


def test_what_is_flawed_is_refused(tmp_path: Path) -> None:
    """An archive that ends too early, and one that holds no model."""
    with pytest.raises(ReleaseRefused):
        unpacked(archive_of(Contents("cut", flaw=Flaw.CUT), ".tar.gz"), tmp_path / "1")
    unpacked(archive_of(Contents("no", flaw=Flaw.NO_GRAPH), ".tar.gz"), tmp_path / "2")
    with pytest.raises(ReleaseRefused):
        verify_structure(tmp_path / "2")


def test_a_manifest_is_a_real_one() -> None:
    """It parses, and is that of the archive."""
    found = manifest.parse(manifest_of(GOOD, M, ONE, ".tar.gz"))
    size = len(archive_of(GOOD, ".tar.gz"))
    manifest.check_identity(found, M, ONE, "1.tar.gz", size)
    assert found.content.digest == GOOD.digest


def test_the_server_sees_whose_bytes_lie_there_and_that_they_are_damaged(tmp_path: Path) -> None:
    """By the files themselves."""
    write_tree(tmp_path / "1", Contents("bad", loads=Loads.ABORTS))
    found = found_in(tmp_path / "1")
    assert found is not None
    assert (found.identity, found.loads) == ("bad", Loads.ABORTS)

    (tmp_path / "1/saved_model.pb").write_bytes(b"x")
    damaged = found_in(tmp_path / "1")
    assert damaged is not None
    assert damaged.loads is Loads.FAILS
    assert found_in(tmp_path / "2") is None


# -- the store --------------------------------------------------------------------------------------------


def test_what_is_published_is_listed_and_read() -> None:
    """With its manifest, its checksum, and another identity after it was replaced."""
    store = SimStore()
    store.publish("m", 1, GOOD, with_manifest=True)
    release = only(store)
    assert release.manifest is not None
    assert all_of(store, release.objects[0]) == archive_of(GOOD, ".tar")
    facts = store.describe(release.objects[0])
    assert facts.checksum is not None
    running = facts.checksum.start()
    running.update(memoryview(archive_of(GOOD, ".tar")))
    running.check("key")

    store.publish("m", 1, Contents("other"))

    assert only(store).identity != release.identity
    with pytest.raises(TransferError) as caught:
        all_of(store, release.objects[0])
    assert caught.value.reason is Reason.OBJECT_CHANGED
    assert store.comes_as("m", 1) == Contents("other")


def test_a_folder_is_a_release_too() -> None:
    """And what replaces it is the only one."""
    store = SimStore()
    store.publish_folder("m", 1, GOOD)
    assert len(only(store).objects) == 4

    store.publish("m", 1, GOOD)

    assert len(only(store).objects) == 1


def test_an_ambiguous_release_is_none() -> None:
    """Two archives under one number."""
    store = SimStore()
    store.publish("m", 3, GOOD)
    store.add_archive("m", 3, GOOD, ".tar.zst")

    listing = store.list(lambda _: True, should_stop=go_on)

    assert listing.releases == {}
    assert listing.problems[M, Version(3)].reason is Reason.RELEASE_AMBIGUOUS
    assert store.comes_as("m", 3) is None


def test_a_release_whose_manifest_is_to_come_waits_for_it() -> None:
    """The store says so of the archive."""
    store = SimStore()
    store.publish_archive_of_two("m", 1, GOOD, ".tar")
    assert store.describe(only(store).objects[0]).manifest_to_come
    assert store.comes_as("m", 1) is None

    store.complete("m", 1, ".tar")

    assert store.comes_as("m", 1) == GOOD


def test_channels_and_withdrawals_are_real_documents() -> None:
    """Their sequence grows; a withdrawal is gone when the number is published anew."""
    store = SimStore()
    store.publish("m", 1, GOOD)
    store.promote("m", "stable", 1)
    store.promote("m", "stable", 2)
    store.withdraw("m", 1)
    listing = store.list(lambda _: True, should_stop=go_on)

    item = listing.channels[M]["stable"]
    found = channel.parse_channel(all_of(store, item), M, "stable")
    assert (found.now.version, found.now.sequence) == (2, 2)
    (release,) = listing.releases[M]
    assert release.manifest is not None
    assert channel.is_withdrawal(all_of(store, release.manifest))
    assert store.comes_as("m", 1) is None

    store.publish("m", 1, GOOD)
    assert store.comes_as("m", 1) == GOOD


def test_everything_that_may_go_wrong_with_a_store_does() -> None:
    """Listings, bodies, single objects."""
    store = SimStore()
    key = store.publish("m", 1, GOOD)
    (item,) = only(store).objects

    store.lists_nothing = True
    assert store.list(lambda _: True, should_stop=go_on).releases == {}
    store.lists_nothing, store.unlisted = False, {key}
    assert store.list(lambda _: True, should_stop=go_on).releases == {}
    store.list_error = down()
    with pytest.raises(StoreError):
        store.list(lambda _: True, should_stop=go_on)
    store.denied.add(key)
    with pytest.raises(StoreError) as caught:
        all_of(store, item)
    assert caught.value.reason is Reason.STORE_DENIED
    store.denied.clear()
    store.breaks = True
    with pytest.raises(TransferError):
        store.read(item, 0, 1, memoryview(bytearray(1)), go_on)
    store.heal()
    assert all_of(store, item) == archive_of(GOOD, ".tar")
    store.unpublish("m", 1)
    with pytest.raises(TransferError):
        all_of(store, item)


@pytest.mark.parametrize("ending", [".tar", ".tar.gz"])
def test_a_bit_flips_on_the_way_for_a_while(ending: str, tmp_path: Path) -> None:
    """What comes is refused by some proof; later the same object is good."""
    store = SimStore()
    store.publish("m", 1, GOOD, ending=ending, checksum=False)
    (item,) = only(store).objects
    store.flips_until = store.clock.now + 12
    with pytest.raises(ReleaseRefused):  # noqa: PT012 (whichever of the proofs finds it)
        unpacked(all_of(store, item), tmp_path / "1")
        verify_tensors(tmp_path / "1")

    store.clock.advance(12)

    assert all_of(store, item) == archive_of(GOOD, ending)


def test_a_page_instead_of_an_archive_is_a_broken_transfer() -> None:
    """As the real store says."""
    store = SimStore()
    store.publish("m", 1, GOOD)
    (item,) = only(store).objects
    store.pages_until = store.clock.now + 1
    with pytest.raises(TransferError) as caught:
        store.read(item, 0, item.size, memoryview(bytearray(item.size)), go_on)
    assert caught.value.reason is Reason.TRANSFER_BROKEN


def test_a_read_that_is_to_stop_stops() -> None:
    """Also a listing."""
    store = SimStore()
    store.publish("m", 1, GOOD)
    (item,) = only(store).objects
    with pytest.raises(Stopped):
        store.read(item, 0, 1, memoryview(bytearray(1)), lambda: True)
    with pytest.raises(Stopped):
        store.list(lambda _: True, should_stop=lambda: True)


# -- jobs -------------------------------------------------------------------------------------------------


def started(jobs: SimJobs, work: Callable[[JobContext], object]) -> Task:
    """Start a transfer."""
    jobs.start(Job(JobKind.TRANSFER, work, M, ONE))
    (task,) = jobs.alive
    return task


def test_a_job_runs_when_the_test_says_so_and_its_result_arrives() -> None:
    """And not before."""
    jobs, done = SimJobs(), list[int]()

    def work(_: JobContext) -> str:
        done.append(1)
        return "result"

    task = started(jobs, work)
    assert (done, list(jobs.take())) == ([], [])

    jobs.resume(task)

    (message,) = jobs.take()
    assert isinstance(message, Ended)
    assert (message.result, message.error, done, jobs.alive) == ("result", None, [1], [])


def test_a_job_stops_at_each_point_if_the_test_wants_so() -> None:
    """At each of its checks, and nowhere else."""
    jobs, done = SimJobs(), list[int]()

    def work(context: JobContext) -> None:
        for number in range(3):
            done.append(number)
            context.check()

    task = started(jobs, work)
    seen = []
    while not task.has_ended:
        jobs.resume(task, points=1)
        seen.append(list(done))

    assert seen == [[0], [0, 1], [0, 1, 2], [0, 1, 2]]


def test_two_jobs_in_turns_never_run_at_the_same_time() -> None:
    """Each goes on where it was."""
    jobs, seen = SimJobs(), list[str]()

    def work(name: str) -> Callable[[JobContext], None]:
        def steps(context: JobContext) -> None:
            for number in range(3):
                seen.append(f"{name}{number}")
                context.check()

        return steps

    jobs.start(Job(JobKind.TRANSFER, work("a"), M, ONE))
    jobs.start(Job(JobKind.TRANSFER, work("b"), M, TWO))
    while jobs.alive:
        for task in jobs.alive:
            jobs.resume(task, points=1)

    assert seen == ["a0", "b0", "a1", "b1", "a2", "b2"]


def test_a_cancelled_job_ends_when_it_has_the_baton_next() -> None:
    """At a point, or in a store that hangs; both end as `Stopped`."""
    jobs = SimJobs()
    store = SimStore(gate=jobs.at_point)
    key = store.publish("m", 1, GOOD)
    (release,) = store.offers("m").values()
    (item,) = release.objects
    store.hanging.add(key)
    hangs = started(
        jobs, lambda context: read_whole(item, store.read, Fetch(connections=2), context.should_stop)
    )
    jobs.resume(hangs)
    assert (hangs.has_ended, hangs.at) == (False, f"read {key}")

    hangs.cancel()
    jobs.resume(hangs)

    (message,) = jobs.take()
    assert isinstance(message, Ended)
    assert isinstance(message.error, Stopped)


def test_a_job_that_hangs_goes_on_when_it_may() -> None:
    """Its bytes are those of that moment."""
    jobs = SimJobs()
    store = SimStore(gate=jobs.at_point, read_seconds=5)
    store.publish("m", 1, GOOD)
    (item,) = store.offers("m")[ONE].objects
    task = started(jobs, lambda context: read_whole(item, store.read, Fetch(), context.should_stop))
    jobs.resume(task)
    assert not task.has_ended
    store.clock.advance(5)

    jobs.resume(task)

    (message,) = jobs.take()
    assert isinstance(message, Ended)
    assert message.result == archive_of(GOOD, ".tar")


def test_a_job_that_wants_room_waits_for_the_answer() -> None:
    """And goes on with it."""
    jobs = SimJobs()
    short = DiskError(Reason.DISK_FULL, "full")
    task = started(jobs, lambda context: context.make_room(short))
    jobs.resume(task)
    (message,) = jobs.take()
    assert isinstance(message, RoomWanted)
    jobs.resume(task)
    assert not task.has_ended

    message.answer(True)
    jobs.resume(task)

    (ended,) = jobs.take()
    assert isinstance(ended, Ended)
    assert ended.result is True


def test_all_jobs_end_when_all_is_closed() -> None:
    """Whatever they are in."""
    jobs = SimJobs()
    server = SimServer(Path("/nowhere"), gate=jobs.at_point, is_silent=True, is_ready=True)
    jobs.start(Job(JobKind.ASK_SERVER, lambda _: server.status(M)))
    jobs.start(Job(JobKind.TRANSFER, lambda context: context.make_room(DiskError(Reason.DISK_FULL, ""))))
    jobs.start(Job(JobKind.LIST, lambda context: context.check()))
    for task in jobs.alive[:2]:
        jobs.resume(task)

    assert jobs.close(1.0)
    assert sum(isinstance(message, Ended) for message in jobs.take()) == 3


def test_who_decides_may_not_ask_the_store_or_the_server() -> None:
    """Only jobs may: a decider that waits is what the simulation is there to find."""
    store = SimStore(gate=SimJobs().at_point)
    with pytest.raises(NotInAJob):
        store.list(lambda _: True, should_stop=go_on)


def test_a_bug_in_a_job_is_a_failure_of_the_test() -> None:
    """It does not become a result."""
    jobs = SimJobs()
    task = started(jobs, lambda _: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        jobs.resume(task)


def test_where_no_thread_can_be_started_a_job_has_failed() -> None:
    """And may be started again."""
    jobs = SimJobs()
    jobs.has_threads = False
    jobs.start(Job(JobKind.LIST, lambda _: None))
    (message,) = jobs.take()
    assert isinstance(message, Ended)
    assert message.error is not None
    assert not jobs.alive


def test_no_two_jobs_have_the_same_key() -> None:
    """Nobody would know whose result it is."""
    jobs = SimJobs()
    jobs.start(Job(JobKind.LIST, lambda _: None))
    with pytest.raises(AssertionError):
        jobs.start(Job(JobKind.LIST, lambda _: None))


def test_a_process_that_ends_takes_its_jobs_with_it(tmp_path: Path) -> None:
    """They leave what they have written, and tidy nothing up."""
    jobs = SimJobs()
    before = threading.active_count()

    def work(context: JobContext) -> None:
        disk.make_new_dir(tmp_path / "staged", 0o700)
        try:
            context.check()
        finally:
            disk.remove_tree(tmp_path / "staged")

    with DiskFaults() as faults:
        task = started(jobs, work)
        jobs.resume(task, points=1)
        faults.is_gone = True
        jobs.end_with_process()

    assert (tmp_path / "staged").is_dir()
    assert (list(jobs.take()), jobs.alive) == ([], [])
    assert threading.active_count() == before


# -- the disk ---------------------------------------------------------------------------------------------


def test_the_process_ends_before_the_effect_that_is_meant(tmp_path: Path) -> None:
    """What came before is done, and nothing after it."""
    with DiskFaults() as faults:
        faults.dies_at = 1
        disk.make_dir(tmp_path / "a", 0o700)
        with pytest.raises(ProcessEnded):
            disk.make_dir(tmp_path / "b", 0o700)
        with pytest.raises(ProcessEnded):
            disk.make_dir(tmp_path / "c", 0o700)

    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    disk.make_dir(tmp_path / "d", 0o700)
    assert (tmp_path / "d").is_dir()


def test_effects_inside_of_effects_count(tmp_path: Path) -> None:
    """A file that was replaced, and whose folder was never synced."""
    with DiskFaults() as faults:
        disk.write_file(tmp_path / "a", b"1")
        assert faults.effects == ["write_file", "_replace", "sync_dir"]
        faults.dies_at = 2
        with pytest.raises(ProcessEnded):
            disk.write_file(tmp_path / "a", b"2")

    assert (tmp_path / "a").read_bytes() == b"2"


def test_a_full_disk_takes_nothing_new_until_it_is_healed(tmp_path: Path) -> None:
    """Renames go on."""
    with DiskFaults() as faults:
        disk.make_dir(tmp_path / "a", 0o700)
        faults.fill()
        with pytest.raises(OSError) as caught:
            disk.write_file(tmp_path / "b", b"")
        assert caught.value.errno == errno.ENOSPC
        assert disk.free_bytes(tmp_path) == 0
        disk.rename_noreplace(tmp_path / "a", tmp_path / "c")
        faults.heal()
        disk.write_file(tmp_path / "b", b"")


# -- the server -------------------------------------------------------------------------------------------


def lived(server: SimServer, seconds: int) -> SimServer:
    """Let it live."""
    for _ in range(seconds):
        server.clock.advance(1)
        server.step()
    return server


@pytest.fixture
def server(tmp_path: Path) -> SimServer:
    """A server with the shelves `m` and `n`, of which it has `m`."""
    (tmp_path / "m").mkdir()
    (tmp_path / "n").mkdir()
    return SimServer(tmp_path)


def test_the_server_loads_what_lies_on_the_real_disk(server: SimServer) -> None:
    """And says so; before that nothing listens."""
    write_tree(server.models_dir / "m/1", GOOD)
    with pytest.raises(ServerDown):
        server.status(M)

    lived(server, 6)

    assert server.answering("m") == {ONE: "good"}
    assert server.status(M)[ONE].state is ServerState.AVAILABLE
    assert server.used_bytes() == sum(
        path.stat().st_size for path in server.models_dir.rglob("m/1/**/*") if path.is_file()
    )


def test_a_version_that_fails_is_said_to_have_failed(server: SimServer) -> None:
    """The old one answers on."""
    write_tree(server.models_dir / "m/1", GOOD)
    lived(server, 6)
    write_tree(server.models_dir / "m/2", Contents("bad", loads=Loads.FAILS))

    lived(server, 6)

    assert server.answering("m") == {ONE: "good"}
    assert server.status(M)[TWO].failed
    assert server.ends == 0


def test_a_version_that_aborts_ends_the_server_at_every_start_until_it_is_gone(server: SimServer) -> None:
    """A supervisor starts it again and again."""
    write_tree(server.models_dir / "m/1", GOOD)
    lived(server, 6)
    write_tree(server.models_dir / "m/2", Contents("bad", loads=Loads.ABORTS))
    lived(server, 30)
    assert server.ends > 3
    assert server.answering("m") == {}

    (server.models_dir / "m/2").rename(server.models_dir / "gone")
    lived(server, 12)

    assert server.answering("m") == {ONE: "good"}


def test_a_server_loses_all_of_a_model_whose_folder_appears_empty(server: SimServer) -> None:
    """While the folder is away it goes on serving."""
    write_tree(server.models_dir / "m/1", GOOD)
    lived(server, 6)
    (server.models_dir / "m").rename(server.models_dir / "gone")
    lived(server, 6)
    assert server.answering("m") == {ONE: "good"}

    (server.models_dir / "m").mkdir()
    lived(server, 6)

    assert server.answering("m") == {}


def test_a_server_with_policy_latest_lets_the_old_one_go_itself(server: SimServer) -> None:
    """When the new one answers."""
    server.policy = ServerPolicy.LATEST
    write_tree(server.models_dir / "m/1", GOOD)
    lived(server, 6)
    write_tree(server.models_dir / "m/2", Contents("new"))
    lived(server, 8)

    assert server.answering("m") == {TWO: "new"}


def test_two_models_come_up_together(server: SimServer) -> None:
    """And not one without the other."""
    server.names = ("m", "n")
    write_tree(server.models_dir / "m/1", GOOD)
    lived(server, 8)
    assert not server.is_ready
    write_tree(server.models_dir / "n/1", Contents("n1"))
    lived(server, 8)

    assert server.answering("n") == {ONE: "n1"}


def test_a_silent_server_keeps_whoever_asks_for_a_while(server: SimServer) -> None:
    """Then there is no answer; requests for predictions have one all the time."""
    jobs = SimJobs()
    write_tree(server.models_dir / "m/1", GOOD)
    lived(server, 6)
    server.gate, server.is_silent = jobs.at_point, True
    jobs.start(Job(JobKind.ASK_SERVER, lambda _: server.status(M)))
    (task,) = jobs.alive
    jobs.resume(task)
    assert not task.has_ended
    lived(server, 10)

    jobs.resume(task)

    (message,) = jobs.take()
    assert isinstance(message, Ended)
    assert isinstance(message.error, ServerError)
    assert server.answering("m") == {ONE: "good"}


def test_a_killed_server_comes_back(server: SimServer) -> None:
    """When it may."""
    write_tree(server.models_dir / "m/1", GOOD)
    lived(server, 6)
    server.kill(5)
    assert (server.started_at(), server.used_bytes()) == (None, None)
    lived(server, 4)
    assert not server.is_ready
    lived(server, 6)

    assert server.answering("m") == {ONE: "good"}


# -- the invariants ---------------------------------------------------------------------------------------


@pytest.fixture
def world() -> Iterator[World]:
    """A world without an agent, in which a shelf is made by hand."""
    with World() as made:
        (made.models_dir / "m").mkdir(parents=True)
        yield made


def test_the_invariants_find_what_was_never_published(world: World) -> None:
    """Bytes under a number that are nobody's."""
    write_tree(world.models_dir / "m/1", GOOD)
    with pytest.raises(Broken, match="no sound release"):
        world.invariants.check("test")


def test_the_invariants_find_half_a_version(world: World) -> None:
    """One file is not there yet."""
    world.publish(1, GOOD)
    write_tree(world.models_dir / "m/1", GOOD)
    world.invariants.check("test")
    (world.models_dir / "m/1/saved_model.pb").unlink()
    with pytest.raises(Broken, match="no sound release"):
        world.invariants.check("test")


@pytest.mark.parametrize("name", ["007", "+7", " 7", "-1"])
def test_the_invariants_find_names_that_only_the_server_takes_for_numbers(world: World, name: str) -> None:
    """They are versions to it."""
    (world.models_dir / "m" / name).mkdir()
    with pytest.raises(Broken, match="takes"):
        world.invariants.check("test")


def test_the_invariants_find_a_link_in_place_of_a_version(world: World) -> None:
    """A numeric name is a real directory."""
    (world.models_dir / "m/7").symlink_to("/")
    with pytest.raises(Broken, match="takes"):
        world.invariants.check("test")


def test_the_invariants_find_a_version_pruned_that_policy_wants(world: World) -> None:
    """The only one that there is."""
    world.publish(1, GOOD)
    write_tree(world.models_dir / "m/1", GOOD)
    world.invariants.check("test")
    (world.models_dir / "m/1").rename(world.models_dir / ".gone")
    with pytest.raises(Broken, match="asks for it"):
        world.invariants.check("test")


def test_the_invariants_find_a_version_pruned_before_the_next_one_answers(world: World) -> None:
    """The new one lies there, and is not loaded yet."""
    world.publish(1, GOOD)
    world.publish(2)
    write_tree(world.models_dir / "m/1", GOOD)
    write_tree(world.models_dir / "m/2", Contents("m2"))
    world.invariants.check("test")
    (world.models_dir / "m/1").rename(world.models_dir / ".gone")
    with pytest.raises(Broken, match="no other version answers"):
        world.invariants.check("test")


def test_the_invariants_find_a_touched_foreign_version(world: World) -> None:
    """Whatever policy says."""
    world.put_by_hand(1, Contents("theirs"))
    world.invariants.check("test")
    (world.models_dir / "m/1").rename(world.models_dir / ".gone")
    with pytest.raises(Broken, match="not ours"):
        world.invariants.check("test")


def test_the_invariants_find_things_outside(world: World) -> None:
    """Nothing of servesync lies beside the models directory."""
    (world.folder / "x").mkdir()
    with pytest.raises(Broken, match="outside"):
        world.invariants.check("test")


def test_the_invariants_find_a_model_of_which_nothing_answers_any_more(world: World) -> None:
    """Somebody other than the agent moves its version off the shelf."""
    world.publish(1, GOOD)
    write_tree(world.models_dir / "m/1", GOOD)
    world.wait(6)
    (world.models_dir / "m/1").rename(world.models_dir / ".gone")
    with pytest.raises(Broken, match="answers any more"):
        world.wait(3)


def test_a_world_at_rest_serves_what_is_wanted(world: World) -> None:
    """Otherwise the invariants say what is missing."""
    world.publish(1, GOOD)
    assert world.invariants.flaw_of_rest() == "the server is not up"
    write_tree(world.models_dir / "m/1", GOOD)
    world.wait(6)
    assert world.invariants.flaw_of_rest() == ""

    world.publish(2, Contents("bad", loads=Loads.FAILS))
    world.publish(3, Contents("worse", flaw=Flaw.NO_GRAPH))
    assert world.invariants.flaw_of_rest() == ""

    (world.models_dir / ".servesync/staging/x").mkdir(parents=True)
    assert "staging" in world.invariants.flaw_of_rest()


def test_clocks_stand_still_until_they_are_moved() -> None:
    """The wall clock may be set; the other one never notices."""
    clock = SimClock()
    before = clock.monotonic()
    clock.advance(5)
    clock.set_wall(100.0)
    assert (clock.monotonic() - before, clock.wall()) == (5, 100.0)
    clock.advance(1)
    assert clock.wall() == 101.0
