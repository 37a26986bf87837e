"""Counts from where the bytes of one release came."""

import threading
from collections.abc import Callable, Mapping


class Tally:
    """Stored bytes by source: what need not be fetched counts with the size that it has in the store.

    Any thread may count. `on_bytes` is told each time, with the source's name.
    """

    def __init__(self, on_bytes: Callable[[str, int], None] = lambda _source, _bytes: None) -> None:
        self._on_bytes = on_bytes
        self._bytes: dict[str, int] = {}
        self._lock = threading.Lock()

    def count(self, source: str, size: int) -> None:
        """Note that so many bytes have come from a source."""
        with self._lock:
            self._bytes[source] = self._bytes.get(source, 0) + size
        self._on_bytes(source, size)

    def by_source(self) -> Mapping[str, int]:
        """Return what has come until now."""
        with self._lock:
            return dict(self._bytes)
