"""Finds where the pieces of files begin in a decompressed part, if the manifest (schema 1) does not say it.

A part may begin and end anywhere in the tar: in the middle of a file, after a header, before padding. What
lies between the pieces is headers and padding; they are passed by and mean nothing here.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from servesync.domain.manifest import Piece
from servesync.errors import Reason, ReleaseRefused
from servesync.unpack.tar_header import BLOCK_BYTES, ZERO_BLOCK, parse_header

_EXTENSIONS: Final = frozenset({b"g", b"L", b"x"})


@dataclass(frozen=True, slots=True)
class Wanted:
    """A piece, and what is known of its file: size in bytes and SHA-256."""

    piece: Piece
    file_size: int
    file_sha256: str

    @property
    def is_whole(self) -> bool:
        """Whether the piece is its file."""
        return self.piece.size == self.file_size

    @property
    def end(self) -> int:
        """Where it ends in its file."""
        return self.piece.offset + self.piece.size


def find_pieces(plain: memoryview, wanted: Sequence[Wanted]) -> list[int]:
    """Return where each piece begins in `plain`. Whether the bytes there are right is not checked.

    Raises:
        ReleaseRefused: the part does not hold them.
    """
    if len(plain) == sum(one.piece.size for one in wanted):
        at, places = 0, []
        for one in wanted:
            places.append(at)
            at += one.piece.size
        return places
    places = []
    end = 0
    for number, one in enumerate(wanted):
        before = wanted[number - 1] if number else None
        if before and before.piece.path == one.piece.path:
            begin = end
        elif before:
            begin = _after_headers(plain, end + -before.end % BLOCK_BYTES)
        else:
            begin = 0 if _begins_with(plain, one) else _after_headers(plain, _zeros(plain))
        end = begin + one.piece.size
        if end > len(plain):
            raise misfit(f"a piece of {one.piece.path[:100]!a} does not lie in it whole")
        places.append(begin)
    return places


def misfit(why: str) -> ReleaseRefused:
    """Return the refusal of a part that does not hold what its manifest says."""
    text = f"a part of the archive does not hold what its manifest says: {why}: publish under a new number"
    return ReleaseRefused(Reason.CONTENT_DIFFERS, text)


def _begins_with(plain: memoryview, first: Wanted) -> bool:
    """Tell whether a part begins in the middle of a file, or with the whole of one."""
    if first.piece.offset:
        return True
    return first.is_whole and hashlib.sha256(plain[: first.piece.size]).hexdigest() == first.file_sha256


def _zeros(plain: memoryview) -> int:
    """Return the length of the padding at the beginning of a part; no header begins with a zero."""
    head = bytes(plain[:BLOCK_BYTES])
    return len(head) - len(head.lstrip(b"\0"))


def _after_headers(plain: memoryview, at: int) -> int:
    """Return where the content of the next file begins that is not empty."""
    while True:
        block = bytes(plain[at : at + BLOCK_BYTES])
        if len(block) < BLOCK_BYTES or block == ZERO_BLOCK:
            raise misfit("a piece is missing")
        header = parse_header(block)
        at += BLOCK_BYTES
        if header.kind in _EXTENSIONS:
            at += header.size + -header.size % BLOCK_BYTES
        elif header.size:
            return at
