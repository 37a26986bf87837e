"""What a tree on disk holds: SHA-256 of every file, or just the cheap stamps that tell of a change."""

import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from servesync.plan.versions import Content, FileFact

BLOCK_BYTES: Final = 1 << 20
NOT_A_FILE: Final = "not-a-regular-file"

Stamp = tuple[int, int, int, int]
"""Inode, size, mtime and ctime (ns) of a file; a rename of its folder changes none of them."""


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
    return {path: _stamp(entry.stat(follow_symlinks=False)) for path, entry in walk(root)}


def _stamp(found: os.stat_result) -> Stamp:
    return (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


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
