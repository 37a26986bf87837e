"""Zstandard (RFC 8878) to its proven end: we walk frames and blocks, the library decodes one block a call.

By itself, the library ends silently on a truncated frame, and does not show where a frame ends. Walking the
block headers here shows each end, and bounds the output of every call to 128 KiB.
"""

from collections.abc import Iterator
from typing import Final

import zstandard

from servesync.errors import Reason, ReleaseRefused
from servesync.unpack.source import ByteSource

MAGIC: Final = b"\x28\xb5\x2f\xfd"
MAX_WINDOW_BYTES: Final = 128 << 20
MAX_FRAMES: Final = 200_000
MAX_SKIPPABLE_BYTES: Final = 64 * 1024
MAX_HEADER_BYTES: Final = 18
_MAX_BLOCK_BYTES: Final = 128 * 1024
_RLE, _RESERVED_TYPE = 1, 3
_REPACK: Final = "pack and upload the version again (tar --zstd -cf)"


def is_skippable(magic: bytes) -> bool:
    """Tell whether `magic` begins a skippable frame."""
    return len(magic) == len(MAGIC) and magic[0] & 0xF0 == 0x50 and magic[1:] == b"\x2a\x4d\x18"  # noqa: PLR2004 -- RFC 8878, 3.1.2


def unzstd(source: ByteSource) -> Iterator[bytes]:
    """Yield the content of all frames in pieces of at most 128 KiB.

    Raises:
        ReleaseRefused: a frame is damaged, ends early, has no checksum, wants a dictionary or too large a
            window, or something that is not a frame follows. What was yielded before is not proven: only
            the normal end of the iteration proves it.
    """
    library = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES)
    frames = 0
    while frames == 0 or not source.at_end():
        frames += 1
        if frames > MAX_FRAMES:
            raise corrupt(f"it has more than {MAX_FRAMES} frames")
        magic = source.peek(4)
        if magic == MAGIC:
            yield from _frame(source, library)
        elif is_skippable(magic):
            _skip(source)
        elif frames > 1:
            raise ReleaseRefused(
                Reason.ARCHIVE_TRAILING_DATA, f"other data follows the end of the Zstandard stream; {_REPACK}"
            )
        else:
            raise corrupt("it does not begin with a frame")


def unframe(source: ByteSource) -> Iterator[bytes]:
    """Yield the content of the next frame, nothing of a skippable one, and leave what follows it.

    Raises:
        ReleaseRefused: as `unzstd` does.
    """
    if is_skippable(source.peek(4)):
        _skip(source)
        return
    yield from _frame(source, zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES))


def _skip(source: ByteSource) -> None:
    size = int.from_bytes(source.read(8, "a skippable Zstandard frame")[4:], "little")
    if size > MAX_SKIPPABLE_BYTES:
        raise corrupt(f"a skippable frame of {size} bytes (at most {MAX_SKIPPABLE_BYTES} are accepted)")
    source.read(size, "a skippable Zstandard frame")


def _frame(source: ByteSource, library: zstandard.ZstdDecompressor) -> Iterator[bytes]:
    decoder = library.decompressobj()
    header, window = _read_frame_header(source)
    try:
        decoder.decompress(header)
        for block in _blocks(source, min(window, _MAX_BLOCK_BYTES)):
            if piece := decoder.decompress(block):
                yield piece
        if piece := decoder.decompress(source.read(4, "a Zstandard frame's checksum")):
            yield piece
    except zstandard.ZstdError as error:
        raise corrupt(f"a frame cannot be decoded ({error})") from error
    if not decoder.eof or decoder.unused_data:
        raise corrupt("the decoder disagrees about the end of a frame")


def _read_frame_header(source: ByteSource) -> tuple[bytes, int]:
    """Return the header's bytes and the window size (RFC 8878, 3.1.1.1)."""
    header = source.read(5, "a Zstandard frame's header")
    descriptor = header[4]
    size_flag, single, dictionary_flag = descriptor >> 6, descriptor & 0x20, descriptor & 0x03
    if descriptor & 0x18:
        raise corrupt("a frame header has a reserved bit set")
    if dictionary_flag:
        raise corrupt("a frame wants a dictionary")
    if not descriptor & 0x04:
        raise ReleaseRefused(
            Reason.ARCHIVE_UNCHECKSUMMED,
            "a Zstandard frame has no content checksum, so damage could go unseen; compress with the zstd"
            " tool (tar --zstd -cf), or with write_checksum=True in Python",
        )
    size_bytes = (1 if single else 0, 2, 4, 8)[size_flag]
    rest = source.read((0 if single else 1) + size_bytes, "a Zstandard frame's header")
    if single:
        window = int.from_bytes(rest, "little") + (256 if size_flag == 1 else 0)
    else:
        base = 1 << (10 + (rest[0] >> 3))
        window = base + (base >> 3) * (rest[0] & 0x07)
    if window > MAX_WINDOW_BYTES:
        raise ReleaseRefused(
            Reason.ARCHIVE_WINDOW,
            f"a Zstandard frame wants a window of {window} bytes, at most {MAX_WINDOW_BYTES} are accepted;"
            " compress with --long=27 or less",
            window_bytes=window,
            limit_bytes=MAX_WINDOW_BYTES,
        )
    return header + rest, window


def _blocks(source: ByteSource, most: int) -> Iterator[bytes]:
    """Yield the blocks of one frame, each with its header, to the one marked as the last."""
    last = False
    while not last:
        header, last, size = _read_block_header(source, most)
        yield header + source.read(size, "a Zstandard block")


def _read_block_header(source: ByteSource, most: int) -> tuple[bytes, bool, int]:
    """Return the header, whether the block is the last, and how many bytes follow, at most `most`."""
    header = source.read(3, "a Zstandard block's header")
    value = int.from_bytes(header, "little")
    last, kind, size = bool(value & 1), value >> 1 & 3, value >> 3
    if kind == _RESERVED_TYPE:
        raise corrupt("a block has the reserved type")
    if size > most:
        raise corrupt(f"a block of {size} bytes (at most {most} are possible)")
    return header, last, 1 if kind == _RLE else size


def pass_frame(source: ByteSource) -> bool:
    """Go past one frame without decompressing it; tell whether it has content.

    False: it is a skippable one, or what begins here is no frame; then `source` stands where it stood.

    Raises:
        ReleaseRefused: the frame is one that `unzstd` would refuse before it decompresses anything.
    """
    magic = source.peek(len(MAGIC))
    if is_skippable(magic):
        _skip(source)
        return False
    if magic != MAGIC:
        return False
    _, window = _read_frame_header(source)
    last = False
    while not last:
        _, last, size = _read_block_header(source, min(window, _MAX_BLOCK_BYTES))
        for _ in source.exactly(size, "a Zstandard block"):
            pass
    source.read(4, "a Zstandard frame's checksum")
    return True


def corrupt(what: str) -> ReleaseRefused:
    """Return the refusal of a stream, or a part of one, that cannot be decompressed safely."""
    return ReleaseRefused(
        Reason.ARCHIVE_CORRUPT, f"the Zstandard stream is damaged or unusual: {what}; {_REPACK}"
    )
