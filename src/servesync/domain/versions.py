"""The values that travel between the steps: parsed once at the border, frozen from then on."""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NewType

Model = NewType("Model", str)
"""A model's name: `[A-Za-z0-9._-]{1,100}`, not starting with a dot."""

Version = NewType("Version", int)
"""A version number, 0 to 2^63-1."""

MAX_VERSION: Final = 2**63 - 1
_MODEL: Final = re.compile(r"(?!\.)[A-Za-z0-9._-]{1,100}", re.ASCII)
_CANONICAL: Final = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)
_PADDED: Final = re.compile(r"[0-9]{1,40}", re.ASCII)


def parse_model(text: str) -> Model | None:
    """Return `text` as a model's name, or None if it cannot be one."""
    return Model(text) if _MODEL.fullmatch(text) else None


def parse_version(text: str) -> Version | None:
    """Return the version that a store key or an archive's folder names; leading zeros are allowed."""
    if not _PADDED.fullmatch(text):
        return None
    number = int(text)
    return Version(number) if number <= MAX_VERSION else None


def parse_canonical(text: str) -> Version | None:
    """Return the version of a directory name on the shelf: no leading zeros, sign or space."""
    return parse_version(text) if _CANONICAL.fullmatch(text) else None


def server_sees_version(name: str) -> bool:
    """Tell whether TensorFlow Serving would take the directory entry `name` for a version.

    Its scanner strips ASCII white space, allows one sign, and wants a signed 64-bit decimal.
    """
    match = re.fullmatch(r"[ \t\n\v\f\r]*([+-]?[0-9]+)[ \t\n\v\f\r]*", name, re.ASCII)
    return match is not None and -(2**63) <= int(match[1]) <= MAX_VERSION


Stamp = tuple[int, int, int, int]
"""Inode, size, mtime and ctime (ns) of a file; a rename of its folder changes none of them."""


class Layout(StrEnum):
    """How the store holds a release."""

    ARCHIVE = "archive"
    DIRECTORY = "directory"


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One object of the store, as the listing described it; `etag` is only ever an identity token."""

    key: str
    size: int
    etag: str
    path: str = ""
    """Directory layout: where the object lands, relative to the version (`variables/variables.index`)."""
    modified_at: float | None = field(default=None, compare=False)
    """When the store got it, in seconds since 1970, as it says; only ever shown and measured with."""


@dataclass(frozen=True, slots=True)
class Release:
    """What the store offers for one version.

    `identity` changes exactly when the bytes of the version may have changed. A manifest proves these bytes,
    and does not change them.
    """

    model: Model
    version: Version
    layout: Layout
    objects: tuple[StoredObject, ...]
    identity: str
    manifest: StoredObject | None = None

    @property
    def offer(self) -> str:
        """What a refusal holds for: the same bytes with the same manifest, or with none."""
        if self.manifest is None:
            return self.identity
        manifest = self.manifest
        text = f"{self.identity}\0{manifest.key}\0{manifest.size}\0{manifest.etag}"
        return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()

    @property
    def published_at(self) -> float | None:
        """When the store got the last object of it, in seconds since 1970; None if it does not say."""
        objects = self.objects if self.manifest is None else (*self.objects, self.manifest)
        times = [item.modified_at for item in objects]
        known = [at for at in times if at is not None]
        return max(known) if len(known) == len(times) else None

    @property
    def stored_bytes(self) -> int:
        """Bytes to fetch."""
        return sum(item.size for item in self.objects)


class ProvenBy(StrEnum):
    """What shows that the bytes of a version are those that were published, besides the archive itself."""

    MANIFEST = "manifest"
    STORE_CHECKSUM = "store_checksum"
    NOTHING = "unproven"


@dataclass(frozen=True, slots=True)
class Proof:
    """The SHA-256 (64 lower-case hex digits) of one range of an object, in bytes."""

    offset: int
    size: int
    sha256: str


@dataclass(frozen=True, slots=True, order=True)
class FileFact:
    """One file of a version: its path relative to the version (`/` between parts), bytes and SHA-256."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Content:
    """Every file of one version, sorted by path."""

    files: tuple[FileFact, ...]

    @classmethod
    def of(cls, files: Iterable[FileFact]) -> "Content":
        """Sort `files` into a value that compares by content alone."""
        return cls(tuple(sorted(files)))

    @property
    def total_bytes(self) -> int:
        """Bytes of all files together."""
        return sum(file.size for file in self.files)

    @property
    def digest(self) -> str:
        """SHA-256 over one line a file (`<sha256> <size> <path>`, line feed), in the order of the paths."""
        lines = "".join(f"{file.sha256} {file.size} {file.path}\n" for file in self.files)
        return hashlib.sha256(lines.encode()).hexdigest()
