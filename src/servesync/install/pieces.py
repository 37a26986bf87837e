"""Tables of the pieces of installed versions, by which another version finds what it need not fetch.

A table says where pieces lie, and proves nothing: whoever takes bytes from there hashes them. One that is
missing, damaged or out of date costs time. A table is named by what a version holds, not by where it lies: it
is the same on the shelf and in the reserve, and nothing is done to it when the version moves.
"""

import contextlib
import errno
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Annotated, Final, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, field_validator

from servesync import disk
from servesync.domain.canonical_json import Sha256
from servesync.domain.paths import flaw_of_path
from servesync.domain.versions import MAX_VERSION, Content, Model, Version, parse_model
from servesync.install import records
from servesync.install.records import Record
from servesync.install.reserve import Reserve
from servesync.install.workspace import Workspace

MAX_TABLE_BYTES: Final = 16 << 20
STAGED: Final = "pieces.json"
"""The table of a version in staging, in the folder of its attempt."""

FOLDER: Final = "pieces"
_ENDING: Final = ".json"


class PlacedPiece(NamedTuple):
    """`size` bytes of a version's file, from `offset` on, and their SHA-256."""

    path: str
    offset: int
    size: int
    sha256: str


class _File(BaseModel):
    """One file: size and SHA-256 of each of its pieces, from its beginning to its end."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    path: str
    pieces: tuple[tuple[Annotated[int, Field(ge=1, le=MAX_VERSION)], Sha256], ...]

    @field_validator("path")
    @classmethod
    def _check_path(cls, value: str) -> str:
        if flaw := flaw_of_path(value):
            raise ValueError(f"the path {flaw}")
        return value


class _Stored(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    schema_version: Literal[1] = 1
    files: tuple[_File, ...]


@dataclass(frozen=True, slots=True)
class PieceTable:
    """Where the pieces of one version lie.

    `folders`: where the version may be, on the shelf or in the reserve; it may move, or leave, at any time.
    """

    folders: tuple[Path, ...]
    pieces: tuple[PlacedPiece, ...]


def write_staged(tree: Path, pieces: Iterable[PlacedPiece]) -> None:
    """Write the table of a version in staging beside its tree; nothing if it would be too large.

    `pieces` are all pieces of all files.

    Raises:
        OSError: the disk refused.
    """
    files = tuple(
        _File(path=path, pieces=tuple((piece.size, piece.sha256) for piece in own))
        for path, own in groupby(sorted(pieces), key=lambda piece: piece.path)
    )
    data = _Stored(files=files).model_dump_json().encode()
    if len(data) <= MAX_TABLE_BYTES:
        disk.write_file(tree.with_name(STAGED), data)


def keep_pieces(workspace: Workspace, tree: Path, content: Content) -> None:
    """Keep the table of a version that was in staging in `tree`; it is missing if that is not possible.

    The version's record is written before, so that `sweep_pieces` finds what the table belongs to.
    """
    source, target = tree.with_name(STAGED), _path(workspace, content)
    with contextlib.suppress(OSError):
        disk.make_dir(target.parent, 0o700)
        try:
            disk.rename_noreplace(source, target)
        except FileExistsError:
            disk.exchange(source, target)


def piece_tables(workspace: Workspace, first: Model | None = None) -> Iterator[PieceTable]:
    """Yield the tables of the versions on this machine: of `first` before the others, high numbers first.

    What cannot be read is left out. Reads only; for jobs.
    """
    seen = set()
    for model, version, record in _recorded(workspace, first):
        if record.content.digest in seen:  # the same bytes under another number or name
            continue
        seen.add(record.content.digest)
        stored = records.read(_path(workspace, record.content), _Stored, MAX_TABLE_BYTES)
        if isinstance(stored, _Stored):
            folders = (workspace.shelf(model) / str(version), Reserve(workspace, model).path / str(version))
            yield PieceTable(folders, tuple(_placed(stored)))


def sweep_pieces(workspace: Workspace) -> list[OSError]:
    """Remove the tables of versions that are gone; return what could not be removed.

    Nothing is removed while a record cannot be read: the table may be of its version. A table whose version
    moves meanwhile may be lost, which costs time later.
    """
    try:
        known = {record.content.digest for _, _, record in _recorded(workspace, None, is_strict=True)}
    except OSError:
        return []
    problems = []
    folder = workspace.root / FOLDER
    for entry in disk.entries(folder):
        if entry.name.removesuffix(_ENDING) not in known:
            try:
                disk.remove_file(folder / entry.name)
            except OSError as error:
                problems.append(error)
    return problems


def _path(workspace: Workspace, content: Content) -> Path:
    return workspace.root / FOLDER / f"{content.digest}{_ENDING}"


def _placed(stored: _Stored) -> Iterator[PlacedPiece]:
    for file in stored.files:
        offset = 0
        for size, sha256 in file.pieces:
            yield PlacedPiece(file.path, offset, size, sha256)
            offset += size


def _recorded(
    workspace: Workspace, first: Model | None, *, is_strict: bool = False
) -> Iterator[tuple[Model, Version, Record]]:
    """Yield the records of all versions on shelves and in reserves.

    Raises:
        OSError: a folder cannot be read; if `is_strict`, a record that is there cannot be read.
    """
    folders = [workspace.root / "records", workspace.root / "reserve_records"]
    models = {parse_model(entry.name) for folder in folders for entry in disk.entries(folder)} - {None}
    for model in sorted(filter(None, models), key=lambda model: (model != first, model)):
        for folder in folders:
            try:
                found = records.read_all(folder / model, Record)
            except OSError:
                if is_strict:
                    raise
                continue
            if found.unreadable and is_strict:
                raise OSError(errno.EIO, "a record cannot be read", str(folder / model))
            yield from (
                (model, version, found.known[version]) for version in sorted(found.known, reverse=True)
            )
