"""The job that stages one version: it fetches, unpacks, proves and syncs the version in one pass.

The job reads no shared state and changes nothing outside its own attempt folder. The decider decides whether
the result still counts when it takes the result in.
"""

import contextlib
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from structlog.contextvars import bound_contextvars

from servesync import disk
from servesync.admin import AgentStatus, Counting, Stage
from servesync.domain import manifest
from servesync.domain.manifest import SCHEMA_2, Manifest
from servesync.domain.versions import Layout, ProvenBy, Release, Stamp, StoredObject
from servesync.errors import CheckFailed, DiskError, Reason, ReleaseRefused
from servesync.fetch import FetchPool
from servesync.install import Proven, Shelf, Workspace, prove_staged, seal
from servesync.install.interrupted import allocated_bytes, clear_for, note
from servesync.jobs import JobContext, ask_beside
from servesync.logs import Event, get_logger
from servesync.planning.memory import weight_of
from servesync.settings import Settings
from servesync.store import StorePort
from servesync.transfer.carrier import Carrier
from servesync.transfer.disk_guard import DiskGuard, Reservation, SpaceNeeded, needed_by
from servesync.transfer.in_order import InOrder
from servesync.transfer.landing import Landing, can_land
from servesync.transfer.manifests import read_manifest
from servesync.transfer.piecing import Pieces
from servesync.transfer.progress import Report, Reporter
from servesync.transfer.proofs import Proofs
from servesync.transfer.sources.staging import is_kept_after
from servesync.transfer.sources.supply import Elsewhere
from servesync.transfer.sources.tally import Tally
from servesync.transfer.transit import may_be_transit
from servesync.transfer.verification import verify_tree
from servesync.unpack import Unpacked
from servesync.unpack.frames import Decoders
from servesync.verify import Expectations

FREE_RETRIES: Final = 3
"""How many attempts may fail for a temporary cause, such as a busy machine, before it refuses a version."""


@dataclass(frozen=True, slots=True)
class TransferOrder:
    """What a transfer needs to know; the decider fills it in when it starts the job.

    `expected`: the signatures that clients rely on, or why they are not known. `patient`: a temporary cause,
    such as a busy machine, does not refuse the version yet. `present`: the shelf has a directory of this
    number that is not known to be ours, and the job compares it. `first`: it goes before other transfers.
    `kept`: the tree in staging that an interrupted transfer of the same offer has left; this one goes on
    with it.
    """

    release: Release
    expected: Expectations | CheckFailed
    patient: bool = False
    present: bool = False
    first: bool = False
    kept: Path | None = None


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

    `trial`: held by the transfer that loads a version on trial. `elsewhere`: what may have bytes of releases
    besides the store and this machine's versions.
    """

    settings: Settings
    store: StorePort
    pool: FetchPool
    workspace: Workspace
    guard: DiskGuard
    agent_status: AgentStatus
    reporter: Reporter
    trial: threading.Lock = field(default_factory=threading.Lock)
    decoders: Decoders = field(default_factory=Decoders)
    elsewhere: Elsewhere = field(default_factory=Elsewhere)

    def renewed(self, settings: Settings, store: StorePort, pool: FetchPool) -> "Transfers":
        """Return the same with new settings; one trial at a time and the free space stay common to both."""
        elsewhere = self.elsewhere.renewed(self.settings, settings)
        return replace(self, settings=settings, store=store, pool=pool, elsewhere=elsewhere)

    def run(self, order: TransferOrder, context: JobContext) -> Staged:
        """Stage a release in an attempt folder, prove it as far as settings ask, and make it durable.

        The folder stays for whoever gets the result. After an error it is removed, unless it has a note and
        the next transfer of the same offer can go on with it (`is_kept_after`).

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
            if order.kept and not order.kept.is_dir():  # somebody removed it
                self.workspace.end_attempt(order.kept)
                order = replace(order, kept=None)
            tree = order.kept or self.workspace.begin_attempt()
            try:
                return _Transfer(self, order, context, tree).stage()
            except BaseException as error:
                if not is_kept_after(error, tree):
                    self.workspace.end_attempt(tree)
                raise


class _Transfer:
    """One run of the job."""

    def __init__(self, shared: Transfers, order: TransferOrder, context: JobContext, tree: Path) -> None:
        self._shared = shared
        self._settings = shared.settings
        self._order = order
        self._release = order.release
        self._context = context
        self._tree = tree
        self._tally = Tally(shared.agent_status.came_from)
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

    def _find_proofs(self) -> Proofs:
        release = self._release
        if release.manifest is not None:
            return Proofs(manifest=read_manifest(release, release.manifest, self._read_whole))
        if release.layout is Layout.DIRECTORY:
            return Proofs()
        (archive,) = release.objects
        facts = ask_beside(lambda: self._shared.store.describe(archive), self._context.check)
        if facts.manifest_to_come:
            text = (
                f"{archive.key!a} was published with a manifest, which is not there (yet): if it stays away, "
                "run `servesync publish` again"
            )
            raise ReleaseRefused(Reason.RELEASE_INCOMPLETE, text)
        return Proofs(checksum=facts.checksum.start() if facts.checksum else None)

    def _read_whole(self, item: StoredObject) -> bytes:
        return self._shared.pool.read_whole(item, self._shared.store.read, self._context.should_stop)

    # -- fetching and unpacking ------------------------------------------------------------------------

    def _fetch(self, proofs: Proofs) -> Unpacked:
        """Bring the release's bytes into the tree in one pass; no archive ever lies on the disk."""
        release, started = self._release, time.monotonic()
        needed = self._needed(proofs.manifest)
        # each part is proven before it is handed on, so later errors cannot come from the transfer
        self._is_confirmed = proofs.manifest is not None
        with self._shared.guard.reserve(needed, self._settings.limits, self._make_room) as space:
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
            sources=dict(self._tally.by_source()),
        )
        return unpacked

    def _needed(self, found: Manifest | None) -> SpaceNeeded:
        """Return what is still to be taken of the disk; a tree that was kept has some of it already."""
        needed = needed_by(self._release, found, self._settings.limits)
        if self._order.kept is None:
            return needed
        return replace(needed, bytes=max(0, needed.bytes - allocated_bytes(self._tree)))

    def _make_room(self, short: DiskError) -> bool:
        """Have the host's cache give way first, then what the agent can do without."""
        if self._shared.elsewhere.gives_way(self._shared.workspace, short):
            return True
        return self._context.make_room(short)

    def _unpack(self, proofs: Proofs, space: Reservation) -> Unpacked:
        release, shared = self._release, self._shared
        with (
            shared.agent_status.stage(
                Stage.FETCH, release.model, release.version, release.stored_bytes
            ) as count,
            shared.reporter(release) as report,
        ):
            if proofs.manifest and can_land(proofs.manifest):
                return self._land(proofs.manifest, (report, count), space)
            if self._order.kept:
                clear_for(self._tree, ())
            return self._in_order(proofs, (report, count), space)

    def _land(self, found: Manifest, reports: Sequence[Report | Counting], space: Reservation) -> Unpacked:
        """Bring a release in frames: its parts land in any order, each where it belongs."""
        shared, context = self._shared, self._context
        remote = shared.elsewhere.remote(shared.store.read, found, self._tally)
        carrier = Carrier(shared.pool, remote.read, context.should_stop, space.check, first=self._order.first)
        is_kept = self._order.kept is not None
        if is_kept:
            clear_for(self._tree, {file.path for file in found.files})
        local = shared.elsewhere.local(shared.workspace, found, self._tally, is_kept=is_kept)

        def tell(done: int) -> None:
            context.check()
            for report in reports:
                report(done)

        if found.schema_version == SCHEMA_2:  # without digests of pieces nobody could tell what has come
            note(self._tree, self._release)
        with Landing(
            self._tree,
            found,
            self._settings.limits,
            context.check,
            wrote=space.wrote,
            decoders=shared.decoders,
            is_kept=is_kept,
        ) as landing:
            space.check()
            archive, parts = self._release.objects[0], found.archive.parts
            # what is fetched comes first, so that nearly all else lands in order and is hashed from memory
            carrier.bring(archive, parts, landing, tell, only=local.lacking(parts))
            local.bring(parts, landing, tell, context.should_stop, space.check)
            carrier.bring(archive, parts, landing, tell)
            return landing.finish()

    def _in_order(self, proofs: Proofs, reports: Sequence[Report | Counting], space: Reservation) -> Unpacked:
        """Bring a release in the order of its bytes."""
        shared = self._shared
        ordered = InOrder(
            shared.pool,
            shared.elsewhere.remote(shared.store.read, proofs.manifest, self._tally).read,
            self._context,
            self._settings.limits,
            self._tree,
            first=self._order.first,
        )
        try:
            return ordered.bring(self._release, proofs, reports, space)
        finally:
            self._is_confirmed |= ordered.is_confirmed

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
