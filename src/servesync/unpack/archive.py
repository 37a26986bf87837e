"""Unpacks an archive into a version's directory while its bytes arrive, in one pass."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from servesync.domain.versions import Content, FileFact, Stamp, Version
from servesync.errors import Reason, ReleaseRefused
from servesync.settings import Limits
from servesync.unpack.formats import Format, open_tar
from servesync.unpack.layout import TopLevel
from servesync.unpack.paths import Names, parse_path
from servesync.unpack.refusal import shown
from servesync.unpack.source import ByteSource, Chunk, measured
from servesync.unpack.tar_members import Member, members
from servesync.unpack.tree_writer import TreeWriter, Wrote

SLACK_BYTES: Final = 16 << 20
"""An archive that has this much more content than its manifest says is refused before its end is read."""


@dataclass(frozen=True, slots=True)
class Unpacked:
    """A complete tree: the directory that is the version, and every file in it, relative to that.

    `stamps` were taken when the files had been written: they tell whether somebody changed a file since.
    """

    root: Path
    content: Content
    stamps: Mapping[str, Stamp]
    is_checksummed: bool = False
    """Whether a checksum inside the archive, written when it was packed, has confirmed every byte."""


def unpack_archive(  # noqa: PLR0913 (what is known of the archive, and who is told)
    chunks: Iterable[Chunk],
    into: Path,
    version: Version | None,
    limits: Limits,
    *,
    archive_bytes: int,
    promised_bytes: int | None = None,
    wrote: Wrote | None = None,
) -> Unpacked:
    """Unpack a tar, tar.gz or tar.zst into the empty directory `into` and return what is there now.

    `chunks` is read once, to its end; a chunk is not used after the next one was requested.
    `version` None accepts a folder of any number; `archive_bytes` is the size that the store listed.
    `promised_bytes` (None without a manifest) is the size of all files by the manifest, checked against
    `limits`. With it, `limits.max_ratio` holds for the whole archive: a long run of zeros is then no bomb.
    `wrote` is called after each write, by two threads.
    Directories get mode 0755, `into` too, and files 0644. Nothing is synced.

    Raises:
        ReleaseRefused: the archive is damaged, larger than `limits`, or not a version's. What was written
            lies in `into`, which must be discarded whole.
        TransferError: `chunks` have another length than `archive_bytes`; `into` must be discarded.
        OSError: the disk refused; `into` must be discarded.
    """
    if archive_bytes > limits.max_archive_bytes:
        most = limits.max_archive_bytes
        text = f"the archive has {archive_bytes} bytes, over limits.max_archive_bytes ({most})"
        raise ReleaseRefused(Reason.ARCHIVE_TOO_BIG, text, archive_bytes=archive_bytes, limit_bytes=most)
    source = ByteSource(measured(chunks, archive_bytes, "the archive"))
    stream, capacity, kind = open_tar(source, archive_bytes, limits, is_promised=promised_bytes is not None)
    names, top = Names(limits), TopLevel(version)
    with TreeWriter(into, wrote) as tree:
        for member in _as_promised(members(stream, limits, capacity), promised_bytes):
            parts = parse_path(member.path, is_directory=member.is_directory)
            top.add(parts, is_directory=member.is_directory)
            if not parts:
                continue
            names.add(parts, is_directory=member.is_directory)
            if member.is_directory:
                tree.make_directory(parts)
            else:
                tree.write_file(parts, stream.exactly(member.size, f"the file {shown(member.path)}"))
        files = tree.finish()
    if not files:
        raise ReleaseRefused(Reason.ARCHIVE_EMPTY, "the archive holds no file; pack the version's directory")
    root = top.root()
    skip = len(root) + 1 if root else 0
    inside = (FileFact(fact.path[skip:], fact.size, fact.sha256) for fact in files)
    stamps = {path[skip:]: stamp for path, stamp in tree.stamps.items()}
    return Unpacked(into / root, Content.of(inside), stamps, kind is not Format.TAR)


def _as_promised(members: Iterator[Member], promised_bytes: int | None) -> Iterator[Member]:
    """Yield members; refuse far more content than promised (files are compared with the manifest later)."""
    total = 0
    for member in members:
        total += member.size
        if promised_bytes is not None and total > promised_bytes + SLACK_BYTES:
            text = (
                f"it unpacks to at least {total} bytes, but its manifest says {promised_bytes}: publish "
                "under a new number"
            )
            facts = {"unpacked_bytes": total, "limit_bytes": promised_bytes}
            raise ReleaseRefused(Reason.ARCHIVE_TOO_BIG, text, **facts)
        yield member
