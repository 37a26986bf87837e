"""Brings the parts of a release in frames to their places, several at a time, in any order."""

import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass

from servesync.domain.manifest import Part
from servesync.domain.versions import Proof, StoredObject
from servesync.fetch import FetchPool, Read
from servesync.transfer.landing import Landing


@dataclass(frozen=True, slots=True)
class Carrier:
    """What a transfer uses to get parts from the store.

    `make_sure_of_room` is called before each part lands, by one thread at a time, and may wait or raise.
    `first`: the transfer goes before others.
    """

    pool: FetchPool
    read: Read
    should_stop: Callable[[], bool]
    make_sure_of_room: Callable[[], None]
    first: bool = False

    def bring(
        self,
        item: StoredObject,
        parts: tuple[Part, ...],
        landing: Landing,
        report: Callable[[int], None],
        only: Collection[int] | None = None,
    ) -> None:
        """Fetch every part of the archive `item` that has pieces which are missing, and have them land.

        `parts` are all of the archive. `only`: where those begin that are fetched now; None: all of them.
        `report` is told how many of the archive's bytes are done; only this thread calls it.

        Raises:
            SyncError, OSError: as `FetchPool.delivery` and `Landing.land_stored` do. What has landed stays.
        """
        missing = [part for part in parts if landing.missing(part)]
        wanted = {part.offset: part for part in missing if only is None or part.offset in only}
        proofs = [Proof(part.offset, part.size, part.sha256) for part in wanted.values()]
        done = item.size - sum(part.size for part in missing)
        report(done)
        if not proofs:
            return
        room = threading.Lock()

        def take(proof: Proof, stored: memoryview) -> None:
            with room:
                self.make_sure_of_room()
            landing.land_proven(wanted[proof.offset], stored)

        with self.pool.delivery(
            item, proofs, self.read, take, self.should_stop, first=self.first
        ) as delivered:
            for count in delivered:
                report(done + count)
