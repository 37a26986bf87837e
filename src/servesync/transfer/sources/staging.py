"""What an interrupted transfer of the same offer has left at its final place."""

from collections.abc import Callable
from pathlib import Path

from servesync.domain.manifest import Part
from servesync.errors import DiskError, ReleaseRefused, Stopped, SyncError
from servesync.install.interrupted import has_note
from servesync.transfer.landing import Landing


class StagingSource:
    """Reads each piece where it would land; no journal says what is there, and no size does."""

    name = "staging"

    def may_have(self, part: Part) -> bool:
        """Tell whether the pieces of a part can be told."""
        return all(piece.sha256 is not None for piece in part.content or ())

    def bring(self, part: Part, landing: Landing, should_stop: Callable[[], bool]) -> bool:
        """Take as landed what lies in its place already, of pieces that have a digest of their own."""
        for piece in landing.missing(part):
            if should_stop():
                raise Stopped
            if piece.sha256 is not None:
                landing.land_in_place(piece)
        return not landing.missing(part)


def is_kept_after(error: BaseException, tree: Path) -> bool:
    """Tell whether the next transfer of the same offer can go on with what one has left that met an error.

    A refused release is bad, a disk that is full needs the space, and what somebody else changed in staging
    is nothing to go on with. All else says nothing about the bytes that have come.
    """
    says_nothing = isinstance(error, SyncError) and not isinstance(error, ReleaseRefused | DiskError)
    return says_nothing and has_note(tree)
