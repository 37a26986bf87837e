"""Publishes a version: verifies it, packs and uploads it in one pass, and uploads its manifest last.

A version is immutable. Publishing the same content again succeeds and writes nothing; other content under the
same number is refused. Agents ignore the archive until its manifest is there.
"""

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

from servesync.domain import channel, manifest
from servesync.domain.manifest import Archive, Manifest
from servesync.domain.versions import Model, Release, StoredObject, Version
from servesync.errors import Reason, ReleaseRefused, SettingsError, StoreError
from servesync.fetch import read_whole, stream
from servesync.publishing.agent_limits import exceeded_agent_limits
from servesync.publishing.pack import Made, Packed, Stamp, check_unchanged, describe, pack_tree, survey
from servesync.publishing.request import (
    MANIFEST_TYPE,
    UNCONDITIONAL,
    Outcome,
    Published,
    Request,
    being_written,
    checked,
    exists,
    make_manifest,
    prove,
    stem_of,
    to_complete,
)
from servesync.publishing.warmup import warmup_from_golden
from servesync.redaction import redact
from servesync.settings import Fetch, Store
from servesync.store import MANIFEST_TO_COME, AlreadyThere, ObjectAttributes, S3Store, S3Writer, manifest_key
from servesync.unpack import check_paths
from servesync.verify import ModelFacts, bundle_extents

ARCHIVE_TYPES: Final[Mapping[str, str]] = {"tar.zst": "application/zstd", "tar.gz": "application/gzip"}


def publish_tree(root: Path, store: Store, request: Request) -> Published:
    """Publish the SavedModel in `root` as one version.

    If it is interrupted at any point, agents ignore what is there, and running it again completes it.

    Raises:
        SettingsError: there is no directory, or model, version or labels are not acceptable, or the key would
            be ambiguous by the store's pattern, or warm-up requests cannot be added.
        ReleaseRefused: the SavedModel is not sound, or has names that agents refuse, or the store has other
            content under this number.
        StoreError, TransferError: the store refused or did not answer.
        OSError: a file cannot be read.
    """
    model, version = checked(request)
    stem = stem_of(store, model, version)
    if not root.is_dir():
        what = "no such directory; give the version's directory, which holds saved_model.pb"
        text = f"{redact(str(root))}: {what}"
        raise SettingsError(Reason.SETTINGS_INVALID, text)
    proven = survey(root)
    check_paths({path: stamp is None for path, stamp in proven.items()}, str(version))
    made = (warmup_from_golden(root, model),) if request.warmup_from_golden else ()
    facts = prove(root, request)
    with S3Writer(store) as writer:
        done = _Publication(root, model, version, stem, proven, made, facts, store, request, writer).run()
        if not request.dry_run:
            writer.remove_leftovers(done.key)  # of killed publishers, which cannot complete them now
        return done


@dataclass
class _Publication:
    """One version that is being published."""

    root: Path
    model: Model
    version: Version
    stem: str
    proven: Mapping[str, Stamp | None]
    made: tuple[Made, ...]
    facts: ModelFacts
    store: Store
    request: Request
    writer: S3Writer
    is_known: bool | None = None
    notes: tuple[str, ...] = ()

    def run(self) -> Published:
        there = self._there()
        if there is None and self.request.dry_run:
            return self._published("not written (dry run)", self._manifest(self._packed(lambda _: None)))
        if there is None:
            try:
                return self._write_all()
            except AlreadyThere:
                there = self._there_now()
        return self._complete(there)

    def _complete(self, there: Release) -> Published:
        """Compare the version in the store with this one, and add the manifest if it is missing."""
        packed = self._packed(lambda _: None)
        if there.manifest is not None:
            return self._compare(there, there.manifest, packed)
        self._check_same_archive(there, packed)
        if self.request.dry_run:
            return self._published("not written (dry run)", self._manifest(packed))
        self.is_known = self.writer.is_ours(self._key)
        return self._write_manifest(packed)

    @property
    def _key(self) -> str:
        return f"{self.stem}.{self.request.archive_format}"

    def _there(self) -> Release | None:
        """Return the release under this number, if any; refuse one that is not an archive of this name."""
        with closing(S3Store(self.store, Fetch())) as reader:
            listing = reader.list(lambda model: model == self.model)
        problem = listing.problems.get((self.model, self.version))
        if problem is not None:
            raise exists(self.model, self.version, str(problem))
        for release in listing.releases.get(self.model, ()):
            if release.version == self.version:
                if release.objects[0].key != self._key:
                    raise exists(self.model, self.version, f"there is {release.objects[0].key!a}")
                return release
        return None

    def _there_now(self) -> Release:
        """Return the release that exists by the store's answer; raise `StoreError` if it lists none."""
        there = self._there()
        if there is None:
            raise being_written(self._key)
        return there

    def _write_all(self) -> Published:
        attributes = ObjectAttributes(
            ARCHIVE_TYPES[self.request.archive_format],
            {MANIFEST_TO_COME: quote(manifest_key(self._key).rpartition("/")[2])},  # a header is ASCII
        )
        with self.writer.upload_new(self._key, attributes, self._total_bytes) as write:
            packed = self._packed(write)
            manifest.dump(self._manifest(packed))  # raises before the upload if it is too large
            if self._there() is not None:  # not every store knows conditional writes
                raise AlreadyThere(self._key)
        self.is_known = self.writer.is_ours(self._key)
        if not self.is_known:
            (archive,) = self._there_now().objects
            if self.is_known is False or archive.size != packed.size:
                raise self._disturbed()
        return self._write_manifest(packed)

    @property
    def _total_bytes(self) -> int:
        """Bytes of the files; an archive of what does not shrink has few more."""
        sizes = [stamp.size for stamp in self.proven.values() if stamp]
        return sum(sizes) + sum(one.size for one in self.made)

    def _packed(self, out: Callable[[bytes], None]) -> Packed:
        done = 0

        def write(data: bytes) -> None:
            nonlocal done
            out(data)
            done += len(data)
            self.request.progress(done, self._total_bytes)

        packed = pack_tree(
            self.root,
            self.version,
            write,
            bundle_extents(self.root),
            made=self.made,
            archive_format=self.request.archive_format,
            check=self.request.check,
        )
        check_unchanged(self.root, self.proven)
        directories = sum(stamp is None for stamp in self.proven.values())
        self.notes = exceeded_agent_limits(packed, directories, self.request.limits)
        return packed

    def _manifest(self, packed: Packed) -> Manifest:
        archive = Archive(
            key=self._key.rpartition("/")[2],
            format=self.request.archive_format,
            size=packed.size,
            sha256=packed.sha256,
            parts=packed.parts,
        )
        return make_manifest(self.model, self.version, archive, packed.files, self.facts, self.request.labels)

    def _write_manifest(self, packed: Packed) -> Published:
        made = self._manifest(packed)
        data = manifest.dump(made)
        try:
            self.writer.put_new(manifest_key(self._key), data, ObjectAttributes(MANIFEST_TYPE))
        except AlreadyThere:
            there = self._there_now()
            if there.manifest is None:
                raise being_written(manifest_key(self._key)) from None
            return self._compare(there, there.manifest, packed)
        self._verify_written(data)
        return self._published("published", made)

    def _verify_written(self, written: bytes) -> None:
        """Make sure that our objects are still there: without conditional writes, others may replace them.

        Raises:
            ReleaseRefused: somebody else wrote at the same time, or has withdrawn the version since.
            StoreError: the store does not list an object that it has accepted.
        """
        there = self._there()
        if there is None or there.manifest is None:
            text = (
                f"{self.store.url} does not show {self.model} {self.version}, just written: publish it again"
            )
            raise StoreError(Reason.STORE_BAD_ANSWER, text)
        data = _read(self.store, there.manifest)
        channel.check_not_withdrawn(data, self.model, self.version)
        if data != written or self.writer.is_ours(self._key) is not self.is_known:
            raise self._disturbed()

    def _disturbed(self) -> ReleaseRefused:
        text = (
            f"somebody else published {self.model} {self.version} at the same time, and the store accepted "
            "both: withdraw this number (`servesync withdraw`), and publish under a new one"
        )
        return ReleaseRefused(Reason.RELEASE_EXISTS, text)

    def _compare(self, there: Release, item: StoredObject, packed: Packed) -> Published:
        """Return the version that the store has already, if it has the same files."""
        data = _read(self.store, item)
        channel.check_not_withdrawn(data, self.model, self.version)
        old = manifest.parse_for(there, data)
        if old.content != self._manifest(packed).content:
            raise exists(self.model, self.version, f"it was published on {old.created} with other files")
        return Published("already there", there.objects[0].key, item.key, old)

    def _check_same_archive(self, there: Release, packed: Packed) -> None:
        """Make sure that an archive without a manifest is the one of an interrupted run."""
        (archive,) = there.objects
        same = archive.size == packed.size
        if same:
            with (
                closing(S3Store(self.store, Fetch())) as reader,
                stream(there.objects, reader.read, Fetch(), lambda: False) as parts,
            ):
                _, sha256, _ = describe(piece for _, piece in parts)
            same = sha256 == packed.sha256
        if not same:
            what = (
                f"{archive.key!a} is another archive, without a manifest; if it is a good one, "
                f"{to_complete(self.store, archive.key)} completes it"
            )
            raise exists(self.model, self.version, what)

    def _published(self, outcome: Outcome, made: Manifest) -> Published:
        notes = (*self.notes, UNCONDITIONAL) if self.writer.unconditional else self.notes
        return Published(outcome, self._key, manifest_key(self._key), made, notes)


def _read(store: Store, item: StoredObject) -> bytes:
    with closing(S3Store(store, Fetch())) as reader:
        return read_whole(item, reader.read, Fetch(), lambda: False)
