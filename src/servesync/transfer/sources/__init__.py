"""Where the bytes of a part may come from, other than from the store."""

from collections.abc import Callable
from typing import Protocol

from servesync.domain.manifest import Part
from servesync.transfer.landing import Landing


class Source(Protocol):
    """A place that may hold pieces of a version. It is trusted with nothing: `Landing` proves each piece.

    `name` stands in the log, in metrics, and on the page: `staging`, `version`, `cache`, `mirror`, `store`.
    """

    name: str

    def may_have(self, part: Part) -> bool:
        """Tell whether `bring` may land all of a part; it looks at nothing but what is written down."""

    def bring(self, part: Part, landing: Landing, should_stop: Callable[[], bool]) -> bool:
        """Land the pieces of a part that are still missing; return whether none is missing any more.

        False: this source does not have all of them. What has landed is right in any case.

        Raises:
            ReleaseRefused: the release cannot be right, whoever brings its bytes.
            Stopped: `should_stop` returned True.
            OSError: the disk did not take the bytes.
        """
