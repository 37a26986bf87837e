"""The manifest of a release: what its archive consists of, and what the version consists of, to the byte.

JSON of at most 4 MiB, in the form of `canonical_json`. The publisher writes it after the archive, so it also
marks the release as complete. `docs/manifest.schema.json` is the schema for other tools.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Final, Self

from pydantic import Field, TypeAdapter, ValidationError, field_validator, model_validator

from servesync.domain import canonical_json
from servesync.domain.canonical_json import SHA256, Sha256, Strict, Time
from servesync.domain.parts import MAX_ITEMS, SCHEMA_1, SCHEMA_2, Archive, Bytes, Part, Piece, Schema
from servesync.domain.paths import flaw_of_path, folded
from servesync.domain.versions import (
    MAX_VERSION,
    Content,
    FileFact,
    Model,
    Release,
    Version,
    parse_model,
)
from servesync.errors import Reason, ReleaseRefused, SettingsError

__all__ = [
    "MAX_MANIFEST_BYTES",
    "SCHEMA_1",
    "SCHEMA_2",
    "Archive",
    "File",
    "Manifest",
    "Part",
    "Piece",
    "Totals",
    "check_identity",
    "check_labels",
    "compare",
    "dump",
    "fits",
    "json_schema",
    "parse",
    "parse_for",
    "schema_for",
    "without_pieces",
]

MAX_MANIFEST_BYTES: Final = 4 << 20
MAX_LABELS: Final = 64
SHOWN: Final = 10

_LABEL_NAME: Final = r"^[A-Za-z0-9._/-]{1,63}$"
_LABEL_VALUE: Final = r"^[^\x00-\x1f\x7f]{0,256}$"

Labels = Annotated[
    dict[Annotated[str, Field(pattern=_LABEL_NAME)], Annotated[str, Field(pattern=_LABEL_VALUE)]],
    Field(max_length=MAX_LABELS),
]
_LABELS: Final[TypeAdapter[dict[str, str]]] = TypeAdapter(Labels)


class File(Strict):
    """One file of the version: its path relative to the version, `/` between names.

    Names are UTF-8 in the form NFC, printable, of at most 255 bytes, without a backslash, and end in no dot
    or space; no two paths are the same where case does not count.
    """

    path: str
    size: Bytes
    sha256: Sha256

    @field_validator("path")
    @classmethod
    def _check_path(cls, value: str) -> str:
        if flaw := flaw_of_path(value):
            raise ValueError(f"the path {flaw}: {value[:60]!a}")
        return value


class Totals(Strict):
    """Sums over the version: number of files and their bytes, number of tensors and their bytes."""

    files: Annotated[int, Field(ge=1, le=MAX_ITEMS)]
    bytes: Bytes
    tensors: Bytes
    tensor_bytes: Bytes


class Manifest(Strict):
    """One release, complete. `created` is UTC to the second (`2026-01-02T03:04:05Z`).

    In schema 2 every piece has its SHA-256 and its place in the part, in schema 1 none. What has no pieces is
    written in schema 1, which every agent reads (`schema_for`).
    """

    schema_version: Schema = Field(default=SCHEMA_1, alias="schema")
    model: str
    version: Annotated[int, Field(ge=0, le=MAX_VERSION)]
    created: Time
    archive: Archive
    files: Annotated[tuple[File, ...], Field(min_length=1, max_length=MAX_ITEMS)]
    totals: Totals
    labels: Labels = {}  # noqa: RUF012 (pydantic copies it)

    @field_validator("model")
    @classmethod
    def _check_model(cls, value: str) -> str:
        if parse_model(value) is None:
            raise ValueError("must be 1 to 100 of A-Z a-z 0-9 . _ - and not start with a dot")
        return value

    @field_validator("created")
    @classmethod
    def _check_created(cls, value: str) -> str:
        datetime.fromisoformat(value)  # its ValueError says what no calendar or clock shows
        return value

    @model_validator(mode="after")
    def _check_files(self) -> Self:
        paths = [file.path for file in self.files]
        if paths != sorted(paths):
            raise ValueError("files: must be sorted by path")
        _check_distinct(paths)
        if self.totals.files != len(paths) or self.totals.bytes != sum(file.size for file in self.files):
            raise ValueError("totals: not those of the files")
        return self

    @model_validator(mode="after")
    def _check_pieces(self) -> Self:
        """Where parts say what they hold, they must hold every file, once, from its beginning to its end."""
        if all(part.content is None for part in self.archive.parts):
            return self
        if any(part.content is None for part in self.archive.parts):
            raise ValueError("archive.parts: all of them or none must have content")
        ends = {file.path: 0 for file in self.files}
        for part in self.archive.parts:
            for piece in part.content or ():
                if ends.get(piece.path) != piece.offset:
                    raise ValueError(f"archive.parts: no piece of a file here: {piece.path[:100]!a}")
                ends[piece.path] += piece.size
        if any(ends[file.path] != file.size for file in self.files):
            raise ValueError("archive.parts: their contents are not all of the files")
        return self

    @model_validator(mode="after")
    def _check_schema(self) -> Self:
        """What a reader of one schema relies on must be there; what it does not know must not."""
        for number, part in enumerate(self.archive.parts):
            try:
                if self.schema_version == SCHEMA_2:
                    part.check_schema_2()
                else:
                    part.check_schema_1()
            except ValueError as error:
                raise ValueError(f"archive.parts.{number}: {error}") from error
        return self

    @property
    def content(self) -> Content:
        """The files as the version must have them."""
        return Content.of(FileFact(file.path, file.size, file.sha256) for file in self.files)


def _check_distinct(paths: Sequence[str]) -> None:
    """Refuse paths that are the same where case does not count, and files that are folders of others."""
    seen = {folded(path) for path in paths}
    if len(seen) != len(paths):
        raise ValueError("files: two paths differ in case only, or not at all")
    for path in seen:
        names = path.split("/")
        if any("/".join(names[:depth]) in seen for depth in range(1, len(names))):
            raise ValueError(f"files: {path[:100]!a} lies in a folder that is a file")


def schema_for(parts: Iterable[Part]) -> Schema:
    """Return the oldest schema in which the parts of an archive can be said."""
    return SCHEMA_2 if any(part.unpacked_size is not None for part in parts) else SCHEMA_1


def parse(data: bytes) -> Manifest:
    """Return the manifest in `data`.

    Raises:
        ReleaseRefused: `MANIFEST_INVALID`: it is not one, in form or in sense; the text names the place.
    """
    try:
        return canonical_json.parse(Manifest, data, MAX_MANIFEST_BYTES, SCHEMA_1, SCHEMA_2)
    except canonical_json.NotCanonical as error:
        text = f"the manifest is not valid: {error}; publish the version again under a new number"
        raise ReleaseRefused(Reason.MANIFEST_INVALID, text) from error


def parse_for(release: Release, data: bytes) -> Manifest:
    """Return the manifest in `data`, which must be the one of the release's only object, an archive.

    Raises:
        ReleaseRefused: as `parse` and `check_identity` do.
    """
    (archive,) = release.objects
    found, name = parse(data), archive.key.rpartition("/")[2]
    check_identity(found, release.model, release.version, name, archive.size)
    return found


def dump(manifest: Manifest) -> bytes:
    """Return the canonical form; `parse` gives back the same manifest.

    Raises:
        ReleaseRefused: `RELEASE_TOO_BIG`: it would be larger than a manifest may be.
    """
    data = canonical_json.dump(manifest)
    if len(data) > MAX_MANIFEST_BYTES:
        text = (
            f"{manifest.model} {manifest.version}: {len(manifest.files)} files in "
            f"{len(manifest.archive.parts)} parts give a manifest of {len(data)} bytes, "
            f"over {MAX_MANIFEST_BYTES}: pack fewer, larger files"
        )
        raise ReleaseRefused(Reason.RELEASE_TOO_BIG, text)
    return data


def fits(manifest: Manifest) -> bool:
    """Tell whether a manifest is small enough to be published."""
    return len(canonical_json.dump(manifest)) <= MAX_MANIFEST_BYTES


def without_pieces(manifest: Manifest) -> Manifest:
    """Return a manifest that says the same in schema 1, and not what the parts hold."""
    parts = tuple(
        Part(offset=part.offset, size=part.size, sha256=part.sha256) for part in manifest.archive.parts
    )
    archive = manifest.archive.model_copy(update={"parts": parts})
    return manifest.model_copy(update={"schema_version": SCHEMA_1, "archive": archive})


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of a manifest; it says less than `parse` checks."""
    schema = Manifest.model_json_schema(by_alias=True, mode="validation")
    description = "SHA-256 of the canonical form (keys sorted, compact, ASCII, line feed) without this key"
    schema["properties"]["digest"] = {"description": description, "pattern": SHA256, "type": "string"}
    schema["required"] = sorted({*schema["required"], "schema", "digest"})
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": SCHEMA_2, **schema}


def check_labels(labels: Mapping[str, str]) -> None:
    """Make sure that labels can stand in a manifest.

    Raises:
        SettingsError: they cannot; the text names the first that is wrong.
    """
    try:
        _LABELS.validate_python(dict(labels))
    except ValidationError as error:
        where = canonical_json.error_location(error)
        text = f"labels: {where} (at most {MAX_LABELS}; names of A-Z a-z 0-9 . _ / -)"
        raise SettingsError(Reason.SETTINGS_INVALID, text) from error


def check_identity(manifest: Manifest, model: Model, version: Version, key: str, size: int) -> None:
    """Make sure that a manifest is the one of an archive: `key` is its key's last part, `size` its bytes.

    Raises:
        ReleaseRefused: `MANIFEST_MISMATCH`, naming every difference.
    """
    pairs = (
        ("model", manifest.model, model),
        ("version", manifest.version, version),
        ("archive", manifest.archive.key, key),
        ("size", manifest.archive.size, size),
    )
    wrong = [f"{what} {said!a}, not {is_!a}" for what, said, is_ in pairs if said != is_]
    if wrong:
        text = f"the manifest of {model} {version} says {'; '.join(wrong)}: publish under a new number"
        raise ReleaseRefused(Reason.MANIFEST_MISMATCH, text)


def compare(manifest: Manifest, content: Content) -> None:
    """Make sure that a version's files are those of its manifest, in both directions.

    Raises:
        ReleaseRefused: `CONTENT_DIFFERS`, naming what is missing, extra or changed.
    """
    expected = {file.path: file for file in manifest.content.files}
    found = {file.path: file for file in content.files}
    changed = sorted(path for path in expected.keys() & found.keys() if expected[path] != found[path])
    kinds = (
        ("missing", sorted(expected.keys() - found.keys())),
        ("extra", sorted(found.keys() - expected.keys())),
        ("changed", changed),
    )
    wrong = [f"{kind}: {', '.join(_few(paths))}" for kind, paths in kinds if paths]
    if wrong:
        text = f"the files are not those of the manifest; {'; '.join(wrong)}: publish under a new number"
        raise ReleaseRefused(Reason.CONTENT_DIFFERS, text)


def _few(paths: list[str]) -> Iterator[str]:
    yield from (ascii(path) for path in paths[:SHOWN])
    if len(paths) > SHOWN:
        yield f"and {len(paths) - SHOWN} more"


if __name__ == "__main__":
    print(json.dumps(json_schema(), indent=2))  # noqa: T201 (this is how docs/manifest.schema.json is made)
