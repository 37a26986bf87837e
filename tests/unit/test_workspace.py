"""The workspace: attempts side by side, the trash, and the base paths of models."""

import os
from pathlib import Path

import pytest

from install_box import M, publish, release_of
from servesync import disk
from servesync.domain.versions import Model, Version
from servesync.install import Shelf, Workspace
from servesync.planning.facts import Condition

N = Model("n")


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A prepared models directory with the one model `m`."""
    workspace = Workspace(tmp_path / "models")
    workspace.claim()
    workspace.prepare([M])
    return workspace


def below(folder: Path) -> list[str]:
    """Return the names in a folder."""
    return sorted(path.name for path in folder.iterdir())


def test_modes_do_not_depend_on_the_umask(tmp_path: Path) -> None:
    """The server runs as another user: it must be able to read the shelf, and need not see the workspace."""
    old = os.umask(0o077)
    try:
        workspace = Workspace(tmp_path / "models")
        workspace.claim()
        workspace.prepare([M])
    finally:
        os.umask(old)

    assert workspace.models_dir.stat().st_mode & 0o777 == 0o755
    assert workspace.shelf(M).stat().st_mode & 0o777 == 0o755
    assert workspace.root.stat().st_mode & 0o777 == 0o700


def test_a_base_path_that_is_a_link_is_refused(tmp_path: Path) -> None:
    """A link could lead to another filesystem or out of the models directory."""
    workspace = Workspace(tmp_path / "models")
    workspace.claim()
    (tmp_path / "elsewhere").mkdir()
    workspace.shelf(M).symlink_to(tmp_path / "elsewhere")

    with pytest.raises(NotADirectoryError):
        workspace.prepare([M])


def test_leftovers_are_removed_at_the_start(workspace: Workspace) -> None:
    """Half a download and half a removal, whatever their modes, are gone when the trash has been emptied."""
    for folder in (workspace.staging / "attempt/tree/variables", workspace.trash / "m.1.x/variables"):
        folder.mkdir(parents=True)
        (folder / "data").write_text("half")
        folder.chmod(0o500)

    assert workspace.clean() == []
    assert list(workspace.staging.iterdir()) == []
    assert disk.empty_dir(workspace.trash) == []
    assert list(workspace.trash.iterdir()) == []


def test_leftovers_go_though_one_folder_cannot_be_read(workspace: Workspace) -> None:
    """What could not be looked at is returned; the others are as they should be."""
    left = workspace.records(M) / ".1.json.new"
    left.parent.mkdir()
    left.touch()
    (workspace.root / "channels").rmdir()
    (workspace.root / "channels").touch()

    assert [error.filename for error in workspace.clean()] == [str(workspace.root / "channels")]

    assert not left.exists()


def test_attempts_lie_side_by_side(workspace: Workspace) -> None:
    """Neither a beginning nor an end touches what others have in staging; only the agent's user sees it."""
    one, two = workspace.begin_attempt(), workspace.begin_attempt()
    (two / "saved_model.pb").write_text("graph")
    workspace.end_attempt(one)

    assert (two / "saved_model.pb").read_text() == "graph"
    assert below(workspace.staging) == [two.parent.name]
    assert (two.name, two.stat().st_mode & 0o777, two.parent.stat().st_mode & 0o777) == ("tree", 0o755, 0o700)


def test_an_attempt_that_cannot_be_removed_is_no_failure(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is left is a stray one, which goes later."""
    tree = workspace.begin_attempt()

    def remove_tree(_: Path) -> None:
        raise OSError

    with monkeypatch.context() as patch:
        patch.setattr(disk, "remove_tree", remove_tree)
        workspace.end_attempt(tree)

    assert [path.name for path in workspace.stray_attempts([])] == below(workspace.trash)
    assert below(workspace.staging) == []


def test_an_attempt_that_is_given_up_is_in_the_trash_at_once(workspace: Workspace) -> None:
    """By one rename, with all that is in it; once more does no harm."""
    tree = workspace.begin_attempt()
    (tree / "saved_model.pb").write_text("graph")

    workspace.give_up_attempt(tree)
    workspace.give_up_attempt(tree)

    (gone,) = workspace.trash.iterdir()
    assert (gone / "tree/saved_model.pb").read_text() == "graph"
    assert below(workspace.staging) == []


def test_an_attempt_is_given_up_though_the_trash_was_removed(workspace: Workspace) -> None:
    """The trash comes again; nothing is left in staging."""
    tree = workspace.begin_attempt()
    workspace.trash.rmdir()

    workspace.give_up_attempt(tree)

    assert below(workspace.staging) == []
    assert len(below(workspace.trash)) == 1


def test_only_what_nobody_knows_is_stray(workspace: Workspace) -> None:
    """What a dead job, or an older servesync, has left goes; the known attempts stay as they are."""
    known, stray = workspace.begin_attempt(), workspace.begin_attempt()
    (workspace.staging / "a file").touch()

    moved = workspace.stray_attempts([known])

    assert below(workspace.staging) == [known.parent.name]
    assert known.is_dir()
    assert not stray.exists()
    assert sorted(path.name for path in moved) == below(workspace.trash)
    assert len(moved) == len({"stray", "a file"})


def test_trash_that_comes_while_it_is_emptied_stays_whole(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job empties it while the decider goes on renaming things into it; the next one takes them."""
    one, two = workspace.begin_attempt(), workspace.begin_attempt()
    workspace.give_up_attempt(one)
    real = disk.remove_tree

    def remove_tree(path: Path) -> None:
        (two / "saved_model.pb").write_text("graph")
        workspace.give_up_attempt(two)
        real(path)

    with monkeypatch.context() as patch:
        patch.setattr(disk, "remove_tree", remove_tree)
        assert disk.empty_dir(workspace.trash) == []

    (later,) = workspace.trash.iterdir()
    assert (later / "tree/saved_model.pb").read_text() == "graph"
    assert disk.empty_dir(workspace.trash) == []
    assert below(workspace.trash) == []


def test_emptying_ends_when_it_is_cancelled(workspace: Workspace) -> None:
    """Before the next thing is removed."""
    for _ in range(3):
        workspace.give_up_attempt(workspace.begin_attempt())
    left = [None, KeyboardInterrupt()]

    def check() -> None:
        if (error := left.pop(0)) is not None:
            raise error

    with pytest.raises(KeyboardInterrupt):
        disk.empty_dir(workspace.trash, check)

    assert len(below(workspace.trash)) == len("12")


def test_a_fresh_model_gets_an_empty_base_path(workspace: Workspace) -> None:
    """A base path that is missing stops the server's updates of all models."""
    assert not workspace.has_shelf(N)

    assert workspace.make_shelf(N)

    assert workspace.has_shelf(N)
    assert workspace.shelf(N).stat().st_mode & 0o777 == 0o755


def test_a_model_that_had_versions_gets_no_empty_base_path(workspace: Workspace) -> None:
    """Not at the start either: the server would unload what it still has in memory."""
    publish(workspace, release_of(1))
    disk.remove_tree(workspace.shelf(M))

    workspace.prepare([M, N])

    assert not workspace.make_shelf(M)
    assert (workspace.has_shelf(M), workspace.has_shelf(N)) == (False, True)
    assert below(workspace.models_dir) == [".servesync", "n"]
    found = Shelf(workspace, M).inventory()
    assert (found.is_missing, found.versions, set(found.orphaned)) == (True, {}, {1})
    assert not Shelf(workspace, N).inventory().is_missing
    Shelf(workspace, M).forget(Version(1))
    assert workspace.make_shelf(M)


def test_a_note_in_the_place_of_records_is_no_record(workspace: Workspace) -> None:
    """Somebody's file there says nothing of versions; the base path comes as for any other model."""
    (workspace.root / "records/n").write_text("note")

    assert workspace.make_shelf(N)


def test_a_workspace_of_0_1_0_is_taken_over(workspace: Workspace) -> None:
    """Its records and versions count as they are, and what it left half-done goes."""
    publish(workspace, release_of(1))
    old = workspace.staging / "0123456789abcdef0123456789abcdef/tree"
    old.mkdir(parents=True)

    workspace.prepare([M])
    assert workspace.clean() == []

    assert below(workspace.staging) == []
    assert Shelf(workspace, M).inventory().versions[Version(1)].condition is Condition.GOOD
