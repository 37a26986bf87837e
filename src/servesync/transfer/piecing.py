"""Writes down the pieces of a version that was brought, so that later ones need not fetch what they share."""

import contextlib
import errno
import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from servesync.domain.cuts import cuts, grid_for
from servesync.domain.manifest import SCHEMA_2, Manifest
from servesync.domain.versions import Content
from servesync.errors import ReleaseRefused, SyncError
from servesync.folders import opened_file
from servesync.install import PlacedPiece, write_staged
from servesync.verify import bundle_extents

READ_BYTES: Final = 1 << 20


@contextlib.contextmanager
def writing_pieces(
    tree: Path, content: Content, found: Manifest | None, check: Callable[[], None]
) -> Iterator[None]:
    """Write the table of a staged version's pieces beside it, in a thread, while the tree is made durable.

    `found`: its manifest. One with digests of pieces says what they are. Without them the tree is read once
    more, from the page cache, and cut as a publisher would cut it.

    There is no table if that fails: the version is none the worse for it, and a failure that counts shows
    elsewhere. `check` may raise, to stop early; the thread calls it, too.
    """
    is_over = threading.Event()

    def watch() -> None:
        check()
        if is_over.is_set():
            raise InterruptedError

    def write() -> None:
        with contextlib.suppress(OSError, SyncError):
            write_staged(tree, _said(found) or read_pieces(tree, content, watch))

    thread = threading.Thread(target=write, name="servesync-pieces", daemon=True)
    with contextlib.suppress(RuntimeError):  # no more threads
        thread.start()
    try:
        yield
    except BaseException:
        is_over.set()
        raise
    finally:
        if thread.ident is not None:
            thread.join()


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
