"""Packs a directory in one pass, hashing on the way; the same tree always gives the same bytes.

`tar.zst` (RFC 8878): independent frames, each with its content size and checksum, that together are one
ordinary tar. `tar.gz` (RFC 1952): one member without name and time.
"""

import hashlib
import heapq
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Protocol, TypeAlias

from isal import isal_zlib

from servesync.domain.cuts import SMALL_FILE_BYTES, Extent, cuts, grid_for
from servesync.domain.manifest import File, Part
from servesync.domain.versions import Version
from servesync.publishing.pack.frames import Compressors, Frame, Span
from servesync.publishing.pack.tree import STILL_WRITTEN, Made, Member, header, members, refused, survey

Format: TypeAlias = Literal["tar.zst", "tar.gz"]
Out: TypeAlias = Callable[[bytes], None]

READ_BYTES: Final = 1 << 20
RANGE_BYTES: Final = 8 << 20
GROUP_BYTES: Final = 1 << 20
"""A frame of small files, headers and padding ends when it has so many bytes."""

GZIP_LEVEL: Final = 2
GZIP_WINDOW: Final = 31
"""In zlib's terms: a window of 32 KiB, in gzip's format."""


@dataclass(frozen=True, slots=True)
class Packed:
    """The archive that was written: its size in bytes and SHA-256, its parts, and the files in it."""

    size: int
    sha256: str
    parts: tuple[Part, ...]
    files: tuple[File, ...]


def pack_tree(  # noqa: PLR0913 (what goes in, where to, and how)
    root: Path,
    version: Version,
    out: Out,
    extents: Mapping[str, Sequence[Extent]],
    *,
    made: Sequence[Made] = (),
    archive_format: Format = "tar.zst",
    check: Callable[[], None] = lambda: None,
) -> Packed:
    """Write the archive of the version in `root` to `out`, piece by piece, and describe it.

    `extents`: the tensors in each file, by the file's path. `made`: files that go in among the others, whose
    paths are not in the tree. `check` is called for every MiB and may raise. A few frames of at most 8 MiB
    are held in memory (of 16 MiB where the version is so large that its pieces must be).

    Raises:
        ReleaseRefused: `PACK_REFUSED`: the directory holds what a version must not, or changed meanwhile.
        OSError: a file cannot be read.
    """
    writer: _Writer = _Frames(out) if archive_format == "tar.zst" else _Gzip(out)
    files = []
    top = str(version)
    sizes = {path: stamp.size for path, stamp in survey(root).items() if stamp}
    grid = grid_for(sizes | {one.path: one.size for one in made}, extents)
    with closing(writer):
        writer.structure(header(top, "", None))
        found: Iterator[Member | Made] = heapq.merge(members(root), made, key=lambda one: one.path.split("/"))
        for member in found:
            size = member.size
            writer.structure(header(top, member.path, size))
            if size is not None:
                pieces = cuts(size, extents.get(member.path, ()), grid)
                files.append(_copy(member, size, pieces, writer, check))
                writer.structure(bytes(-size % tarfile.BLOCKSIZE))
        writer.structure(bytes(2 * tarfile.BLOCKSIZE))
        archive_size, digest, parts = writer.finish()
    return Packed(archive_size, digest, parts, tuple(sorted(files, key=lambda file: file.path)))


def _copy(
    member: Member | Made, size: int, sizes: Iterator[int], writer: "_Writer", check: Callable[[], None]
) -> File:
    """Pass a file's bytes on in the pieces of its cuts."""
    digest = hashlib.sha256()
    offset = 0
    with member.opened() as file:
        for length in sizes:
            buffer = bytearray(length)
            view = memoryview(buffer)
            done = 0
            while done < length:
                check()
                count = file.readinto(view[done : done + READ_BYTES])
                if not count:
                    raise refused(member.source, f"it became shorter {STILL_WRITTEN}")
                done += count
            digest.update(buffer)
            writer.data(member.path, offset, buffer, is_whole=length == size)
            offset += length
        if file.read(1):
            raise refused(member.source, f"it became longer {STILL_WRITTEN}")
    return File(path=member.path, size=size, sha256=digest.hexdigest())


class _Writer(Protocol):
    """Receives a tar in order: its structure (headers, padding) and the data of files."""

    def structure(self, data: bytes) -> None: ...

    def data(self, path: str, offset: int, data: bytearray, *, is_whole: bool) -> None: ...

    def finish(self) -> tuple[int, str, tuple[Part, ...]]: ...

    def close(self) -> None: ...


class _Frames:
    """Frames: one for each piece of a large file; small files, headers and padding go together."""

    def __init__(self, out: Out) -> None:
        self._out = out
        self._compressors = Compressors()
        self._together = bytearray()
        self._spans: list[Span] = []
        self._parts: list[Part] = []
        self._size = 0
        self._digest = hashlib.sha256()

    def close(self) -> None:
        self._compressors.close()

    def structure(self, data: bytes) -> None:
        self._together += data
        if len(self._together) >= GROUP_BYTES:  # a great many empty files or directories
            self._end_group()

    def data(self, path: str, offset: int, data: bytearray, *, is_whole: bool) -> None:
        if is_whole and len(data) <= SMALL_FILE_BYTES:
            self._spans.append(Span(path, offset, len(data), len(self._together)))
            self._together += data
            if len(self._together) >= GROUP_BYTES:
                self._end_group()
            return
        self._end_group()
        self._frame(data, (Span(path, offset, len(data), 0),))

    def finish(self) -> tuple[int, str, tuple[Part, ...]]:
        self._end_group()
        for frame in self._compressors.rest():
            self._write(frame)
        return self._size, self._digest.hexdigest(), tuple(self._parts)

    def _end_group(self) -> None:
        if self._together:
            self._frame(self._together, tuple(self._spans))
            self._together, self._spans = bytearray(), []

    def _frame(self, data: bytearray, spans: tuple[Span, ...]) -> None:
        for frame in self._compressors.add(data, spans):
            self._write(frame)

    def _write(self, frame: Frame) -> None:
        self._parts.append(
            Part(
                offset=self._size,
                size=len(frame.stored),
                sha256=frame.sha256,
                content=frame.pieces,
                unpacked_size=frame.unpacked_size,
            )
        )
        self._size += len(frame.stored)
        self._digest.update(frame.stored)
        self._out(frame.stored)


class _Gzip:
    """One gzip member, whose parts are plain ranges of bytes."""

    def __init__(self, out: Out) -> None:
        self._out = out
        self._stream = isal_zlib.compressobj(GZIP_LEVEL, isal_zlib.DEFLATED, GZIP_WINDOW)
        self._ranges = Ranges()

    def close(self) -> None:
        pass

    def structure(self, data: bytes) -> None:
        self._write(self._stream.compress(data))

    def data(self, path: str, offset: int, data: bytearray, *, is_whole: bool) -> None:
        del path, offset, is_whole
        self._write(self._stream.compress(data))

    def finish(self) -> tuple[int, str, tuple[Part, ...]]:
        self._write(self._stream.flush())
        return self._ranges.finish()

    def _write(self, data: bytes) -> None:
        if data:
            self._ranges.add(data)
            self._out(data)


class Ranges:
    """Cuts a stream of bytes into ranges of 8 MiB, and hashes them and the whole."""

    def __init__(self) -> None:
        self._parts: list[Part] = []
        self._size = 0
        self._begin = 0
        self._all = hashlib.sha256()
        self._range = hashlib.sha256()

    def add(self, data: bytes | memoryview) -> None:
        """Add the next bytes."""
        self._all.update(data)
        view = memoryview(data)
        while view:
            piece = view[: self._begin + RANGE_BYTES - self._size]
            self._range.update(piece)
            self._size += len(piece)
            view = view[len(piece) :]
            if self._size - self._begin == RANGE_BYTES:
                self._end()

    def finish(self) -> tuple[int, str, tuple[Part, ...]]:
        """Return size, SHA-256 and parts of all bytes."""
        self._end()
        return self._size, self._all.hexdigest(), tuple(self._parts)

    def _end(self) -> None:
        if self._size > self._begin:
            size = self._size - self._begin
            self._parts.append(Part(offset=self._begin, size=size, sha256=self._range.hexdigest()))
            self._begin, self._range = self._size, hashlib.sha256()


def describe(chunks: Iterable[bytes | memoryview]) -> tuple[int, str, tuple[Part, ...]]:
    """Return size, SHA-256 and parts (plain ranges of 8 MiB) of an existing archive."""
    ranges = Ranges()
    for chunk in chunks:
        ranges.add(chunk)
    return ranges.finish()
