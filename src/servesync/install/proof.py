"""What is known of a version's files, and the slow work that finds it out: jobs do it, never the decider.

What comes of it holds for the stamps under which the files were read. Whoever acts on it compares stamps, and
reads nothing again.
"""

import errno
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Final

from servesync import disk
from servesync.domain.versions import Content, ProvenBy, Release, Stamp
from servesync.errors import Reason, ReleaseRefused
from servesync.folders import opened_dir
from servesync.install import records
from servesync.install.content import hash_tree, prove_staged, stamps
from servesync.install.records import Record
from servesync.settings import Signature

UNREADABLE: Final = frozenset({errno.EIO, errno.EUCLEAN, errno.EBADMSG})
"""The disk has lost something below one folder: that version is damaged, and the others are not."""


@dataclass(frozen=True, slots=True)
class Proven:
    """What is known of a tree: files, bytes of its tensors, what proves it, since when, signatures.

    `stamps`: those of the files when they were written; of a sealed tree, those of the synced files. Without
    them `seal` reads the tree once more.
    """

    content: Content
    tensor_bytes: int
    by: ProvenBy
    at: datetime
    signatures: Mapping[str, Signature] | None = None
    stamps: Mapping[str, Stamp] = field(default_factory=dict)


def seal(tree: Path, release: Release, proven: Proven, check: Callable[[], None] = lambda: None) -> Proven:
    """Make a tree in staging durable, and prove once more that it is as it was written; slow.

    Return `proven` with the stamps of the synced files: with them the tree may come to the shelf or the
    reserve. `check` is called before each file, every MiB that is read, and may raise, to stop early.

    Raises:
        ReleaseRefused: `RELEASE_TOO_BIG`: it has more files than a record can hold.
        DiskError: `DISK_FAILED`: somebody else changed the tree.
        OSError: the disk refused.
    """
    record_of(release, proven)
    disk.sync_tree(tree, check)
    return replace(proven, stamps=prove_staged(tree, proven.content, proven.stamps, check))


def same_content(
    folder: Path, content: Content, check: Callable[[], None] = lambda: None
) -> Mapping[str, Stamp] | None:
    """Read a version whole, and make it durable if it holds `content`; slow.

    Return the stamps under which it was read; None if it holds something else. `check` as for `seal`.

    Raises:
        OSError: it cannot be read, or not be made durable; that says nothing about it.
    """
    with opened_dir(folder):
        found = stamps(folder)
    if hash_tree(folder, check) != content:
        return None
    disk.sync_tree(folder, check)
    return found


def read_again(
    folder: Path, record: Record, check: Callable[[], None] = lambda: None, *, from_disk: bool = False
) -> tuple[Mapping[str, Stamp], bool]:
    """Read a version whole; return the stamps under which it was read, and whether it is as proven; slow.

    What the disk cannot read is not right, nor is a link in the folder's place. `from_disk`: see `hash_tree`.
    `check` is called every MiB and may raise, to stop early.

    Raises:
        OSError: it cannot be read for another reason, such as its leaving; that says nothing about it.
    """
    found: Mapping[str, Stamp] = {}
    try:
        with opened_dir(folder):
            found = stamps(folder)
        return found, hash_tree(folder, check, from_disk=from_disk) == record.content
    except NotADirectoryError:
        return found, False
    except OSError as error:
        if error.errno in UNREADABLE:
            return found, False
        raise


def record_of(release: Release, proven: Proven) -> Record:
    """Return the record of a version that is about to be installed.

    Raises:
        ReleaseRefused: `RELEASE_TOO_BIG`: it has more files than a record can hold.
    """
    record = Record(
        identity=release.identity,
        at=proven.at,
        state="installing",
        files=records.files_of(proven.content),
        tensor_bytes=proven.tensor_bytes,
        signatures=proven.signatures,
        proven_by=proven.by,
    )
    if len(record.model_dump_json()) > records.MAX_NEW_RECORD_BYTES:
        text = (
            f"{len(proven.content.files)} files are more than servesync can keep a record of: pack the "
            "model's assets into fewer files, or with shorter names"
        )
        raise ReleaseRefused(Reason.RELEASE_TOO_BIG, text, files=len(proven.content.files))
    return record
