"""Finds the frames of a tar.zst, and where in the tar the data of each file lies."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from servesync.errors import Reason
from servesync.settings import Limits
from servesync.unpack import zstd_stream
from servesync.unpack.paths import parse_path
from servesync.unpack.source import ByteSource, Chunk
from servesync.unpack.tar_members import Capacity, members


@dataclass(frozen=True, slots=True)
class FoundFrame:
    """One frame: where it lies in the archive, and how many bytes it decompresses to."""

    offset: int
    size: int
    unpacked_size: int


@dataclass(frozen=True, slots=True)
class Place:
    """Where the `size` bytes of a file begin in the tar; its path begins with the archive's top folder."""

    path: str
    at: int
    size: int


def find_frames(chunks: Iterable[Chunk], limits: Limits) -> tuple[list[FoundFrame], list[Place]]:
    """Return the frames and the files of an archive that `unpack_archive` has accepted, in their order.

    A skippable frame is one that decompresses to nothing. An archive in another format has no frames.

    Raises:
        ReleaseRefused: the archive is damaged, or larger than `limits`.
    """
    source = ByteSource(chunks)
    frames: list[FoundFrame] = []
    places = []
    magic = source.peek(4)
    if magic != zstd_stream.MAGIC and not zstd_stream.is_skippable(magic):
        return [], []
    tar = ByteSource(_walked(source, frames))
    for member in members(tar, limits, Capacity(limits.max_unpacked_bytes, Reason.ARCHIVE_RATIO)):
        if not member.is_directory:
            path = "/".join(parse_path(member.path, is_directory=False))
            places.append(Place(path, tar.consumed, member.size))
        for _ in tar.exactly(member.size, "a file"):
            pass
    return frames, places


def _walked(source: ByteSource, frames: list[FoundFrame]) -> Iterator[bytes]:
    """Yield the content of all frames, and note each that has ended."""
    while not source.at_end():
        begin, size = source.consumed, 0
        for piece in zstd_stream.unframe(source):
            size += len(piece)
            yield piece
        frames.append(FoundFrame(begin, source.consumed - begin, size))
