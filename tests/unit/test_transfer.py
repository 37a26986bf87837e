"""The transfer job: what it leaves in staging, what it takes away again, and whom it blames."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

import archives as a
from framed_releases import archive_of, compressed, frames_of, release_of
from servesync.domain import channel, manifest
from servesync.domain.manifest import SCHEMA_1
from servesync.domain.versions import ProvenBy, Release
from servesync.errors import CheckFailed, DiskError, Reason, Stopped, SyncError, TransferError
from servesync.install import Shelf, interrupted
from servesync.planning.memory import weight_of
from servesync.settings import Signature, TensorSpec
from servesync.transfer.transfer import TransferOrder
from servesync.verify import Expectations
from transfer_box import SHARD, Context, M, TransferBox, crc32_of, flipped, manifest_of

LINK = a.gz(a.tar(a.link("saved_model.pb", "/etc/passwd")))
PAGE = b"<html><body>Please log in.</body></html>" + b" " * 700


@pytest.fixture
def box(tmp_path: Path) -> TransferBox:
    """A store and a staging directory."""
    return TransferBox(tmp_path)


def offers(box: TransferBox) -> dict[str, Callable[[], Release]]:
    """Return every way in which the good version may be offered."""
    gz = a.tar_gz(box.files)
    numbered = a.tar_gz({f"0000001/{path}": data for path, data in box.files.items()})
    return {
        "archive": lambda: box.archive(gz),
        "numbered": lambda: box.archive(numbered),
        "checksum": lambda: box.archive(gz, checksum=crc32_of(gz)),
        "manifest": lambda: box.archive(gz, manifest=manifest_of(gz, box.files)),
        "frames": box.frames,
        "frames of schema 1": lambda: box.frames(SCHEMA_1),
        "directory": box.directory,
    }


PROOFS = {
    "manifest": ProvenBy.MANIFEST,
    "frames": ProvenBy.MANIFEST,
    "frames of schema 1": ProvenBy.MANIFEST,
    "checksum": ProvenBy.STORE_CHECKSUM,
}
WAYS = ["archive", "numbered", "checksum", "manifest", "frames", "frames of schema 1", "directory"]


@pytest.mark.parametrize("way", WAYS)
def test_a_version_lies_in_staging_when_the_job_ends(box: TransferBox, way: str) -> None:
    """The tree of the attempt is the version, with the stamps under which it may be installed."""
    release = offers(box)[way]()

    staged = box.stage(release)

    assert dict(box.staged_files(staged.tree)) == box.files
    assert box.left() == [staged.tree.parent.name]
    assert staged.tree.parent.parent == box.workspace.staging
    assert staged.proven.by is PROOFS.get(way, ProvenBy.NOTHING)
    assert staged.proven.stamps.keys() == box.files.keys()
    sizes = [(path, len(data)) for path, data in box.files.items()]
    assert staged.weight == weight_of(sizes, staged.proven.tensor_bytes)
    assert (staged.release, staged.adoptable) == (release, None)


@pytest.mark.parametrize("way", WAYS)
def test_a_cancel_is_heeded_at_every_look(box: TransferBox, way: str) -> None:
    """Wherever it comes, the job ends with `Stopped`; only pieces that have digests are kept, with a note."""
    release = offers(box)[way]()
    looks = 0
    while True:
        looks += 1
        try:
            staged = box.stage(release, Context(cancel_at=looks))
        except Stopped:
            kept = interrupted(box.workspace)
            assert box.left() == [item.tree.parent.name for item in kept]
            assert not kept or way == "frames"
            for item in kept:
                box.workspace.end_attempt(item.tree)
        else:
            break

    assert looks > 10
    assert box.left() == [staged.tree.parent.name]


class Started:
    """A job in a thread of its own."""

    def __init__(self, box: TransferBox, order: TransferOrder) -> None:
        self.context = Context()
        self.errors: list[SyncError] = []
        self._thread = threading.Thread(target=self._run, args=(box, order), daemon=True)
        self._thread.start()

    def _run(self, box: TransferBox, order: TransferOrder) -> None:
        try:
            box.transfers.run(order, self.context)
        except SyncError as error:
            self.errors.append(error)

    def cancel(self) -> SyncError:
        """Cancel it, and return how it ended."""
        self.context.cancel()
        self._thread.join(30)
        assert not self._thread.is_alive()
        return self.errors[0]


def test_a_store_that_does_not_answer_holds_up_no_cancel(box: TransferBox) -> None:
    """The request is left behind."""
    box.store.hold.clear()
    job = Started(box, TransferOrder(box.archive(), Expectations()))
    assert box.store.is_asked.wait(30)

    error = job.cancel()

    assert isinstance(error, Stopped)
    assert box.left() == []
    box.store.hold.set()


def test_a_read_that_hangs_holds_up_no_cancel(box: TransferBox) -> None:
    """Nor does it keep the staging."""
    hold, asked = threading.Event(), threading.Event()

    def way(_: str, data: bytes) -> bytes:
        asked.set()
        hold.wait(60)
        return data

    box.store.way = way
    job = Started(box, TransferOrder(box.archive(), Expectations()))
    assert asked.wait(30)

    error = job.cancel()

    assert isinstance(error, Stopped)
    assert box.left() == []
    hold.set()


def test_another_trial_holds_up_no_cancel(tmp_path: Path) -> None:
    """One version at a time is loaded on trial; who waits can be cancelled."""
    box = TransferBox(tmp_path, verify={"level": "load"})
    with box.transfers.trial:
        fetched = threading.Event()
        context_looks = Started(box, TransferOrder(box.archive(), Expectations()))
        while not fetched.wait(0.05):
            if box.left() and context_looks.context.looks > 20:
                fetched.set()

        error = context_looks.cancel()

    assert isinstance(error, Stopped)
    assert box.left() == []


# -- who is to blame -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """How a release is damaged, and what comes of it."""

    offer: Callable[[TransferBox], Release]
    reason: Reason
    in_transit: bool
    way: Callable[[str, bytes], bytes] = lambda _key, data: data


def middle_flipped(_: str, data: bytes) -> bytes:
    """Turn a bit in the middle of an object, on its way."""
    return flipped(data, len(data) // 2)


def shard_flipped(key: str, data: bytes) -> bytes:
    """Turn a bit in the tensors of a directory, on its way."""
    return flipped(data, 1000) if key.endswith(SHARD) else data


def manifest_flipped(key: str, data: bytes) -> bytes:
    """Turn a bit in the manifest, on its way."""
    return flipped(data, 100) if key.endswith(".json") else data


def _gz(box: TransferBox) -> bytes:
    return a.tar_gz(box.files)


def _cut(box: TransferBox) -> bytes:
    return _gz(box)[:-900]


def _wrong_tensor(box: TransferBox) -> dict[str, bytes]:
    return box.files | {SHARD: flipped(box.files[SHARD], 1000)}


def _wrong_warmup(box: TransferBox) -> dict[str, bytes]:
    return box.files | {"assets.extra/tf_serving_warmup_requests": b"no length, no checksum"}


def _withdrawal() -> bytes:
    return channel.dump(
        channel.Withdrawal(model=M, version=1, time="2026-01-02T03:04:05Z", who="me", reason="wrong")
    )


def _vouched(box: TransferBox, data: bytes) -> Release:
    """Offer bytes that the store has a checksum of: they are what was uploaded."""
    return box.archive(data, checksum=crc32_of(data))


def _lying(box: TransferBox) -> Release:
    """Offer frames the first of which holds something else than its manifest says."""
    first, *rest = frames_of(box.files)
    other = replace(first, stored=compressed(first.plain[::-1]))
    data, found = archive_of([other, *rest], box.files)
    return box.framed(data, manifest.dump(found))


CASES = {
    "a turned bit": Case(lambda box: box.archive(_gz(box)), Reason.ARCHIVE_CORRUPT, True, middle_flipped),
    "a cut archive": Case(lambda box: box.archive(_cut(box)), Reason.ARCHIVE_TRUNCATED, True),
    "a page": Case(lambda box: box.archive(PAGE), Reason.ARCHIVE_FORMAT, True),
    "a link": Case(lambda box: box.archive(LINK), Reason.ARCHIVE_LINK, False),
    "vouched: a turned bit": Case(
        lambda box: _vouched(box, _gz(box)), Reason.ARCHIVE_CORRUPT, True, middle_flipped
    ),
    "vouched: a cut archive": Case(lambda box: _vouched(box, _cut(box)), Reason.ARCHIVE_TRUNCATED, False),
    "vouched: a page": Case(lambda box: _vouched(box, PAGE), Reason.ARCHIVE_FORMAT, False),
    "another checksum": Case(
        lambda box: box.archive(_gz(box), checksum=crc32_of(b"")), Reason.OBJECT_CHECKSUM, True
    ),
    "manifest: a turned bit": Case(
        lambda box: box.archive(_gz(box), manifest=manifest_of(_gz(box), box.files)),
        Reason.PART_DIFFERS,
        True,
        lambda key, data: data if key.endswith(".json") else middle_flipped(key, data),
    ),
    "manifest: a cut archive": Case(
        lambda box: box.archive(_cut(box), manifest=manifest_of(_cut(box), box.files)),
        Reason.ARCHIVE_TRUNCATED,
        False,
    ),
    "manifest: other files": Case(
        lambda box: box.archive(_gz(box), manifest=manifest_of(_gz(box), box.files | {"x": b""})),
        Reason.CONTENT_DIFFERS,
        False,
    ),
    "frames: a turned bit": Case(
        lambda box: box.frames(),
        Reason.PART_DIFFERS,
        True,
        lambda key, data: data if key.endswith(".json") else middle_flipped(key, data),
    ),
    "frames: other bytes than the manifest's": Case(_lying, Reason.CONTENT_DIFFERS, False),
    "frames: a wrong tensor": Case(
        lambda box: box.framed(*release_of(_wrong_tensor(box))), Reason.TENSOR_CHECKSUM, False
    ),
    "a turned bit in the manifest": Case(
        lambda box: box.archive(_gz(box), manifest=manifest_of(_gz(box), box.files)),
        Reason.MANIFEST_INVALID,
        True,
        manifest_flipped,
    ),
    "a withdrawal": Case(lambda box: box.archive(manifest=_withdrawal()), Reason.VERSION_WITHDRAWN, False),
    "tar: a wrong tensor": Case(
        lambda box: box.archive(a.tar_tree(_wrong_tensor(box))), Reason.TENSOR_CHECKSUM, True
    ),
    "vouched tar: a wrong tensor": Case(
        lambda box: _vouched(box, a.tar_tree(_wrong_tensor(box))), Reason.TENSOR_CHECKSUM, False
    ),
    "tar.gz: a wrong tensor": Case(
        lambda box: box.archive(a.tar_gz(_wrong_tensor(box))), Reason.TENSOR_CHECKSUM, False
    ),
    "tar.zst: a wrong tensor": Case(
        lambda box: box.archive(a.tar_zst(_wrong_tensor(box))), Reason.TENSOR_CHECKSUM, False
    ),
    "tar: a damaged warm-up file": Case(
        lambda box: box.archive(a.tar_tree(_wrong_warmup(box))), Reason.WARMUP_INVALID, True
    ),
    "tar.gz: a damaged warm-up file": Case(
        lambda box: box.archive(a.tar_gz(_wrong_warmup(box))), Reason.WARMUP_INVALID, False
    ),
    "directory: a turned bit": Case(lambda box: box.directory(), Reason.TENSOR_CHECKSUM, True, shard_flipped),
    "directory: a missing file": Case(
        lambda box: box.directory({path: data for path, data in box.files.items() if path != SHARD}),
        Reason.VARIABLES_SHARD_MISSING,
        False,
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_the_way_is_blamed_where_nothing_vouches_for_the_bytes(box: TransferBox, case: Case) -> None:
    """And only for what damage brings about; staging is empty after each of them."""
    box.store.way = case.way

    error = box.refusal(case.offer(box))

    assert (error.reason, error.in_transit) == (case.reason, case.in_transit)


def test_a_limit_is_not_the_ways_fault(tmp_path: Path) -> None:
    """Nor anything that the listing tells."""
    box = TransferBox(tmp_path, limits={"max_archive_bytes": 2000})

    error = box.refusal(box.archive())

    assert (error.reason, error.in_transit) == (Reason.RELEASE_TOO_BIG, False)
    assert box.store.reads == []


def test_a_manifest_to_come_is_waited_for(box: TransferBox) -> None:
    """The publisher has said that there will be one."""
    box.store.manifest_to_come = True

    error = box.refusal(box.archive())

    assert (error.reason, error.in_transit) == (Reason.RELEASE_INCOMPLETE, False)


# -- errors that are nobody's fault ----------------------------------------------------------------------


def test_a_store_that_fails_leaves_nothing(box: TransferBox) -> None:
    """What was written before is gone."""

    def way(_: str, data: bytes) -> bytes:
        if len(box.store.reads) > 3:
            raise TransferError(Reason.OBJECT_CHANGED, "replaced")
        return data

    box.store.way = way
    with pytest.raises(TransferError, match="replaced"):
        box.stage(box.archive())

    assert box.left() == []


def test_a_disk_that_fails_leaves_nothing(box: TransferBox) -> None:
    """The error is one that people can read, and says what was being done."""
    release = box.archive()
    box.workspace.staging.rmdir()
    box.workspace.staging.touch()

    with pytest.raises(DiskError, match="bringing m 1"):
        box.stage(release)


def test_signatures_that_are_not_known_leave_nothing(box: TransferBox) -> None:
    """Those of the served version could not be read: it is not the release's fault."""
    unknown = CheckFailed(Reason.VERSION_DAMAGED, "cannot be read")

    with pytest.raises(CheckFailed, match="cannot be read"):
        box.transfers.run(TransferOrder(box.archive(), unknown), Context())

    assert box.left() == []


def test_signatures_that_clients_rely_on_must_be_there(box: TransferBox) -> None:
    """The gzip stream vouches for the graph, so it is the release's fault."""
    spec = TensorSpec(dtype="float32", shape=[1])
    wanted = {"serving_default": Signature(inputs={"x": spec}, outputs={"y": spec})}

    with pytest.raises(SyncError) as caught:
        box.transfers.run(TransferOrder(box.archive(), Expectations(signatures=wanted)), Context())

    assert caught.value.reason is Reason.SIGNATURE_DIFFERS
    assert not caught.value.in_transit


# -- space -----------------------------------------------------------------------------------------------


def test_room_is_asked_for_before_the_first_byte(tmp_path: Path) -> None:
    """And the error is raised when there is none to be made."""
    box = TransferBox(tmp_path, limits={"disk_reserve_bytes": 1 << 42})
    context = Context()

    with pytest.raises(DiskError) as caught:
        box.stage(box.archive(), context)

    assert caught.value.reason is Reason.DISK_FULL
    assert context.asked == [caught.value]
    assert box.store.reads == []
    assert box.left() == []


def test_a_cancel_while_room_is_made_is_heeded(tmp_path: Path) -> None:
    """The decider may take its time."""
    box = TransferBox(tmp_path, limits={"disk_reserve_bytes": 1 << 42})
    context = Context()

    def room(_: DiskError) -> bool:
        raise Stopped

    context.room = room
    with pytest.raises(Stopped):
        box.stage(box.archive(), context)

    assert box.left() == []


# -- what lies on the shelf ------------------------------------------------------------------------------


@pytest.mark.parametrize("is_same", [True, False])
def test_what_lies_on_the_shelf_is_compared(box: TransferBox, is_same: bool) -> None:  # noqa: FBT001 (a case)
    """Under which stamps it is the same; nothing on the shelf is changed."""
    folder = Shelf(box.workspace, M).path / "1"
    for path, data in box.files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data if is_same else data + b"x")

    staged = box.stage(box.archive(), present=True)

    assert (staged.adoptable is not None) is is_same
    if staged.adoptable is not None:
        assert staged.adoptable.keys() == box.files.keys()


def test_what_has_left_the_shelf_is_not_adoptable(box: TransferBox) -> None:
    """Somebody moved it away meanwhile."""
    assert box.stage(box.archive(), present=True).adoptable is None


def test_new_settings_share_the_trial_and_the_space(box: TransferBox) -> None:
    """A transfer that began under the old ones still counts."""
    other = box.transfers.renewed(box.settings, box.store, box.transfers.pool)

    assert other.trial is box.transfers.trial
    assert other.guard is box.transfers.guard
