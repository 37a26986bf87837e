"""gzip (RFC 1952) to its proven end: header and trailer of each member are checked here, not by the library.

A file is one member or several in a row, as bgzip and parallel compressors write it; their content is joined.

ISA-L decodes the deflate stream inside in raw mode. This module checks the checksum, the length, the bound of
the header, and that nothing follows.
"""

from collections.abc import Generator, Iterator
from typing import Final, cast

from isal import igzip_lib, isal_zlib

from servesync.errors import Reason, ReleaseRefused
from servesync.unpack.source import ByteSource, ends_inside

MAGIC: Final = b"\x1f\x8b"
MAX_HEADER_BYTES: Final = 64 * 1024
MAX_SMALL_MEMBERS: Final = 200_000
SMALL_BYTES: Final = 512
"""A member with less content costs more time than its bytes do, so their number is bounded."""

_DEFLATE: Final = 8
_FHCRC, _FEXTRA, _FNAME, _FCOMMENT, _RESERVED = 0x02, 0x04, 0x08, 0x10, 0xE0
_DECODER_ERROR: Final = cast("type[Exception]", igzip_lib.error)  # the stub says an instance
_STEP: Final = 128 * 1024  # small enough for the processor's cache, and for an early stop of a bomb
_PIECE: Final = 2 * _STEP  # what a step of a model's weights unpacks to fits in it


def gunzip(source: ByteSource) -> Iterator[bytes]:
    """Yield the content of all members in pieces of at most 256 KiB.

    Raises:
        ReleaseRefused: a member is damaged or ends early, more than `MAX_SMALL_MEMBERS` are small, or
            something that is no member follows. What was yielded before is not proven: only the normal end
            of the iteration proves it.
    """
    small = 0
    is_first = True
    while is_first or not source.at_end():
        if not is_first and source.peek(len(MAGIC)) != MAGIC:
            raise ReleaseRefused(
                Reason.ARCHIVE_TRAILING_DATA,
                "other data follows the end of the gzip stream; pack the version again with tar -czf",
            )
        is_first = False
        size = yield from _member(source)
        small += size < SMALL_BYTES
        if small > MAX_SMALL_MEMBERS:
            raise _corrupt(f"more than {MAX_SMALL_MEMBERS} of its members are almost empty")


def _member(source: ByteSource) -> Generator[bytes, None, int]:
    """Yield the content of one member, and return how many bytes that was."""
    _read_header(source)
    crc = size = 0
    for piece in _inflate(source):
        crc = isal_zlib.crc32(piece, crc)
        size += len(piece)
        yield piece
    trailer = source.read(8, "its gzip trailer")
    if int.from_bytes(trailer[:4], "little") != crc:
        raise _corrupt("the content does not match its CRC-32")
    if int.from_bytes(trailer[4:], "little") != size & 0xFFFFFFFF:
        raise _corrupt("the content does not have the length that the trailer gives")
    return size


def _inflate(source: ByteSource) -> Iterator[bytes]:
    decoder = igzip_lib.IgzipDecompressor(igzip_lib.DECOMP_DEFLATE)
    try:
        while not decoder.eof:
            fed = source.some(_STEP) if decoder.needs_input else b""
            if decoder.needs_input and not fed:
                raise ends_inside("its gzip data")
            piece = decoder.decompress(fed, _PIECE)
            if piece:
                yield piece
            elif not fed and _is_stuck(decoder):
                raise _corrupt("the decoder makes no progress")
    except _DECODER_ERROR as error:
        raise _corrupt(f"the compressed data cannot be decoded ({error})") from error
    source.push_back(decoder.unused_data)


def _is_stuck(decoder: igzip_lib.IgzipDecompressor) -> bool:
    return not (decoder.eof or decoder.needs_input)


def _read_header(source: ByteSource) -> None:
    header = source.read(10, "its gzip header")
    method, flags = header[2], header[3]
    if header[:2] != MAGIC or method != _DEFLATE or flags & _RESERVED:
        raise _corrupt("the header has an unknown method or reserved flags")
    if flags & _FEXTRA:
        header += source.read(2, "its gzip header")
        header += source.read(int.from_bytes(header[-2:], "little"), "its gzip header")
    for flag in (_FNAME, _FCOMMENT):
        if flags & flag:
            header += _read_text(source, max(0, MAX_HEADER_BYTES - len(header)))
    if flags & _FHCRC:
        stored = int.from_bytes(source.read(2, "its gzip header"), "little")
        if stored != isal_zlib.crc32(header) & 0xFFFF:
            raise _corrupt("the header does not match its checksum")


def _read_text(source: ByteSource, limit: int) -> bytes:
    seen = source.peek(limit)
    end = seen.find(0) + 1
    if end:
        return source.read(end, "its gzip header")
    if len(seen) < limit:
        raise ends_inside("its gzip header")
    raise _corrupt(f"the header is longer than {MAX_HEADER_BYTES} bytes")


def _corrupt(what: str) -> ReleaseRefused:
    return ReleaseRefused(
        Reason.ARCHIVE_CORRUPT, f"the gzip stream is damaged: {what}; pack and upload the version again"
    )
