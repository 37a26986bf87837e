"""Wherever the process dies, the shelf holds old or new, and the next start converges."""

import os
import sys
from pathlib import Path

import pytest

import forked
import publish_and_die
from publish_and_die import MODEL, content_of
from servesync import disk
from servesync.domain.versions import server_sees_version
from servesync.install import Shelf, Workspace
from servesync.planning.facts import Condition

SCRIPT = Path(publish_and_die.__file__)
POINTS = [
    ("make_dir", 1),
    ("make_new_dir", 1),
    ("make_new_dir", 2),
    ("make_new_dir", 3),
    ("sync_tree", 1),
    ("sync_file", 1),
    ("sync_file", 3),
    ("write_file", 1),
    ("rename_noreplace", 1),
    ("rename_noreplace", 2),
    ("rename_noreplace", 3),
    ("sync_dir", 1),
    ("sync_dir", 2),
    ("sync_dir", 3),
    ("sync_dir", 4),
    ("write_file", 2),
    ("remove_tree", 1),
    ("remove_tree", 2),
]


def run(models_dir: Path, version: int, *options: str) -> int:
    """Run one publish in its own process; return its exit code."""
    command = [sys.executable, str(SCRIPT), str(models_dir), str(version), *options]
    return forked.call(command, os.environ, 120).returncode


def whole(models_dir: Path) -> list[int]:
    """Return the versions on the shelf, having compared each with what was published."""
    found = []
    for folder in Workspace(models_dir).shelf(MODEL).iterdir():
        if not server_sees_version(folder.name):
            continue
        files = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        assert files == content_of(int(folder.name))
        found.append(int(folder.name))
    return sorted(found)


IN_FRAMES = [
    ("allocate", 1),
    ("allocate", 3),
    ("start_writeback", 1),
    ("start_writeback", 9),
    ("sync_file", 2),
    ("rename_noreplace", 2),
]


@pytest.mark.parametrize(
    ("name", "count", "options"),
    [*((*point, []) for point in POINTS), *((*point, ["--in-frames"]) for point in IN_FRAMES)],
    ids=str,
)
def test_sudden_death_leaves_old_or_new(name: str, count: int, options: list[str], tmp_path: Path) -> None:
    """Wherever publish() dies, version 1 stays, version 2 is absent or whole, and the next start ends it.

    In frames, too: with all files preallocated, or some of the pieces in place.
    """
    models_dir = tmp_path / "models"
    assert run(models_dir, 1) == 0

    assert run(models_dir, 2, "--die-before", name, str(count), *options) in (137, 0)

    assert whole(models_dir) in ([1], [1, 2])
    workspace = Workspace(models_dir)
    shelf = Shelf(workspace, MODEL)
    shelf.write_refreshed(shelf.reread())
    workspace.prepare([MODEL])
    assert workspace.clean() == []
    assert list(workspace.staging.iterdir()) == []
    assert disk.empty_dir(workspace.trash) == []  # as a job does
    assert {item.condition for item in shelf.inventory().versions.values()} == {Condition.GOOD}
    if whole(models_dir) == [1]:
        assert run(models_dir, 2) == 0
    assert whole(models_dir) == [1, 2]
    assert list(workspace.staging.iterdir()) == []
    assert list(workspace.trash.iterdir()) == []
    assert sorted(path.name for path in shelf.path.iterdir()) == ["1", "2"]


@pytest.mark.parametrize(
    ("name", "count"), [("rename_noreplace", 1), ("sync_dir", 1), ("remove_file", 1), ("remove_tree", 1)]
)
def test_sudden_death_while_pruning(name: str, count: int, tmp_path: Path) -> None:
    """A version that leaves the shelf is whole there or gone, never half."""
    models_dir = tmp_path / "models"
    assert run(models_dir, 1) == 0
    assert run(models_dir, 2) == 0

    assert run(models_dir, 0, "--take-off", "1", "--die-before", name, str(count)) == 137

    assert whole(models_dir) in ([1, 2], [2])
    assert Workspace(models_dir).clean() == []
    assert disk.empty_dir(Workspace(models_dir).trash) == []
