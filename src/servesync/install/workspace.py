"""The workspace `<models_dir>/.servesync/`: hidden from the server, on the same filesystem as the shelf."""

import contextlib
import errno
import os
import uuid
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from servesync import disk
from servesync.domain.versions import Model, Version, parse_model
from servesync.folders import follow_no_links, opened_dir

PROBE: Final = ".servesync-probe-"
TREE: Final = "tree"
"""The directory of an attempt in which its version takes shape."""

SHELL: Final = "shelf."
"""How the name of a folder begins that is to become a model's base path, with a version in it."""

RECORDS: Final = ("records", "refusals", "reserve_records", "channels", "attempts")
"""Folders with one folder of records for each model."""


@dataclass(frozen=True, slots=True)
class Workspace:
    """Where things lie below one models directory; no link among its folders is followed."""

    models_dir: Path

    def __post_init__(self) -> None:
        """Follow no link at or below the models directory."""
        follow_no_links(self.models_dir)

    @property
    def root(self) -> Path:
        """Everything of servesync that the server must not see."""
        return self.models_dir / ".servesync"

    @property
    def lock(self) -> Path:
        """The file that the agent at work holds."""
        return self.root / "lock"

    @property
    def staging(self) -> Path:
        """One directory for each attempt under way."""
        return self.root / "staging"

    @property
    def trash(self) -> Path:
        """What has left the shelf and is about to be removed."""
        return self.root / "trash"

    def shelf(self, model: Model) -> Path:
        """Return the directory that the server scans for `model`."""
        return self.models_dir / model

    def records(self, model: Model) -> Path:
        """Return where the records of `model`'s installed versions lie."""
        return self.root / "records" / model

    def refusals(self, model: Model) -> Path:
        """Return where the records of `model`'s refused releases lie."""
        return self.root / "refusals" / model

    def attempts(self, model: Model) -> Path:
        """Return where it lies how often releases of `model` were read and found damaged."""
        return self.root / "attempts" / model

    def recorded(self) -> frozenset[Model]:
        """Return the models of which servesync has put something on a shelf, or was about to.

        One whose records cannot be read counts, so that it is reported and keeps no other from being known.

        Raises:
            OSError: the folder of all records cannot be read.
        """
        named = [(parse_model(entry.name), entry) for entry in disk.entries(self.root / "records")]
        return frozenset(model for model, entry in named if model is not None and self._is_used(model, entry))

    def _is_used(self, model: Model, records: os.DirEntry[str]) -> bool:
        try:
            return any(disk.entries(Path(records.path)))
        except OSError:  # a file or a link in its place is somebody's note, unless the model is there
            return records.is_dir(follow_symlinks=False) or self.shelf(model).is_dir()

    def has_shelf(self, model: Model) -> bool:
        """Tell whether something has the name of a model's base path.

        Raises:
            OSError: the models directory cannot be reached, or is a link.
        """
        try:
            with opened_dir(self.models_dir) as root:
                os.stat(model, dir_fd=root, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def make_shelf(self, model: Model) -> bool:
        """Make the base path of a model of which nothing is recorded; return whether there is one now.

        Where something is recorded, somebody removed the folder. The server serves on from memory until an
        empty one appears, for which it unloads everything. So it stays away, and `Shelf.publish` and
        `Shelf.put_back` let it appear with a version in it.

        Raises:
            OSError: the disk refuses, or a file or a symbolic link has the name.
        """
        if not self.has_shelf(model) and self._is_recorded(model):
            return False
        disk.make_dir(self.shelf(model), 0o755)
        return True

    def _is_recorded(self, model: Model) -> bool:
        try:
            return any(disk.entries(self.records(model)))
        except OSError as error:  # a file or a link in its place is somebody's note
            return error.errno not in {errno.ENOTDIR, errno.ELOOP}

    def claim(self) -> None:
        """Make the directory that holds the lock; nothing else is touched before the lock is held."""
        disk.make_dir(self.models_dir, 0o755)
        disk.make_dir(self.root, 0o700)

    def prepare(self, models: Iterable[Model]) -> None:
        """Make every directory, base paths of all models first, and prove that a rename works.

        A missing base path stops the server's updates of *every* model, so all exist before anything else,
        but for those that `make_shelf` leaves away.

        Raises:
            OSError: the disk refuses, or a shelf is another filesystem than the workspace (EXDEV).
        """
        models = list(models)
        places = {self.shelf(model) if self.make_shelf(model) else self.models_dir for model in models}
        self.make_folders()
        for place in sorted(places):
            self._prove_rename(place)

    def make_folders(self) -> None:
        """Make the workspace's own directories as far as they are missing.

        Raises:
            OSError: the disk refuses, or a file or a symbolic link has the name of one.
        """
        for folder in (self.staging, self.trash, *(self.root / kind for kind in (*RECORDS, "reserve"))):
            disk.make_dir(folder, 0o700)

    def _prove_rename(self, shelf: Path) -> None:
        """Rename an empty directory into `shelf` under a name that the server ignores, and back."""
        if shelf.stat().st_dev != self.staging.stat().st_dev:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), str(shelf))
        for entry in disk.entries(shelf):
            if entry.name.startswith(PROBE):  # an earlier run died on the way back
                disk.remove_tree(Path(entry.path))
        probe = self.staging / uuid.uuid4().hex
        disk.make_new_dir(probe, 0o700)
        visitor = shelf / f"{PROBE}{probe.name}"
        disk.rename_noreplace(probe, visitor)
        disk.rename_noreplace(visitor, probe)
        disk.remove_tree(probe)

    def clean(self, known: Collection[Path] = ()) -> list[OSError]:
        """Put what earlier runs left half-done into the trash; return what could not be moved or removed.

        `known`: see `stray_attempts`. Who calls this empties the trash afterwards, which may take long.
        """
        problems: list[OSError] = []
        try:
            self.stray_attempts(known)
        except OSError as error:
            problems.append(error)
        for kind in (self.root / name for name in RECORDS):
            try:
                folders = [entry for entry in disk.entries(kind) if entry.is_dir(follow_symlinks=False)]
            except OSError as error:
                problems.append(error)
            else:
                problems += [item for folder in folders for item in disk.remove_unfinished(Path(folder.path))]
        return problems

    def begin_attempt(self) -> Path:
        """Make a folder below staging, and return the empty directory `tree` in it.

        Attempts lie side by side. Each ends with `end_attempt`, or with `give_up_attempt`.

        Raises:
            OSError: it cannot be made.
        """
        disk.make_dir(self.staging, 0o700)
        folder = self.staging / uuid.uuid4().hex
        disk.make_new_dir(folder, 0o700)
        tree = folder / TREE
        disk.make_new_dir(tree, 0o755)
        return tree

    def end_attempt(self, tree: Path) -> None:
        """Remove an attempt's folder with all that is left in it; slow for a big tree.

        What cannot be removed changes nothing about how the attempt ended: `stray_attempts` finds it.
        """
        with contextlib.suppress(OSError):
            disk.remove_tree(tree.parent)

    def give_up_attempt(self, tree: Path) -> None:
        """Move an attempt's folder into the trash with all that is left in it; fine if it is gone.

        Raises:
            OSError: the disk refused; the folder is where it was.
        """
        disk.make_dir(self.trash, 0o700)
        self.discard(tree.parent)

    def stray_attempts(self, known: Collection[Path]) -> tuple[Path, ...]:
        """Move the attempts that nobody knows any more into the trash; return where they are now.

        `known`: the tree of every attempt that is under way, or proven and waiting.

        Raises:
            OSError: the disk refused; those that were not moved yet are where they were.
        """
        disk.make_dir(self.trash, 0o700)
        kept = {tree.parent.name for tree in known}
        strays = [entry.name for entry in disk.entries(self.staging) if entry.name not in kept]
        moved = [self.discard(self.staging / name) for name in strays]
        return tuple(path for path in moved if path is not None)

    def discard(self, folder: Path) -> Path | None:
        """Move something of the workspace into the trash; return where it is now, None if it is gone.

        Raises:
            OSError: the disk refused; it is where it was.
        """
        target = self.trash / f"attempt.{uuid.uuid4().hex}"
        try:
            disk.rename_noreplace(folder, target)
        except FileNotFoundError:
            return None
        return target

    def trash_name(self, model: Model, version: Version) -> Path:
        """Return a fresh name in the trash for a version that leaves the shelf."""
        return self.trash / f"{model}.{version}.{uuid.uuid4().hex}"
