"""Other versions of this machine: a piece that one of them holds need not be fetched."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from servesync.domain.manifest import Manifest, Part, Piece
from servesync.domain.versions import parse_model
from servesync.errors import Stopped
from servesync.folders import opened_file
from servesync.install import Workspace, piece_tables
from servesync.transfer.landing import Landing

MOST_PLACES: Final = 3
"""At so many places a piece is looked for; more would be no likelier to hold it."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a version is said to hold a piece.

    `roots`: where the version may lie; it may go from the shelf to the reserve at any time, or leave.
    """

    roots: tuple[Path, ...]
    path: str
    offset: int


class VersionSource:
    """Copies pieces out of versions on the shelf and in the reserve.

    `places`: by the digest of a piece. They come from records, and tell only where to look: every byte that
    is read is hashed. A version that leaves meanwhile is as good as one that never was.
    """

    name = "version"

    def __init__(self, places: Mapping[str, Sequence[Place]]) -> None:
        self._places = places
        self._wrong: set[Place] = set()

    def may_have(self, part: Part) -> bool:
        """Tell whether a version is said to hold each piece of a part."""
        return all(self._where(piece) for piece in part.content or ())

    def bring(self, part: Part, landing: Landing, should_stop: Callable[[], bool]) -> bool:
        """Land a part's missing pieces if there may be all of them; half a part must be fetched anyway."""
        missing = landing.missing(part)
        if not all(self._where(piece) for piece in missing):
            return not missing
        for piece in missing:
            if should_stop():
                raise Stopped
            if not self._copy(piece, landing):
                return False
        return not landing.missing(part)

    def _where(self, piece: Piece) -> list[Place]:
        found = self._places.get(piece.sha256 or "", ())
        return [place for place in found if place not in self._wrong]

    def _copy(self, piece: Piece, landing: Landing) -> bool:
        return any(self._copy_from(place, piece, landing) for place in self._where(piece))

    def _copy_from(self, place: Place, piece: Piece, landing: Landing) -> bool:
        for root in place.roots:
            with contextlib.ExitStack() as stack:
                try:
                    handle = stack.enter_context(opened_file(root / place.path))
                except OSError:  # gone, or replaced by something that is no file
                    continue
                if landing.land_plain(piece, handle, place.offset):
                    return True
        self._wrong.add(place)
        return False


def find_places(workspace: Workspace, found: Manifest) -> Mapping[str, Sequence[Place]]:
    """Return where versions on this machine are said to hold pieces of a release; reads only tables."""
    wanted = {piece.sha256 for part in found.archive.parts for piece in part.content or ()} - {None}
    places: dict[str, list[Place]] = {}
    if wanted:
        for table in piece_tables(workspace, parse_model(found.model)):
            for piece in table.pieces:
                known = places.setdefault(piece.sha256, []) if piece.sha256 in wanted else None
                if known is not None and len(known) < MOST_PLACES:
                    known.append(Place(table.folders, piece.path, piece.offset))
    return places
