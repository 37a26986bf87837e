"""One model's shelf: what is on it, and the one way onto it: record the intention, rename, sync, record.

The server takes every entry whose name parses as a number for a version, so a numeric name appears only
by an atomic rename of a complete, proven, durable directory. What is slow is done before, by jobs (`seal`,
`same_content`, `is_right`); the decider only compares stamps.
"""

import contextlib
import uuid
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path

from servesync import disk
from servesync.domain.versions import Content, Model, Release, Stamp, Version
from servesync.errors import DiskError, Reason
from servesync.folders import opened_dir
from servesync.install import proof, records
from servesync.install.content import check_stamps, stamps
from servesync.install.inventory import Checked, Inventory, take_inventory
from servesync.install.proof import Proven, record_of
from servesync.install.records import Record
from servesync.install.workspace import SHELL, Workspace


class Shelf:
    """The shelf of one model, and the records of what servesync put there."""

    def __init__(self, workspace: Workspace, model: Model) -> None:
        self.workspace = workspace
        self.model = model
        self.path = workspace.shelf(model)
        self._records = workspace.records(model)

    def inventory(self, checked: Checked | None = None) -> Inventory:
        """Look at the shelf without reading what is in files.

        A version whose stamps are not those of its record, or whose record says `installing`, is good or
        damaged only if `checked`, the caller's memory, has a verdict on exactly these stamps; otherwise it
        is `CHECKING`, and is to be read by a job (`is_right`). The caller drops its verdict on a version that
        it calls into doubt (`doubt`).

        Raises:
            OSError: the shelf cannot be read.
        """
        return take_inventory(self.workspace, self.model, checked or {})

    def reread(self, check: Callable[[], None] = lambda: None) -> Inventory:
        """Look at the shelf, and read whole what must be; slow: for who may wait, such as the doctor.

        Raises:
            OSError: the shelf, or a version, cannot be read.
        """
        found = self.inventory()
        if not found.to_check:
            return found
        return self.inventory({v: self.is_right(v, r, check) for v, r in found.to_check.items()})

    def is_right(
        self,
        version: Version,
        record: Record,
        check: Callable[[], None] = lambda: None,
        *,
        from_disk: bool = False,
    ) -> tuple[Mapping[str, Stamp], bool]:
        """Read a version whole; return the stamps under which it was read, and whether it is as proven.

        Slow: a job calls it, and the decider keeps the answer for `inventory`. What the disk cannot read is
        not right. `check` is called every MiB and may raise, to stop early; `from_disk`: see `hash_tree`.

        Raises:
            OSError: it cannot be read for another reason, such as its leaving; that says nothing about it.
        """
        return proof.read_again(self.path / str(version), record, check, from_disk=from_disk)

    def same_content(
        self, version: Version, content: Content, check: Callable[[], None] = lambda: None
    ) -> Mapping[str, Stamp] | None:
        """Read a version whole that somebody else put there, and make it durable if it holds `content`.

        Slow: a job calls it. Return the stamps under which it was read, for `adopt`; None if it holds
        something else. `check` is called every MiB and may raise, to stop early.

        Raises:
            OSError: it cannot be read, or not be made durable; that says nothing about it.
        """
        return proof.same_content(self.path / str(version), content, check)

    def write_refreshed(self, inventory: Inventory) -> None:
        """Write the records that an inventory has found to be out of date."""
        for version, record in inventory.refreshed.items():
            disk.sync_dir(self.path)
            disk.sync_dir(self.path.parent)  # a crash may have come just after the base path appeared
            records.write(self._records, version, record)

    def forget(self, version: Version) -> None:
        """Drop the record of a version that is off the shelf for good."""
        records.drop(self._records, version)

    def publish(self, tree: Path, release: Release, sealed: Proven, said_before: str = "") -> Record:
        """Make a sealed tree visible as one version, or leave the shelf as it was.

        `said_before`: what the server says of this number until now. Nothing is read, and only what is small
        is synced.

        The order: intention recorded, rename without replacing, parent durable, installation recorded. A
        crash before the rename leaves the shelf untouched; one after it leaves a complete version, which is
        adopted after a job has read it whole. A base path that is missing appears by one rename, with the
        version in it.

        Raises:
            DiskError: `VERSION_THERE`: the number is on the shelf; nothing was changed there. `DISK_FAILED`:
                somebody else changed the tree since it was sealed; the shelf is untouched, and the transfer
                is to be done anew.
            ReleaseRefused: `RELEASE_TOO_BIG`: it has more files than a record can hold; nothing was changed.
            OSError: the disk refused; before the rename the shelf is untouched, after it the version is
                complete though perhaps not yet durable.
        """
        record = self._intend(tree, release, sealed, said_before)
        try:
            self._place(tree, release.version)
        except FileExistsError as error:
            records.drop(self._records, release.version)  # the intention would claim what is there as ours
            text = (
                f"{self.path / str(release.version)} appeared while version {release.version} was being "
                "prepared; left alone"
            )
            raise DiskError(Reason.VERSION_THERE, text) from error
        return self._finish(release.version, record)

    def put_back(self, reserved: Path, version: Version, record: Record, said_before: str = "") -> Record:
        """Make a version of the reserve visible again, or leave the shelf as it was.

        The caller has compared its stamps (`Reserve.stamps_match`), and forgets its record there afterwards.
        A base path that is missing appears by one rename, with the version in it; a crash in the middle of
        that leaves the version where `Reserve.clean` finds it.

        Raises:
            DiskError: `VERSION_THERE`: the number is on the shelf; nothing was changed there.
            OSError: the disk refused; the version is complete, on the shelf or in the reserve.
        """
        changes: dict[str, object] = {
            "state": "installing",
            "reserved_at": None,
            "returning": False,
            "retired_for": None,
            "need_bytes": None,
            "swing_bytes": 0,
            "said_before": said_before,
        }
        fresh = record.model_copy(update=changes)
        records.write(self._records, version, fresh)
        try:
            self._place(reserved, version)
        except FileExistsError as error:
            records.drop(self._records, version)
            text = (
                f"{self.path / str(version)} appeared while version {version} was about to come back; left "
                "alone"
            )
            raise DiskError(Reason.VERSION_THERE, text) from error
        disk.sync_dir(reserved.parent)
        return self._finish(version, fresh)

    def replace(self, tree: Path, release: Release, sealed: Proven, said_before: str = "") -> Record:
        """Swap a damaged version for a sealed tree of the same number; the name is never absent.

        Afterwards `tree` holds the damaged one, for the caller to give up. If the damaged one has been
        removed meanwhile, the tree takes its place. What the server has confirmed stays so: the bytes are the
        same. Raises as `publish` does.
        """
        old = self.record(release.version)
        record = self._intend(tree, release, sealed, said_before, like=old)
        try:
            disk.exchange(tree, self.path / str(release.version))
        except FileNotFoundError:
            self._place(tree, release.version)
        return self._finish(release.version, record)

    def adopt(self, release: Release, proven: Proven, found: Mapping[str, Stamp]) -> Record:
        """Take over a version that somebody else put on the shelf, and that holds what the store has.

        `found`: the stamps under which `same_content` read it.

        Raises:
            DiskError: `DISK_FAILED`: it has changed since, and is to be compared anew; nothing was done.
            ReleaseRefused: `RELEASE_TOO_BIG`: it has more files than a record can hold; nothing was changed.
            OSError: it cannot be read, or the disk refused the record.
        """
        folder = self.path / str(release.version)
        with opened_dir(folder):
            now = stamps(folder)
        if not now or now != found:
            text = f"{folder} was changed while it was compared with the store's release: compared anew"
            raise DiskError(Reason.DISK_FAILED, text)
        record = record_of(release, proven).model_copy(update={"stamps": dict(found)})
        return self._finish(release.version, record)

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
        """Let a version count as one that must be read whole, whatever its stamps say."""
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
        self._update(version, confirmed=True, has_served=True, tries=0)

    def _intend(
        self, tree: Path, release: Release, sealed: Proven, said_before: str, like: Record | None = None
    ) -> Record:
        """Record that a sealed tree is about to come to the shelf."""
        changes: dict[str, object] = {"said_before": said_before, "stamps": dict(sealed.stamps)}
        record = record_of(release, sealed).model_copy(update=changes)
        if like is not None and like.identity == record.identity:
            kept = {"confirmed": like.confirmed, "has_served": like.has_served, "tries": like.tries}
            record = record.model_copy(update=kept)
        check_stamps(tree, sealed.stamps)
        records.write(self._records, release.version, record)
        check_stamps(tree, sealed.stamps)  # writing the record may have taken long
        return record

    def _place(self, source: Path, version: Version) -> None:
        """Rename a version onto the shelf.

        Raises:
            FileExistsError: the number is on the shelf.
            OSError: the disk refused; the version is at `source`, or on the shelf.
        """
        if self.workspace.has_shelf(self.model):
            disk.rename_noreplace(source, self.path / str(version))
            return
        shell = source.with_name(f"{SHELL}{uuid.uuid4().hex}")
        disk.make_new_dir(shell, 0o755)
        try:
            disk.rename_noreplace(source, shell / str(version))
            disk.sync_dir(shell)
            self._appear(shell, version)
        except OSError:
            with contextlib.suppress(OSError):  # if it is on the shelf already, it stays there
                disk.rename_noreplace(shell / str(version), source)
            raise
        finally:
            with contextlib.suppress(OSError):
                disk.remove_file(shell)  # only if it is empty

    def _appear(self, shell: Path, version: Version) -> None:
        """Let the base path appear with a version in it; one that somebody made meanwhile is used."""
        try:
            disk.rename_noreplace(shell, self.path)
        except FileExistsError:
            disk.rename_noreplace(shell / str(version), self.path / str(version))
        disk.sync_dir(self.path.parent)

    def _finish(self, version: Version, record: Record) -> Record:
        """Record that a version is on the shelf; its stamps are those of the moment when it was proven."""
        disk.sync_dir(self.path)
        done = record.model_copy(update={"state": "installed"})
        records.write(self._records, version, done)
        return done
