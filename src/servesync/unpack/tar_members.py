"""Our own tar reader: regular files and directories, each with exactly one meaning, to a proven end.

Python's `tarfile` does not protect us: even with its strictest filter it follows links out of the target,
accepts a tar that is cut between two members, and takes a header with a wrong checksum for the end. A
SavedModel needs no link at all.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from servesync.errors import Reason, ReleaseRefused
from servesync.settings import Limits
from servesync.unpack import tar_header
from servesync.unpack.refusal import shown, too_many_members, unpacks_too_big
from servesync.unpack.source import ByteSource
from servesync.unpack.tar_header import BLOCK_BYTES, ZERO_BLOCK, Header, bad_header
from servesync.unpack.tar_pax import Pax, check_global_pax, parse_pax

MAX_EXTENSION_BYTES: Final = 64 * 1024
MAX_END_PADDING_BYTES: Final = 4 << 20
"""Zeros after the end: tar fills its last record, of 10 KiB by default and of a few MiB on tapes."""

_FILES: Final = frozenset({b"0", b"\x00"})
_DIRECTORY: Final = b"5"
_LINKS: Final = {b"1": "a hard link", b"2": "a symbolic link", b"K": "a link with a long name"}
_SPECIAL: Final = {
    b"3": "a character device",
    b"4": "a block device",
    b"6": "a FIFO",
    b"7": "a contiguous file",
    b"D": "a GNU dump directory",
    b"M": "a continuation of another volume",
    b"N": "an old GNU long name",
    b"V": "a volume label",
}


@dataclass(frozen=True, slots=True)
class Member:
    """A file or directory; its `size` bytes are the next ones of the stream that it came from."""

    path: bytes
    is_directory: bool
    size: int


@dataclass(slots=True)
class _Extensions:
    """What extension headers say about the one member after them."""

    long_name: bytes | None = None
    pax: Pax | None = None


@dataclass(frozen=True, slots=True)
class Capacity:
    """How many bytes a stream can hold at most, and why a member that claims more is refused unread."""

    most_bytes: int
    reason: Reason


def members(stream: ByteSource, limits: Limits, capacity: Capacity) -> Iterator[Member]:
    """Yield the members in their order; the caller reads exactly `size` bytes of `stream` for each.

    The iteration ends normally only after two zero blocks, with nothing but zeros after them up to the end of
    `stream`. Padding between members must be zeros too: all that is not a file's content is accounted for.

    Raises:
        ReleaseRefused: a member or the end of the archive is not as it must be.
    """
    budget = _Budget(limits, capacity)
    extensions = _Extensions()
    first = True
    while (block := stream.read(BLOCK_BYTES, "the tar stream (its end blocks are missing)")) != ZERO_BLOCK:
        header = tar_header.parse_header(block)
        if header.kind == b"g":
            if not first:
                raise bad_header("a global PAX header stands between members")
            check_global_pax(_payload(stream, header))
        elif header.kind in {b"L", b"x"}:
            _extend(extensions, header, _payload(stream, header))
        else:
            member = _member(header, extensions)
            budget.spend(member)
            yield member
            _skip_padding(stream, member.size)
            extensions = _Extensions()
        first = False
    if extensions != _Extensions():
        raise bad_header("the archive ends after an extension header, without the member that it describes")
    _prove_end(stream)


class _Budget:
    """What the members may still claim."""

    def __init__(self, limits: Limits, capacity: Capacity) -> None:
        self._limits = limits
        self._capacity = capacity
        self._members = 0
        self._bytes = 0

    def spend(self, member: Member) -> None:
        self._members += 1
        self._bytes += member.size
        if self._members > self._limits.max_members:
            raise too_many_members(self._limits)
        if self._bytes > self._limits.max_unpacked_bytes:
            raise unpacks_too_big(self._bytes, self._limits)
        if self._bytes > self._capacity.most_bytes:
            raise ReleaseRefused(
                self._capacity.reason,
                f"the members up to {shown(member.path)} claim {self._bytes} bytes, and an archive of this"
                f" size can hold {self._capacity.most_bytes} (see limits.max_ratio); pack it again",
                claimed_bytes=self._bytes,
                possible_bytes=self._capacity.most_bytes,
            )


def _member(header: Header, extensions: _Extensions) -> Member:
    path, size = header.path, header.size
    if (long_name := extensions.long_name) is not None:
        path = long_name
    if (pax := extensions.pax) is not None:
        path = path if pax.path is None else pax.path
        size = size if pax.size is None else _agreed_size(header.size, pax.size)
    if long_name is not None and (header.has_prefix or (pax is not None and pax.path is not None)):
        raise bad_header(f"the member {shown(path)} has two long names")
    is_file = header.kind in _FILES
    is_directory = header.kind == _DIRECTORY or (is_file and header.is_v7 and path.endswith(b"/"))
    if not is_directory and not is_file:
        raise _unwanted(header, path)
    if header.link or (is_directory and size):
        raise bad_header(f"the member {shown(path)} has a link target, or content, though its type has none")
    return Member(path, is_directory, size)


def _agreed_size(ustar: int, pax: int) -> int:
    """Return a member's size; refuse it if a reader that knows only ustar would read another one."""
    if ustar == pax or (pax > tar_header.OVERFLOWN_SIZE and ustar in {0, tar_header.OVERFLOWN_SIZE}):
        return pax
    raise bad_header(f"a member has {ustar} bytes by its header and {pax} by its PAX header")


def _unwanted(header: Header, path: bytes) -> ReleaseRefused:
    if header.kind in _LINKS:
        target = f" to {shown(header.link)}" if header.link else ""
        return ReleaseRefused(
            Reason.ARCHIVE_LINK,
            f"{shown(path)} is {_LINKS[header.kind]}{target}; a version holds files and directories only:"
            " pack with tar --dereference --hard-dereference",
            member=shown(path),
        )
    if header.kind == b"S":
        text = f"{shown(path)} is a sparse file; pack without tar --sparse"
        return ReleaseRefused(Reason.ARCHIVE_SPARSE, text, member=shown(path))
    what = _SPECIAL.get(header.kind, f"of the unknown type {shown(header.kind)}")
    text = f"{shown(path)} is {what}; a version holds files and directories only"
    return ReleaseRefused(Reason.ARCHIVE_SPECIAL_FILE, text, member=shown(path))


def _extend(extensions: _Extensions, header: Header, payload: bytes) -> None:
    if header.kind == b"L":
        if extensions.long_name is not None:
            raise bad_header("a member has two GNU long names")
        extensions.long_name = payload.removesuffix(b"\x00")
    else:
        if extensions.pax is not None:
            raise bad_header("a member has two PAX headers")
        extensions.pax = parse_pax(payload)


def _payload(stream: ByteSource, header: Header) -> bytes:
    if header.size > MAX_EXTENSION_BYTES:
        raise bad_header(f"an extension header of {header.size} bytes (at most {MAX_EXTENSION_BYTES})")
    payload = stream.read(header.size, "an extension header")
    _skip_padding(stream, header.size)
    return payload


def _skip_padding(stream: ByteSource, size: int) -> None:
    if any(stream.read(-size % BLOCK_BYTES, "the padding after a member")):
        raise bad_header("something is hidden in the padding after a member")


def _prove_end(stream: ByteSource) -> None:
    """Read the second end block and the zeros that fill the last record, to the end of the stream."""
    if stream.read(BLOCK_BYTES, "its end blocks") != ZERO_BLOCK:
        raise _after_the_end("something other than zeros")
    zeros = 0
    while piece := stream.some(64 * 1024):
        zeros += len(piece)
        if bytes(piece).count(0) != len(piece):
            raise _after_the_end("something other than zeros")
        if zeros > MAX_END_PADDING_BYTES:
            raise _after_the_end(f"more than {MAX_END_PADDING_BYTES} zeros")
    if zeros % BLOCK_BYTES:
        raise ReleaseRefused(Reason.ARCHIVE_TRUNCATED, "the last tar block is cut; upload the archive again")


def _after_the_end(what: str) -> ReleaseRefused:
    return ReleaseRefused(
        Reason.ARCHIVE_TRAILING_DATA,
        f"{what} after the end of the tar archive (archives cannot be joined with cat): pack it again",
    )
