"""Whether agents will take what is published: by their own limits, if known, or by the default ones."""

from collections.abc import Iterator
from typing import Final

from servesync.errors import Reason, ReleaseRefused
from servesync.pack import Packed
from servesync.settings import Limits
from servesync.unpack import RATIO_FLOOR_BYTES

FOLDER: Final = 1
"""The version's own directory is a member of the archive, too."""
TINY_BYTES: Final = 4 << 10
"""An agent may unpack a whole frame of this size before it counts any of it as read."""


def shortcomings(packed: Packed, directories: int, limits: Limits | None) -> tuple[str, ...]:
    """Return what agents with the default limits would refuse, with the limits that they need.

    `directories`: how many the version has. `limits`: those of the agents, if they are known.

    Raises:
        ReleaseRefused: `RELEASE_TOO_BIG`: agents with `limits` would refuse it.
    """
    found = tuple(_beyond(packed, directories, limits or Limits()))
    if found and limits is not None:
        text = f"agents with these settings would refuse it: {'; '.join(found)}; raise the limits there first"
        raise ReleaseRefused(Reason.RELEASE_TOO_BIG, text)
    return tuple(f"agents with the default limits refuse this version: {text}" for text in found)


def _beyond(packed: Packed, directories: int, limits: Limits) -> Iterator[str]:
    needed = {
        "max_archive_bytes": packed.size,
        "max_unpacked_bytes": sum(file.size for file in packed.files),
        "max_members": len(packed.files) + directories + FOLDER,
        "max_ratio": _ratio(packed),
    }
    for name, value in needed.items():
        limit = getattr(limits, name)
        if value > limit:
            yield f"it needs limits.{name} of {value}, and {limit} is set"


def _ratio(packed: Packed) -> int:
    """Return how many bytes come out of each stored one, where that is most, after some that are free."""
    unpacked, most = 0, 0
    for part in packed.parts:
        unpacked += sum(piece.size for piece in part.content or ())
        if unpacked > RATIO_FLOOR_BYTES:
            stored = part.offset + (part.size if part.size > TINY_BYTES else 0)
            most = max(most, -(-unpacked // max(1, stored)))
    whole = sum(file.size for file in packed.files)
    return max(most, -(-whole // packed.size) if whole > RATIO_FLOOR_BYTES else 0)
