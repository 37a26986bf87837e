"""Small durable records beside the shelf: what was installed, and what was refused.

The record of an installed version is a cache: the truth is what lies on the shelf. A refusal is not: nothing
else says what was refused. Only a record that is not there counts as absent. One that cannot be read is left
where it is and reported; what it stood for stays, too.
"""

import errno
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Generic, Literal, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from servesync import disk
from servesync.domain import canonical_json
from servesync.domain.versions import (
    MAX_VERSION,
    Content,
    FileFact,
    ProvenBy,
    Stamp,
    Version,
    parse_canonical,
)
from servesync.files import NotRegular
from servesync.settings import Signature

MAX_RECORD_BYTES = 64 << 20
MAX_NEW_RECORD_BYTES = 16 << 20
"""Far below what is read again: a record grows by the stamps once its version is on the shelf."""


SCHEMA_VERSION: Final = 1
_LOST: Final = {
    errno.ELOOP: "it is a symbolic link, which is not followed",
    errno.EFBIG: "it is larger than any record",
}


class _Stored(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    schema_version: Literal[1] = 1
    identity: str
    at: AwareDatetime


T = TypeVar("T", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A record that is there and cannot be read, and why, in words.

    `is_lost`: it will not be readable later either, or not by this servesync: a new one may take its place.
    `is_newer`: a newer servesync wrote it.
    """

    path: Path
    why: str
    is_lost: bool
    is_newer: bool = False

    def said(self, consequence: str) -> str:
        """Return the message for people: what was met, and what follows for what it stands for."""
        return f"the record {self.path} cannot be read: {self.why}; {consequence}"


@dataclass(frozen=True, slots=True)
class Found(Generic[T]):
    """The records in one folder."""

    known: Mapping[Version, T]
    unreadable: Mapping[Version, Unreadable]


class RecordedFile(BaseModel):
    """One file of a version, as it was proven before it was installed."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    path: str
    size: Annotated[int, Field(ge=0)]
    sha256: str


class Record(_Stored):
    """A version that servesync put on the shelf, or is about to (`state: installing`).

    `stamps` are those of the files as they lay on the shelf when their content was last known to be
    right. `confirmed`: the server has served the version since it came to the shelf. `has_served`: it has
    served these bytes at any time, so they need no trial by request when they come back. `at` is the time of
    installation, `scrubbed_at` that of the last scrub, `reserved_at` that of its leaving the shelf for the
    reserve. `returning`: it is in the reserve only until
    the server has seen it gone; `tries` counts that. `retired_for`: it is in the reserve, and left the shelf
    for that version (`memory.when_short: retire_first`); `need_bytes` and `swing_bytes`: see
    `servesync.planning.fleet_facts.Reserved`. `signatures` are those of its graph. `said_before`:
    see `servesync.planning.status_staleness`. `observed_bytes`: by how much the server grew when it loaded
    the version; 0 if that was not seen.
    """

    state: Literal["installing", "installed"]
    files: tuple[RecordedFile, ...]
    stamps: Mapping[str, Stamp] = {}
    confirmed: bool = False
    has_served: bool = False
    scrubbed_at: AwareDatetime | None = None
    reserved_at: AwareDatetime | None = None
    returning: bool = False
    retired_for: Annotated[int, Field(ge=0, le=MAX_VERSION)] | None = None
    need_bytes: int | None = None
    swing_bytes: int = 0
    tries: Annotated[int, Field(ge=0)] = 0
    said_before: str = ""
    signatures: Mapping[str, Signature] | None = None
    tensor_bytes: int = 0
    observed_bytes: int = 0
    proven_by: ProvenBy = ProvenBy.NOTHING

    @property
    def content(self) -> Content:
        """The files as they were proven."""
        return Content.of(FileFact(file.path, file.size, file.sha256) for file in self.files)


class Refusal(_Stored):
    """A release that was refused under one identity, and why; it is not fetched again until that changes."""

    reason: str
    text: str
    judge: str = ""


def files_of(content: Content) -> tuple[RecordedFile, ...]:
    """Return `content` in the form that a record stores."""
    return tuple(RecordedFile(path=f.path, size=f.size, sha256=f.sha256) for f in content.files)


def read_all(folder: Path, kind: type[T]) -> Found[T]:
    """Return every record in `folder`, and those that are there and cannot be read.

    Raises:
        OSError: the folder cannot be read.
    """
    known: dict[Version, T] = {}
    unreadable: dict[Version, Unreadable] = {}
    for entry in disk.entries(folder):
        version = parse_canonical(entry.name.removesuffix(".json"))
        if version is None or not entry.name.endswith(".json"):
            continue
        record = read(folder / entry.name, kind, MAX_RECORD_BYTES)
        if isinstance(record, Unreadable):
            unreadable[version] = record
        elif record is not None:
            known[version] = record
    return Found(known, unreadable)


def read(path: Path, kind: type[T], most_bytes: int) -> T | Unreadable | None:
    """Return one record; None only if there is none."""
    try:
        data = disk.read_file(path, most_bytes)
    except FileNotFoundError:
        return None
    except NotRegular as error:
        is_folder = error.errno == errno.EISDIR
        return _directory(path) if is_folder else Unreadable(path, error.strerror or "", is_lost=True)
    except OSError as error:
        why = _LOST.get(error.errno or 0, f"{error.strerror or error} (uid {os.getuid()})")
        return Unreadable(path, why, is_lost=error.errno in _LOST)
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        newer = _newer(data)
        why = newer or f"it is damaged: {canonical_json.error_location(error)}"
        return Unreadable(path, why, is_lost=True, is_newer=bool(newer))


def _directory(path: Path) -> Unreadable:
    """Tell an empty directory, for which a record is put without a loss, from one with something in it."""
    try:
        is_empty = not any(disk.entries(path))
    except OSError:
        is_empty = False
    advice = "" if is_empty else f": move {path} away, no record can be written there"
    return Unreadable(path, f"it is a directory{advice}", is_lost=is_empty)


def _newer(data: bytes) -> str:
    """Return what to say if a newer servesync wrote a record; nothing if none did."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return ""
    number = found.get("schema_version") if isinstance(found, dict) else None
    if not isinstance(number, int) or number <= SCHEMA_VERSION:
        return ""
    return f"it was written by a newer servesync (schema_version {number}, this one reads {SCHEMA_VERSION})"


def write(folder: Path, version: Version, record: BaseModel) -> None:
    """Store a record durably, replacing an older one atomically; an empty directory in its place goes.

    Raises:
        OSError: the disk refused, or a directory with something in it has the name.
    """
    disk.make_dir(folder, 0o700)
    disk.write_file(folder / f"{version}.json", record.model_dump_json().encode())


def drop(folder: Path, version: Version) -> None:
    """Forget a record, durably; fine if there is none."""
    disk.remove_file(folder / f"{version}.json")
