"""Reads `variables.index`, a sorted string table, and checks every checksum and bound.

Format: LevelDB's table format as TensorFlow writes it (tensorflow/core/lib/io/format.h): blocks of
prefix-compressed entries, a restart array, a trailer of one type byte and a masked CRC32C, and a footer of
48 bytes that ends in the magic number.
"""

import struct
from collections.abc import Iterator
from typing import Final

import cramjam
import google_crc32c

from servesync.wire import Malformed, varint

FOOTER_BYTES: Final = 48
MAGIC: Final = 0xDB4775248B80FB57
TRAILER_BYTES: Final = 5
MAX_BLOCK_BYTES: Final = 16 << 20
MAX_KEY_BYTES: Final = 64 << 10
MAX_KEYS_BYTES: Final = 64 << 20
"""The most bytes of all keys together: compressed, a long key may take only a byte or two of the file."""

PLAIN, SNAPPY = 0, 1
_MASK: Final = 0xA282EAD8


def masked(crc: int) -> int:
    """Return a CRC32C in the form in which TensorFlow stores it."""
    return ((crc >> 15 | crc << 17) + _MASK) & 0xFFFFFFFF


def entries(data: memoryview) -> Iterator[tuple[bytes, bytes]]:
    """Yield `(key, value)` of a whole table, in strictly rising order of the keys.

    Raises:
        Malformed: a checksum, a bound, or the order is wrong.
    """
    meta, index = _handles(data)
    body = data[:-FOOTER_BYTES]
    for _ in _pairs(_block(body, *meta)):
        raise Malformed("a meta block, which TensorFlow never writes")
    order = _Order()
    end = 0
    for separator, block, behind in _data_blocks(body, _block(body, *index)):
        end = behind
        for key, value in _pairs(block):
            order.check(key)
            yield key, value
        order.close(separator)
    _check_tail(end, meta, index, len(body))


def _handles(data: memoryview) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return where the footer says that the meta block and the index block are: offset and size of each."""
    if len(data) < FOOTER_BYTES:
        raise Malformed(f"{len(data)} bytes are too few for a table")
    footer = data[-FOOTER_BYTES:]
    if struct.unpack("<Q", footer[-8:])[0] != MAGIC:
        raise Malformed("the footer has no magic number: cut short, or no index")
    numbers = []
    position = 0
    for _ in range(4):
        value, behind = varint(footer, position)
        if behind - position > 1 and not footer[behind - 1]:
            raise Malformed("a number in the footer goes on into its padding")
        numbers.append(value)
        position = behind
    if any(footer[position:-8]):
        raise Malformed("the footer's padding is not empty")
    meta_offset, meta_size, offset, size = numbers
    return (meta_offset, meta_size), (offset, size)


class _Order:
    """Checks the order of all keys, across blocks: the server's search misses keys that are out of order."""

    def __init__(self) -> None:
        self._last: bytes | None = None
        self._bytes = 0

    def check(self, key: bytes) -> None:
        """Check the next key of a block."""
        if self._last is not None and key <= self._last:
            raise Malformed(f"the key {key[:80]!a} is out of order")
        self._last = key
        self._bytes += len(key)
        if self._bytes > MAX_KEYS_BYTES:
            raise Malformed(f"more than {MAX_KEYS_BYTES} bytes of keys")

    def close(self, separator: bytes) -> None:
        """Check the key under which the index block lists the block that ends here."""
        if self._last is None or separator < self._last:
            raise Malformed(f"the key {separator[:80]!a} of a block does not come after its last key")
        self._last = separator


def _data_blocks(body: memoryview, index: bytes) -> Iterator[tuple[bytes, bytes, int]]:
    """Yield each data block: the key that the index gives it, its content, and where it ends."""
    expected = 0
    for separator, handle in _pairs(index):
        view = memoryview(handle)
        offset, behind = varint(view, 0)
        size, behind = varint(view, behind)
        if behind != len(view) or offset != expected:
            raise Malformed(f"a gap or an overlap before the block at byte {offset}")
        expected = offset + size + TRAILER_BYTES
        yield separator, _block(body, offset, size), expected


def _check_tail(data_end: int, meta: tuple[int, int], index: tuple[int, int], end: int) -> None:
    """Make sure that data, meta index and index fill the file: nothing lies between them unchecked."""
    meta_end = meta[0] + meta[1] + TRAILER_BYTES
    index_end = index[0] + index[1] + TRAILER_BYTES
    if (meta[0], index[0], index_end) != (data_end, meta_end, end):
        raise Malformed("bytes in the table that belong to no block")


def _block(body: memoryview, offset: int, size: int) -> bytes:
    """Return the content of one block after checking its checksum."""
    if size > MAX_BLOCK_BYTES or offset + size + TRAILER_BYTES > len(body):
        raise Malformed(f"a block of {size} bytes at byte {offset} does not fit")
    stored = bytes(body[offset : offset + size + 1])
    (crc,) = struct.unpack("<I", body[offset + size + 1 : offset + size + TRAILER_BYTES])
    if masked(google_crc32c.value(stored)) != crc:
        raise Malformed(f"the checksum of the block at byte {offset} is wrong")
    kind = stored[-1]
    if kind == PLAIN:
        return stored[:-1]
    if kind != SNAPPY:
        raise Malformed(f"the block at byte {offset} has the unknown compression {kind}")
    length, _ = varint(memoryview(stored[:-1]), 0)
    if length > MAX_BLOCK_BYTES:
        raise Malformed(f"the block at byte {offset} unpacks to {length} bytes")
    try:
        return bytes(cramjam.snappy.decompress_raw(stored[:-1]))
    except cramjam.DecompressionError as error:
        raise Malformed(f"the block at byte {offset} does not decompress") from error


def _pairs(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the entries of one block: shared prefix length, rest length, value length, rest, value."""
    view = memoryview(block)
    if len(view) < 4:  # noqa: PLR2004 (the restart count)
        raise Malformed("a block without restarts")
    (count,) = struct.unpack("<I", view[-4:])
    end = len(view) - 4 * (count + 1)
    if end < 0:
        raise Malformed("a block with more restarts than bytes")
    restarts = struct.iter_unpack("<I", view[end:-4])
    (restart,) = next(restarts, (None,))
    if restart != 0:
        raise Malformed("a block whose first restart is not its beginning")
    position = 0
    key = b""
    while position < end:
        begin = position
        shared, position = varint(view, position)
        if begin == restart and not shared:
            (restart,) = next(restarts, (None,))
        rest, position = varint(view, position)
        length, position = varint(view, position)
        if shared > len(key) or shared + rest > MAX_KEY_BYTES or position + rest + length > end:
            raise Malformed("an entry that does not fit its block")
        key = key[:shared] + bytes(view[position : position + rest])
        position += rest
        yield key, bytes(view[position : position + length])
        position += length
    if restart is not None and end:
        raise Malformed(f"a restart at byte {restart} that is no entry of its own")
