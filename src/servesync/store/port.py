"""The interface of a store for the agent; tests implement it in memory."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from servesync.domain.versions import Model, StoredObject
from servesync.store.checksums import ObjectChecksum
from servesync.store.listing import Listing


@dataclass(frozen=True, slots=True)
class ObjectFacts:
    """What the store knows of one object besides its bytes.

    `manifest_to_come`: its metadata says that the publisher uploads a manifest for it afterwards.
    """

    checksum: ObjectChecksum | None
    manifest_to_come: bool


class StorePort(Protocol):
    """A store of releases."""

    def list(self, wants: Callable[[Model], bool], *, should_stop: Callable[[], bool]) -> Listing:
        """Return what the store offers for the models that are wanted.

        Raises:
            StoreError: the store did not answer with a complete listing.
            Stopped: `should_stop` returned True.
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
            TransferError: the bytes are missing, or not those of the object that was listed.
            StoreError: the store refused or did not answer.
            Stopped: `should_stop` returned True.
        """
