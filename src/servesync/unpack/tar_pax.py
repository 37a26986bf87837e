"""PAX extended headers (POSIX.1-2001, "pax Extended Header"): `path` and `size` count.

Keys that cannot change a member's path, size or kind are ignored, like owners and times everywhere: files get
mode 0644, no owner and no attribute. Any other key could change what a member is, and is refused.
"""

import re
from dataclasses import dataclass
from typing import Final

from servesync.errors import ReleaseRefused
from servesync.unpack.refusal import shown
from servesync.unpack.tar_header import bad_header

_IGNORED: Final = frozenset(
    {
        *(b"mtime", b"atime", b"ctime", b"uid", b"gid", b"uname", b"gname", b"comment"),
        *(b"SCHILY.dev", b"SCHILY.ino", b"SCHILY.nlink", b"SCHILY.fflags", b"LIBARCHIVE.creationtime"),
        *(b"SCHILY.acl.access", b"SCHILY.acl.default", b"SCHILY.acl.ace", b"RHT.security.selinux"),
    }
)
_ATTRIBUTES: Final = (b"SCHILY.xattr.", b"LIBARCHIVE.xattr.")
"""Extended attributes: libarchive writes each under both names."""

_CHARACTER_SETS: Final = frozenset({b"BINARY", b"ISO-IR 10646 2000 UTF-8"})
"""What `hdrcharset` may say: a path must be UTF-8 under either."""

_COUNTED: Final = frozenset({b"path", b"size", b"hdrcharset"})
_LENGTH: Final = re.compile(rb"([1-9][0-9]{0,5}) ")
_SIZE: Final = re.compile(rb"[0-9]{1,19}")
_MAX_SIZE: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Pax:
    """What a PAX header changes about the member after it."""

    path: bytes | None
    size: int | None


def parse_pax(payload: bytes) -> Pax:
    """Return what the extended header of one member (type `x`) says.

    Raises:
        ReleaseRefused: a record is malformed, repeated, or has a key that is not accepted.
    """
    records = _records(payload)
    for key in records:
        if key not in _IGNORED and key not in _COUNTED and not key.startswith(_ATTRIBUTES):
            raise _refused_key(key)
    if records.get(b"hdrcharset", b"BINARY") not in _CHARACTER_SETS:
        raise bad_header(f"a PAX header is in the character set {shown(records[b'hdrcharset'])}")
    size = records.get(b"size")
    if size is not None and (not _SIZE.fullmatch(size) or int(size) > _MAX_SIZE):
        raise bad_header("a PAX header has a malformed size")
    return Pax(path=records.get(b"path"), size=None if size is None else int(size))


def check_global_pax(payload: bytes) -> None:
    """Accept a global header (type `g`) that only comments, as `git archive` writes it.

    Raises:
        ReleaseRefused: it would change something about every member.
    """
    for key in _records(payload):
        if key != b"comment":
            raise _refused_key(key)


def _records(payload: bytes) -> dict[bytes, bytes]:
    records: dict[bytes, bytes] = {}
    if not payload:
        raise bad_header("a PAX header is empty")
    at = 0
    while at < len(payload):
        match = _LENGTH.match(payload, at)
        if match is None:
            raise bad_header("a PAX record has a malformed length")
        end = at + int(match[1])
        record = payload[match.end() : end]
        key, equals, value = record[:-1].partition(b"=")
        if end > len(payload) or not record.endswith(b"\n") or not key or not equals:
            raise bad_header("a PAX record does not end where its length says, or has no key")
        if key in records:
            raise bad_header(f"a PAX header has {shown(key)} twice")
        records[key] = value
        at = end
    return records


def _refused_key(key: bytes) -> ReleaseRefused:
    return bad_header(f"a PAX header has the key {shown(key)}, which may change what a member is")
