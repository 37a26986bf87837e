"""What the agent needs of a store; tests have one in memory."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from servesync.domain.versions import Model, StoredObject
from servesync.store.checksums import ObjectChecksum
from servesync.store.listing import Listing


@dataclass(frozen=True, slots=True)
class ObjectFacts:
    """What the store knows of one object besides its bytes.

    `manifest_to_come`: whoever uploaded it says that a manifest belongs to it, and uploads that last.
    """

    checksum: ObjectChecksum | None
    manifest_to_come: bool


class StorePort(Protocol):
    """A store of releases."""

    def list(self, wants: Callable[[Model], bool], *, should_stop: Callable[[], bool]) -> Listing:
        """Return what the store offers for the models that are wanted.

        Raises:
            StoreError: the store did not answer with a complete listing.
            Stopped: `should_stop` said so.
        """

    def describe(self, item: StoredObject) -> ObjectFacts:
        """Return what the store knows of an object that was listed. Raises as `read` does."""

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
