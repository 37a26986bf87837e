"""The stream of parts: in order, bounded, and gone without a trace when something ends it."""

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remote_objects import AT_ONCE, KIB, Remote, never, proofs_of
from servesync.domain.versions import StoredObject
from servesync.errors import Reason, ReleaseRefused, Stopped, StoreError, SyncError, TransferError
from servesync.fetch import Read, Retries, stream
from servesync.settings import Fetch

SMALL = Fetch(connections=4, part_bytes=64 * KIB, memory_bytes=1024 * KIB)


def collect(
    objects: Sequence[StoredObject], read: Read, fetch: Fetch = SMALL, should_stop: Callable[[], bool] = never
) -> dict[str, bytes]:
    """Read everything into memory, in the order in which it comes."""
    found: dict[str, bytearray] = {}
    with stream(objects, read, fetch, should_stop, AT_ONCE) as parts:
        for item, piece in parts:
            found.setdefault(item.key, bytearray()).extend(piece)
    return {key: bytes(data) for key, data in found.items()}


@given(
    sizes=st.dictionaries(
        st.text("abc", min_size=1, max_size=3), st.integers(0, 400 * KIB), min_size=1, max_size=5
    ),
    connections=st.integers(1, 8),
    part=st.integers(64 * KIB, 300 * KIB),
)
@settings(max_examples=40, deadline=None)
def test_every_byte_comes_once_and_in_order(sizes: dict[str, int], connections: int, part: int) -> None:
    """Whatever the sizes, the parts and the number of workers."""
    remote = Remote(sizes)

    found = collect(
        remote.objects, remote.read, Fetch(connections=connections, part_bytes=part, memory_bytes=1024 * KIB)
    )

    assert found == remote.data
    assert list(found) == list(sizes)


def test_slow_first_parts_do_not_change_the_order() -> None:
    """Parts that are ready early wait for those before them."""
    remote = Remote({"a": 1000 * KIB}, lambda _, offset: time.sleep(0.05 if offset < 200 * KIB else 0))

    assert collect(remote.objects, remote.read) == remote.data
    assert remote.most_at_once > 1


def test_memory_is_what_the_settings_say() -> None:
    """However large the object, the buffers are few and used again."""
    remote = Remote({"a": 8192 * KIB})

    collect(remote.objects, remote.read, Fetch(connections=16, part_bytes=256 * KIB, memory_bytes=1024 * KIB))

    assert len(remote.buffers) <= 4


def test_an_empty_object_costs_no_request() -> None:
    """It still shows up, so that an empty file is made."""
    remote = Remote({"empty": 0, "a": 10})

    assert collect(remote.objects, remote.read) == {"empty": b"", "a": remote.data["a"]}
    assert remote.reads == [("a", 0, 10)]


@pytest.mark.parametrize("reason", [Reason.TRANSFER_BROKEN, Reason.TRANSFER_TOO_SLOW])
def test_what_may_pass_is_tried_again(reason: Reason) -> None:
    """A part that fails twice and then comes is nobody's business."""
    left = {0: 2, 128 * KIB: 2}

    def before(_: str, offset: int) -> None:
        if left.get(offset, 0):
            left[offset] -= 1
            raise TransferError(reason, "broken")

    remote = Remote({"a": 300 * KIB}, before)

    assert collect(remote.objects, remote.read) == remote.data


@pytest.mark.parametrize(
    ("error", "reads"),
    [
        (TransferError(Reason.TRANSFER_BROKEN, "x"), 4),
        (StoreError(Reason.STORE_THROTTLED, "x"), 4),
        (TransferError(Reason.OBJECT_CHANGED, "x"), 1),
        (TransferError(Reason.OBJECT_GONE, "x"), 1),
        (StoreError(Reason.STORE_DENIED, "x"), 1),
        (StoreError(Reason.STORE_BAD_ANSWER, "x"), 1),
    ],
)
def test_what_stays_ends_the_stream(error: SyncError, reads: int) -> None:
    """Repeats are bounded, and what no repeat can mend is not repeated."""

    def before(_: str, offset: int) -> None:
        if offset == 0:
            raise error

    remote = Remote({"a": 64 * KIB}, before)

    with pytest.raises(type(error)) as caught:
        collect(remote.objects, remote.read)

    assert caught.value.reason is error.reason
    assert len(remote.reads) == reads


def test_a_bug_in_a_worker_is_told() -> None:
    """A worker that dies of something unforeseen does not leave the consumer waiting."""

    def before(_: str, offset: int) -> None:
        raise ZeroDivisionError

    remote = Remote({"a": 64 * KIB}, before)

    with pytest.raises(SyncError, match="ZeroDivisionError"):
        collect(remote.objects, remote.read)


def test_a_stop_ends_the_stream() -> None:
    """Stopped is raised, though parts are still to come."""
    stop = threading.Event()
    remote = Remote({"a": 4096 * KIB}, lambda _, offset: stop.set() if offset > 1000 * KIB else None)

    with pytest.raises(Stopped):
        collect(remote.objects, remote.read, should_stop=stop.is_set)


def test_nothing_outlives_two_hundred_failures() -> None:
    """No thread and no descriptor is left behind by streams that fail or are abandoned."""

    def before(_: str, offset: int) -> None:
        if offset > 100 * KIB:
            raise TransferError(Reason.OBJECT_GONE, "x")

    remote = Remote({"a": 600 * KIB}, before)
    threads, handles = threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))

    for number in range(200):
        with stream(remote.objects, remote.read, SMALL, never, AT_ONCE) as parts:
            if number % 2:
                with pytest.raises(TransferError):
                    list(parts)
            else:
                with contextlib.suppress(TransferError):
                    next(parts)

    assert threading.active_count() <= threads
    assert len(list(Path("/proc/self/fd").iterdir())) <= handles


def test_a_machine_without_threads_is_told() -> None:
    """No thread can be started: an error that says what to raise, and no worker is left."""
    remote = Remote({"a": 64 * KIB})
    before = threading.active_count()
    threading.stack_size(1 << 46)  # more than there is to address
    try:
        with pytest.raises(TransferError, match="thread"):
            collect(remote.objects, remote.read)
    finally:
        threading.stack_size(0)

    assert threading.active_count() <= before


def test_a_read_that_hangs_is_given_up() -> None:
    """A read that neither returns nor fails does not hold the stream for ever."""
    release = threading.Event()

    def before(_: str, offset: int) -> None:
        release.wait(60)

    remote = Remote({"a": 64 * KIB}, before)
    short = Retries(attempts=1, silent_seconds=0.1, slowest_bytes_per_second=1 << 30)

    with (
        pytest.raises(TransferError) as caught,
        stream(remote.objects, remote.read, SMALL, never, short) as parts,
    ):
        next(parts)
    release.set()

    assert caught.value.reason is Reason.TRANSFER_TOO_SLOW


def test_a_rate_limit_cuts_parts_and_spreads_them() -> None:
    """Under a limit parts are small, so that the limit holds over short times too."""
    remote = Remote({"a": 512 * KIB})
    limited = Fetch(
        connections=4, part_bytes=8192 * KIB, memory_bytes=16384 * KIB, max_bytes_per_second=2048 * KIB
    )

    assert collect(remote.objects, remote.read, limited) == remote.data

    assert max(length for _, _, length in remote.reads) <= 512 * KIB


@given(
    size=st.integers(1, 900 * KIB),
    cuts=st.lists(st.integers(1, 300 * KIB), min_size=1, max_size=4),
    connections=st.integers(1, 8),
)
@settings(max_examples=40, deadline=None)
def test_proven_parts_give_the_same_bytes(size: int, cuts: list[int], connections: int) -> None:
    """Small ranges are read together, large ones alone, and no read ends within one."""
    remote = Remote({"a": size})
    proofs = proofs_of(remote.data["a"], [max(cut, size // 200) for cut in cuts])
    fetch = Fetch(connections=connections, part_bytes=64 * KIB, memory_bytes=1024 * KIB)
    found = bytearray()
    with stream(remote.objects, remote.read, fetch, never, AT_ONCE, proofs) as parts:
        for _, piece in parts:
            found += piece

    assert bytes(found) == remote.data["a"]
    assert {offset for _, offset, _ in remote.reads} <= {proof.offset for proof in proofs}
    largest = max(64 * KIB, *(proof.size for proof in proofs))
    assert all(length <= largest for _, _, length in remote.reads)


@pytest.mark.parametrize("times", [1, 2])
def test_a_part_that_differs_is_read_twice_and_never_handed_on(times: int) -> None:
    """A bit that turned on the way is read again; one that is in the store refuses the release."""
    remote = Remote({"a": 400 * KIB})
    proofs = proofs_of(remote.data["a"], [50 * KIB])
    right = remote.read
    bad: list[int] = []

    def read(
        item: StoredObject, offset: int, length: int, buffer: memoryview, stop: Callable[[], bool]
    ) -> None:
        right(item, offset, length, buffer, stop)
        if offset <= 120 * KIB < offset + length and len(bad) < times:
            bad.append(offset)
            buffer[120 * KIB - offset] ^= 1

    found = bytearray()

    def take_all() -> None:
        with stream(remote.objects, read, SMALL, never, AT_ONCE, proofs) as parts:
            for _, piece in parts:
                found.extend(piece)

    if times == 1:
        take_all()
        assert bytes(found) == remote.data["a"]
        return
    with pytest.raises(ReleaseRefused) as caught:
        take_all()

    assert caught.value.reason is Reason.PART_DIFFERS
    assert "bytes 102400 to 153600" in str(caught.value)
    assert remote.data["a"].startswith(bytes(found))
