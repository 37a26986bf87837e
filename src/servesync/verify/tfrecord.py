"""TFRecord files: each record is its length, the length's checksum, its data, and the data's checksum.

Source: tensorflow/core/lib/io/record_reader.cc and record_writer.cc. Checksums are masked CRC32C. The file
has no mark of its own, and no end but where a record ends: as TensorFlow has it, also where less is left than
a length and its checksum take.
"""

import os
import struct
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Final

import google_crc32c

from servesync.files import open_regular
from servesync.verify.saved_model import MAX_BYTES, mapped
from servesync.verify.table import masked
from servesync.wire import Malformed

READ_BYTES: Final = 1 << 20
_LENGTH: Final = struct.Struct("<QI")
_CHECKSUM: Final = struct.Struct("<I")


def records(path: Path, check: Callable[[], None] = lambda: None) -> Generator[memoryview, None, None]:
    """Yield the data of each record, proven by its checksum, and readable until the next one is asked for.

    A file and a record of any size take the same memory. `check` is called for every MiB and may raise.

    Raises:
        Malformed: a record is cut, larger than a message can be, or not what was written.
        NotRegular, OSError: as `open_regular`.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if not size:
            return
        with mapped(file) as data:
            position = 0
            while (begin := position + _LENGTH.size) <= size:
                length = _length(data[position:begin], position)
                end = begin + length
                if end + _CHECKSUM.size > size:
                    raise Malformed(
                        f"it is cut: {length} bytes from byte {begin} on, and the file has {size}"
                    )
                (stored,) = _CHECKSUM.unpack(data[end : end + _CHECKSUM.size])
                if _crc_of(file.fileno(), begin, length, check) != stored:
                    raise Malformed(f"its {length} bytes from byte {begin} on differ from their checksum")
                yield data[begin:end]
                position = end + _CHECKSUM.size


def record(data: bytes) -> bytes:
    """Return a record as it stands in a file."""
    return b"".join(
        piece + _CHECKSUM.pack(masked(google_crc32c.value(piece)))
        for piece in (struct.pack("<Q", len(data)), data)
    )


def _length(header: memoryview, position: int) -> int:
    length: int
    length, stored = _LENGTH.unpack(header)
    if masked(google_crc32c.value(bytes(header[:8]))) != stored:
        other = "" if position else " (is it a TFRecord file, and not a compressed one?)"
        raise Malformed(f"its length, at byte {position}, differs from the checksum of the length{other}")
    if length > MAX_BYTES:
        raise Malformed(f"{length} bytes, more than a message can have")
    return length


def _crc_of(handle: int, begin: int, length: int, check: Callable[[], None]) -> int:
    """Return the masked checksum of a range of a file; the read bytes take no room in the mapping."""
    crc = 0
    while length:
        check()
        piece = os.pread(handle, min(length, READ_BYTES), begin)
        if not piece:
            raise Malformed("the file became shorter while it was read")
        crc = google_crc32c.extend(crc, piece)
        begin, length = begin + len(piece), length - len(piece)
    return masked(crc)
