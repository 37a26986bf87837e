"""Writes checkpoints without TensorFlow: any tensors, any index, honest or with one thing wrong.

Format: tensorflow/core/util/tensor_bundle/tensor_bundle.cc (bundle), tensorflow/core/lib/io/format.h (table).
"""

import random
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain
from math import prod
from pathlib import Path
from typing import Final

import cramjam
import google_crc32c

from servesync.verify.bundle import shard_name
from servesync.verify.table import MAGIC, masked

FLOAT, STRING = 1, 7
WIDTHS: Final = {1: 4, 2: 8, 3: 4, 4: 1, 9: 8, 10: 1, 14: 2, 18: 16}
"""Bytes of one element by DataType: float, double, int32, uint8, int64, bool, bfloat16, complex128."""

Extents = Sequence[tuple[int, int | None]]
"""Start and length in each dimension; None for all of it."""


@dataclass(frozen=True)
class Entry:
    """One entry of an index, as it will be written; `extra` is appended to its message."""

    key: bytes
    dtype: int = 1
    shape: tuple[int, ...] = ()
    shard: int = 0
    offset: int = 0
    size: int = 0
    crc32c: int = 0
    slices: tuple[Extents, ...] = ()
    extra: bytes = b""

    def message(self) -> bytes:
        """Return the BundleEntryProto."""
        numbers = ((1, self.dtype), (3, self.shard), (4, self.offset), (5, self.size))
        parts = [number_field(number, value) for number, value in numbers if value]
        parts.append(bytes_field(2, b"".join(bytes_field(2, number_field(1, size)) for size in self.shape)))
        if self.crc32c:
            parts.append(varint(6 << 3 | 5) + struct.pack("<I", self.crc32c))
        parts += [bytes_field(7, slice_message(extents)) for extents in self.slices]
        return b"".join(parts) + self.extra


@dataclass(frozen=True)
class Value:
    """A tensor to be stored."""

    key: bytes
    dtype: int
    shape: tuple[int, ...]
    data: bytes
    crc: int
    shard: int = 0


def plain(key: bytes, dtype: int, shape: tuple[int, ...], data: bytes, shard: int = 0) -> Value:
    """Return a tensor of elements of one width."""
    assert len(data) == prod(shape) * WIDTHS[dtype]
    return Value(key, dtype, shape, data, masked(google_crc32c.value(data)), shard)


def strings(key: bytes, values: Sequence[bytes], shard: int = 0) -> Value:
    """Return a tensor of strings, of one dimension."""
    lengths = struct.pack(f"<{len(values)}I", *map(len, values))
    stored = struct.pack("<I", masked(google_crc32c.value(lengths)))
    content = b"".join(values)
    crc = masked(google_crc32c.value(lengths + stored + content))
    data = b"".join(varint(len(value)) for value in values) + stored + content
    return Value(key, STRING, (len(values),), data, crc, shard)


def laid_out(values: Iterable[Value]) -> tuple[list[Entry], dict[int, bytes]]:
    """Return the entries of tensors, one behind the other in their shards, and the shards."""
    shards: dict[int, bytearray] = {}
    entries = []
    for value in values:
        shard = shards.setdefault(value.shard, bytearray())
        entries.append(
            Entry(value.key, value.dtype, value.shape, value.shard, len(shard), len(value.data), value.crc)
        )
        shard += value.data
    return entries, {number: bytes(shard) for number, shard in shards.items()}


def index(
    entries: Iterable[Entry], shards: int = 1, *, block_bytes: int = 4096, snappy: bool = False
) -> bytes:
    """Return a `variables.index`; the entries are sorted, and otherwise written as they are."""
    header = number_field(1, shards) + bytes_field(3, number_field(1, 1))
    pairs = [(entry.key, entry.message()) for entry in sorted(entries, key=lambda entry: entry.key)]
    return table([(b"", header), *pairs], block_bytes=block_bytes, snappy=snappy)


def write(folder: Path, values: Sequence[Value], shards: int = 1, partitioned: Sequence[Entry] = ()) -> None:
    """Write the checkpoint `variables/` below `folder`."""
    entries, data = laid_out(values)
    (folder / "variables").mkdir(parents=True, exist_ok=True)
    (folder / "variables/variables.index").write_bytes(index([*entries, *partitioned], shards))
    for number in range(shards):
        (folder / "variables" / shard_name(number, shards)).write_bytes(data.get(number, b""))


def write_model(root: Path, mebibytes: int, *, texts: int = 0) -> None:
    """Write a SavedModel of `mebibytes` of random bytes in tensors of 16 MiB, and of so many short strings.

    Its graph says only that it is for serving; one tensor at a time is in memory.
    """
    dice = random.Random(1)
    entries = []
    values = [strings(b"texts", [dice.randbytes(dice.randint(3, 20)) for _ in range(texts)])]
    big = (
        plain(b"weights/%05d" % number, FLOAT, (4 << 20,), dice.randbytes(16 << 20))
        for number in range(-(-mebibytes // 16))
    )
    (root / "variables").mkdir(parents=True)
    with (root / "variables" / shard_name(0, 1)).open("wb") as file:
        for value in chain(values if texts else [], big):
            size = len(value.data)
            entries.append(Entry(value.key, value.dtype, value.shape, 0, file.tell(), size, value.crc))
            file.write(value.data)
    (root / "variables/variables.index").write_bytes(index(entries))
    graph = bytes_field(1, bytes_field(4, b"serve"))
    (root / "saved_model.pb").write_bytes(number_field(1, 1) + bytes_field(2, graph))


def table(pairs: Sequence[tuple[bytes, bytes]], *, block_bytes: int = 4096, snappy: bool = False) -> bytes:
    """Return a table of `pairs`, which are written in the order given."""
    out = bytearray()
    handles: list[tuple[bytes, bytes]] = []
    batch: list[tuple[bytes, bytes]] = []
    for number, pair in enumerate(pairs):
        batch.append(pair)
        if sum(len(key) + len(value) for key, value in batch) >= block_bytes or number == len(pairs) - 1:
            handles.append((pair[0], _append(out, block(batch), snappy=snappy)))
            batch = []
    meta = _append(out, block([]), snappy=snappy)
    footer = meta + _append(out, block(handles, interval=1), snappy=snappy)
    return bytes(out) + footer.ljust(40, b"\0") + struct.pack("<Q", MAGIC)


def block(pairs: Sequence[tuple[bytes, bytes]], interval: int = 16) -> bytes:
    """Return a block of prefix-compressed entries."""
    out = bytearray()
    restarts = [0]
    last = b""
    for number, (key, value) in enumerate(pairs):
        shared = 0
        if number and number % interval == 0:
            restarts.append(len(out))
        elif number:
            shared = next((n for n, (a, b) in enumerate(zip(last, key, strict=False)) if a != b), len(last))
            shared = min(shared, len(key))
        out += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        last = key
    return bytes(out) + struct.pack(f"<{len(restarts) + 1}I", *restarts, len(restarts))


def _append(out: bytearray, content: bytes, *, snappy: bool) -> bytes:
    """Append a block and its trailer; return its handle."""
    stored = bytes(cramjam.snappy.compress_raw(content)) + b"\x01" if snappy else content + b"\x00"
    handle = varint(len(out)) + varint(len(stored) - 1)
    out += stored + struct.pack("<I", masked(google_crc32c.value(stored)))
    return handle


def resealed(entry: Entry, **changes: object) -> Entry:
    """Return an entry with something else in it."""
    return replace(entry, **changes)  # type: ignore[arg-type]


def slice_message(extents: Extents) -> bytes:
    """Return a TensorSliceProto."""
    return b"".join(
        bytes_field(1, (number_field(1, start) if start else b"") + _length_field(length))
        for start, length in extents
    )


def _length_field(length: int | None) -> bytes:
    return b"" if length is None else number_field(2, length)


@lru_cache(1 << 10)
def varint(value: int) -> bytes:
    """Return a number as a varint, negative ones in ten bytes."""
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out) + bytes((value,))


def number_field(number: int, value: int) -> bytes:
    """Return a field of kind varint."""
    return varint(number << 3) + varint(value)


def bytes_field(number: int, data: bytes) -> bytes:
    """Return a string, bytes or message field."""
    return varint(number << 3 | 2) + varint(len(data)) + data
