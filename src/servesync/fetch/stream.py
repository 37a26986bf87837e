"""A single stream with buffers, connections and a rate of its own."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from servesync.domain.versions import Proof, StoredObject
from servesync.fetch.pool import FetchPool
from servesync.fetch.reading import Read, Retries
from servesync.settings import Fetch


@contextmanager
def stream(
    objects: Sequence[StoredObject],
    read: Read,
    settings: Fetch,
    should_stop: Callable[[], bool],
    retries: Retries | None = None,
    proofs: Sequence[Proof] = (),
) -> Iterator[Iterator[tuple[StoredObject, memoryview]]]:
    """Lend an iterator over the bytes of `objects` as `FetchPool.stream` does, from a pool of its own."""
    pool = FetchPool(settings.model_copy(update={"transfers": 1}))
    with pool.stream(objects, read, should_stop, retries, proofs) as parts:
        yield parts


def read_whole(item: StoredObject, read: Read, settings: Fetch, should_stop: Callable[[], bool]) -> bytes:
    """Return all bytes of a small object, whose size the caller has checked. Raises as `stream` does."""
    return FetchPool(settings).read_whole(item, read, should_stop)
