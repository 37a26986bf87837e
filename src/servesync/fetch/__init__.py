"""Objects as ordered streams of pieces, out of many ranged reads at once, over buffers that they share."""

from servesync.fetch.pool import FetchPool
from servesync.fetch.reading import Read, Retries
from servesync.fetch.stream import read_whole, stream

__all__ = ["FetchPool", "Read", "Retries", "read_whole", "stream"]
