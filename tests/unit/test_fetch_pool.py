"""Streams that share a pool: fair, bounded, and none waits for another that hangs."""

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from pydantic import ValidationError

from remote_objects import AT_ONCE, KIB, Remote, never, proofs_of
from servesync.domain.versions import Proof, StoredObject
from servesync.errors import Reason, Stopped, SyncError, TransferError
from servesync.fetch import FetchPool, Read
from servesync.fetch.parts import RateLimit, part_bytes
from servesync.settings import Fetch

PART = 64 * KIB
FOUR = Fetch(connections=4, part_bytes=256 * KIB, memory_bytes=1024 * KIB, transfers=3)
"""Four buffers of 256 KiB, four connections."""

NEVER = 3600.0
"""A patience after which nothing is taken from another stream: a busy machine makes every stream slow."""


class Gate:
    """Holds reads back: one passes for each `let`, as they came, and all after `open`."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._may_pass = 0.0
        self.arrived: list[str] = []

    def pass_through(self, key: str, _: int = 0) -> None:
        """Wait here."""
        with self._changed:
            ticket = len(self.arrived)
            self.arrived.append(key)
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._may_pass > ticket)

    def let(self, count: float = 1.0) -> None:
        """Let so many reads pass."""
        with self._changed:
            self._may_pass += count
            self._changed.notify_all()

    def open(self) -> None:
        """Let all pass."""
        self.let(float("inf"))

    def wait_for(self, count: int) -> None:
        """Return when so many reads have arrived in all."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.arrived) >= count, 60), self.arrived


def fetch(
    pool: FetchPool,
    objects: Sequence[StoredObject],
    read: Read,
    proofs: Sequence[Proof] = (),
    *,
    should_stop: Callable[[], bool] = never,
    first: bool = False,
) -> dict[str, bytes]:
    """Read everything into memory."""
    found: dict[str, bytearray] = {}
    with pool.stream(objects, read, should_stop, AT_ONCE, proofs, first=first) as parts:
        for item, piece in parts:
            found.setdefault(item.key, bytearray()).extend(piece)
            del piece  # a view would keep what is dropped alive
    return {key: bytes(data) for key, data in found.items()}


@pytest.fixture
def beside() -> Iterator[ThreadPoolExecutor]:
    """Give threads to consume other streams in."""
    with ThreadPoolExecutor(16) as threads:
        yield threads


@pytest.mark.slow
def test_together_they_keep_to_connections_and_memory(beside: ThreadPoolExecutor) -> None:
    """Also with ranges of other sizes, each stream gets its own bytes, in order."""
    remote = Remote({key: 3000 * KIB + number for number, key in enumerate("abcdef")})
    remote.may_weigh = FOUR.memory_bytes
    pool = FetchPool(FOUR)

    def one(number: int) -> dict[str, bytes]:
        item = remote.objects[number]
        proofs = proofs_of(remote.data[item.key], [(270 + 10 * number) * KIB]) if number % 2 else ()
        return fetch(pool, [item], remote.read, proofs)

    found = list(beside.map(one, range(6)))

    assert found == [{key: data} for key, data in remote.data.items()]
    assert remote.most_at_once <= FOUR.connections
    assert 0 < remote.most_bytes <= remote.may_weigh


def test_buffers_are_used_by_one_stream_after_the_other() -> None:
    """While a stream is open, the buffers of those that end are not thrown away."""
    remote = Remote(dict.fromkeys("abcdefgh", 1024 * KIB))
    pool = FetchPool(FOUR)
    with pool.stream(remote.objects[:1], remote.read, never) as parts:
        next(parts)
        for item in remote.objects[1:]:
            assert fetch(pool, [item], remote.read) == {item.key: remote.data[item.key]}

    assert len(remote.buffers) <= 4


def test_reads_that_hang_without_more_to_ask_for_hold_up_nobody(beside: ThreadPoolExecutor) -> None:
    """The first stream has asked for all its parts, on fewer connections than there are."""
    gate = Gate()
    remote = Remote(
        {"a": 512 * KIB, "b": 10 * KIB}, lambda key, _: gate.pass_through(key) if key == "a" else None
    )
    pool = FetchPool(FOUR)
    a = beside.submit(fetch, pool, remote.objects[:1], remote.read)
    gate.wait_for(2)
    try:
        b = beside.submit(fetch, pool, remote.objects[1:], remote.read)

        assert b.result(60) == {"b": remote.data["b"]}
        assert not a.done()
    finally:
        gate.open()
    assert a.result(60) == {"a": remote.data["a"]}


def test_one_that_comes_later_gets_its_share(beside: ThreadPoolExecutor) -> None:
    """The first has all connections; what it gives back goes to the second until both have as much."""
    gate = Gate()
    remote = Remote({"a": 4096 * KIB, "b": 4096 * KIB}, gate.pass_through)
    pool = FetchPool(FOUR.model_copy(update={"memory_bytes": 4096 * KIB}))
    a = beside.submit(fetch, pool, remote.objects[:1], remote.read)
    gate.wait_for(4)
    b = beside.submit(fetch, pool, remote.objects[1:], remote.read)
    until_open(pool, 2)

    for _ in range(2):
        gate.let()
        gate.wait_for(len(gate.arrived) + 1)
    arrived = list(gate.arrived)
    gate.open()

    assert arrived == ["a"] * 4 + ["b"] * 2
    assert a.result() | b.result() == remote.data


def until_open(pool: FetchPool, count: int) -> None:
    """Wait until so many streams are open."""
    while len(pool._flows) < count:
        time.sleep(0.001)


def hang_on(key: str, release: threading.Event, hanging: threading.Semaphore) -> Callable[[str, int], None]:
    """Return what holds up all reads of an object, whatever they are told."""

    def before(asked: str, _: int) -> None:
        if asked == key:
            hanging.release()
            release.wait(120)

    return before


@pytest.mark.slow
def test_a_hanging_stream_takes_nothing_from_others(beside: ThreadPoolExecutor) -> None:
    """It had all connections and buffers, and its reads do not even heed that they are to end."""
    release, hanging = threading.Event(), threading.Semaphore(0)
    remote = Remote({"a": 4096 * KIB, "b": 2048 * KIB}, hang_on("a", release, hanging))
    pool = FetchPool(FOUR)
    a = beside.submit(fetch, pool, remote.objects[:1], remote.read)
    try:
        for _ in range(4):
            hanging.acquire()

        assert fetch(pool, remote.objects[1:], remote.read) == {"b": remote.data["b"]}
        assert not a.done()
    finally:
        release.set()
    assert a.result() == {"a": remote.data["a"]}


def test_a_stream_of_one_part_that_hangs_takes_nothing_from_others(beside: ThreadPoolExecutor) -> None:
    """All that it has to read is being read: its worker is none that others can use."""
    remote = Remote({"hangs": KIB, "good": KIB})
    hangs, good = remote.objects
    gate, pool = Gate(), FetchPool(FOUR)

    def read(item: StoredObject, *arguments: Any) -> None:
        if item is hangs:
            gate.pass_through(item.key)
        remote.read(item, *arguments)

    stuck = beside.submit(fetch, pool, [hangs], read)
    gate.wait_for(1)

    assert beside.submit(fetch, pool, [good], read).result(60) == {"good": remote.data["good"]}

    gate.open()
    assert stuck.result(60) == {"hangs": remote.data["hangs"]}


@pytest.mark.slow
def test_a_consumer_that_sleeps_takes_nothing_from_others() -> None:
    """It had filled all buffers; the second gets its share of them, and the first loses no byte."""
    remote = Remote({"a": 4096 * KIB, "b": 2048 * KIB})
    remote.may_weigh = FOUR.memory_bytes
    pool = FetchPool(FOUR)
    found = bytearray()
    with pool.stream(remote.objects[:1], remote.read, never, AT_ONCE) as parts:
        found += next(parts)[1]
        while len(remote.reads) < 4:
            time.sleep(0.001)

        assert fetch(pool, remote.objects[1:], remote.read) == {"b": remote.data["b"]}

        for _, piece in parts:
            found += piece
    assert found == remote.data["a"]
    assert 0 < remote.most_bytes <= remote.may_weigh


def test_a_document_waits_for_nobody(beside: ThreadPoolExecutor) -> None:
    """Neither for connections nor for the rate."""
    release, hanging = threading.Event(), threading.Semaphore(0)
    remote = Remote({"a": 4096 * KIB, "small": 100 * KIB}, hang_on("a", release, hanging))
    pool = FetchPool(FOUR.model_copy(update={"max_bytes_per_second": 64 * KIB}))
    a: Future[dict[str, bytes]] = beside.submit(
        fetch, pool, remote.objects[:1], remote.read, should_stop=release.is_set
    )
    try:
        hanging.acquire()
        assert pool.read_whole(remote.objects[1], remote.read, never) == remote.data["small"]
    finally:
        release.set()
    with pytest.raises(Stopped):
        a.result()


def test_the_buffer_of_a_read_left_behind_is_not_used_again() -> None:
    """It may still be written to: the next stream gets others, and nothing else is missing."""
    release, hanging, done = threading.Event(), threading.Semaphore(0), threading.Semaphore(0)
    remote = Remote({"a": PART, "b": 2048 * KIB})

    def read(
        item: StoredObject, offset: int, length: int, buffer: memoryview, stop: Callable[[], bool]
    ) -> None:
        if item.key == "a":
            hanging.release()
            release.wait(60)
            buffer[:] = b"x" * length
            done.release()
        else:
            remote.read(item, offset, length, buffer, stop)

    pool = FetchPool(FOUR)
    with pool.stream(remote.objects[:1], read, never):
        hanging.acquire()
    found = bytearray()
    with pool.stream(remote.objects[1:], read, never) as parts:
        _, piece = next(parts)
        release.set()
        done.acquire()
        found += piece
        for _, piece in parts:
            found += piece

    assert found == remote.data["b"]


def test_first_goes_before_the_others(beside: ThreadPoolExecutor) -> None:
    """A rollback that comes last has all its parts before the others have their next."""
    gate = Gate()
    remote = Remote(dict.fromkeys("abc", 1024 * KIB), gate.pass_through)
    roomy = FOUR.model_copy(update={"connections": 1, "memory_bytes": 4096 * KIB})
    pool = FetchPool(roomy, NEVER)  # a consumer that is slow on a busy machine keeps no part from its buffer
    others = [beside.submit(fetch, pool, [item], remote.read) for item in remote.objects[:2]]
    gate.wait_for(1)
    until_open(pool, 2)
    rollback = beside.submit(fetch, pool, remote.objects[2:], remote.read, first=True)
    until_open(pool, 3)

    for passed in range(2, 7):
        gate.let()
        gate.wait_for(passed)
    arrived = list(gate.arrived)
    gate.open()

    assert arrived[1:5] == ["c"] * 4
    assert arrived[5] != "c"
    assert rollback.result() == {"c": remote.data["c"]}
    assert others[0].result() | others[1].result() == {key: remote.data[key] for key in "ab"}


def test_large_ranges_wait_for_room(beside: ThreadPoolExecutor) -> None:
    """Ranges of which two do not fit into the memory come one stream after the other."""
    gate = Gate()
    remote = Remote({"a": 1200 * KIB, "b": 1200 * KIB}, gate.pass_through)
    remote.may_weigh = FOUR.memory_bytes
    pool = FetchPool(FOUR)
    running = [
        beside.submit(fetch, pool, [item], remote.read, proofs_of(remote.data[item.key], [600 * KIB]))
        for item in remote.objects
    ]
    gate.wait_for(1)
    until_open(pool, 2)
    gate.open()

    assert running[0].result() | running[1].result() == remote.data
    assert gate.arrived in (["a", "a", "b", "b"], ["b", "b", "a", "a"])
    assert 0 < remote.most_bytes <= remote.may_weigh


@pytest.mark.slow
def test_a_range_larger_than_all_memory_comes_beside_the_others(beside: ThreadPoolExecutor) -> None:
    """It has one buffer of its size."""
    remote = Remote({"a": 4000 * KIB, "b": 4096 * KIB, "c": 4000 * KIB})
    remote.may_weigh = FOUR.memory_bytes + 2000 * KIB
    pool = FetchPool(FOUR)

    def one(item: StoredObject) -> dict[str, bytes]:
        proofs = () if item.key == "b" else proofs_of(remote.data[item.key], [2000 * KIB])
        return fetch(pool, [item], remote.read, proofs)

    found = list(beside.map(one, remote.objects))

    assert found == [{key: data} for key, data in remote.data.items()]
    assert 0 < remote.most_bytes <= remote.may_weigh


def test_a_pause_after_a_failure_keeps_no_connection() -> None:
    """With one connection the other stream comes in between."""
    failed = threading.Event()

    def before(key: str, _: int) -> None:
        if key == "a" and not failed.is_set():
            failed.set()
            raise TransferError(Reason.TRANSFER_BROKEN, "broken")

    remote = Remote({"a": PART, "b": PART}, before)
    pool = FetchPool(FOUR.model_copy(update={"connections": 1}))
    with pool.stream(remote.objects[:1], remote.read, never) as parts:
        failed.wait()
        assert fetch(pool, remote.objects[1:], remote.read) == {"b": remote.data["b"]}
        assert bytes(next(parts)[1]) == remote.data["a"]


def test_a_store_in_trouble_is_not_asked_for_more_and_more() -> None:
    """While parts pause after a failure, no further ones are begun in their place."""

    def before(key: str, offset: int) -> None:
        raise TransferError(Reason.TRANSFER_BROKEN, "broken")

    remote = Remote({"a": 4096 * KIB}, before)
    pool = FetchPool(FOUR.model_copy(update={"memory_bytes": 4096 * KIB}))

    with pytest.raises(TransferError):
        fetch(pool, remote.objects, remote.read)

    assert len({offset for _, offset, _ in remote.reads}) <= FOUR.connections
    assert len(remote.reads) <= FOUR.connections * AT_ONCE.attempts


def test_other_settings_count_for_streams_that_open_later(beside: ThreadPoolExecutor) -> None:
    """Less memory does not stop what runs; more connections are used at once."""
    gate = Gate()
    remote = Remote({"a": 2048 * KIB, "b": 2048 * KIB}, gate.pass_through)
    pool = FetchPool(FOUR.model_copy(update={"connections": 1, "memory_bytes": 8192 * KIB}))
    a = beside.submit(fetch, pool, remote.objects[:1], remote.read)
    gate.wait_for(1)
    pool.apply(FOUR.model_copy(update={"connections": 3, "part_bytes": PART}))
    gate.wait_for(3)
    b = beside.submit(fetch, pool, remote.objects[1:], remote.read)
    gate.open()

    assert a.result() | b.result() == remote.data
    assert {length for key, _, length in remote.reads if key == "b"} == {PART}


def test_less_memory_than_a_buffer_of_a_running_stream() -> None:
    """It goes on with one."""
    remote = Remote({"a": 16 * 1024 * KIB})
    pool = FetchPool(Fetch(connections=2, part_bytes=2048 * KIB, memory_bytes=16 * 1024 * KIB))
    found = bytearray()
    with pool.stream(remote.objects, remote.read, never) as parts:
        found += next(parts)[1]
        pool.apply(FOUR)
        for _, piece in parts:
            found += piece

    assert found == remote.data["a"]


def test_the_rate_is_one_for_all() -> None:
    """Each books its bytes, and all wait until their time is over."""
    rate = RateLimit(1000)

    assert rate.wait(5.0) == 0.0
    rate.book(500, 5.0)
    rate.book(250, 5.0)
    assert rate.wait(5.5) == 0.25
    assert rate.wait(6.0) == 0.0


def test_two_streams_are_not_faster_than_the_rate(beside: ThreadPoolExecutor) -> None:
    """What was asked for never exceeds what the rate allows until then, and one part."""
    begin = time.monotonic()
    moments: list[float] = []
    remote = Remote({"a": 1024 * KIB, "b": 1024 * KIB}, lambda *_: moments.append(time.monotonic()))
    rate = 2048 * KIB
    pool = FetchPool(FOUR.model_copy(update={"max_bytes_per_second": rate}))

    list(beside.map(lambda item: fetch(pool, [item], remote.read), remote.objects))

    moments.sort()
    allowed = [(moment - begin) * rate + 256 * KIB for moment in moments]
    assert all(256 * KIB * (number + 1) <= most for number, most in enumerate(allowed))


def come_and_go(pool: FetchPool, remote: Remote, item: StoredObject, seed: int) -> bool:
    """Open a stream, and end it in the way that the key says; return whether all went as it should."""
    chance = random.Random(seed)
    sizes = [chance.randrange(1, 700) * KIB]
    proofs = proofs_of(remote.data[item.key], sizes) if chance.random() < 0.5 else ()
    stop = threading.Event()
    found = bytearray()
    try:
        with pool.stream(
            [item], remote.read, stop.is_set, AT_ONCE, proofs, first=chance.random() < 0.3
        ) as parts:
            for _, piece in parts:
                found += piece
                del piece  # a view would keep what is dropped alive
                if item.key.startswith("left"):
                    return True
                if item.key.startswith("stopped"):
                    stop.set()
    except SyncError:
        return item.key.startswith(("gone", "stopped"))
    return bytes(found) == remote.data[item.key]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_streams_come_and_go_in_any_order(beside: ThreadPoolExecutor, seed: int) -> None:
    """They fail, stop, are left half-way, read ranges of any size: the others get all their bytes."""
    chance = random.Random(seed)

    def before(key: str, _: int) -> None:
        if key.startswith("gone") and chance.random() < 0.2:
            raise TransferError(Reason.OBJECT_GONE, "x")
        if chance.random() < 0.02:
            raise TransferError(Reason.TRANSFER_BROKEN, "x")

    kinds = ("whole", "gone", "left", "stopped")
    remote = Remote({f"{kinds[n % 4]}{n}": chance.randrange(1, 1500) * KIB for n in range(40)}, before)
    late = FOUR.transfers * FOUR.part_bytes  # on a busy machine reads of streams that were left end late
    remote.may_weigh = FOUR.memory_bytes + late
    pool = FetchPool(FOUR, NEVER)

    assert all(beside.map(lambda item: come_and_go(pool, remote, item, seed), remote.objects))
    assert remote.most_at_once <= FOUR.connections
    assert 0 < remote.most_bytes <= remote.may_weigh


def test_no_thread_outlives_the_streams() -> None:
    """The pool itself holds none."""
    remote = Remote({"a": 1024 * KIB})
    pool = FetchPool(FOUR)
    before = threading.active_count()
    fetch(pool, remote.objects, remote.read)

    assert threading.active_count() <= before


def test_each_transfer_has_room_for_a_part() -> None:
    """And so has one that is just ending; alone, a stream's parts may take all memory."""
    short = Fetch(part_bytes=8192 * KIB, memory_bytes=1024 * KIB, transfers=16)

    assert part_bytes(short) == PART
    assert part_bytes(short.model_copy(update={"transfers": 3})) == 256 * KIB
    assert part_bytes(short.model_copy(update={"transfers": 1})) == 1024 * KIB
    assert part_bytes(Fetch()) == Fetch().part_bytes


@pytest.mark.parametrize("transfers", [0, 17, "2", 2.0])
def test_how_many_transfers_there_may_be(transfers: object) -> None:
    """1 to 16."""
    with pytest.raises(ValidationError):
        Fetch.model_validate({"transfers": transfers})


def test_a_machine_without_threads_fails_the_stream_alone() -> None:
    """Nothing is left of it in the pool, and a later stream works."""
    remote = Remote({"a": PART})
    pool = FetchPool(FOUR)
    threading.stack_size(1 << 46)  # more than there is to address
    try:
        with pytest.raises(TransferError, match="thread"):
            fetch(pool, remote.objects, remote.read)
    finally:
        threading.stack_size(0)

    assert fetch(pool, remote.objects, remote.read) == remote.data
