"""Recognizes an archive by its first bytes, never by its name, and decodes it within the limits."""

from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import Final

from servesync.domain.lookalikes import lookalike
from servesync.errors import Reason, ReleaseRefused
from servesync.settings import Limits
from servesync.unpack import gzip_stream, tar_header, zstd_stream
from servesync.unpack.refusal import shown
from servesync.unpack.source import ByteSource, owned_pieces
from servesync.unpack.tar_members import Capacity

RATIO_FLOOR_BYTES: Final = 16 << 20
"""The ratio is not checked below this much content: small variables full of zeros are legitimate."""

_SNIFFED: Final = tar_header.BLOCK_BYTES


class Format(StrEnum):
    """The formats that are accepted."""

    GZIP = "gzip"
    ZSTD = "Zstandard"
    TAR = "tar"


_OTHERS: Final = (
    (b"PK\x03\x04", "a zip file"),
    (b"PK\x05\x06", "a zip file"),
    (b"BZh", "a bzip2 file"),
    (b"\xfd7zXZ\x00", "an xz file"),
    (b"\x5d\x00\x00", "an lzma file"),
    (b"\x04\x22\x4d\x18", "an LZ4 file"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z file"),
    (b"Rar!", "a rar file"),
    (b"\x89HDF", "an HDF5 file"),
    (b"<", "an HTML or XML page"),
    (b"{", "a JSON document"),
)


def open_tar(
    source: ByteSource, archive_bytes: int, limits: Limits, *, is_promised: bool = False
) -> tuple[ByteSource, Capacity, Format]:
    """Return the tar stream inside `source`, its capacity, and the format of the archive.

    `is_promised`: a manifest says how much it holds, so the ratio need only hold for the whole archive.

    Raises:
        ReleaseRefused: at once, if the format is not accepted; later, while the stream is read, if it is
            damaged or larger than `limits` allow.
    """
    kind = _sniff(source, "the archive")
    if kind is Format.TAR:
        return ByteSource(owned_pieces(source)), Capacity(archive_bytes, Reason.ARCHIVE_TRUNCATED), kind
    most = max(RATIO_FLOOR_BYTES, archive_bytes * limits.max_ratio)
    read = (lambda: archive_bytes) if is_promised else (lambda: source.consumed)
    plain = ByteSource(_metered(_DECODERS[kind](source), read, limits))
    inner = _sniff(plain, f"the content of the {kind} stream")
    if inner is not Format.TAR:
        raise _no_archive(f"the content of the {kind} stream", f"{inner} again")
    return plain, Capacity(most, Reason.ARCHIVE_RATIO), kind


def _sniff(source: ByteSource, what: str) -> Format:
    head = source.peek(_SNIFFED)
    if not head:
        raise ReleaseRefused(Reason.ARCHIVE_EMPTY, f"{what} has no bytes; pack and upload the version again")
    if head.startswith(gzip_stream.MAGIC):
        return Format.GZIP
    if head.startswith(zstd_stream.MAGIC) or zstd_stream.is_skippable(head[:4]):
        return Format.ZSTD
    if tar_header.looks_like_tar(head):
        return Format.TAR
    known = lookalike(head)
    if known is not None:
        text = f"{what} is {known.name}: {known.advice}"
        raise ReleaseRefused(Reason.ARCHIVE_FORMAT, text, looks_like=known.name)
    for magic, name in _OTHERS:
        if head.lstrip().startswith(magic):
            raise _no_archive(what, name)
    raise _no_archive(what, f"something unknown that begins with {shown(head[:16])}")


def _no_archive(what: str, looks_like: str) -> ReleaseRefused:
    return ReleaseRefused(
        Reason.ARCHIVE_FORMAT,
        f"{what} looks like {looks_like}; accepted are tar, tar.gz and tar.zst, as tar -czf makes them",
        looks_like=looks_like,
    )


def check_ratio(unpacked_bytes: int, archive_bytes: int, limits: Limits) -> None:
    """Make sure that so many bytes may come of an archive, or of as much of it as was read.

    Raises:
        ReleaseRefused: `ARCHIVE_RATIO`: they are too many.
    """
    if unpacked_bytes > RATIO_FLOOR_BYTES and unpacked_bytes > archive_bytes * limits.max_ratio:
        raise ReleaseRefused(
            Reason.ARCHIVE_RATIO,
            f"{archive_bytes} bytes of the archive unpack to more than {unpacked_bytes} bytes, over"
            f" limits.max_ratio ({limits.max_ratio}); raise it if the model really is mostly zeros",
            unpacked_bytes=unpacked_bytes,
            consumed_bytes=archive_bytes,
            limit=limits.max_ratio,
        )


def _metered(pieces: Iterator[bytes], read: Callable[[], int], limits: Limits) -> Iterator[bytes]:
    """Yield `pieces`; refuse the archive once they exceed the bytes that count as `read` by the ratio."""
    total = 0
    for piece in pieces:
        total += len(piece)
        check_ratio(total, read(), limits)
        yield piece


_DECODERS: Final[dict[Format, Callable[[ByteSource], Iterator[bytes]]]] = {
    Format.GZIP: gzip_stream.gunzip,
    Format.ZSTD: zstd_stream.unzstd,
}
