"""Small versions on their way onto a shelf, as the agent brings them: staged, sealed, published."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from servesync.domain.versions import Layout, Model, ProvenBy, Release, StoredObject, Version
from servesync.install import Proven, Record, Shelf, Workspace, hash_tree, seal

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
M = Model("m")
GRAPH = {"saved_model.pb": "graph"}


def release_of(number: int, identity: str = "id-1", model: Model = M) -> Release:
    """Return what a store would offer."""
    item = StoredObject(f"{model}/{number}.tar.gz", 10, '"etag"')
    return Release(model, Version(number), Layout.ARCHIVE, (item,), identity)


def proven(tree: Path, at: datetime = NOW) -> Proven:
    """Return what is known of a tree after it was fetched and verified."""
    return Proven(hash_tree(tree), 7, ProvenBy.NOTHING, at)


@contextmanager
def attempt(workspace: Workspace) -> Iterator[Path]:
    """Lend the tree of an attempt, which ends with it."""
    tree = workspace.begin_attempt()
    try:
        yield tree
    finally:
        workspace.end_attempt(tree)


def sealed(tree: Path, release: Release, files: Mapping[str, str] = GRAPH, at: datetime = NOW) -> Proven:
    """Write a tree in staging, and seal it."""
    for name, text in files.items():
        (tree / name).parent.mkdir(exist_ok=True)
        (tree / name).write_text(text)
    return seal(tree, release, proven(tree, at))


def publish(
    workspace: Workspace, release: Release, files: Mapping[str, str] = GRAPH, at: datetime = NOW
) -> Record:
    """Bring a version onto the shelf of its model."""
    with attempt(workspace) as tree:
        return Shelf(workspace, release.model).publish(tree, release, sealed(tree, release, files, at))
