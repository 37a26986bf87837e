"""The checksum of every tensor, as TensorFlow computes it while it saves and checks it while it loads.

Source: tensorflow/core/util/tensor_bundle/tensor_bundle.cc. Plain types: CRC32C over the stored bytes.
Strings: the stored range is the varint lengths, the masked CRC32C of the lengths, then the bytes; the
tensor's checksum runs over each length as u32 (u64 from 2^32 on), those four bytes, and the bytes.
Variants: for each element its length (u64 in the checksum), its bytes, and a running masked checksum.
"""

import os
import re
import struct
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import google_crc32c
from awscrt.checksums import crc32c

from servesync.errors import Reason, ReleaseRefused
from servesync.files import open_regular
from servesync.verify.bundle import STRING, VARIANT, Tensor, shard_name
from servesync.verify.structure import AGAIN, read_index
from servesync.verify.table import masked
from servesync.wire import MAX_VARINT_BYTES, Malformed, varint

READ_BYTES: Final = 1 << 20
BLOCK_BYTES: Final = 256 << 10
"""What is read and computed at a time: it stays in the processor's cache between the two."""
U32_END: Final = 1 << 32
_VARINTS: Final = re.compile(rb"([\x00-\x7f]+)|((?:[\x80-\xff][\x00-\x7f])+)|[\x80-\xff]{2,9}[\x00-\x7f]")
"""A run of varints of one byte each, a run of varints of two bytes each, or one longer varint."""


@dataclass(frozen=True, slots=True)
class TensorProof:
    """How much data the checksums have proven."""

    tensors: int
    bytes: int


def verify_tensors(root: Path, check: Callable[[], None] = lambda: None) -> TensorProof:
    """Prove the checksum of every tensor of the SavedModel in `root`, whose structure is right.

    Each shard is read once, from its beginning to its end. `check` is called every 256 KiB and may raise.

    Raises:
        ReleaseRefused: `TENSOR_CHECKSUM`: a tensor's bytes are not those that were saved; all wrong ones
            of the first bad shard are counted, the first is named.
        OSError: a file cannot be read.
    """
    bundle = read_index(root)
    if bundle is None:
        return TensorProof(0, 0)
    by_shard = defaultdict(list)
    for tensor in bundle.tensors:
        by_shard[tensor.shard].append(tensor)
    block = memoryview(bytearray(BLOCK_BYTES))
    for shard, mine in by_shard.items():
        name = f"variables/{shard_name(shard, bundle.shards)}"
        with open_regular(root / name) as file:
            wrong = [tensor for tensor in mine if not _is_right(file.fileno(), tensor, block, check)]
        if wrong:
            raise _refusal(name, wrong)
    return TensorProof(len(bundle.tensors), bundle.tensor_bytes)


def _refusal(name: str, wrong: list[Tensor]) -> ReleaseRefused:
    first = wrong[0]
    text = (
        f"{name}: {len(wrong)} tensors differ from their checksums, first {first.name[:200]!a} "
        f"(bytes {first.offset} to {first.offset + first.size}); {AGAIN}"
    )
    return ReleaseRefused(Reason.TENSOR_CHECKSUM, text, file=name, tensors=len(wrong), offset=first.offset)


def _is_right(handle: int, tensor: Tensor, block: memoryview, check: Callable[[], None]) -> bool:
    reader = _Reader(handle, tensor, block, check)
    try:
        if tensor.dtype == STRING:
            crc = _crc_of_strings(reader, tensor.elements)
        elif tensor.dtype == VARIANT:
            crc = _crc_of_variants(reader, tensor.elements)
        else:
            crc = reader.crc_of(tensor.size, 0)
    except Malformed:
        return False
    return masked(crc) == tensor.crc32c and reader.left == 0


class _Reader:
    """Reads the stored bytes of a tensor in order; `block` is overwritten."""

    def __init__(self, handle: int, tensor: Tensor, block: memoryview, check: Callable[[], None]) -> None:
        self._handle = handle
        self._position = tensor.offset
        self.left = tensor.size
        self._block = block
        self._check = check

    def crc_of(self, size: int, crc: int) -> int:
        """Return `crc` extended by the next `size` bytes."""
        while size:
            self._check()
            piece = self._block[:size]
            count = os.preadv(self._handle, [piece], self._position)
            if len(piece) > self.left or count != len(piece):
                raise Malformed("the range ends early")
            crc = crc32c(piece, crc)
            self._skip(count)
            size -= count
        return crc

    def take(self, size: int) -> bytes:
        """Return the next `size` bytes (at most READ_BYTES).

        Raises:
            Malformed: the range or the file ends before.
        """
        self._check()
        piece = os.pread(self._handle, size, self._position)
        if size > self.left or len(piece) != size:
            raise Malformed("the range ends early")
        self._skip(size)
        return piece

    def varint(self) -> int:
        """Return the next varint."""
        window = self._peek(MAX_VARINT_BYTES)
        value, used = varint(memoryview(window), 0)
        self._skip(used)
        return value

    def varints(self, count: int) -> Iterator[list[int]]:
        """Yield the next `count` varints in batches, none of them empty.

        Raises:
            Malformed: one of them does not end.
        """
        while count:
            self._check()
            batch, used = _varints(self._peek(READ_BYTES), count)
            if not batch:
                raise Malformed("a length that does not end")
            self._skip(used)
            count -= len(batch)
            yield batch

    def _peek(self, most: int) -> bytes:
        return os.pread(self._handle, min(most, self.left), self._position)

    def _skip(self, size: int) -> None:
        self._position += size
        self.left -= size


def _varints(window: bytes, most: int) -> tuple[list[int], int]:
    """Return up to `most` varints from the beginning of `window`, and how many bytes they take."""
    values: list[int] = []
    used = 0
    for found in _VARINTS.finditer(window):
        if found.start() != used or len(values) == most:
            break
        ones, twos = found[1], found[2]
        if ones:
            batch: Sequence[int] = ones[: most - len(values)]
            used += len(batch)
        elif twos:
            twos = twos[: 2 * (most - len(values))]
            batch = [low & 0x7F | high << 7 for low, high in zip(twos[::2], twos[1::2], strict=True)]
            used += len(twos)
        else:
            value, size = varint(memoryview(found[0]), 0)
            batch = (value,)
            used += size
        values += batch
    return values, used


def _lengths(values: list[int]) -> bytes:
    """Return lengths as the checksum takes them: u32 each, u64 from 2^32 on."""
    if max(values) < U32_END:
        return struct.pack(f"<{len(values)}I", *values)
    return b"".join(struct.pack("<I" if value < U32_END else "<Q", value) for value in values)


def _crc_of_strings(reader: _Reader, elements: int) -> int:
    if elements > reader.left:  # each length takes a byte at least
        raise Malformed("more strings than bytes")
    crc = 0
    total = 0
    for batch in reader.varints(elements):
        total += sum(batch)
        crc = google_crc32c.extend(crc, _lengths(batch))
    stored = reader.take(4)
    if struct.unpack("<I", stored)[0] != masked(crc):
        raise Malformed("the checksum of the lengths is wrong")
    if total > reader.left:
        raise Malformed("longer than its range")
    return reader.crc_of(total, google_crc32c.extend(crc, stored))


def _crc_of_variants(reader: _Reader, elements: int) -> int:
    crc = 0
    for _ in range(elements):
        length = reader.varint()
        if length > reader.left:
            raise Malformed("longer than its range")
        crc = google_crc32c.extend(crc, struct.pack("<Q", length))
        crc = reader.crc_of(length, crc)
        stored = reader.take(4)
        if struct.unpack("<I", stored)[0] != masked(crc):
            raise Malformed("a running checksum is wrong")
        crc = google_crc32c.extend(crc, stored)
    return crc
