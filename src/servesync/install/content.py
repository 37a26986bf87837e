"""What a tree on disk holds: SHA-256 of every file, or just the cheap stamps that tell of a change."""

import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from servesync.domain.versions import Content, FileFact, Stamp
from servesync.errors import DiskError, Reason
from servesync.folders import opened_dir, stamp_of

BLOCK_BYTES: Final = 1 << 20
MOST_NAMED: Final = 5
NOT_A_FILE: Final = "not-a-regular-file"


def walk(root: Path) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Yield `(path relative to root, entry)` for everything below `root` that is no directory."""
    folders = [("", root)]
    while folders:
        prefix, folder = folders.pop()
        with os.scandir(folder) as found:
            for entry in found:
                if entry.is_dir(follow_symlinks=False):
                    folders.append((f"{prefix}{entry.name}/", Path(entry.path)))
                else:
                    yield prefix + entry.name, entry


def stamps(root: Path) -> Mapping[str, Stamp]:
    """Return the stamp of every file below `root`; reads no content."""
    return {path: stamp_of(entry.stat(follow_symlinks=False)) for path, entry in walk(root)}


def hash_tree(root: Path, check: Callable[[], None] = lambda: None, *, from_disk: bool = False) -> Content:
    """Read every file below `root` and return its content; `check` is called every MiB and may raise.

    `from_disk`: what lies on the disk counts, not what the page cache holds of it, and nothing is left there.
    What is no regular file (a symbolic link, a pipe) is listed with a digest that equals none.

    Raises:
        OSError: a file cannot be read.
    """
    facts = []
    for path, entry in walk(root):
        if not entry.is_file(follow_symlinks=False):
            facts.append(FileFact(path, 0, NOT_A_FILE))
            continue
        handle = os.open(entry.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if from_disk:
                os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            facts.append(_hash(handle, path, check))
            if from_disk:
                os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(handle)
    return Content.of(facts)


def _hash(handle: int, path: str, check: Callable[[], None]) -> FileFact:
    digest = hashlib.sha256()
    size = 0
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        return FileFact(path, 0, NOT_A_FILE)
    buffer = bytearray(BLOCK_BYTES)
    view = memoryview(buffer)
    while count := os.readv(handle, [buffer]):
        digest.update(view[:count])
        size += count
        check()
    return FileFact(path, size, digest.hexdigest())


def prove_staged(
    root: Path, content: Content, written: Mapping[str, Stamp], check: Callable[[], None] = lambda: None
) -> Mapping[str, Stamp]:
    """Return the stamps of a tree in staging that is as it was written; read whole only if stamps differ.

    `content` is what was written, `written` are the stamps of that moment.

    Raises:
        DiskError: `DISK_FAILED`: somebody removed, replaced, changed or added a file, or `root` itself.
        OSError: it cannot be looked at.
    """
    try:
        with opened_dir(root):
            found = stamps(root)
        present = content if found == written else hash_tree(root, check)
    except (FileNotFoundError, NotADirectoryError):
        found, present = {}, Content.of([])
    if present == content:
        return found
    before, now = ({file.path: file for file in each.files} for each in (content, present))
    raise _meddled(root, before, now)


def check_stamps(root: Path, sealed: Mapping[str, Stamp]) -> None:
    """Make sure that a tree in staging still has the stamps under which it was sealed; reads no content.

    Raises:
        DiskError: `DISK_FAILED`: somebody removed, replaced, changed or added a file, or `root` itself.
        OSError: it cannot be looked at.
    """
    try:
        with opened_dir(root):
            found = stamps(root)
    except (FileNotFoundError, NotADirectoryError) as error:
        if isinstance(error, NotADirectoryError) and error.filename != str(root):  # a folder on the way to it
            raise
        found = {}
    if not found or found != sealed:
        raise _meddled(root, sealed, found)


def _meddled(root: Path, before: Mapping[str, object], now: Mapping[str, object]) -> DiskError:
    """Return the error for a tree in staging that somebody else changed."""
    wrong = sorted(path for path in before.keys() | now.keys() if before.get(path) != now.get(path))
    example = wrong[0] if wrong else root.name
    was = "is gone" if example not in now else "was changed" if example in before else "was added"
    text = (
        f"{len(wrong)} files in {root} are not as servesync wrote them a moment ago ({example!a} {was}): "
        "something else changes the staging directory; keep other programs out of .servesync. Nothing is "
        "wrong with the release: it is fetched again"
    )
    return DiskError(Reason.DISK_FAILED, text, files=wrong[:MOST_NAMED])
