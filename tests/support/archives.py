"""Archives made byte by byte, so that a test can say anything a tar header can say, and honest ones too."""

import gzip
import zlib
from collections.abc import Iterable, Iterator, Mapping
from itertools import cycle
from typing import Final

import zstandard

BLOCK: Final = 512
END: Final = bytes(2 * BLOCK)
USTAR: Final = b"ustar\x0000"
GNU: Final = b"ustar  \x00"
V7: Final = bytes(8)


def header(
    name: bytes,
    *,
    kind: bytes = b"0",
    size: int = 0,
    link: bytes = b"",
    magic: bytes = USTAR,
    prefix: bytes = b"",
    size_field: bytes | None = None,
    mode: bytes = b"0000644\x00",
    mtime: bytes = b"00000000000\x00",
) -> bytes:
    """Return one header block with a correct checksum; every field goes in as it is given."""
    fields = (
        (0, name[:100]),
        (100, mode),
        (108, b"0000000\x000000000\x00"),
        (124, b"%011o\x00" % size if size_field is None else size_field),
        (136, mtime),
        (148, b" " * 8),
        (156, kind),
        (157, link),
        (257, magic),
        (345, prefix),
    )
    block = bytearray(BLOCK)
    for start, value in fields:
        block[start : start + len(value)] = value
    return sealed(bytes(block))


def sealed(block: bytes) -> bytes:
    """Return a header block with its checksum put right."""
    return block[:148] + b"%06o\x00 " % (sum(block[:148]) + 256 + sum(block[156:])) + block[156:]


def padded(data: bytes) -> bytes:
    """Fill up to whole blocks with zeros."""
    return data + bytes(-len(data) % BLOCK)


def member(name: str | bytes, data: bytes = b"", *, kind: bytes = b"0", magic: bytes = USTAR) -> bytes:
    """Return a member with its content."""
    raw = name.encode() if isinstance(name, str) else name
    return header(raw, kind=kind, size=len(data), magic=magic) + padded(data)


def directory(name: str | bytes) -> bytes:
    """Return a directory member."""
    return member(name, kind=b"5")


def link(name: str, target: str, kind: bytes = b"2") -> bytes:
    """Return a symbolic link, or with `kind` b"1" a hard link."""
    return header(name.encode(), kind=kind, link=target.encode())


def long_name(name: bytes, kind: bytes = b"L") -> bytes:
    """Return the GNU extension that names the next member."""
    return member(b"././@LongLink", name + b"\x00", kind=kind, magic=GNU)


def pax_record(key: bytes, value: bytes) -> bytes:
    """Return one PAX record; its length counts its own digits."""
    body = b" " + key + b"=" + value + b"\n"
    length = len(body)
    while len(str(length)) + len(body) != length:
        length = len(str(length)) + len(body)
    return str(length).encode() + body


def pax(*records: tuple[bytes, bytes], kind: bytes = b"x") -> bytes:
    """Return an extended header that holds `records`."""
    return member(b"PaxHeaders/x", b"".join(pax_record(*record) for record in records), kind=kind)


def tar(*parts: bytes, end: bytes = END) -> bytes:
    """Join members and put the end blocks after them."""
    return b"".join(parts) + end


def tar_tree(tree: Mapping[str, bytes]) -> bytes:
    """Return a plain tar of `path -> content`."""
    return tar(*(_named(path.encode(), data) for path, data in tree.items()))


def _named(name: bytes, data: bytes) -> bytes:
    return member(name, data) if len(name) <= 100 else long_name(name) + member(name, data, magic=GNU)


def tar_gz(tree: Mapping[str, bytes]) -> bytes:
    """Return a tar.gz of `path -> content`."""
    return gz(tar_tree(tree))


def tar_zst(tree: Mapping[str, bytes]) -> bytes:
    """Return a tar.zst of `path -> content`."""
    return zst(tar_tree(tree))


def gz(data: bytes) -> bytes:
    """Compress as one gzip member, the same bytes each time."""
    return gzip.compress(data, 6, mtime=0)


def gz_with_header(data: bytes, flags: int, fields: bytes, *, method: int = 8) -> bytes:
    """Compress as one gzip member whose header has `flags` and, after its fixed part, `fields`."""
    encoder = zlib.compressobj(6, zlib.DEFLATED, -15)
    raw = encoder.compress(data) + encoder.flush()
    trailer = zlib.crc32(data).to_bytes(4, "little") + (len(data) & 0xFFFFFFFF).to_bytes(4, "little")
    return bytes((0x1F, 0x8B, method, flags, 0, 0, 0, 0, 0, 255)) + fields + raw + trailer


def gz_members(data: bytes, member_bytes: int) -> bytes:
    """Compress as many independent gzip members."""
    return b"".join(gz(data[at : at + member_bytes]) for at in range(0, len(data), member_bytes))


def zst(data: bytes, *, checksum: bool = True, sized: bool = True, level: int = 3) -> bytes:
    """Compress as one Zstandard frame."""
    encoder = zstandard.ZstdCompressor(level=level, write_checksum=checksum, write_content_size=sized)
    return encoder.compress(data)


def zst_frames(data: bytes, frame_bytes: int) -> bytes:
    """Compress as many independent frames."""
    return b"".join(zst(data[at : at + frame_bytes]) for at in range(0, len(data), frame_bytes))


def skippable(size: int, claimed: int | None = None) -> bytes:
    """Return a skippable Zstandard frame."""
    return b"\x50\x2a\x4d\x18" + (size if claimed is None else claimed).to_bytes(4, "little") + bytes(size)


def in_chunks(data: bytes, sizes: Iterable[int] = (65536,)) -> Iterator[memoryview]:
    """Yield `data` as views of one buffer that is overwritten as soon as the next one is asked for."""
    at = 0
    lengths = cycle(sizes)
    buffer = bytearray(max(len(data), 1))
    while at < len(data):
        size = min(next(lengths), len(data) - at)
        buffer[:size] = data[at : at + size]
        with memoryview(buffer)[:size] as view:
            yield view
        buffer[:size] = b"\xdb" * size
        at += size
