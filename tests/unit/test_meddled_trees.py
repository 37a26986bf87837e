"""Trees of the workspace that somebody changes where no proof looked before: what comes is never theirs."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from install_box import NOW, M, attempt, proven, publish, release_of, sealed
from servesync import disk
from servesync.domain.versions import Version
from servesync.errors import DiskError, Reason
from servesync.install import Reserve, Shelf, Workspace, seal
from servesync.install.content import stamps

ONE = Version(1)
RELEASE = release_of(1)
NOBODY = 65534


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A prepared models directory with the one model `m`."""
    workspace = Workspace(tmp_path / "models")
    workspace.claim()
    workspace.prepare([M])
    return workspace


def link(tree: Path) -> None:
    """Put a link in the place of a file."""
    (tree / "saved_model.pb").rename(tree.parent / "away")
    (tree / "saved_model.pb").symlink_to("../away")


def pipe(tree: Path) -> None:
    """Put a pipe in the place of a file."""
    (tree / "saved_model.pb").unlink()
    os.mkfifo(tree / "saved_model.pb")


def root(tree: Path) -> None:
    """Put a link in the place of the whole tree."""
    tree.rename(tree.parent / "away")
    tree.symlink_to("away")


def more(tree: Path) -> None:
    """Append to a file."""
    with (tree / "saved_model.pb").open("a") as file:
        file.write("more")


@pytest.mark.parametrize("meddle", [link, pipe])
def test_what_is_no_file_any_more_is_called_changed(
    workspace: Workspace, meddle: Callable[[Path], None]
) -> None:
    """Syncing such a thing fails in odd ways, which blamed the filesystem: the proof says what it is."""
    with attempt(workspace) as tree:
        (tree / "saved_model.pb").write_text("graph")
        proof = replace(proven(tree), stamps=stamps(tree))
        meddle(tree)
        with pytest.raises(DiskError, match="keep other programs out of") as caught:
            seal(tree, RELEASE, proof)

    assert caught.value.reason is Reason.DISK_FAILED
    assert Shelf(workspace, M).inventory().versions == {}


@pytest.mark.parametrize("meddle", [link, pipe, root, more])
def test_a_change_while_the_record_is_written_is_seen(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, meddle: Callable[[Path], None]
) -> None:
    """It may take long on a busy disk; nothing comes onto the shelf, and the next attempt succeeds."""
    shelf = Shelf(workspace, M)
    real = disk.write_file
    with attempt(workspace) as tree, monkeypatch.context() as patch:
        proof = sealed(tree, RELEASE)

        def write_file(path: Path, data: bytes) -> None:
            real(path, data)
            meddle(tree)

        patch.setattr(disk, "write_file", write_file)
        with pytest.raises(DiskError, match="keep other programs out of"):
            shelf.publish(tree, RELEASE, proof)

    assert list(shelf.path.iterdir()) == []
    publish(workspace, RELEASE)
    assert [path.name for path in shelf.path.iterdir()] == ["1"]


def test_a_link_in_the_reserve_does_not_come_onto_the_shelf(workspace: Workspace, tmp_path: Path) -> None:
    """Somebody moved the version and left a link: the files and their stamps are the same behind it."""
    shelf, reserve = Shelf(workspace, M), Reserve(workspace, M)
    record = publish(workspace, RELEASE)
    reserve.take(shelf.path / "1", ONE, record, NOW)
    (reserve.path / "1").rename(tmp_path / "moved")
    (reserve.path / "1").symlink_to(tmp_path / "moved")

    assert not reserve.stamps_match(ONE, reserve.versions()[ONE])

    reserve.drop(ONE)
    assert disk.empty_dir(workspace.trash) == []
    assert (tmp_path / "moved/saved_model.pb").read_text() == "graph"


@contextmanager
def as_nobody() -> Iterator[Path]:
    """Lend a folder of an unprivileged user, and be that user meanwhile."""
    folder = Path(tempfile.mkdtemp())
    os.chown(folder, NOBODY, NOBODY)
    os.seteuid(NOBODY)
    try:
        yield folder
    finally:
        os.seteuid(0)
        shutil.rmtree(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("closed", ["tree", "tree/a", "tree/a/b"])
@pytest.mark.parametrize("mode", [0, 0o200, 0o500, 0o600])
def test_a_folder_that_somebody_closed_is_removed_in_the_end(closed: str, mode: int) -> None:
    """By the next call if not by the first one, whatever its mode was."""
    with as_nobody() as folder:
        (folder / "tree/a/b").mkdir(parents=True)
        (folder / "tree/a/b/file").write_text("x")
        (folder / closed).chmod(mode)

        problems = disk.empty_dir(folder) and disk.empty_dir(folder)

        assert problems == []
        assert list(folder.iterdir()) == []


def test_a_base_path_can_be_read_as_soon_as_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that dies before it sets the mode leaves one that the server's user can scan all the same."""

    def dies(*_: object) -> None:
        raise KeyboardInterrupt

    before = os.umask(0o022)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(os, "fchmod", dies)
            with pytest.raises(KeyboardInterrupt):
                disk.make_dir(tmp_path / "m", 0o755)
    finally:
        os.umask(before)

    assert (tmp_path / "m").stat().st_mode & 0o777 == 0o755
