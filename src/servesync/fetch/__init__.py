"""Reads objects as ordered streams of pieces, with many ranged reads at once and shared buffers."""

from servesync.fetch.pool import FetchPool
from servesync.fetch.reading import Read, Retries
from servesync.fetch.stream import read_whole, stream

__all__ = ["FetchPool", "Read", "Retries", "read_whole", "stream"]
