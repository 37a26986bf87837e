"""Writes a version that the store holds as one object per file, by the rules for an archive's members."""

from collections.abc import Iterable
from pathlib import Path

from servesync.domain.versions import Content, StoredObject
from servesync.errors import Reason, ReleaseRefused
from servesync.settings import Limits
from servesync.unpack.archive import Unpacked
from servesync.unpack.paths import Names, parse_path
from servesync.unpack.refusal import unpacks_too_big
from servesync.unpack.source import ByteSource, Chunk, measured, owned_pieces
from servesync.unpack.tree_writer import TreeWriter, Wrote


def unpack_objects(
    objects: Iterable[tuple[StoredObject, Iterable[Chunk]]],
    into: Path,
    limits: Limits,
    wrote: Wrote | None = None,
) -> Unpacked:
    """Write each object to its `path` below the empty directory `into` and return what is there now.

    Each object's chunks are read once, to their end, before the next object is requested; a chunk is not used
    after the next one was requested. `wrote` is called after each write, by two threads. Modes are as for
    `unpack_archive`. Nothing is synced.

    Raises:
        ReleaseRefused: a path is not acceptable or occurs twice, or the objects are too many or too large.
            What was written lies in `into`, which must be discarded whole.
        TransferError: an object's chunks have another length than its size; `into` must be discarded.
        OSError: the disk refused; `into` must be discarded.
    """
    names = Names(limits)
    total = 0
    with TreeWriter(into, wrote) as tree:
        for stored, chunks in objects:
            parts = parse_path(stored.path.encode(errors="surrogatepass"), is_directory=False)
            names.add(parts, is_directory=False)
            total += stored.size
            if total > limits.max_unpacked_bytes:
                raise unpacks_too_big(total, limits)
            source = ByteSource(measured(chunks, stored.size, f"the object {stored.key!a}"))
            tree.write_file(parts, owned_pieces(source))
        files = tree.finish()
    if not files:
        raise ReleaseRefused(Reason.ARCHIVE_EMPTY, "the version's directory in the store holds no object")
    return Unpacked(into, Content.of(files), tree.stamps)
