"""Objects as an ordered stream of pieces, out of many ranged reads at once, over a fixed set of buffers."""

from servesync.fetch.pool import FetchPool
from servesync.fetch.stream import Read, Retries, read_whole, stream

__all__ = ["FetchPool", "Read", "Retries", "read_whole", "stream"]
