"""What an interrupted transfer has left in staging, and for which offer: the next one may go on with it.

The note beside a tree says only which transfer may look at it. What lies in the tree counts for nothing until
each piece of it has been read and proven.
"""

import os
import stat
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from servesync import disk
from servesync.domain.versions import MAX_VERSION, Model, Release, Version, parse_model
from servesync.folders import opened_dir
from servesync.install.workspace import TREE, Workspace

NOTE: Final = "offer.json"
MOST_NOTE_BYTES: Final = 4096
BLOCK: Final = 512
"""The unit of `st_blocks`, in bytes."""


@dataclass(frozen=True, slots=True)
class Interrupted:
    """A tree in staging that a transfer began, and the offer that the transfer was to bring."""

    tree: Path
    model: Model
    version: Version
    offer: str


class _Note(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    schema_version: Literal[1] = 1
    model: str
    version: Annotated[int, Field(ge=0, le=MAX_VERSION)]
    offer: Annotated[str, Field(max_length=1000)]


def note(tree: Path, release: Release) -> None:
    """Say beside a tree in staging which release it is to become; only then can it outlast its transfer.

    Raises:
        OSError: the disk refused.
    """
    text = _Note(model=release.model, version=release.version, offer=release.offer).model_dump_json()
    disk.write_file(tree.parent / NOTE, text.encode())


def has_note(tree: Path) -> bool:
    """Tell whether a tree may outlast its transfer."""
    return _read(tree) is not None


def interrupted(workspace: Workspace) -> tuple[Interrupted, ...]:
    """Return every tree in staging that has a note, also those of transfers at work.

    Raises:
        OSError: staging cannot be read.
    """
    trees = [Path(entry.path, TREE) for entry in disk.entries(workspace.staging) if _is_folder(entry)]
    found = [_read(tree) for tree in trees]
    return tuple(item for item in found if item is not None)


def clear_for(tree: Path, files: Collection[str]) -> None:
    """Remove everything from a tree but plain files whose paths, relative to it, are among `files`.

    A file with a second name elsewhere goes, too: what is written into it would show there.

    Raises:
        OSError: something cannot be removed.
    """
    folders = {str(parent) for path in files for parent in PurePosixPath(path).parents}
    waiting = [("", tree)]
    while waiting:
        prefix, folder = waiting.pop()
        for entry in list(disk.entries(folder)):
            path = f"{prefix}{entry.name}"
            if _is_folder(entry) and path in folders:
                waiting.append((f"{path}/", Path(entry.path)))
            elif path not in files or not _is_plain(entry):
                disk.remove_tree(Path(entry.path))


def allocated_bytes(tree: Path) -> int:
    """Return how many bytes of the disk the files of a tree take already; 0 if that cannot be told."""
    try:
        with opened_dir(tree):
            return sum(
                os.lstat(Path(folder, name)).st_blocks * BLOCK
                for folder, _, names in os.walk(tree)
                for name in names
            )
    except OSError:
        return 0


def by_key(found: Collection[Interrupted]) -> Mapping[tuple[Model, Version], Interrupted]:
    """Return the trees by what they are to become; of several for one version, any."""
    return {(item.model, item.version): item for item in found}


def _read(tree: Path) -> Interrupted | None:
    try:
        with opened_dir(tree):
            data = disk.read_file(tree.parent / NOTE, MOST_NOTE_BYTES)
        found = _Note.model_validate_json(data)
    except (OSError, ValidationError):
        return None
    model = parse_model(found.model)
    return None if model is None else Interrupted(tree, model, Version(found.version), found.offer)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    return entry.is_dir(follow_symlinks=False)


def _is_plain(entry: os.DirEntry[str]) -> bool:
    found = entry.stat(follow_symlinks=False)
    return stat.S_ISREG(found.st_mode) and found.st_nlink == 1
