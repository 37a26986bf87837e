"""Finds files that stand in place of the real ones: Git LFS pointers, and what failed uploads leave."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from servesync.domain.lookalikes import HEAD_BYTES, LFS_POINTER, POINTER, lookalike
from servesync.errors import Reason, ReleaseRefused

MAX_POINTER_BYTES: Final = 1024
"""Bytes; a pointer is smaller by Git LFS's specification."""
_REASONS: Final = (
    ("saved_model.pb", Reason.SAVED_MODEL_CORRUPT),
    ("variables/variables.index", Reason.VARIABLES_INDEX_CORRUPT),
    ("variables/variables.data-", Reason.VARIABLES_SHARD_SIZE),
)


def refuse_lookalike(path: Path, name: str, reason: Reason) -> None:
    """Refuse a file that cannot be right, if its first bytes show what it is; else return.

    Raises:
        ReleaseRefused: the text says what the file is, and what to do.
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        found = lookalike(file.read(HEAD_BYTES))
    if found is not None:
        raise ReleaseRefused(reason, f"{name} is {found.name}: {found.advice}")


def check_pointers(root: Path) -> None:
    """Make sure that no file of a version is a Git LFS pointer; an asset would be served as it is.

    Raises:
        ReleaseRefused: a file is one; the reason is that of a damaged file, or `RELEASE_INCOMPLETE`.
        OSError: a file cannot be read.
    """
    for path in _small_files(str(root)):
        with open(path, "rb") as file:  # noqa: PTH123 (thousands of files: each `Path` costs)
            if not file.read(len(LFS_POINTER)).startswith(LFS_POINTER):
                continue
        name = os.path.relpath(path, root)
        reason = next(
            (found for prefix, found in _REASONS if name.startswith(prefix)), Reason.RELEASE_INCOMPLETE
        )
        raise ReleaseRefused(reason, f"{name!a:.200} is {POINTER.name}: {POINTER.advice}")


def _small_files(folder: str) -> Iterator[str]:
    """Yield the regular files below a folder that may be pointers, in a fixed order."""
    with os.scandir(folder) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from _small_files(entry.path)
        elif entry.is_file(follow_symlinks=False) and 0 < entry.stat().st_size < MAX_POINTER_BYTES:
            yield entry.path
