"""Reads for several transfers at once."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager

from servesync.fetch.stream import Read, Retries, read_whole, stream
from servesync.plan.versions import Proof, StoredObject
from servesync.settings import Fetch


class FetchPool:
    """Connections and memory that all transfers share."""

    def __init__(self, settings: Fetch) -> None:
        self._settings = settings

    def stream(
        self,
        objects: Sequence[StoredObject],
        read: Read,
        should_stop: Callable[[], bool],
        retries: Retries | None = None,
        proofs: Sequence[Proof] = (),
        *,
        first: bool = False,
    ) -> AbstractContextManager[Iterator[tuple[StoredObject, memoryview]]]:
        """Lend an iterator over the bytes; see `servesync.fetch.stream`."""
        return stream(objects, read, self._settings, should_stop, retries, proofs)

    def read_whole(self, item: StoredObject, read: Read, should_stop: Callable[[], bool]) -> bytes:
        """Return all bytes of a small object."""
        return read_whole(item, read, self._settings, should_stop)
