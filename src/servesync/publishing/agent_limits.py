"""Compares a version with the limits of the agents, or with the default limits if those are unknown."""

from collections.abc import Iterator
from typing import Final

from servesync.errors import Reason, ReleaseRefused
from servesync.publishing.pack import Packed
from servesync.settings import Limits
from servesync.unpack import RATIO_FLOOR_BYTES

FOLDER: Final = 1
"""The version's own directory is a member of the archive, too."""
AROUND_BYTES: Final = 1 << 10
"""The bytes that a tar adds to each member, and at its end: a header and zeros."""


def exceeded_agent_limits(packed: Packed, directories: int, limits: Limits | None) -> tuple[str, ...]:
    """Return a text for every default limit that the version exceeds.

    `directories`: how many the version has. `limits`: those of the agents, if they are known.

    Raises:
        ReleaseRefused: `RELEASE_TOO_BIG`: agents with `limits` would refuse it.
    """
    over = tuple(_beyond(packed, directories, limits or Limits()))
    if over and limits is not None:
        text = f"agents with these settings would refuse it: {'; '.join(over)}; raise the limits there first"
        raise ReleaseRefused(Reason.RELEASE_TOO_BIG, text)
    return tuple(f"agents with the default limits refuse this version: {text}" for text in over)


def _beyond(packed: Packed, directories: int, limits: Limits) -> Iterator[str]:
    members = len(packed.files) + directories + FOLDER
    needed = {
        "max_archive_bytes": packed.size,
        "max_unpacked_bytes": sum(file.size for file in packed.files),
        "max_members": members,
        "max_ratio": _ratio(packed, members),
    }
    for name, value in needed.items():
        limit = getattr(limits, name)
        if value > limit:
            yield f"it needs limits.{name} of {value}, and {limit} is set"


def _ratio(packed: Packed, members: int) -> int:
    """Return the ratio of unpacked to stored bytes of the whole archive, as agents compute it."""
    unpacked = sum(file.size for file in packed.files) + (members + 1) * AROUND_BYTES
    return -(-unpacked // packed.size) if unpacked > RATIO_FLOOR_BYTES else 0
