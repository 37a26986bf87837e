"""The checksum of every tensor, as TensorFlow computes it while it saves and checks it while it loads.

Source: tensorflow/core/util/tensor_bundle/tensor_bundle.cc. Plain types: CRC32C over the stored bytes.
Strings: the stored range is the varint lengths, the masked CRC32C of the lengths, then the bytes; the
tensor's checksum runs over each length as u32 (u64 from 2^32 on), those four bytes, and the bytes.
Variants: for each element its length (u64 in the checksum), its bytes, and a running masked checksum.
"""

import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import google_crc32c

from servesync.errors import Reason, ReleaseRefused
from servesync.verify.bundle import STRING, VARIANT, Tensor, shard_name
from servesync.verify.structure import AGAIN, read_index
from servesync.verify.table import masked
from servesync.verify.wire import Malformed, varint

READ_BYTES: Final = 1 << 20
U32_END: Final = 1 << 32


@dataclass(frozen=True, slots=True)
class TensorProof:
    """How much was proven."""

    tensors: int
    bytes: int


def verify_tensors(root: Path, check: Callable[[], None] = lambda: None) -> TensorProof:
    """Prove the checksum of every tensor of the SavedModel in `root`, whose structure is right.

    Each shard is read once, from its beginning to its end. `check` is called every MiB and may raise.

    Raises:
        ReleaseRefused: `TENSOR_CHECKSUM`: a tensor's bytes are not those that were saved; all wrong ones
            of the first bad shard are counted, the first is named.
        OSError: a file cannot be read.
    """
    bundle = read_index(root)
    if bundle is None:
        return TensorProof(0, 0)
    for shard in range(bundle.shards):
        name = f"variables/{shard_name(shard, bundle.shards)}"
        handle = os.open(root / name, os.O_RDONLY | os.O_CLOEXEC)
        try:
            mine = [tensor for tensor in bundle.tensors if tensor.shard == shard]
            wrong = [tensor for tensor in mine if not _is_right(handle, tensor, check)]
        finally:
            os.close(handle)
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


def _is_right(handle: int, tensor: Tensor, check: Callable[[], None]) -> bool:
    reader = _Reader(handle, tensor.offset, tensor.size, check)
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
    """Reads a range of a file in order."""

    def __init__(self, handle: int, offset: int, size: int, check: Callable[[], None]) -> None:
        self._handle = handle
        self._position = offset
        self.left = size
        self._check = check

    def crc_of(self, size: int, crc: int) -> int:
        """Return `crc` extended by the next `size` bytes."""
        while size:
            piece = self.take(min(size, READ_BYTES))
            crc = google_crc32c.extend(crc, piece)
            size -= len(piece)
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
        self._position += size
        self.left -= size
        return piece

    def varint(self) -> int:
        """Return the next varint."""
        window = os.pread(self._handle, min(10, self.left), self._position)
        value, used = varint(memoryview(window), 0)
        self._position += used
        self.left -= used
        return value


def _length(value: int) -> bytes:
    return struct.pack("<I", value) if value < U32_END else struct.pack("<Q", value)


def _crc_of_strings(reader: _Reader, elements: int) -> int:
    if elements > reader.left:  # each length takes a byte at least
        raise Malformed("more strings than bytes")
    crc = 0
    total = 0
    for _ in range(elements):
        length = reader.varint()
        total += length
        crc = google_crc32c.extend(crc, _length(length))
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
