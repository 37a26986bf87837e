"""Compresses and hashes frames in two threads, and returns them in order; noise costs hardly any time."""

import hashlib
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, NamedTuple

import zstandard

from servesync.domain.manifest import Piece


class Span(NamedTuple):
    """The bytes of one piece: of which file, from which offset on, and where they begin in a frame's data."""

    path: str
    offset: int
    size: int
    at: int


class Frame(NamedTuple):
    """One compressed frame, its SHA-256, the size of its data, and the pieces in that."""

    stored: bytes
    sha256: str
    unpacked_size: int
    pieces: tuple[Piece, ...]


THREADS: Final = 2
MOST_WAITING: Final = 3
LEVEL: Final = 3
LEVEL_FOR_NOISE: Final = -7
SAMPLE_BYTES: Final = 16 << 10
SAMPLES: Final = 3
WORTHWHILE: Final = 0.97
"""A sample that keeps more than this share of its size is noise."""


class Compressors:
    """Turns data into frames: `add` hands out those that are ready, `rest` the others."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="pack")
        self._waiting: deque[Future[Frame]] = deque()
        self._own = threading.local()

    def close(self) -> None:
        """End the threads; frames that they have not begun are dropped."""
        self._pool.shutdown(cancel_futures=True)

    def add(self, data: bytes | bytearray, spans: tuple[Span, ...]) -> Iterator[Frame]:
        """Take one frame's data, and yield earlier frames if too many wait."""
        self._waiting.append(self._pool.submit(self._compress, data, spans))
        while len(self._waiting) > MOST_WAITING:
            yield self._waiting.popleft().result()

    def rest(self) -> Iterator[Frame]:
        """Yield every frame that has not been handed out."""
        while self._waiting:
            yield self._waiting.popleft().result()

    def _compress(self, data: bytes | bytearray, spans: tuple[Span, ...]) -> Frame:
        level = LEVEL if _shrinks(self._compressor(1), data) else LEVEL_FOR_NOISE
        stored = self._compressor(level).compress(data)
        pieces = tuple(piece_of(span, data) for span in spans)
        return Frame(stored, hashlib.sha256(stored).hexdigest(), len(data), pieces)

    def _compressor(self, level: int) -> zstandard.ZstdCompressor:
        """Return this thread's own compressor: threads must not share one."""
        by_level: dict[int, zstandard.ZstdCompressor] = self._own.__dict__.setdefault("by_level", {})
        if level not in by_level:
            by_level[level] = zstandard.ZstdCompressor(level, write_checksum=True, write_content_size=True)
        return by_level[level]


def piece_of(span: Span, data: bytes | bytearray) -> Piece:
    """Return a piece with the SHA-256 of its bytes, which `data` holds."""
    own = memoryview(data)[span.at : span.at + span.size]
    return Piece(
        path=span.path,
        offset=span.offset,
        size=span.size,
        at=span.at,
        sha256=hashlib.sha256(own).hexdigest(),
    )


def _shrinks(compressor: zstandard.ZstdCompressor, data: bytes | bytearray) -> bool:
    """Tell from samples at the beginning, in the middle and at the end whether compression is worthwhile."""
    if len(data) <= SAMPLES * SAMPLE_BYTES:
        return True
    last = len(data) - SAMPLE_BYTES
    starts = (0, last // 2, last)
    sample = b"".join(bytes(memoryview(data)[start : start + SAMPLE_BYTES]) for start in starts)
    return len(compressor.compress(sample)) < WORTHWHILE * len(sample)
