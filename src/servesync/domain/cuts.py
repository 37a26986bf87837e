"""Decides where the data of a file is cut into pieces.

The cuts depend on the content of a file and not on offsets: a tensor that has not changed since the last
version is cut in the same way and gives the same piece, even if it has moved. Publisher and agent cut alike,
so a piece of a release is found in a version that came as a bare archive.
"""

import json
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final, NamedTuple, TypeAlias

ONE_IN: Final = 4
MIB: Final = 1 << 20

Extent: TypeAlias = tuple[str, int, int]
"""The name of one tensor, and where it lies in a file: offset and size in bytes."""


class Grid(NamedTuple):
    """How finely files are cut, in bytes.

    A tensor of `enough` bytes and more has pieces of its own, cut every `cut` bytes from where it begins.
    Smaller ones go together: a piece that has `enough` bytes ends after the next tensor whose name hashes to
    0 modulo 4. No piece has more than `most` bytes.
    """

    enough: int
    cut: int
    most: int


FINE: Final = Grid(1 * MIB, 4 * MIB, 8 * MIB)
GRIDS: Final = (
    FINE,
    Grid(2 * MIB, 4 * MIB, 8 * MIB),
    Grid(4 * MIB, 8 * MIB, 16 * MIB),
    Grid(8 * MIB, 8 * MIB, 16 * MIB),
    Grid(16 * MIB, 16 * MIB, 16 * MIB),
)

MANIFEST_BYTES: Final = 7 << 19
"""The finest grid is used whose pieces are thought to fit into a manifest of this size, of at most 4 MiB."""

SMALL_FILE_BYTES: Final = 256 << 10
"""Files of so many bytes share frames with others and with headers."""

BYTES_FOR_FILE: Final = 130
BYTES_FOR_PIECE: Final = 170
BYTES_FOR_PART: Final = 170
"""What a manifest needs at most for a file, a piece and a part, besides the path."""


def grid_for(sizes: Mapping[str, int], extents: Mapping[str, Sequence[Extent]]) -> Grid:
    """Return how finely a version is cut: the same for versions whose tensors differ in their values only.

    `sizes`: of its files in bytes, by path; `extents`: the tensors in each, as for `cuts`.
    """
    fitting = (grid for grid in GRIDS if manifest_bytes(sizes, extents, grid) <= MANIFEST_BYTES)
    return next(fitting, GRIDS[-1])


def manifest_bytes(sizes: Mapping[str, int], extents: Mapping[str, Sequence[Extent]], grid: Grid) -> int:
    """Return how large a manifest without labels is at most if the version is cut by `grid`."""
    total = 0
    for path, size in sizes.items():
        pieces = sum(1 for _ in cuts(size, extents.get(path, ()), grid))
        parts = 0 if size <= SMALL_FILE_BYTES else 1 + pieces
        total += BYTES_FOR_FILE + BYTES_FOR_PIECE * pieces + BYTES_FOR_PART * parts
        total += len(json.dumps(path)) * (1 + pieces)
    return total


def cuts(size: int, extents: Collection[Extent], grid: Grid = FINE) -> Iterator[int]:
    """Yield the sizes of the pieces of a file of `size` bytes.

    `extents`: its tensors in the order of their offsets, without overlap; whatever they leave out counts as a
    tensor without a name.
    """
    together = 0
    for name, length in _covering(size, extents):
        large = length >= grid.enough
        if together and (large or together + length > grid.most):
            yield together
            together = 0
        if large:
            yield from (min(grid.cut, length - start) for start in range(0, length, grid.cut))
            continue
        together += length
        if together >= grid.enough and zlib.crc32(name.encode(errors="surrogatepass")) % ONE_IN == 0:
            yield together
            together = 0
    if together:
        yield together


def _covering(size: int, extents: Collection[Extent]) -> Iterator[tuple[str, int]]:
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
