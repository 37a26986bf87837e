"""Versions that have left the shelf and stay unpacked, so that a rollback is a rename."""

import contextlib
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from servesync import disk
from servesync.domain.versions import Model, Release, Version, parse_canonical, parse_model
from servesync.errors import DiskError, Reason
from servesync.folders import opened_dir
from servesync.install import records
from servesync.install.content import check_stamps, stamps
from servesync.install.proof import UNREADABLE, Proven, record_of
from servesync.install.records import Record, Unreadable
from servesync.install.workspace import SHELL, Workspace

STAYS: Final = (
    "stays in the reserve if it is there, but can neither come back from there nor give way to others"
)


def awaited_back(workspace: Workspace, known: Collection[Model]) -> frozenset[Model]:
    """Return the models, besides those that are `known`, of which a version is off the shelf for a moment.

    One whose record cannot be read may be such a version.

    Raises:
        OSError: the folder of all reserves cannot be read.
    """
    folders = [parse_model(entry.name) for entry in disk.entries(workspace.root / "reserve")]
    others = [Reserve(workspace, model) for model in folders if model is not None and model not in known]
    return frozenset(reserve.model for reserve in others if reserve.may_return())


@dataclass(frozen=True, slots=True)
class Leaving:
    """Why a version leaves the shelf for the reserve.

    `returning`: it comes back as soon as the server has seen it gone, and does not count as kept.
    `retired_for`: the version that it makes room for in the server's memory; `need_bytes`: what the server
    is thought to hold with that one in its place.
    """

    returning: bool = False
    retired_for: Version | None = None
    need_bytes: int | None = None


BY_POLICY: Final = Leaving()


@dataclass(frozen=True, slots=True)
class Reserve:
    """The reserve of one model: complete versions and their records, where the server does not look."""

    workspace: Workspace
    model: Model

    @property
    def path(self) -> Path:
        """Where the versions lie, one directory each."""
        return self.workspace.root / "reserve" / self.model

    @property
    def _records(self) -> Path:
        return self.workspace.root / "reserve_records" / self.model

    def versions(self) -> Mapping[Version, Record]:
        """Return what is in the reserve; a record without its directory, or the reverse, counts for nothing.

        Raises:
            OSError: the directory cannot be read.
        """
        return self.contents()[0]

    def unreadable(self) -> Mapping[Version, str]:
        """Return what to say of records that are there and cannot be read; their versions stay as they are.

        Raises:
            OSError: the directory cannot be read.
        """
        return self.contents()[1]

    def contents(self) -> tuple[Mapping[Version, Record], Mapping[Version, str]]:
        """Return `versions` and `unreadable`, after reading each record once.

        Raises:
            OSError: the directory cannot be read.
        """
        found = records.read_all(self._records, Record)
        there = {parse_canonical(entry.name) for entry in disk.entries(self.path)} if found.known else set()
        known = {version: record for version, record in found.known.items() if version in there}
        unreadable = {
            version: item.said(f"{self.path / str(version)} {STAYS}; when it is not needed, remove both")
            for version, item in found.unreadable.items()
        }
        return known, unreadable

    def may_return(self) -> bool:
        """Tell whether a version is, or may be, here only until the server has seen it gone."""
        try:
            known, unreadable = self.contents()
        except OSError:
            return True
        return bool(unreadable) or any(record.returning for record in known.values())

    def is_free(self, version: Version) -> bool:
        """Tell whether a version may be put here: a record that may be readable later is not replaced."""
        return self._in_the_way(version) is None

    def _in_the_way(self, version: Version) -> Unreadable | None:
        item = records.read_all(self._records, Record).unreadable.get(version)
        return None if item is None or item.is_lost else item

    def _check_free(self, version: Version) -> None:
        item = self._in_the_way(version)
        if item is not None:
            text = item.said(f"{self.model} {version} cannot be put into the reserve meanwhile")
            raise DiskError(Reason.RECORD_UNREADABLE, text)

    def take(
        self, folder: Path, version: Version, record: Record, now: datetime, *, why: Leaving = BY_POLICY
    ) -> None:
        """Move a good version from the shelf into the reserve, in one rename.

        An older one of the same number goes to the trash. The caller forgets the shelf's record afterwards; a
        crash in between leaves a record too many, on either side, and never a version without one.

        Raises:
            DiskError: `RECORD_UNREADABLE`: see `is_free`; nothing was changed.
            OSError: the disk refused; the version is where it was, or already in the reserve.
        """
        self._check_free(version)
        self.drop(version)
        disk.make_dir(self.path, 0o700)
        changes: dict[str, object] = {
            "has_served": record.has_served or record.confirmed,
            "reserved_at": now,
            "returning": why.returning,
            "retired_for": why.retired_for,
            "need_bytes": why.need_bytes,
        }
        changes |= {"tries": record.tries + 1} if why.returning else {"tries": 0, "confirmed": False}
        left = record.model_copy(update=changes)
        records.write(self._records, version, left)
        disk.rename_noreplace(folder, self.path / str(version))
        disk.sync_dir(folder.parent)
        disk.sync_dir(self.path)

    def stamps_match(self, version: Version, record: Record) -> bool:
        """Tell whether a version's files have the stamps under which they were proven; reads no content.

        What is gone, a link, and what the disk cannot tell have not.

        Raises:
            OSError: it cannot be read.
        """
        folder = self.path / str(version)
        try:
            with opened_dir(folder):
                return dict(stamps(folder)) == dict(record.stamps)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            if error.errno in UNREADABLE:
                return False
            raise

    def keep(self, version: Version) -> None:
        """Keep a version that was to return as one that left by policy; do nothing if it is not there."""
        record = self.versions().get(version)
        if record is not None:
            changes = {
                "returning": False,
                "retired_for": None,
                "need_bytes": None,
                "tries": 0,
                "confirmed": False,
            }
            records.write(self._records, version, record.model_copy(update=changes))

    def note_swing(self, version: Version, swing_bytes: int) -> None:
        """Record that room was made for a version in vain, and by how much the need had grown meanwhile.

        Raises:
            OSError: the record cannot be written.
        """
        record = self.versions().get(version)
        if record is not None:
            changed = record.model_copy(update={"swing_bytes": swing_bytes})
            records.write(self._records, version, changed)

    def forget(self, version: Version) -> None:
        """Drop the record of a version that is on the shelf again."""
        records.drop(self._records, version)

    def drop(self, version: Version) -> None:
        """Move a version to the trash and forget it; fine if there is none."""
        folder = self.path / str(version)
        if os.path.lexists(folder):
            disk.rename_noreplace(folder, self.workspace.trash_name(self.model, version))
            disk.sync_dir(self.path)
        records.drop(self._records, version)

    def set_aside(self, tree: Path, release: Release, sealed: Proven) -> Record:
        """Move a sealed tree into the reserve, where it waits to come to the shelf.

        An older one of the same number goes to the trash. A crash in between leaves a record without its
        tree, or all of it. Nothing is read, and only what is small is synced.

        Raises:
            ReleaseRefused: `RELEASE_TOO_BIG`: it has more files than a record can hold.
            DiskError: `DISK_FAILED`: somebody else changed the tree. `RECORD_UNREADABLE`: see `is_free`. What
                the reserve held of this number is still there, or in the trash.
            OSError: the disk refused; the tree is still in staging, or already in the reserve.
        """
        changes = {"state": "installed", "stamps": dict(sealed.stamps), "reserved_at": sealed.at}
        record = record_of(release, sealed).model_copy(update=changes)
        self._check_free(release.version)
        check_stamps(tree, sealed.stamps)
        self.drop(release.version)
        disk.make_dir(self.path, 0o700)
        records.write(self._records, release.version, record)
        check_stamps(tree, sealed.stamps)  # writing the record may have taken long
        disk.rename_noreplace(tree, self.path / str(release.version))
        disk.sync_dir(self.path)
        return record

    def trim(self, keep: int, spare: Collection[Version] = ()) -> tuple[Version, ...]:
        """Keep the `keep` versions that came last, and all of `spare`; drop the others, and return these."""
        kept = [
            (version, record)
            for version, record in self.versions().items()
            if version not in spare and not record.returning
        ]
        found = sorted(kept, key=lambda item: item[1].reserved_at or item[1].at, reverse=True)
        gone = tuple(version for version, _ in found[keep:])
        for version in gone:
            self.drop(version)
        return gone

    def clean(self) -> None:
        """Drop what a crash has left: directories without a record, and records without a directory.

        The directories go to the trash, which the caller empties afterwards.

        What has a record that cannot be read stays: nobody knows what it was kept for. A version that was on
        its way back to a shelf whose folder was missing is put where it was.
        """
        self._rescue()
        found = records.read_all(self._records, Record)
        there = [(parse_canonical(entry.name), entry.name) for entry in disk.entries(self.path)]
        for version in found.known.keys() - {number for number, _ in there}:
            records.drop(self._records, version)
        for number, name in there:
            if number not in found.known and number not in found.unreadable:
                self.workspace.discard(self.path / name)

    def _rescue(self) -> None:
        """Put back what a crash left in a folder that was to become a base path."""
        for shell in disk.entries(self.path):
            if shell.name.startswith(SHELL) and shell.is_dir(follow_symlinks=False):
                for entry in disk.entries(Path(shell.path)):
                    with contextlib.suppress(FileExistsError):
                        disk.rename_noreplace(Path(entry.path), self.path / entry.name)
