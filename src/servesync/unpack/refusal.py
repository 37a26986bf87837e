"""Texts of refusals: names from an archive are escaped and cut to a length that a log can show."""

from typing import Final

from servesync.errors import Reason, ReleaseRefused
from servesync.settings import Limits

_SHOWN: Final = 80


def shown(text: str | bytes) -> str:
    """Return `text` quoted, printable, and at most some 80 characters long."""
    quoted = ascii(text).removeprefix("b")
    return quoted if len(quoted) <= _SHOWN else f"{quoted[: _SHOWN - 4]}...{quoted[-1]}"


def too_many_members(limits: Limits) -> ReleaseRefused:
    """Return the refusal of more files and directories than are accepted."""
    return ReleaseRefused(
        Reason.ARCHIVE_TOO_MANY_MEMBERS,
        f"it has more than {limits.max_members} files and directories (limits.max_members)",
        limit=limits.max_members,
    )


def unpacks_too_big(size: int, limits: Limits) -> ReleaseRefused:
    """Return the refusal of more content than is accepted."""
    return ReleaseRefused(
        Reason.ARCHIVE_TOO_BIG,
        f"it unpacks to at least {size} bytes, over limits.max_unpacked_bytes ({limits.max_unpacked_bytes})",
        unpacked_bytes=size,
        limit_bytes=limits.max_unpacked_bytes,
    )
