"""Brings one release into staging: fetched, unpacked, proven, in one pass; nothing on the shelf changes."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Final

from servesync import manifest
from servesync.admin import Counting, Stage
from servesync.agent.manifests import ManifestReader
from servesync.agent.observe import Observer
from servesync.agent.progress import Report, Reporter
from servesync.agent.space import Needed, Space, needed_by
from servesync.errors import CheckFailed, Reason, ReleaseRefused
from servesync.fetch import stream
from servesync.install import prove_staged
from servesync.logs import Event, get_logger
from servesync.manifest import Manifest
from servesync.plan.lifecycle import State, advance
from servesync.plan.memory import weight_of
from servesync.plan.versions import Layout, Proof, ProvenBy, Release, StoredObject
from servesync.settings import Signature
from servesync.store import Running
from servesync.unpack import Unpacked, unpack_archive, unpack_objects
from servesync.verify import (
    Expectations,
    LoadReport,
    check_operations,
    check_signatures,
    find_operations,
    in_words,
    load_model,
    read_signatures,
    verify_structure,
    verify_tensors,
)

SLICE_BYTES: Final = 256 << 10
"""How much of an object is unpacked between two looks at the free space and at a request to stop."""

SHOWN_FINDINGS: Final = 5
PATIENCE: Final = 3


@dataclass(frozen=True, slots=True)
class Staged:
    """A version in staging that may be installed."""

    unpacked: Unpacked
    tensor_bytes: int
    proven_by: ProvenBy
    signatures: Mapping[str, Signature]

    @property
    def weight(self) -> int:
        """The bytes that it weighs in the server's memory."""
        files = ((file.path, file.size) for file in self.unpacked.content.files)
        return weight_of(files, self.tensor_bytes)


@dataclass(frozen=True, slots=True)
class _Evidence:
    """What there is to prove the stored bytes with, known before the first of them."""

    manifest: Manifest | None = None
    checksum: Running | None = None

    @property
    def proofs(self) -> Sequence[Proof]:
        return self.manifest.archive.proofs if self.manifest else ()

    @property
    def proven_by(self) -> ProvenBy:
        if self.manifest:
            return ProvenBy.MANIFEST
        return ProvenBy.STORE_CHECKSUM if self.checksum else ProvenBy.NOTHING


@dataclass
class Bringer:
    """Fetches and proves. `check` raises `Stopped` when the agent is to stop."""

    observer: Observer
    check: Callable[[], None]
    should_stop: Callable[[], bool]
    reporter: Reporter

    @property
    def _space(self) -> Space:
        return Space(self.observer)

    def bring(self, release: Release, tree: Path) -> Staged:
        """Bring a release into the empty directory `tree`, as far proven as settings ask.

        Raises:
            ReleaseRefused: it is not what it should be. `tree` must be discarded, as after every error.
            StoreError, TransferError: the store did not give its bytes.
            DiskError: there is not enough space, or somebody else changes the staging directory.
            OSError: the disk refused.
        """
        self._check_stored_size(release)
        started = time.monotonic()
        evidence = self._evidence(release)
        limit = self.observer.settings.limits.max_unpacked_bytes
        self._space.check(needed_by(release, evidence.manifest, limit))
        unpacked = self._fetch(release, tree, evidence)
        if evidence.manifest:
            manifest.compare(evidence.manifest, unpacked.content)
        if evidence.checksum:
            evidence.checksum.check(release.objects[0].key)
        state = advance(State.WANTED, State.FETCHED)
        seconds = time.monotonic() - started
        get_logger().info(
            Event.VERSION_FETCHED,
            stored_bytes=release.stored_bytes,
            unpacked_bytes=unpacked.content.total_bytes,
            files=len(unpacked.content.files),
            seconds=round(seconds, 3),
            mb_per_second=round(release.stored_bytes / 1e6 / max(seconds, 1e-3), 1),
            proof=evidence.proven_by,
        )
        with self.observer.board.stage(Stage.VERIFY, release.model, release.version):
            try:
                tensor_bytes, signatures = self._verify(release, unpacked)
            except (ReleaseRefused, OSError):
                # nobody blames the release for what somebody else did to its files
                prove_staged(unpacked.root, unpacked.content, unpacked.stamps, self.check)
                raise
        advance(state, State.VERIFIED)
        return Staged(unpacked, tensor_bytes, evidence.proven_by, signatures)

    # -- what proves the bytes ------------------------------------------------------------------------

    def _evidence(self, release: Release) -> _Evidence:
        if release.manifest is not None:
            return _Evidence(manifest=self._read_manifest(release, release.manifest))
        if release.layout is Layout.DIRECTORY:
            return _Evidence()
        (archive,) = release.objects
        facts = self.observer.store.describe(archive)
        if facts.manifest_to_come:
            text = (
                f"{archive.key!a} was published with a manifest, which is not there (yet): if it stays away, "
                "run `servesync publish` again"
            )
            raise ReleaseRefused(Reason.RELEASE_INCOMPLETE, text)
        return _Evidence(checksum=facts.checksum.start() if facts.checksum else None)

    def _read_manifest(self, release: Release, item: StoredObject) -> Manifest:
        observer = self.observer
        return ManifestReader(observer.store, observer.settings.fetch, self.should_stop)(release, item)

    # -- fetching -------------------------------------------------------------------------------------

    def _fetch(self, release: Release, tree: Path, evidence: _Evidence) -> Unpacked:
        """Bring the release's bytes into `tree` in one pass; no archive ever lies on the disk."""
        settings = self.observer.settings
        stage = self.observer.board.stage(Stage.FETCH, release.model, release.version, release.stored_bytes)
        with (
            stage as count,
            self.reporter(release) as report,
            stream(
                release.objects,
                self.observer.store.read,
                settings.fetch,
                self.should_stop,
                proofs=evidence.proofs,
            ) as parts,
        ):
            watched = self._watched(parts, (report, count), evidence.checksum)
            if release.layout is Layout.ARCHIVE:
                return unpack_archive(
                    (piece for _, piece in watched),
                    tree,
                    release.version,
                    settings.limits,
                    archive_bytes=release.stored_bytes,
                    promised_bytes=evidence.manifest.totals.bytes if evidence.manifest else None,
                )
            each = groupby(watched, key=itemgetter(0))
            objects = ((item, (piece for _, piece in group)) for item, group in each)
            return unpack_objects(objects, tree, settings.limits)

    def _watched(
        self,
        parts: Iterator[tuple[StoredObject, memoryview]],
        reports: Sequence[Report | Counting],
        checksum: Running | None,
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
                self.check()
                self._space.check(Needed())

    # -- limits ---------------------------------------------------------------------------------------

    def _check_stored_size(self, release: Release) -> None:
        limit = self.observer.settings.limits.max_archive_bytes
        if release.stored_bytes > limit:
            text = (
                f"{release.objects[0].key!a}: {release.stored_bytes} bytes in the store, more than "
                f"limits.max_archive_bytes ({limit}); raise the limit if this size is right"
            )
            raise ReleaseRefused(Reason.RELEASE_TOO_BIG, text, stored_bytes=release.stored_bytes)

    # -- proving the version --------------------------------------------------------------------------

    def _verify(self, release: Release, unpacked: Unpacked) -> tuple[int, Mapping[str, Signature]]:
        """Prove the tree as far as settings ask; return the bytes of its tensors, and its signatures."""
        started = time.monotonic()
        settings = self.observer.settings.verify
        root = unpacked.root
        found = verify_structure(root)
        self._check_operations(root)
        expected = self._expected(release)
        signatures = read_signatures(root)
        check_signatures(signatures, expected)
        checked = verify_tensors(root, check=self.check).tensors if settings.level != "structure" else 0
        trial = (
            load_model(root, expected, settings.load, patient=self._is_new(release), check=self.check)
            if settings.level == "load"
            else None
        )
        get_logger().info(
            Event.VERSION_VERIFIED,
            verify_level=settings.level,
            tensors=found.tensors,
            tensors_checked=checked,
            tensor_bytes=found.tensor_bytes,
            **({} if trial is None else _facts_of(trial)),
            seconds=round(time.monotonic() - started, 3),
        )
        return found.tensor_bytes, signatures

    def _is_new(self, release: Release) -> bool:
        """Whether this release has not yet had the tries that a passing cause may cost it."""
        return self.observer.attempts.count((release.model, release.version), release.offer) < PATIENCE

    def _expected(self, release: Release) -> Expectations:
        """Return the signatures that clients of the model rely on."""
        wanted = self.observer.models[release.model].signatures
        if wanted is None:
            return Expectations()
        if wanted != "as_served":
            return Expectations(signatures=wanted)
        found = self.observer.served_now(release.model)
        if found is None or found[0] == release.version:
            return Expectations()
        version, record = found
        if record is not None and record.signatures is not None:
            return Expectations(same_as_served=record.signatures)
        served = self.observer.workspace.shelf(release.model) / str(version)
        try:
            return Expectations(same_as_served=read_signatures(served))
        except ReleaseRefused as error:
            text = f"the signatures of {served}, which is served now, cannot be read: {error}"
            raise CheckFailed(Reason.VERSION_DAMAGED, text) from error

    def _check_operations(self, root: Path) -> None:
        """Say what the graph may do besides computing, and refuse it if settings ask for that."""
        policy = self.observer.settings.verify.unsafe_ops
        if policy == "allow":
            return
        report = find_operations(root)
        check_operations(report, policy)
        if report.total:
            get_logger().warning(
                Event.UNSAFE_OPERATIONS,
                because="reachable in the graph; verify.unsafe_ops: refuse would keep such a version out",
                operations=report.total,
                examples=[in_words(finding) for finding in report.findings[:SHOWN_FINDINGS]],
            )


def _facts_of(trial: LoadReport) -> dict[str, str | int | float]:
    """Return what the log says of a trial."""
    return {
        "load_seconds": round(trial.load_seconds, 3),
        "golden_requests": trial.golden_requests,
        "peak_memory_bytes": trial.peak_memory_bytes,
        "network": trial.network,
    }
