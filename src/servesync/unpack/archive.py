"""An archive, from its bytes as they arrive to the directory that is the version, in one pass."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from servesync.errors import Reason, ReleaseRefused
from servesync.plan.versions import Content, FileFact, Version
from servesync.settings import Limits
from servesync.unpack.formats import open_tar
from servesync.unpack.layout import TopLevel
from servesync.unpack.paths import Names, parse_path
from servesync.unpack.refusal import shown
from servesync.unpack.source import ByteSource, Chunk, measured
from servesync.unpack.tar_members import members
from servesync.unpack.tree_writer import TreeWriter


@dataclass(frozen=True, slots=True)
class Unpacked:
    """A complete tree: the directory that is the version, and every file in it, relative to that."""

    root: Path
    content: Content


def unpack_archive(
    chunks: Iterable[Chunk], into: Path, version: Version | None, limits: Limits, *, archive_bytes: int
) -> Unpacked:
    """Unpack a tar, tar.gz or tar.zst into the empty directory `into` and return what is there now.

    `chunks` is read once, to its end; a chunk is not touched after the next one was asked for.
    `version` None accepts a folder of any number; `archive_bytes` is the size that the store listed.
    Directories get mode 0755, `into` too, and files 0644. Nothing is synced.

    Raises:
        ReleaseRefused: the archive is damaged, larger than `limits`, or not a version's. What was written
            lies in `into`, which must be discarded whole.
        TransferError: `chunks` have another length than `archive_bytes`; `into` must be discarded.
        OSError: the disk refused; `into` must be discarded.
    """
    if archive_bytes > limits.max_archive_bytes:
        raise ReleaseRefused(
            Reason.ARCHIVE_TOO_BIG,
            f"the archive has {archive_bytes} bytes,"
            f" over limits.max_archive_bytes ({limits.max_archive_bytes})",
            archive_bytes=archive_bytes,
            limit_bytes=limits.max_archive_bytes,
        )
    source = ByteSource(measured(chunks, archive_bytes, "the archive"))
    stream, capacity = open_tar(source, archive_bytes, limits)
    names, top = Names(limits), TopLevel(version)
    with TreeWriter(into) as tree:
        for member in members(stream, limits, capacity):
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
    inside = (FileFact(fact.path.removeprefix(f"{root}/"), fact.size, fact.sha256) for fact in files)
    return Unpacked(into / root, Content.of(inside if root else files))
