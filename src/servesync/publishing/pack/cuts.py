"""Decides where the data of a file is cut into frames.

The cuts depend on the content of a file and not on offsets: a tensor that has not changed since the last
version is cut in the same way and gives the same frame, even if it has moved.
"""

import zlib
from collections.abc import Iterator, Sequence
from typing import Final, TypeAlias

CUT_BYTES: Final = 4 << 20
ENOUGH_BYTES: Final = 1 << 20
MOST_BYTES: Final = 8 << 20
ONE_IN: Final = 4


Extent: TypeAlias = tuple[str, int, int]
"""The name of one tensor, and where it lies in a file: offset and size in bytes."""


def cuts(size: int, extents: Sequence[Extent]) -> Iterator[int]:
    """Yield the sizes of the frames of a file of `size` bytes, each at most `MOST_BYTES`.

    `extents`: its tensors in the order of their offsets, without overlap; whatever they leave out counts as a
    tensor without a name. A tensor of 1 MiB and more has frames of its own, cut every 4 MiB from where it
    begins. Smaller ones go together: a frame that has 1 MiB ends after the next tensor whose name hashes to 0
    modulo 4.
    """
    together = 0
    for name, length in _covering(size, extents):
        large = length >= ENOUGH_BYTES
        if together and (large or together + length > MOST_BYTES):
            yield together
            together = 0
        if large:
            yield from (min(CUT_BYTES, length - start) for start in range(0, length, CUT_BYTES))
            continue
        together += length
        if together >= ENOUGH_BYTES and zlib.crc32(name.encode(errors="surrogatepass")) % ONE_IN == 0:
            yield together
            together = 0
    if together:
        yield together


def _covering(size: int, extents: Sequence[Extent]) -> Iterator[tuple[str, int]]:
    """Yield name and length of each tensor, and of what lies between."""
    end = 0
    for name, offset, length in extents:
        if offset < end or offset + length > size:
            continue  # the index is wrong here: these bytes get no name
        if offset > end:
            yield "", offset - end
        yield name, length
        end = offset + length
    if end < size:
        yield "", size - end
