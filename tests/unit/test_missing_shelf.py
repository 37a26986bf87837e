"""A base path that somebody removed: it comes back by one rename, with a version in it, never empty."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from install_box import NOW, M, attempt, publish, release_of, sealed
from servesync import disk
from servesync.domain.versions import Version
from servesync.errors import DiskError, Reason
from servesync.install import Reserve, Shelf, Workspace
from servesync.planning.facts import Condition

ONE = Version(1)


class Died(BaseException):
    """The process was killed."""


class Scene:
    """Version 1 was on the shelf, 2 is in the reserve, and somebody has removed the base path."""

    def __init__(self, folder: Path) -> None:
        self.workspace = Workspace(folder / "models")
        self.workspace.claim()
        self.workspace.prepare([M])
        self.shelf, self.reserve = Shelf(self.workspace, M), Reserve(self.workspace, M)
        for number in (1, 2):
            publish(self.workspace, release_of(number), {"saved_model.pb": f"graph {number}"})
        record = self.shelf.records()[Version(2)]
        self.reserve.take(self.shelf.path / "2", Version(2), record, NOW)
        self.shelf.forget(Version(2))
        disk.remove_tree(self.shelf.path)

    def publish(self) -> None:
        """Bring version 1 again."""
        publish(self.workspace, release_of(1), {"saved_model.pb": "graph 1"})

    def put_back(self) -> None:
        """Let version 2 come back from the reserve."""
        self.shelf.put_back(self.reserve.path / "2", Version(2), self.reserve.versions()[Version(2)])
        self.reserve.forget(Version(2))

    def start_again(self) -> None:
        """Begin as an agent does after a crash."""
        self.workspace.prepare([M])
        assert self.workspace.clean() == []
        self.reserve.clean()
        self.shelf.write_refreshed(self.shelf.reread())

    @property
    def versions(self) -> dict[str, str]:
        """What the server finds on the shelf."""
        return {path.name: (path / "saved_model.pb").read_text() for path in self.shelf.path.iterdir()}


WAYS: dict[str, Callable[[Scene], None]] = {"publish": Scene.publish, "put_back": Scene.put_back}
COMES = {"publish": {"1": "graph 1"}, "put_back": {"2": "graph 2"}}


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """The scene in its own directory."""
    return Scene(tmp_path)


def watch_base_path(scene: Scene, patch: pytest.MonkeyPatch) -> list[object]:
    """Note what is on the shelf after each rename."""
    seen: list[object] = []
    real = disk.rename_noreplace

    def rename_noreplace(source: Path, target: Path) -> None:
        real(source, target)
        seen.append(scene.versions if scene.shelf.path.exists() else None)

    patch.setattr(disk, "rename_noreplace", rename_noreplace)
    return seen


@pytest.mark.parametrize("way", WAYS)
def test_the_folder_comes_with_the_version_in_it(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """The server scans at any moment: there is no folder, or one with the whole version."""
    with monkeypatch.context() as patch:
        seen = watch_base_path(scene, patch)
        WAYS[way](scene)

    assert seen == [None, COMES[way]]
    assert scene.shelf.path.stat().st_mode & 0o777 == 0o755
    found = scene.shelf.inventory()
    assert {version: item.condition for version, item in found.versions.items()} == {
        Version(int(number)): Condition.GOOD for number in COMES[way]
    }
    assert not found.is_missing


def test_the_second_version_comes_as_usual(scene: Scene) -> None:
    """Into the folder that is there now."""
    scene.publish()
    scene.put_back()

    assert scene.versions == {"1": "graph 1", "2": "graph 2"}
    assert list(scene.workspace.staging.iterdir()) == []
    assert list(scene.reserve.path.iterdir()) == []


def test_a_repair_of_what_went_with_its_folder_brings_both(scene: Scene) -> None:
    """It was damaged a moment ago, when the plan was made."""
    with attempt(scene.workspace) as tree:
        release = release_of(1)
        scene.shelf.replace(tree, release, sealed(tree, release, {"saved_model.pb": "graph 1"}))

    assert scene.versions == {"1": "graph 1"}
    assert scene.shelf.inventory().versions[ONE].condition is Condition.GOOD


@pytest.mark.parametrize("way", WAYS)
def test_a_folder_that_somebody_makes_meanwhile_is_used(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """It is not replaced, and what is in it stays."""
    real = disk.sync_dir

    def sync_dir(path: Path) -> None:
        if path.name.startswith("shelf."):
            (scene.shelf.path / "7").mkdir(parents=True)
            (scene.shelf.path / "7/saved_model.pb").write_text("somebody's")
        real(path)

    with monkeypatch.context() as patch:
        patch.setattr(disk, "sync_dir", sync_dir)
        WAYS[way](scene)

    assert scene.versions == COMES[way] | {"7": "somebody's"}
    assert list(scene.workspace.staging.iterdir()) == []
    assert all(path.name == "2" for path in scene.reserve.path.iterdir())


def test_a_number_that_somebody_puts_there_meanwhile_is_left_alone(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a shelf that was there; the version of the reserve is back there."""
    real = disk.sync_dir

    def sync_dir(path: Path) -> None:
        if path.name.startswith("shelf."):
            (scene.shelf.path / "2").mkdir(parents=True)
        real(path)

    monkeypatch.setattr(disk, "sync_dir", sync_dir)
    with pytest.raises(DiskError) as caught:
        scene.put_back()

    assert caught.value.reason is Reason.VERSION_THERE
    assert list((scene.shelf.path / "2").iterdir()) == []
    assert [path.name for path in scene.reserve.path.iterdir()] == ["2"]
    assert (scene.reserve.path / "2/saved_model.pb").read_text() == "graph 2"


@pytest.mark.parametrize("way", WAYS)
def test_a_disk_that_refuses_loses_nothing(scene: Scene, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """What was to come lies where it was; the folder stays away, and the next try succeeds."""
    real = disk.sync_dir

    def sync_dir(path: Path) -> None:
        if path.name.startswith("shelf."):
            raise OSError(5, os.strerror(5))
        real(path)

    with monkeypatch.context() as patch:
        patch.setattr(disk, "sync_dir", sync_dir)
        with pytest.raises(OSError, match="Input/output"):
            WAYS[way](scene)

    assert not scene.shelf.path.exists()
    assert [path.name for path in scene.reserve.path.iterdir()] == ["2"]
    WAYS[way](scene)
    assert scene.versions == COMES[way]


POINTS = [
    *(("rename_noreplace", count) for count in (1, 2)),
    *(("write_file", count) for count in (1, 2)),
    *(("sync_dir", count) for count in (1, 2, 3, 4, 5, 6, 7)),
    ("make_new_dir", 1),
    ("make_new_dir", 2),
    ("make_new_dir", 3),
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("name", "count"), POINTS)
def test_sudden_death_leaves_no_empty_folder(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, way: str, name: str, count: int
) -> None:
    """Wherever it dies: no folder or a whole version in it; nothing of the reserve is lost."""
    real, left = getattr(disk, name), count

    def dies(*args: object, **more: object) -> object:
        nonlocal left
        left -= 1
        if left == 0:
            patch.setattr(disk, "remove_tree", removes_nothing)
            patch.setattr(disk, "remove_file", removes_nothing)
            raise Died
        return real(*args, **more)

    def removes_nothing(_: Path) -> None:
        """A killed process tidies nothing up."""

    with monkeypatch.context() as patch:
        patch.setattr(disk, name, dies)
        try:
            WAYS[way](scene)
        except Died:
            assert not scene.shelf.path.exists() or scene.versions == COMES[way]

    scene.start_again()

    assert not scene.shelf.path.exists() or scene.versions == COMES[way]
    in_reserve = scene.reserve.versions()
    assert (2 in in_reserve) or scene.versions == COMES["put_back"]
    if not scene.shelf.path.exists():
        WAYS[way](scene)
    assert scene.versions == COMES[way]
    assert list(scene.workspace.staging.iterdir()) == []
