"""Leaves out the empty objects with which tools mark a folder, since a store has no folders."""

from collections.abc import Iterable, Iterator, Sequence

from servesync.domain.paths import FOLDERS, MAX_DEPTH
from servesync.domain.versions import StoredObject


def without_placeholders(members: Sequence[StoredObject]) -> Iterator[StoredObject]:
    """Yield the files of a version's directory, without empty ones whose path is a folder of others."""
    empty = {item.path for item in members if item.size == 0}
    folders = empty & FOLDERS | empty.intersection(_folders(item.path for item in members))
    return (item for item in members if item.size or item.path not in folders)


def _folders(paths: Iterable[str]) -> Iterator[str]:
    for path in paths:
        names = path.split("/")[: MAX_DEPTH + 1]
        yield from ("/".join(names[:depth]) for depth in range(1, len(names)))
