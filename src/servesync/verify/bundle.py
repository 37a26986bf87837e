"""Reads `variables.index`: the shard, offset and size of each tensor.

Messages: BundleHeaderProto and BundleEntryProto of tensorflow/core/protobuf/tensor_bundle.proto. The entry
with the empty key is the header; keys that begin with a zero byte are slices of partitioned tensors, whose
own entries hold no data.
"""

from dataclasses import dataclass
from math import prod
from typing import Final

from servesync.verify.proto import BundleEntryProto, BundleHeaderProto, Dim, TensorShapeProto
from servesync.verify.slices import MAX_DIMENSIONS, Extent, Partitioned, Shape, check_slices, read_slice
from servesync.verify.table import entries
from servesync.wire import Malformed, fields

MAX_SHARDS: Final = 100_000
MAX_TENSORS: Final = 1_000_000
MAX_SLICES: Final = 100_000
SLICE_MARK: Final = b"\x00"
"""Keys of slices begin with this byte; names of tensors never do."""

_NUMBERS: Final = (
    BundleEntryProto.DTYPE,
    BundleEntryProto.SHARD_ID,
    BundleEntryProto.OFFSET,
    BundleEntryProto.SIZE,
    BundleEntryProto.CRC32C,
)
STRING, RESOURCE, VARIANT = 7, 20, 21
ELEMENT_BYTES: Final = {
    1: 4, 2: 8, 3: 4, 4: 1, 5: 2, 6: 1, 8: 8, 9: 8, 10: 1, 11: 1, 12: 1, 13: 4, 14: 2, 15: 2, 16: 2,
    17: 2, 18: 16, 19: 2, 22: 4, 23: 8, 24: 1, 25: 1, 26: 1, 27: 1, 28: 1, 29: 1, 30: 1,
}  # fmt: skip
"""Bytes of one element by DataType (types.proto); types of variable length are left out."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """One stored tensor: where its bytes lie, and their masked CRC32C."""

    name: str
    dtype: int
    elements: int
    shard: int
    offset: int
    size: int
    crc32c: int


@dataclass(frozen=True, slots=True)
class Bundle:
    """The index of a checkpoint: its tensors in the order of shard and offset."""

    shards: int
    tensors: tuple[Tensor, ...]
    partitioned: tuple[str, ...] = ()
    """The names of tensors that are stored in slices."""

    def shard_sizes(self) -> list[int]:
        """Return the bytes that each shard's file must have: it ends where its last tensor does."""
        sizes = [0] * self.shards
        for tensor in self.tensors:
            sizes[tensor.shard] = max(sizes[tensor.shard], tensor.offset + tensor.size)
        return sizes

    @property
    def tensor_bytes(self) -> int:
        """Bytes of all tensors together."""
        return sum(tensor.size for tensor in self.tensors)


@dataclass(frozen=True, slots=True)
class _Entry:
    """One entry as it was read, not yet checked."""

    key: bytes
    dtype: int
    shape: Shape
    shard: int
    offset: int
    size: int
    crc32c: int
    slices: tuple[tuple[Extent, ...], ...]


def shard_name(shard: int, shards: int) -> str:
    """Return the file name of one shard."""
    return f"variables.data-{shard:05}-of-{shards:05}"


def read_bundle(data: memoryview) -> Bundle:
    """Return the index in `data`.

    Raises:
        Malformed: a checksum or a bound is wrong, tensors overlap or leave gaps, or slices are missing or do
            not make up their tensor.
    """
    listed = entries(data)
    key, header = next(listed, (None, b""))
    if key != b"":
        raise Malformed("no header")
    shards = _shards(memoryview(header))
    tensors: list[Tensor] = []
    partitioned: list[Partitioned] = []
    slices: dict[bytes, tuple[int, Shape]] = {}
    named = 0
    for number, (name, value) in enumerate(listed):
        if number >= MAX_TENSORS:
            raise Malformed(f"more than {MAX_TENSORS} tensors")
        entry = _entry(name, memoryview(value))
        if entry.slices:
            named += len(entry.slices)
            if named > MAX_SLICES:
                raise Malformed(f"more than {MAX_SLICES} slices")
            partitioned.append(Partitioned(name, entry.dtype, entry.shape, entry.slices))
            continue
        tensors.append(_tensor(entry, shards))
        if name.startswith(SLICE_MARK):
            slices[name] = entry.dtype, entry.shape
    check_slices(partitioned, slices)
    tensors.sort(key=lambda tensor: (tensor.shard, tensor.offset, tensor.size))
    _check_extents(tensors)
    names = tuple(tensor.key.decode(errors="backslashreplace") for tensor in partitioned)
    return Bundle(shards, tuple(tensors), names)


def _shards(header: memoryview) -> int:
    shards, endianness = 0, 0
    for field in fields(header):
        if field.number == BundleHeaderProto.NUM_SHARDS:
            shards = field.value
        elif field.number == BundleHeaderProto.ENDIANNESS:
            endianness = field.value
    if not 1 <= shards <= MAX_SHARDS:
        raise Malformed(f"{shards} shards")
    if endianness:
        raise Malformed("big-endian data, which the server cannot read here")
    return shards


def _entry(key: bytes, data: memoryview) -> _Entry:
    """Return one BundleEntryProto."""
    numbers = dict.fromkeys(_NUMBERS, 0)
    shape: Shape = ()
    slices = []
    for field in fields(data):
        if field.number in numbers:
            numbers[field.number] = field.signed
        elif field.number == BundleEntryProto.SHAPE:
            shape = _shape(field.message())
        elif field.number == BundleEntryProto.SLICES:
            slices.append(read_slice(field.message()))
            if len(slices) > MAX_SLICES:
                raise Malformed(f"more than {MAX_SLICES} slices")
    dtype, shard, offset, size, crc = (numbers[number] for number in _NUMBERS)
    return _Entry(key, dtype, shape, shard, offset, size, crc, tuple(slices))


def _tensor(entry: _Entry, shards: int) -> Tensor:
    """Return the tensor of an entry that is not stored in slices."""
    name = entry.key.decode(errors="backslashreplace")
    if not (0 <= entry.shard < shards and entry.offset >= 0 and entry.size >= 0):
        raise Malformed(f"{name[:200]!a} lies outside of every shard")
    width = ELEMENT_BYTES.get(entry.dtype)
    elements = prod(entry.shape)
    if width is not None and width * elements != entry.size:
        text = f"{name[:200]!a} has {elements} elements of {width} bytes, but {entry.size} bytes"
        raise Malformed(text)
    return Tensor(name, entry.dtype, elements, entry.shard, entry.offset, entry.size, entry.crc32c)


def _shape(shape: memoryview) -> Shape:
    """Return the sizes of a TensorShapeProto."""
    sizes = []
    for field in fields(shape):
        if field.number == TensorShapeProto.DIM:
            parts = fields(field.message())
            size = next((part.signed for part in parts if part.number == Dim.SIZE), 0)
            if size < 0:
                raise Malformed("a stored tensor with an unknown dimension")
            sizes.append(size)
            if len(sizes) > MAX_DIMENSIONS:
                raise Malformed(f"a tensor of more than {MAX_DIMENSIONS} dimensions")
    return tuple(sizes)


def _check_extents(tensors: list[Tensor]) -> None:
    """Make sure that the tensors of each shard follow one another without an overlap or a gap."""
    shard = end = 0
    for tensor in tensors:
        if tensor.shard != shard:
            shard, end = tensor.shard, 0
        if tensor.offset != end:
            what = "overlaps the one before" if tensor.offset < end else "leaves a gap before it"
            raise Malformed(
                f"{tensor.name[:200]!a} in shard {shard} {what} (byte {tensor.offset}, not {end})"
            )
        end = tensor.offset + tensor.size
