"""One 512-byte tar header as POSIX (ustar), GNU and V7 write it; what has two readings is refused."""

import re
from dataclasses import dataclass
from typing import Final

from servesync.errors import Reason, ReleaseRefused

BLOCK_BYTES: Final = 512
ZERO_BLOCK: Final = bytes(BLOCK_BYTES)
OVERFLOWN_SIZE: Final = 0o77777777777
"""What some writers put into the header's size field when PAX carries the real one."""

_USTAR: Final = b"ustar\x0000"
_GNU: Final = b"ustar  \x00"
_V7: Final = bytes(8)
_OCTAL: Final = re.compile(rb" *[0-7]+[ \x00]*")
_STAR_TIMES: Final = re.compile(rb"(?:[0-7]{11}[ \x00]){2}")
"""Where star, and npm's tar after it, keep the times of last access and change: the end of the prefix."""

_STAR_TIMES_AT: Final = 131
_MAX_SIZE: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Header:
    """The fields of a header that are used; owners, modes and times are ignored."""

    kind: bytes
    path: bytes
    size: int
    link: bytes
    has_prefix: bool
    is_v7: bool


def looks_like_tar(head: bytes) -> bool:
    """Tell whether `head`, the beginning of a stream, is meant to be tar; it may still be damaged."""
    if len(head) < BLOCK_BYTES:
        return head[257:262] == b"ustar"
    return head[257:262] == b"ustar" or head == ZERO_BLOCK or _checksum_holds(head)


def parse_header(block: bytes) -> Header:
    """Return what one header block says.

    Raises:
        ReleaseRefused: its checksum is wrong, a field is malformed, or readers would disagree about it.
    """
    if not _checksum_holds(block):
        raise bad_header("a member header does not match its checksum")
    magic = block[257:265]
    if magic == _USTAR:
        prefix, unused = _text(_without_times(block[345:500])), block[500:]
    elif magic == _GNU:
        prefix, unused = b"", block[345:]
    elif magic == _V7:
        prefix, unused = b"", block[257:329] + block[345:]  # GNU tar writes device numbers all the same
    else:
        raise bad_header("a member header is of an unknown tar variant")
    if any(unused):
        raise bad_header(
            "a member header carries an extension where none belongs (pack with tar --format=ustar)"
        )
    name = _text(block[:100])
    return Header(
        kind=block[156:157],
        path=prefix + b"/" + name if prefix else name,
        size=_number(block[124:136]),
        link=_text(block[157:257]),
        has_prefix=bool(prefix),
        is_v7=magic == _V7,
    )


def bad_header(what: str) -> ReleaseRefused:
    """Return the refusal of a header that cannot be trusted."""
    return ReleaseRefused(
        Reason.ARCHIVE_HEADER, f"{what}; pack and upload the version again with GNU tar (tar -czf)"
    )


def _checksum_holds(block: bytes) -> bool:
    stored = block[148:156]
    return bool(_OCTAL.fullmatch(stored)) and _octal(stored) == sum(block[:148]) + 8 * 0x20 + sum(block[156:])


def _octal(field: bytes) -> int:
    return int(field.strip(b" \x00"), 8)


def _number(field: bytes) -> int:
    """Return a size: octal, or GNU's base-256 for what octal cannot hold."""
    if field[0] == 0x80:  # noqa: PLR2004 -- the marker of a positive base-256 number
        value = int.from_bytes(field[1:], "big")
        if value <= _MAX_SIZE:
            return value
    elif _OCTAL.fullmatch(field):
        return _octal(field)
    raise bad_header("a member header has a malformed, negative or impossible size")


def _without_times(prefix: bytes) -> bytes:
    """Return the prefix as readers agree on it: its text ends before times that may follow."""
    text, times = prefix[:_STAR_TIMES_AT], prefix[_STAR_TIMES_AT:]
    return text if text.endswith(b"\x00") and _STAR_TIMES.fullmatch(times) else prefix


def _text(field: bytes) -> bytes:
    text, _, rest = field.partition(b"\x00")
    if any(rest):
        raise bad_header("a name in a member header goes on after its end")
    return text
