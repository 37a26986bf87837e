"""Parts that are delivered: each is proven and taken in the thread that has read it, in any order."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from remote_objects import AT_ONCE, KIB, Remote, never, proofs_of
from servesync.domain.versions import Proof, StoredObject
from servesync.errors import DiskError, Reason, ReleaseRefused, Stopped, TransferError
from servesync.fetch import FetchPool, Read, Retries
from servesync.settings import Fetch

FOUR = Fetch(connections=4, part_bytes=256 * KIB, memory_bytes=1024 * KIB, transfers=3)
"""Four buffers of 256 KiB, four connections."""


class Taken:
    """A sink that keeps what it gets; `before` is called first, with the offset of the range."""

    def __init__(self, size: int, before: Callable[[int], None] = lambda _: None) -> None:
        self.data = bytearray(size)
        self.offsets: list[int] = []
        self.threads: set[str] = set()
        self._before = before
        self._lock = threading.Lock()
        self._inside = 0
        self.most_at_once = 0

    def __call__(self, proof: Proof, stored: memoryview) -> None:
        """Take one range."""
        with self._lock:
            self._inside += 1
            self.most_at_once = max(self.most_at_once, self._inside)
            self.threads.add(threading.current_thread().name)
        try:
            self._before(proof.offset)
            with self._lock:
                self.data[proof.offset : proof.offset + proof.size] = stored
                self.offsets.append(proof.offset)
        finally:
            with self._lock:
                self._inside -= 1


def deliver(
    pool: FetchPool,
    item: StoredObject,
    proofs: Sequence[Proof],
    read: Read,
    sink: Callable[[Proof, memoryview], None],
    *,
    should_stop: Callable[[], bool] = never,
    retries: Retries = AT_ONCE,
) -> list[int]:
    """Have everything delivered; return what was told of the progress."""
    with pool.delivery(item, proofs, read, sink, should_stop, retries) as delivered:
        return list(delivered)


@pytest.fixture
def beside() -> Iterator[ThreadPoolExecutor]:
    """Give threads for other streams."""
    with ThreadPoolExecutor(8) as threads:
        yield threads


def test_every_range_is_taken_once() -> None:
    """By the workers, several at a time; what the caller hears grows to all bytes."""
    meet = threading.Barrier(3)
    remote = Remote({"a": 3000 * KIB + 5})
    (item,) = remote.objects
    proofs = proofs_of(remote.data["a"], [200 * KIB, 30 * KIB, 1])

    def before(offset: int) -> None:
        if offset in {proof.offset for proof in proofs[:9:3]}:  # each is in another part
            meet.wait(60)

    taken = Taken(item.size, before)

    told = deliver(FetchPool(FOUR), item, proofs, remote.read, taken)

    assert taken.data == remote.data["a"]
    assert sorted(taken.offsets) == [proof.offset for proof in proofs]
    assert told == sorted(set(told))
    assert told[-1] == item.size
    assert threading.current_thread().name not in taken.threads
    assert remote.most_at_once <= FOUR.connections


def test_only_what_is_asked_for_is_read() -> None:
    """Ranges with others between them are requested one by one, neighbours together."""
    remote = Remote({"a": 1000 * KIB})
    (item,) = remote.objects
    proofs = proofs_of(remote.data["a"], [50 * KIB])
    wanted = [proofs[1], proofs[2], proofs[5], proofs[19]]
    taken = Taken(item.size)

    told = deliver(FetchPool(FOUR), item, wanted, remote.read, taken)

    assert sorted(remote.reads) == [
        ("a", 50 * KIB, 100 * KIB),
        ("a", 250 * KIB, 50 * KIB),
        ("a", 950 * KIB, 50 * KIB),
    ]
    assert sorted(taken.offsets) == [proof.offset for proof in wanted]
    assert told[-1] == 200 * KIB


def test_nothing_to_read_is_soon_done() -> None:
    """No request, no thread."""
    remote = Remote({"a": KIB})

    assert deliver(FetchPool(FOUR), remote.objects[0], [], remote.read, Taken(KIB)) == []
    assert remote.reads == []


def test_a_range_that_differs_is_read_again_before_it_is_taken() -> None:
    """What comes wrong twice refuses the release, and was never handed on."""
    remote = Remote({"a": 1000 * KIB})
    (item,) = remote.objects
    proofs = proofs_of(remote.data["a"], [100 * KIB])
    wrong = {300 * KIB: 1, 700 * KIB: 9}

    def read(asked: StoredObject, offset: int, length: int, buffer: memoryview, stop: Any) -> None:
        remote.read(asked, offset, length, buffer, stop)
        for bad, times in wrong.items():
            if offset <= bad < offset + length and times:
                wrong[bad] = times - 1
                buffer[bad - offset] ^= 1

    taken = Taken(item.size)
    with pytest.raises(ReleaseRefused) as caught:
        deliver(FetchPool(FOUR), item, proofs, read, taken)

    assert (caught.value.reason, caught.value.facts["offset"]) == (Reason.PART_DIFFERS, 700 * KIB)
    assert 700 * KIB not in taken.offsets
    for offset in taken.offsets:
        assert taken.data[offset : offset + 100 * KIB] == remote.data["a"][offset : offset + 100 * KIB]


def test_a_read_that_fails_is_repeated() -> None:
    """A few times, and then it is the first error that counts."""
    fails = [TransferError(Reason.TRANSFER_BROKEN, "broken")] * 3

    def before(_: str, offset: int) -> None:
        if offset == 200 * KIB and fails:
            raise fails.pop()

    remote = Remote({"a": 1000 * KIB}, before)
    (item,) = remote.objects
    proofs = proofs_of(remote.data["a"], [200 * KIB])
    taken = Taken(item.size)

    deliver(FetchPool(FOUR), item, proofs, remote.read, taken)
    assert taken.data == remote.data["a"]

    fails += [TransferError(Reason.TRANSFER_BROKEN, "broken")] * 9
    with pytest.raises(TransferError, match="broken"):
        deliver(FetchPool(FOUR), item, proofs, remote.read, Taken(item.size))


@pytest.mark.parametrize(
    "error",
    [OSError(28, "full"), DiskError(Reason.DISK_FULL, "full"), ReleaseRefused(Reason.CONTENT_DIFFERS, "no")],
)
def test_what_the_sink_raises_ends_all(error: Exception) -> None:
    """It is not repeated, and comes to the caller as it is."""
    remote = Remote({"a": 2000 * KIB})
    (item,) = remote.objects
    calls = []

    def sink(proof: Proof, _: memoryview) -> None:
        calls.append(proof.offset)
        raise error

    with pytest.raises(type(error)) as caught:
        deliver(FetchPool(FOUR), item, proofs_of(remote.data["a"], [200 * KIB]), remote.read, sink)

    assert caught.value is error
    assert len(calls) == len(set(calls)) <= FOUR.connections


def test_a_bug_in_the_sink_is_told() -> None:
    """A worker does not die in silence."""
    remote = Remote({"a": KIB})

    def sink(_: Proof, __: memoryview) -> None:
        raise ZeroDivisionError

    with pytest.raises(Exception, match="bug in servesync") as caught:
        deliver(FetchPool(FOUR), remote.objects[0], proofs_of(remote.data["a"], [KIB]), remote.read, sink)

    assert getattr(caught.value, "reason", None) is Reason.INTERNAL_ERROR


def test_a_sink_keeps_its_buffer_and_no_connection(beside: ThreadPoolExecutor) -> None:
    """While all buffers are in sinks nothing more is read; another stream still gets its share."""
    remote = Remote({"a": 3000 * KIB, "b": 600 * KIB})
    remote.may_weigh = FOUR.memory_bytes
    a, b = remote.objects
    go, inside = threading.Event(), threading.Semaphore(0)

    def before(_: int) -> None:
        inside.release()
        go.wait(60)

    taken = Taken(a.size, before)
    pool = FetchPool(FOUR.model_copy(update={"connections": 8}), patience_seconds=0.1)
    running = beside.submit(deliver, pool, a, proofs_of(remote.data["a"], [250 * KIB]), remote.read, taken)
    for _ in range(4):
        assert inside.acquire(timeout=60)
    assert len(remote.reads) == 4

    def second() -> bytes:
        with pool.stream([b], remote.read, never, AT_ONCE) as parts:
            return b"".join(bytes(piece) for _, piece in parts)

    other = beside.submit(second)
    go.set()

    assert other.result(60) == remote.data["b"]
    running.result(60)
    assert taken.data == remote.data["a"]
    assert remote.most_bytes <= remote.may_weigh


def test_a_cancel_ends_it_though_sinks_and_reads_hang() -> None:
    """At once; what hangs is abandoned, and its buffer is not used again before it has ended."""
    go, inside, stop = threading.Event(), threading.Semaphore(0), threading.Event()

    def hang(*_: object) -> None:
        inside.release()
        go.wait(600)

    def before(key: str, offset: int) -> None:
        if key == "a" and offset >= 1000 * KIB:
            hang()

    remote = Remote({"a": 2000 * KIB, "b": 900 * KIB}, before)
    a, b = remote.objects
    pool = FetchPool(FOUR)
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(
            deliver,
            pool,
            a,
            proofs_of(remote.data["a"], [250 * KIB])[2:6],
            remote.read,
            Taken(a.size, hang),
            should_stop=stop.is_set,
        )
        for _ in range(4):
            assert inside.acquire(timeout=60)
        stop.set()
        with pytest.raises(Stopped):
            running.result(300)
        held = set(remote.buffers)
        remote.buffers.clear()
        taken = Taken(b.size)
        later = threads.submit(deliver, pool, b, proofs_of(remote.data["b"], [250 * KIB]), remote.read, taken)
        later.result(60)
        go.set()

    assert taken.data == remote.data["b"]
    assert not held & remote.buffers


def test_a_read_that_never_ends_ends_the_delivery() -> None:
    """Whatever it is told."""
    go = threading.Event()

    def before(_: str, offset: int) -> None:
        if offset == 0:
            go.wait(60)

    remote = Remote({"a": 600 * KIB}, before)
    (item,) = remote.objects
    retries = Retries(silent_seconds=0.3, slowest_bytes_per_second=1 << 30)

    with pytest.raises(TransferError) as caught:
        deliver(
            FetchPool(FOUR),
            item,
            proofs_of(remote.data["a"], [200 * KIB]),
            remote.read,
            Taken(item.size),
            retries=retries,
        )
    go.set()

    assert caught.value.reason is Reason.TRANSFER_TOO_SLOW


def test_no_thread_outlives_it() -> None:
    """Nor an error of it."""
    remote = Remote({"a": 900 * KIB})
    (item,) = remote.objects
    before = set(threading.enumerate())
    taken = Taken(item.size)
    deliver(FetchPool(FOUR), item, proofs_of(remote.data["a"], [99 * KIB]), remote.read, taken)

    assert taken.threads
    for thread in set(threading.enumerate()) - before:
        thread.join(60)
        assert not thread.is_alive()
