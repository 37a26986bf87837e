"""What the agent needs of a store; tests have one in memory."""

from collections.abc import Callable
from typing import Protocol

from servesync.plan.versions import Model, StoredObject
from servesync.store.listing import Listing


class StorePort(Protocol):
    """A store of releases."""

    def list(self, wants: Callable[[Model], bool]) -> Listing:
        """Return what the store offers for the models that are wanted.

        Raises:
            StoreError: the store did not answer with a complete listing.
        """

    def close(self) -> None:
        """Close all connections."""

    def read(
        self,
        item: StoredObject,
        offset: int,
        length: int,
        buffer: memoryview,
        should_stop: Callable[[], bool],
    ) -> None:
        """Fill `buffer` with `length` bytes of one object from `offset` on.

        Raises:
            TransferError: the bytes are not there, or not those of the object that was listed.
            StoreError: the store refused or did not answer.
            Stopped: `should_stop` said so.
        """
