"""Describes an existing tar.zst by its frames, so that agents can fetch and place each of them alone."""

import hashlib
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Final

from servesync.domain.manifest import Part, Piece
from servesync.domain.parts import MAX_FRAME_BYTES, MAX_ITEMS
from servesync.settings import Limits
from servesync.unpack import FoundFrame, Place, find_frames

READ_BYTES: Final = 1 << 20


def framed_parts(archive: BinaryIO, sha256: str, tree: Path, root: Path, limits: Limits) -> tuple[Part, ...]:
    """Return a part for each frame of an archive that was unpacked into `tree`, with the pieces in it.

    `root`: the folder of `tree` that is the version. `sha256`: the archive's when it was unpacked. There are
    no parts if the frames are no use alone (one is too large, or gives nothing, or there are too many or
    none), nor if the archive has changed.

    Raises:
        ReleaseRefused: the archive has changed and is none any more.
        OSError: the archive or the tree cannot be read.
    """
    archive.seek(0)
    frames, places = find_frames(iter(lambda: archive.read(READ_BYTES), b""), limits)
    sizes = [size for frame in frames for size in (frame.size, frame.unpacked_size)]
    if len(frames) > MAX_ITEMS or not all(0 < size <= MAX_FRAME_BYTES for size in sizes):
        return ()
    archive.seek(0)
    whole = hashlib.sha256()
    parts = []
    for frame, pieces in zip(frames, _pieces(frames, places, tree, root), strict=True):
        stored = archive.read(frame.size)
        whole.update(stored)
        parts.append(
            Part(
                offset=frame.offset,
                size=frame.size,
                sha256=hashlib.sha256(stored).hexdigest(),
                content=pieces,
                unpacked_size=frame.unpacked_size,
            )
        )
    return tuple(parts) if whole.hexdigest() == sha256 else ()


def _pieces(
    frames: Sequence[FoundFrame], places: Sequence[Place], tree: Path, root: Path
) -> Iterator[tuple[Piece, ...]]:
    """Yield the pieces in each frame; both frames and files are in the order of the tar."""
    starts = [place.at for place in places]
    begin = 0
    for frame in frames:
        end = begin + frame.unpacked_size
        first = max(0, bisect_right(starts, begin) - 1)
        found = []
        for place in places[first : bisect_left(starts, end)]:
            start, stop = max(begin, place.at), min(end, place.at + place.size)
            if stop > start:
                path, offset, size = tree / place.path, start - place.at, stop - start
                found.append(
                    Piece(
                        path=path.relative_to(root).as_posix(),
                        offset=offset,
                        size=size,
                        at=start - begin,
                        sha256=_sha256(path, offset, size),
                    )
                )
        yield tuple(found)
        begin = end


def _sha256(path: Path, offset: int, size: int) -> str:
    """Return the SHA-256 of `size` bytes, which are at most those of one frame."""
    with path.open("rb") as file:
        file.seek(offset)
        return hashlib.sha256(file.read(size)).hexdigest()
