"""The job that stages one version: it fetches, unpacks, proves and syncs the version in one pass.

The job reads no shared state and changes nothing outside its own attempt folder. The decider decides whether
the result still counts when it takes the result in.
"""

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Final

from structlog.contextvars import bound_contextvars

from servesync import disk
from servesync.admin import AgentStatus, Counting, Stage
from servesync.domain import manifest
from servesync.domain.manifest import Manifest
from servesync.domain.versions import Layout, Proof, ProvenBy, Release, Stamp, StoredObject
from servesync.errors import CheckFailed, Reason, ReleaseRefused, Stopped, SyncError
from servesync.fetch import FetchPool
from servesync.install import Proven, Shelf, Workspace, prove_staged, seal
from servesync.jobs import JobContext, ask_beside
from servesync.logs import Event, get_logger
from servesync.planning.memory import weight_of
from servesync.settings import Settings
from servesync.store import Running, StorePort
from servesync.transfer.disk_guard import DiskGuard, Reservation, needed_by
from servesync.transfer.manifests import read_manifest
from servesync.transfer.piecing import Pieces
from servesync.transfer.progress import Report, Reporter
from servesync.transfer.transit import OF_DAMAGED_ARCHIVES, may_be_transit
from servesync.transfer.verification import verify_tree
from servesync.unpack import Unpacked, unpack_archive, unpack_objects
from servesync.verify import Expectations

SLICE_BYTES: Final = 256 << 10
"""How many bytes are unpacked between two checks of the free space and of a request to stop."""

FREE_RETRIES: Final = 3
"""How many attempts may fail for a temporary cause, such as a busy machine, before it refuses a version."""


@dataclass(frozen=True, slots=True)
class TransferOrder:
    """What a transfer needs to know; the decider fills it in when it starts the job.

    `expected`: the signatures that clients rely on, or why they are not known. `patient`: a temporary cause,
    such as a busy machine, does not refuse the version yet. `present`: the shelf has a directory of this
    number that is not known to be ours, and the job compares it. `first`: it goes before other transfers.
    """

    release: Release
    expected: Expectations | CheckFailed
    patient: bool = False
    present: bool = False
    first: bool = False


@dataclass(frozen=True, slots=True)
class Staged:
    """A version that lies in staging, proven and durable.

    `tree`: the directory of the attempt, which is the version. `weight`: bytes in the server's memory.
    `adoptable`: the stamps under which the directory on the shelf was found to be the same; None: it differs,
    or was not asked for.
    """

    tree: Path
    release: Release
    proven: Proven
    weight: int
    adoptable: Mapping[str, Stamp] | None = None


@dataclass(frozen=True, slots=True)
class Transfers:
    """What the transfers of one agent share. `run` may be at work in several threads at once.

    `trial`: held by the transfer that loads a version on trial.
    """

    settings: Settings
    store: StorePort
    pool: FetchPool
    workspace: Workspace
    guard: DiskGuard
    agent_status: AgentStatus
    reporter: Reporter
    trial: threading.Lock = field(default_factory=threading.Lock)

    def renewed(self, settings: Settings, store: StorePort, pool: FetchPool) -> "Transfers":
        """Return the same with new settings; one trial at a time and the free space stay common to both."""
        return replace(self, settings=settings, store=store, pool=pool)

    def run(self, order: TransferOrder, context: JobContext) -> Staged:
        """Stage a release in a new attempt folder, prove it as far as settings ask, and make it durable.

        The folder stays for whoever gets the result; after any error it is removed.

        Raises:
            ReleaseRefused: it is damaged or unsafe; `in_transit`: perhaps it was damaged in transit.
            CheckFailed: this machine could not make a proof.
            StoreError, TransferError: the store did not give its bytes.
            DiskError: the disk refused, has not enough space, or somebody else changes the staging directory.
            Stopped: the job was cancelled.
        """
        release = order.release
        doing = f"bringing {release.model} {release.version}"
        with bound_contextvars(model=release.model, version=release.version), disk.described(doing):
            tree = self.workspace.begin_attempt()
            try:
                return _Transfer(self, order, context, tree).stage()
            except BaseException:
                self.workspace.end_attempt(tree)
                raise


@dataclass(frozen=True, slots=True)
class _Proofs:
    """What vouches for the stored bytes, known before the first of them arrives."""

    manifest: Manifest | None = None
    checksum: Running | None = None

    @property
    def parts(self) -> Sequence[Proof]:
        return self.manifest.archive.proofs if self.manifest else ()

    @property
    def kind(self) -> ProvenBy:
        if self.manifest:
            return ProvenBy.MANIFEST
        return ProvenBy.STORE_CHECKSUM if self.checksum else ProvenBy.NOTHING


class _Transfer:
    """One run of the job."""

    def __init__(self, shared: Transfers, order: TransferOrder, context: JobContext, tree: Path) -> None:
        self._shared = shared
        self._settings = shared.settings
        self._order = order
        self._release = order.release
        self._context = context
        self._tree = tree
        self._is_confirmed = False
        """Whether something vouches for every byte that has been read so far."""

    def stage(self) -> Staged:
        """Return the staged version. Raises as `Transfers.run` does."""
        try:
            self._check_stored_size()
            proofs = self._find_proofs()
            unpacked = self._fetch(proofs)
            proven = self._prove(unpacked, proofs.kind)
        except ReleaseRefused as error:
            error.in_transit = may_be_transit(error, is_confirmed=self._is_confirmed)
            raise
        return self._finish(unpacked, proven, proofs.manifest)

    def _check_stored_size(self) -> None:
        limit, stored = self._settings.limits.max_archive_bytes, self._release.stored_bytes
        if stored > limit:
            text = (
                f"{self._release.objects[0].key!a}: {stored} bytes in the store, more than "
                f"limits.max_archive_bytes ({limit}); raise the limit if this size is right"
            )
            raise ReleaseRefused(Reason.RELEASE_TOO_BIG, text, stored_bytes=stored)

    # -- what vouches for the bytes --------------------------------------------------------------------

    def _find_proofs(self) -> _Proofs:
        release = self._release
        if release.manifest is not None:
            return _Proofs(manifest=read_manifest(release, release.manifest, self._read_whole))
        if release.layout is Layout.DIRECTORY:
            return _Proofs()
        (archive,) = release.objects
        facts = ask_beside(lambda: self._shared.store.describe(archive), self._context.check)
        if facts.manifest_to_come:
            text = (
                f"{archive.key!a} was published with a manifest, which is not there (yet): if it stays away, "
                "run `servesync publish` again"
            )
            raise ReleaseRefused(Reason.RELEASE_INCOMPLETE, text)
        return _Proofs(checksum=facts.checksum.start() if facts.checksum else None)

    def _read_whole(self, item: StoredObject) -> bytes:
        return self._shared.pool.read_whole(item, self._shared.store.read, self._context.should_stop)

    # -- fetching and unpacking ------------------------------------------------------------------------

    def _fetch(self, proofs: _Proofs) -> Unpacked:
        """Bring the release's bytes into the tree in one pass; no archive ever lies on the disk."""
        release, started = self._release, time.monotonic()
        needed = needed_by(release, proofs.manifest, self._settings.limits)
        # each part is proven before it is handed on, so later errors cannot come from the transfer
        self._is_confirmed = proofs.manifest is not None
        with self._shared.guard.reserve(needed, self._settings.limits, self._context.make_room) as space:
            unpacked = self._unpack(proofs, space)
        if proofs.manifest:
            manifest.compare(proofs.manifest, unpacked.content)
        if proofs.checksum:
            proofs.checksum.check(release.objects[0].key)
            self._is_confirmed = True
        self._is_confirmed |= unpacked.is_checksummed
        seconds = time.monotonic() - started
        get_logger().info(
            Event.VERSION_FETCHED,
            stored_bytes=release.stored_bytes,
            unpacked_bytes=unpacked.content.total_bytes,
            files=len(unpacked.content.files),
            seconds=round(seconds, 3),
            mb_per_second=round(release.stored_bytes / 1e6 / max(seconds, 1e-3), 1),
            proof=proofs.kind,
        )
        return unpacked

    def _unpack(self, proofs: _Proofs, space: Reservation) -> Unpacked:
        release, shared = self._release, self._shared
        with (
            shared.agent_status.stage(
                Stage.FETCH, release.model, release.version, release.stored_bytes
            ) as count,
            shared.reporter(release) as report,
            shared.pool.stream(
                release.objects,
                shared.store.read,
                self._context.should_stop,
                proofs=proofs.parts,
                first=self._order.first,
            ) as parts,
        ):
            watched = self._watched(parts, (report, count), proofs.checksum, space)
            try:
                return self._write(watched, proofs, space)
            except ReleaseRefused as error:
                if proofs.checksum and error.reason in OF_DAMAGED_ARCHIVES:
                    self._is_confirmed = self._is_rest_right(watched, proofs.checksum)
                raise

    def _write(
        self, watched: Iterator[tuple[StoredObject, memoryview]], proofs: _Proofs, space: Reservation
    ) -> Unpacked:
        release, limits = self._release, self._settings.limits
        if release.layout is Layout.ARCHIVE:
            return unpack_archive(
                (piece for _, piece in watched),
                self._tree,
                release.version,
                limits,
                archive_bytes=release.stored_bytes,
                promised_bytes=proofs.manifest.totals.bytes if proofs.manifest else None,
                wrote=space.wrote,
            )
        each = groupby(watched, key=itemgetter(0))
        objects = ((item, (piece for _, piece in group)) for item, group in each)
        return unpack_objects(objects, self._tree, limits, space.wrote)

    def _watched(
        self,
        parts: Iterator[tuple[StoredObject, memoryview]],
        reports: Sequence[Report | Counting],
        checksum: Running | None,
        space: Reservation,
    ) -> Iterator[tuple[StoredObject, memoryview]]:
        """Pass the bytes on in slices, reporting progress, and keeping the disk's reserve free."""
        done = 0
        for item, part in parts:
            if checksum:
                checksum.update(part)
            for start in range(0, max(1, len(part)), SLICE_BYTES):
                piece = part[start : start + SLICE_BYTES]
                yield item, piece
                done += len(piece)
                for report in reports:
                    report(done)
                self._context.check()
                space.check()

    def _is_rest_right(self, watched: Iterator[tuple[StoredObject, memoryview]], checksum: Running) -> bool:
        """Read a damaged archive to its end; return whether it is damaged in the store, too.

        Raises:
            Stopped: the job was cancelled.
        """
        try:
            for _ in watched:
                pass
            checksum.check(self._release.objects[0].key)
        except Stopped:
            raise
        except (SyncError, OSError):
            return False
        return True

    # -- proving the version ---------------------------------------------------------------------------

    def _prove(self, unpacked: Unpacked, by: ProvenBy) -> Proven:
        """Prove the tree as far as settings ask."""
        release, check = self._release, self._context.check
        with self._shared.agent_status.stage(Stage.VERIFY, release.model, release.version):
            try:
                tensor_bytes, signatures = verify_tree(
                    unpacked.root,
                    self._settings.verify,
                    self._order.expected,
                    self._shared.trial,
                    check,
                    patient=self._order.patient,
                )
            except (ReleaseRefused, OSError):
                # nobody blames the release for what somebody else did to its files
                prove_staged(unpacked.root, unpacked.content, unpacked.stamps, check)
                raise
        at = datetime.now(UTC)
        return Proven(unpacked.content, tensor_bytes, by, at, signatures, unpacked.stamps)

    # -- the end ---------------------------------------------------------------------------------------

    def _finish(self, unpacked: Unpacked, proven: Proven, found: Manifest | None) -> Staged:
        """Make the tree durable, with a table of its pieces, and compare it with the shelf's if requested."""
        release, check = self._release, self._context.check
        self._lift(unpacked.root)
        files = ((file.path, file.size) for file in proven.content.files)
        weight = weight_of(files, proven.tensor_bytes)
        with Pieces(self._tree, proven.content, found) as pieces:
            proven = seal(self._tree, release, proven, check)
            pieces.write(check)
        adoptable = None
        if self._order.present:
            shelf = Shelf(self._shared.workspace, release.model)
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):  # gone, or no version any more
                adoptable = shelf.same_content(release.version, proven.content, check)
        check()
        return Staged(self._tree, release, proven, weight, adoptable)

    def _lift(self, root: Path) -> None:
        """Move the version up to be the tree itself, if it lies in a numbered folder of the tree."""
        if root == self._tree:
            return
        aside = self._tree.with_name("version")
        disk.rename_noreplace(root, aside)
        disk.remove_tree(self._tree)
        disk.rename_noreplace(aside, self._tree)
