"""Releases in frames, made frame by frame, so that a test can say anything a frame or a manifest can say."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal

import zstandard

import archives as a
from servesync.domain import manifest
from servesync.domain.manifest import SCHEMA_1, SCHEMA_2, Archive, File, Manifest, Part, Piece, Totals

CUT_BYTES: Final = 64 << 10
Schema = Literal["servesync.manifest/1", "servesync.manifest/2"]


@dataclass(frozen=True)
class Frame:
    """One part: what it holds, the pieces in that, and its stored bytes if they are not those of `plain`."""

    plain: bytes
    pieces: tuple[tuple[str, int, int, int], ...] = ()
    """Each: path, offset in the file, where it begins in `plain`, size."""
    stored: bytes | None = None
    says: Mapping[str, object] = field(default_factory=dict)
    """What the manifest says otherwise of the part."""

    def part(self, offset: int, schema: Schema) -> tuple[Part, bytes]:
        """Return the part as the manifest describes it, and its stored bytes."""
        stored = compressed(self.plain) if self.stored is None else self.stored
        plain: dict[str, object] = {
            "offset": offset,
            "size": len(stored),
            "sha256": sha256(stored),
            "content": tuple(self._piece(*each, schema) for each in self.pieces),
        }
        if schema == SCHEMA_2:
            plain["unpacked_size"] = len(self.plain)
        return Part.model_validate(plain | dict(self.says)), stored

    def _piece(self, path: str, offset: int, at: int, size: int, schema: Schema) -> Piece:
        if schema == SCHEMA_1:
            return Piece(path=path, offset=offset, size=size)
        return Piece(path=path, offset=offset, size=size, at=at, sha256=sha256(self.plain[at : at + size]))

    def but(self, **says: object) -> "Frame":
        """Return the same frame, of which the manifest says something else."""
        return replace(self, says={**self.says, **says})


def sha256(data: bytes) -> str:
    """Return a SHA-256 as a manifest has it."""
    return hashlib.sha256(data).hexdigest()


def compressed(plain: bytes, *, level: int = 1, checksum: bool = True, sized: bool = True) -> bytes:
    """Return one Zstandard frame."""
    compressor = zstandard.ZstdCompressor(level, write_checksum=checksum, write_content_size=sized)
    if sized:
        return compressor.compress(plain)
    stream = compressor.compressobj()
    return stream.compress(plain) + stream.flush()


def frames_of(files: Mapping[str, bytes], top: str = "1", cut: int = CUT_BYTES) -> list[Frame]:
    """Return the frames of a version: files of up to `cut` bytes go together, others are cut."""
    frames: list[Frame] = []
    together, pieces = bytearray(a.directory(f"{top}/")), []
    for path, data in sorted(files.items()):
        together += a.header(f"{top}/{path}".encode(), size=len(data))
        if 0 < len(data) <= cut:
            pieces.append((path, 0, len(together), len(data)))
            together += data
        elif data:
            frames.append(Frame(bytes(together), tuple(pieces)))
            together, pieces = bytearray(), []
            for start in range(0, len(data), cut):
                own = data[start : start + cut]
                frames.append(Frame(own, ((path, start, 0, len(own)),)))
        together += bytes(-len(data) % a.BLOCK)
    frames.append(Frame(bytes(together) + a.END, tuple(pieces)))
    return frames


def archive_of(
    frames: Sequence[Frame], files: Mapping[str, bytes], schema: Schema = SCHEMA_2, version: int = 1
) -> tuple[bytes, Manifest]:
    """Return the archive `<version>.tar.zst` of model `m`, and its manifest."""
    data, parts = bytearray(), []
    for frame in frames:
        part, stored = frame.part(len(data), schema)
        parts.append(part)
        data += stored
    archive = Archive(
        key=f"{version}.tar.zst",
        format="tar.zst",
        size=len(data),
        sha256=sha256(bytes(data)),
        parts=tuple(parts),
    )
    plain: dict[str, object] = {
        "schema": schema,
        "model": "m",
        "version": version,
        "created": "2026-01-02T03:04:05Z",
        "archive": archive,
        "files": tuple(
            File(path=path, size=len(own), sha256=sha256(own)) for path, own in sorted(files.items())
        ),
        "totals": Totals(files=len(files), bytes=sum(map(len, files.values())), tensors=1, tensor_bytes=1),
    }
    return bytes(data), Manifest.model_validate(plain)


def release_of(
    files: Mapping[str, bytes], schema: Schema = SCHEMA_2, cut: int = CUT_BYTES, version: int = 1
) -> tuple[bytes, bytes]:
    """Return the archive of files in frames, and the bytes of its manifest."""
    data, found = archive_of(frames_of(files, f"{version}", cut), files, schema, version)
    return data, manifest.dump(found)
