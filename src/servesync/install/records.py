"""Small durable records beside the shelf: what was installed, and what was refused.

They are caches of facts, not the truth: the truth is what lies on the shelf. A record that cannot be
read counts as absent, and the version is then compared with the store's before it counts as ours.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from servesync import disk
from servesync.plan.versions import Content, FileFact, ProvenBy, Stamp, Version, parse_canonical
from servesync.settings import Signature

MAX_RECORD_BYTES = 64 << 20
MAX_NEW_RECORD_BYTES = 16 << 20
"""Far below what is read again: a record grows by the stamps once its version is on the shelf."""


class _Stored(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    schema_version: Literal[1] = 1
    identity: str
    at: AwareDatetime


T = TypeVar("T", bound=_Stored)


class RecordedFile(BaseModel):
    """One file of a version, as it was proven before it was installed."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    path: str
    size: Annotated[int, Field(ge=0)]
    sha256: str


class Record(_Stored):
    """A version that servesync put on the shelf, or is about to (`state: installing`).

    `stamps` are those of the files as they lay on the shelf when their content was last known to be
    right; `at` is the time of installation, `scrubbed_at` that of the last scrub,
    `reserved_at` that of its leaving the shelf for the reserve. `returning`: it is in the reserve only until
    the server has seen it gone; `tries` counts that. `signatures` are those of its graph. `said_before`:
    see `servesync.plan.hearsay`. `observed_bytes`: by how much the server grew when it loaded the version; 0
    if that was not seen.
    """

    state: Literal["installing", "installed"]
    files: tuple[RecordedFile, ...]
    stamps: Mapping[str, Stamp] = {}
    confirmed: bool = False
    scrubbed_at: AwareDatetime | None = None
    reserved_at: AwareDatetime | None = None
    returning: bool = False
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


def read_all(folder: Path, kind: type[T]) -> dict[Version, T]:
    """Return every readable record in `folder`."""
    return {version: record for version, record in _read_each(folder, kind) if record is not None}


def _read_each(folder: Path, kind: type[T]) -> Iterator[tuple[Version, T | None]]:
    for entry in disk.entries(folder):
        version = parse_canonical(entry.name.removesuffix(".json"))
        if version is not None and entry.is_file(follow_symlinks=False):
            yield version, _read(Path(entry.path), kind)


def _read(path: Path, kind: type[T]) -> T | None:
    try:
        with path.open("rb") as file:
            return kind.model_validate_json(file.read(MAX_RECORD_BYTES))
    except (OSError, ValidationError):
        return None


def write(folder: Path, version: Version, record: _Stored) -> None:
    """Store a record durably, replacing an older one atomically."""
    disk.make_dir(folder, 0o700)
    disk.write_file(folder / f"{version}.json", record.model_dump_json().encode())


def drop(folder: Path, version: Version) -> None:
    """Forget a record, durably; fine if there is none."""
    disk.remove_file(folder / f"{version}.json")
