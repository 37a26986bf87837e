"""One model's shelf: what is on it, and the one way onto it: prove, sync, rename, sync, then record.

The server takes every entry whose name parses as a number for a version, so a numeric name appears only
by an atomic rename of a complete, proven, durable directory.
"""

import errno
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Final

from servesync import disk
from servesync.errors import DiskError, Reason, ReleaseRefused
from servesync.install import records
from servesync.install.content import hash_tree, prove_staged, stamps
from servesync.install.records import Record, Unreadable
from servesync.install.workspace import Workspace
from servesync.plan.facts import Condition, Shelved
from servesync.plan.versions import (
    Content,
    Model,
    ProvenBy,
    Release,
    Stamp,
    Version,
    parse_canonical,
    server_sees_version,
)
from servesync.settings import Signature

UNREADABLE: Final = frozenset({errno.EIO, errno.EUCLEAN, errno.EBADMSG})
"""The disk has lost something below one folder: that version is damaged, and the others are not."""

LOST: Final = "if it is wanted, the same bytes in the store bring a new record; else move it away by hand"
LEFT: Final = (
    "nothing is done with it until the record can be read; if that never comes, remove the record: then the "
    "version is compared with the store's and taken over again"
)
NOT_INSTALLED: Final = ", and is not put there before the record can be read or removed"

DamageSeen = dict[Version, Mapping[str, Stamp]]
"""The stamps under which a version was last found to be damaged."""


@dataclass(frozen=True, slots=True)
class Inventory:
    """What is on the shelf, found without changing anything.

    `strange`: names that the server takes for versions though servesync would never write them.
    `refreshed`: records that turned out to be behind the truth; `Shelf.settle` writes them.
    `orphaned`: records of versions that are no longer on the shelf. `recorded`: those of the ones that are.
    `unreadable`: what to say of records that are there and cannot be read; of those in `blocking` nothing new
    may take the place, so their versions are left as they are, or away.
    """

    versions: Mapping[Version, Shelved]
    strange: tuple[str, ...] = ()
    refreshed: Mapping[Version, Record] = field(default_factory=dict)
    orphaned: Mapping[Version, Record] = field(default_factory=dict)
    recorded: Mapping[Version, Record] = field(default_factory=dict)
    unreadable: Mapping[Version, str] = field(default_factory=dict)
    blocking: frozenset[Version] = frozenset()


@dataclass(frozen=True, slots=True)
class Proven:
    """What is known of a staged tree: files, bytes of its tensors, what proves it, since when, signatures.

    `stamps`: those of the files when they were written; without them the tree is read once more.
    """

    content: Content
    tensor_bytes: int
    by: ProvenBy
    at: datetime
    signatures: Mapping[str, Signature] | None = None
    stamps: Mapping[str, Stamp] = field(default_factory=dict)


def seal(tree: Path, release: Release, proven: Proven, check: Callable[[], None]) -> Proven:
    """Make a staged tree durable, and prove once more that it is as it was written."""
    prove_staged(tree, proven.content, proven.stamps, check)
    disk.sync_tree(tree, check)
    return replace(proven, stamps=stamps(tree))


class Shelf:
    """The shelf of one model, and the records of what servesync put there."""

    def __init__(self, workspace: Workspace, model: Model, check: Callable[[], None] = lambda: None) -> None:
        self.workspace = workspace
        self.model = model
        self.path = workspace.shelf(model)
        self._records = workspace.records(model)
        self._check = check

    def inventory(self, damage_seen: DamageSeen | None = None) -> Inventory:
        """Look at the shelf; content is read only where stamps say that something changed.

        `damage_seen` is the caller's memory between looks, so that a damaged version is read once.

        Raises:
            OSError: the shelf cannot be read.
        """
        there = records.read_all(self._records, Record)
        known = dict(there.known)
        versions: dict[Version, Shelved] = {}
        refreshed: dict[Version, Record] = {}
        recorded: dict[Version, Record] = {}
        strange = []
        seen = {} if damage_seen is None else damage_seen
        for entry in disk.entries(self.path):
            version = parse_canonical(entry.name)
            if version is None or not entry.is_dir(follow_symlinks=False):
                if server_sees_version(entry.name):
                    strange.append(entry.name)
                continue
            record = known.pop(version, None)
            if record is not None:
                recorded[version] = record
            if version in there.unreadable:
                versions[version] = Shelved(Condition.UNRECORDED)
                continue
            versions[version], fresh = self._examine(version, record, seen)
            if fresh is not None:
                refreshed[version] = fresh
        unreadable = {version: _said(item, version, versions) for version, item in there.unreadable.items()}
        blocking = frozenset(version for version, item in there.unreadable.items() if not item.is_lost)
        return Inventory(versions, tuple(strange), refreshed, known, recorded, unreadable, blocking)

    def _examine(
        self, version: Version, record: Record | None, seen: DamageSeen
    ) -> tuple[Shelved, Record | None]:
        if record is None:
            return Shelved(Condition.FOREIGN), None
        folder = self.path / str(version)
        found = self._stamps(folder)
        good = Shelved(
            Condition.GOOD,
            confirmed=record.confirmed,
            identity=record.identity,
            proven_by=record.proven_by,
            tries=record.tries,
            said_before=record.said_before,
        )
        if record.state == "installed" and found == record.stamps:
            return good, None
        if seen.get(version) == found or not self._is_right(folder, record):
            seen[version] = found
            return replace(good, condition=Condition.DAMAGED), None
        return good, record.model_copy(update={"state": "installed", "stamps": found})

    def _is_right(self, folder: Path, record: Record) -> bool:
        """Whether a version's files are as they were proven; what the disk cannot read is not."""
        try:
            return hash_tree(folder, self._check) == record.content
        except OSError as error:
            if error.errno in UNREADABLE:
                return False
            raise

    def _stamps(self, folder: Path) -> Mapping[str, Stamp]:
        """Return the stamps of a version; none, which no version has, if the disk cannot tell them."""
        try:
            return stamps(folder)
        except OSError as error:
            if error.errno in UNREADABLE:
                return {}
            raise

    def settle(self, inventory: Inventory) -> None:
        """Write down what an inventory found: adopted versions, and touched ones whose content is right."""
        for version, record in inventory.refreshed.items():
            disk.sync_dir(self.path)
            records.write(self._records, version, record)

    def forget(self, version: Version) -> None:
        """Drop the record of a version that is off the shelf for good."""
        records.drop(self._records, version)

    def publish(self, staged: Path, release: Release, proven: Proven, said_before: str = "") -> Record:
        """Make a verified tree visible as one version, or leave the shelf as it was.

        `said_before`: what the server says of this number until now.

        The order: files and directories durable, intention recorded, rename without replacing, parent
        durable, installation recorded. A crash before the rename leaves the shelf untouched; one after it
        leaves a complete version, which the next inventory adopts after reading it whole.

        Raises:
            DiskError: `VERSION_THERE`: the number is on the shelf; nothing was changed there. `DISK_FAILED`:
                somebody else changed the staged tree; the shelf is untouched.
            ReleaseRefused: `RELEASE_TOO_BIG`: it has more files than a record can hold; nothing was changed.
            OSError: the disk refused; before the rename the shelf is untouched, after it the version is
                complete though perhaps not yet durable.
        """
        record = self._stage(staged, release, proven, said_before)
        target = self.path / str(release.version)
        try:
            disk.rename_noreplace(staged, target)
        except FileExistsError as error:
            records.drop(self._records, release.version)  # the intention would claim what is there as ours
            text = f"{target} appeared while version {release.version} was being prepared; left alone"
            raise DiskError(Reason.VERSION_THERE, text) from error
        return self._finish(release.version, record)

    def put_back(self, reserved: Path, version: Version, record: Record, said_before: str = "") -> Record:
        """Make a version of the reserve visible again, or leave the shelf as it was.

        Raises:
            DiskError: `VERSION_THERE`: the number is on the shelf; nothing was changed there.
            OSError: the disk refused; the version is complete, on the shelf or in the reserve.
        """
        changes = {"state": "installing", "reserved_at": None, "returning": False, "said_before": said_before}
        fresh = record.model_copy(update=changes)
        records.write(self._records, version, fresh)
        target = self.path / str(version)
        try:
            disk.rename_noreplace(reserved, target)
        except FileExistsError as error:
            records.drop(self._records, version)
            text = f"{target} appeared while version {version} was about to come back; left alone"
            raise DiskError(Reason.VERSION_THERE, text) from error
        disk.sync_dir(reserved.parent)
        return self._finish(version, fresh)

    def replace(self, staged: Path, release: Release, proven: Proven, said_before: str = "") -> Record:
        """Swap a damaged version for a verified tree of the same number; the name is never absent.

        Afterwards `staged` holds the damaged tree, for the caller to remove. If the damaged one has been
        removed meanwhile, the tree takes its place. What the server has confirmed stays so: the bytes are the
        same. Raises as `publish` does.
        """
        old = self.record(release.version)
        record = self._stage(staged, release, proven, said_before, like=old)
        target = self.path / str(release.version)
        try:
            disk.exchange(staged, target)
        except FileNotFoundError:
            disk.rename_noreplace(staged, target)
        return self._finish(release.version, record)

    def adopt(self, release: Release, proven: Proven) -> Record | None:
        """Take over a version that somebody else put on the shelf, if it is the store's to the byte.

        Returns None, and changes nothing, if the content differs.
        """
        folder = self.path / str(release.version)
        found = dict(stamps(folder))
        if hash_tree(folder, self._check) != proven.content:
            return None
        disk.sync_tree(folder, self._check)
        return self._finish(release.version, _record(release, proven).model_copy(update={"stamps": found}))

    def same_content(
        self, version: Version, content: Content, check: Callable[[], None]
    ) -> Mapping[str, Stamp] | None:
        """Return the stamps under which a version on the shelf has this content; None if it has another."""
        folder = self.path / str(version)
        found = dict(stamps(folder))
        return found if hash_tree(folder, check) == content else None

    def records(self) -> Mapping[Version, Record]:
        """Return the record of every version that servesync put there, or is about to, as far as readable."""
        return records.read_all(self._records, Record).known

    def record(self, version: Version) -> Record | None:
        """Return the record of a version; None only if there is none.

        Raises:
            DiskError: `RECORD_UNREADABLE`: it is there, and cannot be read.
        """
        found = records.read_all(self._records, Record)
        if version in found.unreadable:
            text = found.unreadable[version].said(f"{self.model} {version} is left as it is")
            raise DiskError(Reason.RECORD_UNREADABLE, text)
        return found.known.get(version)

    def unrecorded(self) -> frozenset[Version]:
        """Return the versions on the shelf whose record is there, and cannot be read."""
        unreadable = records.read_all(self._records, Record).unreadable
        return frozenset(version for version in unreadable if (self.path / str(version)).is_dir())

    def scrubbed(self, version: Version, now: datetime) -> None:
        """Record that the bytes on the disk were found to be right."""
        self._update(version, scrubbed_at=now)

    def doubt(self, version: Version, now: datetime) -> None:
        """Make the next inventory read a version whole, whatever its stamps say."""
        self._update(version, state="installing", scrubbed_at=now)

    def note_said(self, version: Version, said_before: str) -> None:
        """Record what the server has said so far, as far as it may still be about older bytes."""
        self._update(version, said_before=said_before)

    def observed(self, version: Version, grown_bytes: int) -> None:
        """Record by how much the server grew when it loaded a version."""
        self._update(version, observed_bytes=grown_bytes)

    def _update(self, version: Version, **changes: str | bool | int | datetime) -> None:
        record = self.records().get(version)
        if record is not None:
            records.write(self._records, version, record.model_copy(update=changes))

    def confirm(self, version: Version) -> None:
        """Record that the server has served these bytes."""
        self._update(version, confirmed=True, tries=0)

    def _stage(
        self, staged: Path, release: Release, proven: Proven, said_before: str, like: Record | None = None
    ) -> Record:
        record = record_of(release, proven).model_copy(update={"said_before": said_before})
        if like is not None and like.identity == record.identity:
            record = record.model_copy(update={"confirmed": like.confirmed, "tries": like.tries})
        disk.sync_tree(staged, self._check)
        found = prove_staged(staged, proven.content, proven.stamps, self._check)
        record = record.model_copy(update={"stamps": dict(found)})
        records.write(self._records, release.version, record)
        prove_staged(staged, proven.content, found, self._check)  # writing the record may have taken long
        return record

    def _finish(self, version: Version, record: Record) -> Record:
        """Record that a version is on the shelf; its stamps are those of the moment when it was proven."""
        disk.sync_dir(self.path)
        done = record.model_copy(update={"state": "installed"})
        records.write(self._records, version, done)
        return done


def _said(item: Unreadable, version: Version, shelf: Mapping[Version, Shelved]) -> str:
    """Return what to say of an unreadable record, with what follows for its version and what to do."""
    if version not in shelf:
        return item.said(f"version {version} is not on the shelf" + ("" if item.is_lost else NOT_INSTALLED))
    return item.said(f"version {version} stays on the shelf as it is; {LOST if item.is_lost else LEFT}")


def record_of(release: Release, proven: Proven) -> Record:
    """Return the record of a version that is about to be installed.

    Raises:
        ReleaseRefused: `RELEASE_TOO_BIG`: it has more files than a record can hold.
    """
    record = _record(release, proven)
    if len(record.model_dump_json()) > records.MAX_NEW_RECORD_BYTES:
        text = (
            f"{len(proven.content.files)} files are more than servesync can keep a record of: pack the "
            "model's assets into fewer files, or with shorter names"
        )
        raise ReleaseRefused(Reason.RELEASE_TOO_BIG, text, files=len(proven.content.files))
    return record


def _record(release: Release, proven: Proven) -> Record:
    return Record(
        identity=release.identity,
        at=proven.at,
        state="installing",
        files=records.files_of(proven.content),
        tensor_bytes=proven.tensor_bytes,
        signatures=proven.signatures,
        proven_by=proven.by,
    )
