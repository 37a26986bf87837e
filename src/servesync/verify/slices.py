"""Checks partitioned tensors: each slice is stored, and together the slices make up the whole shape.

Sources: EncodeTensorNameSlice in tensorflow/core/util/saved_tensor_slice_util.cc (the key of a slice), and
tensorflow/core/lib/strings/ordered_code.cc (how the parts of that key are written so that keys sort).
"""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Final, TypeAlias

from servesync.verify.proto import SliceExtent, TensorSliceProto
from servesync.wire import Malformed, fields

MAX_CUT_DIMENSIONS: Final = 8
"""The most dimensions along which a tensor may be cut: TensorFlow restores none that is cut along more."""

MAX_DIMENSIONS: Final = 254
"""Of any tensor: TensorShape::MaxDimensions."""

WHOLE: Final = (0, -1)
"""The extent of a dimension that is not cut, as TensorFlow writes it into the key."""

Shape: TypeAlias = tuple[int, ...]
Extent: TypeAlias = tuple[int, int]
"""Where a slice begins in one dimension, and its length; `WHOLE` for all of it."""

_ESCAPED: Final = re.compile(rb"[\x00\xff]")
_ONE_BYTE: Final = 6  # bits of a signed number in one byte, besides the header bit and the sign


@dataclass(frozen=True, slots=True)
class Partitioned:
    """A tensor that is stored in slices, each an entry of its own."""

    key: bytes
    dtype: int
    shape: Shape
    slices: tuple[tuple[Extent, ...], ...]


def read_slice(data: memoryview) -> tuple[Extent, ...]:
    """Return the extents of a TensorSliceProto.

    Raises:
        Malformed: it has more dimensions than a tensor can have, or is no message.
    """
    extents = []
    for field in fields(data):
        if field.number == TensorSliceProto.EXTENT:
            start, length = WHOLE
            for part in fields(field.message()):
                if part.number == SliceExtent.START:
                    start = part.signed
                elif part.number == SliceExtent.LENGTH:
                    length = part.signed
            extents.append((start, length))
            if len(extents) > MAX_DIMENSIONS:
                raise Malformed(f"a slice of more than {MAX_DIMENSIONS} dimensions")
    return tuple(extents)


def slice_key(name: bytes, extents: tuple[Extent, ...]) -> bytes:
    """Return the key under which a slice of the tensor `name` is stored."""
    parts = [_unsigned(0), _text(name), _unsigned(len(extents))]
    for start, length in extents:
        parts += [_signed(start), _signed(length)]
    return b"".join(parts)


def check_slices(tensors: list[Partitioned], stored: Mapping[bytes, tuple[int, Shape]]) -> None:
    """Compare the slices that partitioned tensors need with those that are `stored` (key: type, shape).

    Raises:
        Malformed: a slice is missing, is of another type or shape, belongs to no tensor, or the slices of a
            tensor overlap, leave a part of its shape out, or lie outside of it.
    """
    wanted: set[bytes] = set()
    for tensor in tensors:
        corners: Counter[Shape] = Counter()
        cut = _cut_dimensions(tensor)
        for extents in tensor.slices:
            key = slice_key(tensor.key, extents)
            box = _box(tensor, extents)
            if stored.get(key) != (tensor.dtype, tuple(length for _, length in box)):
                what = "is of another type or shape" if key in stored else "is missing"
                raise Malformed(f"the slice {_as_printed(extents)} of {tensor.key[:200]!a} {what}")
            if key in wanted:
                raise Malformed(f"the slice {_as_printed(extents)} of {tensor.key[:200]!a} is named twice")
            wanted.add(key)
            _add_corners(corners, [box[dimension] for dimension in cut], 1)
        _add_corners(corners, [(0, tensor.shape[dimension]) for dimension in cut], -1)
        if any(corners.values()):
            shape = str(tensor.shape)[:200]
            raise Malformed(f"the slices of {tensor.key[:200]!a} do not cover its shape {shape} exactly once")
    if extra := stored.keys() - wanted:
        raise Malformed(f"{len(extra)} slices belong to no tensor, one is {min(extra)[:200]!a}")


def _box(tensor: Partitioned, extents: tuple[Extent, ...]) -> list[Extent]:
    """Return the extents with the length of the dimension in place of each `WHOLE`."""
    if len(extents) != len(tensor.shape):
        counts = f"{len(extents)} dimensions, not {len(tensor.shape)}"
        raise Malformed(f"a slice of {tensor.key[:200]!a} has {counts}")
    box = [
        (0, size) if extent == WHOLE else extent for extent, size in zip(extents, tensor.shape, strict=True)
    ]
    if any(start < 0 or length < 0 for start, length in box):
        raise Malformed(f"the slice {_as_printed(extents)} of {tensor.key[:200]!a} has a negative extent")
    return box


def _cut_dimensions(tensor: Partitioned) -> list[int]:
    cut = {
        dimension
        for extents in tensor.slices
        for dimension, extent in enumerate(extents[: len(tensor.shape)])
        if extent != WHOLE
    }
    if len(cut) > MAX_CUT_DIMENSIONS:
        raise Malformed(f"{tensor.key[:200]!a} is cut along {len(cut)} dimensions")
    return sorted(cut)


def _add_corners(corners: Counter[Shape], box: list[Extent], weight: int) -> None:
    """Count the corners of a box, each with the sign of its side.

    Boxes fill a box exactly once if and only if their signed corners are its signed corners: a corner inside
    cancels against that of a neighbour. This is the mixed difference of "how often is this element covered".
    """
    for sides in product((0, 1), repeat=len(box)):
        corner = tuple(start + side * length for (start, length), side in zip(box, sides, strict=True))
        corners[corner] += -weight if sum(sides) % 2 else weight


def _as_printed(extents: tuple[Extent, ...]) -> str:
    """Return a slice as TensorFlow prints it: start and length, `-` for a whole dimension."""
    shown = ":".join("-" if extent == WHOLE else f"{extent[0]},{extent[1]}" for extent in extents[:16])
    return shown or "of a scalar"


def _text(value: bytes) -> bytes:
    """OrderedCode::WriteString: the bytes 0 and 255 escaped, and an end mark."""
    return _ESCAPED.sub(lambda found: found[0] + bytes((found[0][0] ^ 0xFF,)), value) + b"\x00\x01"


def _unsigned(value: int) -> bytes:
    """OrderedCode::WriteNumIncreasing: a byte that tells the length, then big-endian without zeros."""
    size = (value.bit_length() + 7) // 8
    return bytes((size,)) + value.to_bytes(size, "big")


def _signed(value: int) -> bytes:
    """OrderedCode::WriteSignedNumIncreasing: the leading ones of the first two bytes tell the length."""
    bits = (~value if value < 0 else value).bit_length()
    size = bits // 7 + 1
    header = ((1 << size) - 1) << (16 - size) & 0xFFFF
    if bits <= _ONE_BYTE:
        return bytes(((header >> 8) ^ (value & 0xFF),))
    body = bytearray(value.to_bytes(10, "big", signed=True)[-size:])
    body[0] ^= header >> 8
    body[1] ^= header & 0xFF
    return bytes(body)
