"""The workspace `<models_dir>/.servesync/`: hidden from the server, on the same filesystem as the shelf."""

import contextlib
import errno
import os
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from servesync import disk
from servesync.folders import follow_no_links
from servesync.plan.versions import Model, Version, parse_model

PROBE: Final = ".servesync-probe-"
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

    def claim(self) -> None:
        """Make the directory that holds the lock; nothing else is touched before the lock is held."""
        disk.make_dir(self.models_dir, 0o755)
        disk.make_dir(self.root, 0o700)

    def prepare(self, models: Iterable[Model]) -> None:
        """Make every directory, base paths of all models first, and prove that a rename works.

        A missing base path stops the server's updates of *every* model, so all exist before anything else.

        Raises:
            OSError: the disk refuses, or a shelf is another filesystem than the workspace (EXDEV).
        """
        models = list(models)
        for model in models:
            disk.make_dir(self.shelf(model), 0o755)
        self.make_folders()
        for model in models:
            self._prove_rename(self.shelf(model))

    def make_folders(self) -> None:
        """Make the workspace's own directories as far as they are missing.

        Raises:
            OSError: the disk refuses, or a file or a symbolic link has the name of one.
        """
        for folder in (self.staging, self.trash, *(self.root / kind for kind in (*RECORDS, "reserve"))):
            disk.make_dir(folder, 0o700)

    def _prove_rename(self, shelf: Path) -> None:
        """Rename an empty directory onto the shelf under a name that the server ignores, and back."""
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

    def clean(self) -> list[OSError]:
        """Remove what earlier runs left half-done; return what could not be removed."""
        problems = disk.empty_dir(self.staging) + disk.empty_dir(self.trash)
        for kind in (self.root / name for name in RECORDS):
            try:
                folders = [entry for entry in disk.entries(kind) if entry.is_dir(follow_symlinks=False)]
            except OSError as error:
                problems.append(error)
            else:
                problems += [item for folder in folders for item in disk.remove_unfinished(Path(folder.path))]
        return problems

    @contextmanager
    def attempt(self) -> Iterator[Path]:
        """Lend an empty directory below staging; it is removed with all that is left in it.

        What cannot be removed changes nothing about how the attempt ended: the next one removes it.

        Raises:
            OSError: it cannot be made.
        """
        disk.make_dir(self.staging, 0o700)
        disk.empty_dir(self.staging)
        folder = self.staging / uuid.uuid4().hex
        disk.make_new_dir(folder, 0o700)
        tree = folder / "tree"
        disk.make_new_dir(tree, 0o755)
        try:
            yield tree
        finally:
            with contextlib.suppress(OSError):
                disk.remove_tree(folder)

    def begin_attempt(self) -> Path:
        """Return an empty directory below staging, `staging/<uuid>/tree`."""
        disk.make_dir(self.staging, 0o700)
        folder = self.staging / uuid.uuid4().hex
        disk.make_new_dir(folder, 0o700)
        tree = folder / "tree"
        disk.make_new_dir(tree, 0o755)
        return tree

    def end_attempt(self, tree: Path) -> None:
        """Remove what `begin_attempt` made, and all that is in it."""
        with contextlib.suppress(OSError):
            disk.remove_tree(tree.parent)

    def trash_name(self, model: Model, version: Version) -> Path:
        """Return a fresh name in the trash for a version that leaves the shelf."""
        return self.trash / f"{model}.{version}.{uuid.uuid4().hex}"
