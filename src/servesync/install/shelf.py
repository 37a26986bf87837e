"""One model's shelf: what is on it, and the one way onto it: prove, sync, rename, sync, then record.

The server takes every entry whose name parses as a number for a version, so a numeric name appears only
by an atomic rename of a complete, proven, durable directory.
"""

import errno
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from servesync import disk
from servesync.errors import DiskError, Reason, ReleaseRefused
from servesync.install import records
from servesync.install.content import Stamp, hash_tree, stamps
from servesync.install.records import Record
from servesync.install.workspace import Workspace
from servesync.plan.facts import Condition, Shelved
from servesync.plan.versions import (
    Content,
    Model,
    ProvenBy,
    Release,
    Version,
    parse_canonical,
    server_sees_version,
)

DamageSeen = dict[Version, Mapping[str, Stamp]]
"""The stamps under which a version was last found to be damaged."""


@dataclass(frozen=True, slots=True)
class Inventory:
    """What is on the shelf, found without changing anything.

    `strange`: names that the server takes for versions though servesync would never write them.
    `refreshed`: records that turned out to be behind the truth; `Shelf.settle` writes them.
    `orphaned`: records of versions that are no longer on the shelf. `recorded`: those of the ones that are.
    """

    versions: Mapping[Version, Shelved]
    strange: tuple[str, ...] = ()
    refreshed: Mapping[Version, Record] = field(default_factory=dict)
    orphaned: Mapping[Version, Record] = field(default_factory=dict)
    recorded: Mapping[Version, Record] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Proven:
    """What is known of a staged tree: its files, the bytes of its tensors, what proves it, and since when."""

    content: Content
    tensor_bytes: int
    by: ProvenBy
    at: datetime


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
        known = records.read_all(self._records, Record)
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
            versions[version], fresh = self._examine(version, record, seen)
            if fresh is not None:
                refreshed[version] = fresh
        return Inventory(versions, tuple(strange), refreshed, known, recorded)

    def _examine(
        self, version: Version, record: Record | None, seen: DamageSeen
    ) -> tuple[Shelved, Record | None]:
        if record is None:
            return Shelved(Condition.FOREIGN), None
        folder = self.path / str(version)
        found = stamps(folder)
        good = Shelved(Condition.GOOD, record.confirmed, record.identity, record.proven_by)
        if record.state == "installed" and found == record.stamps:
            return good, None
        if seen.get(version) == found or not self._is_right(folder, record):
            seen[version] = found
            return Shelved(Condition.DAMAGED, record.confirmed, record.identity, record.proven_by), None
        return good, record.model_copy(update={"state": "installed", "stamps": found})

    def _is_right(self, folder: Path, record: Record) -> bool:
        """Whether a version's files are as they were proven; what the disk cannot read is not."""
        try:
            return hash_tree(folder, self._check) == record.content
        except OSError as error:
            if error.errno == errno.EIO:
                return False
            raise

    def settle(self, inventory: Inventory) -> None:
        """Write down what an inventory found: adopted versions, and touched ones whose content is right."""
        for version, record in inventory.refreshed.items():
            disk.sync_dir(self.path)
            records.write(self._records, version, record)

    def forget(self, version: Version) -> None:
        """Drop the record of a version that is off the shelf for good."""
        records.drop(self._records, version)

    def publish(self, staged: Path, release: Release, proven: Proven) -> Record:
        """Make a verified tree visible as one version, or leave the shelf as it was.

        The order: files and directories durable, intention recorded, rename without replacing, parent
        durable, installation recorded. A crash before the rename leaves the shelf untouched; one after it
        leaves a complete version, which the next inventory adopts after reading it whole.

        Raises:
            DiskError: `VERSION_THERE`: the number is on the shelf; nothing was changed there.
            ReleaseRefused: `RELEASE_TOO_BIG`: it has more files than a record can hold; nothing was changed.
            OSError: the disk refused; before the rename the shelf is untouched, after it the version is
                complete though perhaps not yet durable.
        """
        record = self._stage(staged, release, proven)
        target = self.path / str(release.version)
        try:
            disk.rename_noreplace(staged, target)
        except FileExistsError as error:
            records.drop(self._records, release.version)  # the intention would claim what is there as ours
            text = f"{target} appeared while version {release.version} was being prepared; left alone"
            raise DiskError(Reason.VERSION_THERE, text) from error
        return self._finish(release.version, record)

    def put_back(self, reserved: Path, version: Version, record: Record) -> Record:
        """Make a version of the reserve visible again, or leave the shelf as it was.

        It counts as unconfirmed: the server has to serve it anew.

        Raises:
            DiskError: `VERSION_THERE`: the number is on the shelf; nothing was changed there.
            OSError: the disk refused; the version is complete, on the shelf or in the reserve.
        """
        fresh = record.model_copy(update={"state": "installing", "confirmed": False, "reserved_at": ""})
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

    def replace(self, staged: Path, release: Release, proven: Proven) -> Record:
        """Swap a damaged version for a verified tree of the same number; the name is never absent.

        Afterwards `staged` holds the damaged tree, for the caller to remove. If the damaged one has been
        removed meanwhile, the tree takes its place. Raises as `publish` does.
        """
        record = self._stage(staged, release, proven)
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
        if hash_tree(folder, self._check) != proven.content:
            return None
        disk.sync_tree(folder, self._check)
        return self._finish(release.version, _record(release, proven))

    def records(self) -> Mapping[Version, Record]:
        """Return the record of every version that servesync put there, or is about to."""
        return records.read_all(self._records, Record)

    def scrubbed(self, version: Version, now: datetime) -> None:
        """Record that the bytes on the disk were found to be right."""
        self._update(version, scrubbed_at=now.isoformat())

    def doubt(self, version: Version, now: datetime) -> None:
        """Make the next inventory read a version whole, whatever its stamps say."""
        self._update(version, state="installing", scrubbed_at=now.isoformat())

    def _update(self, version: Version, **changes: str | bool) -> None:
        record = records.read_all(self._records, Record).get(version)
        if record is not None:
            records.write(self._records, version, record.model_copy(update=changes))

    def confirm(self, version: Version) -> None:
        """Record that the server has served these bytes."""
        self._update(version, confirmed=True)

    def _stage(self, staged: Path, release: Release, proven: Proven) -> Record:
        record = _record(release, proven)
        if len(record.model_dump_json()) > records.MAX_NEW_RECORD_BYTES:
            text = (
                f"{len(proven.content.files)} files are more than servesync can keep a record of: pack the "
                "model's assets into fewer files, or with shorter names"
            )
            raise ReleaseRefused(Reason.RELEASE_TOO_BIG, text, files=len(proven.content.files))
        disk.sync_tree(staged, self._check)
        records.write(self._records, release.version, record)
        return record

    def _finish(self, version: Version, record: Record) -> Record:
        disk.sync_dir(self.path)
        done = record.model_copy(
            update={"state": "installed", "stamps": dict(stamps(self.path / str(version)))}
        )
        records.write(self._records, version, done)
        return done


def _record(release: Release, proven: Proven) -> Record:
    return Record(
        identity=release.identity,
        at=proven.at.isoformat(),
        state="installing",
        files=records.files_of(proven.content),
        tensor_bytes=proven.tensor_bytes,
        proven_by=proven.by,
    )
