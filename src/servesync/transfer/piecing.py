"""Writes down the pieces of a version that was brought, so that later ones need not fetch what they share."""

import contextlib
import errno
import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Self

from servesync.domain.cuts import cuts, grid_for
from servesync.domain.manifest import SCHEMA_2, Manifest
from servesync.domain.versions import Content
from servesync.errors import ReleaseRefused, Stopped
from servesync.folders import opened_file
from servesync.install import PlacedPiece, write_staged
from servesync.verify import bundle_extents

READ_BYTES: Final = 1 << 20
POLL_SECONDS: Final = 0.05
AT_ONCE_BYTES: Final = 16 << 20
"""So little is read in no time, without a thread."""


class Pieces:
    """The pieces of a staged version, read by a thread while the tree is made durable; a context manager.

    `found`: the version's manifest. One with digests of pieces says what they are. Without them the tree is
    read once more, from the page cache, and cut as a publisher would cut it.
    """

    def __init__(self, tree: Path, content: Content, found: Manifest | None) -> None:
        self._tree = tree
        self._content = content
        self._pieces = _said(found)
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._read, name="servesync-pieces", daemon=True)

    def __enter__(self) -> Self:
        """Begin to read, if that takes long."""
        if not self._pieces and self._content.total_bytes > AT_ONCE_BYTES:
            with contextlib.suppress(RuntimeError):  # no more threads: `write` reads them
                self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End the thread."""
        self._is_over.set()
        if self._thread.ident is not None:
            self._thread.join()

    def write(self, check: Callable[[], None]) -> None:
        """Write their table beside the tree, when they are known; `check` is called often, and may raise.

        There is none if that is not possible: the version is none the worse for it.
        """
        while self._thread.is_alive():
            self._thread.join(POLL_SECONDS)
            check()
        if not self._pieces and self._thread.ident is None:
            self._read()
        if self._pieces:
            with contextlib.suppress(OSError):
                write_staged(self._tree, self._pieces)

    def _read(self) -> None:
        with contextlib.suppress(OSError, Stopped):
            self._pieces = list(read_pieces(self._tree, self._content, self._check))

    def _check(self) -> None:
        if self._is_over.is_set():
            raise Stopped


def _said(found: Manifest | None) -> list[PlacedPiece]:
    """Return the pieces that a manifest describes with their digests; none if it has no such."""
    if found is None or found.schema_version != SCHEMA_2:
        return []
    pieces = (piece for part in found.archive.parts for piece in part.content or ())
    return [PlacedPiece(piece.path, piece.offset, piece.size, piece.sha256 or "") for piece in pieces]


def read_pieces(tree: Path, content: Content, check: Callable[[], None]) -> Iterator[PlacedPiece]:
    """Yield the pieces of a version's files, cut as `publish` cuts them; `check` is called every MiB.

    Raises:
        OSError: a file cannot be read, or is shorter than it was.
    """
    sizes = {file.path: file.size for file in content.files}
    try:
        extents = bundle_extents(tree)
    except ReleaseRefused:  # at this level nobody has proven the index
        extents = {}
    grid = grid_for(sizes, extents)
    buffer = memoryview(bytearray(READ_BYTES))
    for path, size in sizes.items():
        offset = 0
        with opened_file(tree / path) as handle:
            for length in cuts(size, extents.get(path, ()), grid):
                yield PlacedPiece(path, offset, length, _sha256(handle, offset, length, buffer, check))
                offset += length


def _sha256(handle: int, offset: int, size: int, buffer: memoryview, check: Callable[[], None]) -> str:
    digest = hashlib.sha256()
    end = offset + size
    while offset < end:
        check()
        count = os.preadv(handle, [buffer[: end - offset]], offset)
        if not count:
            raise OSError(errno.EIO, "the file became shorter")
        digest.update(buffer[:count])
        offset += count
    return digest.hexdigest()
