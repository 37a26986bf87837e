"""A folder of the models directory that somebody replaces by a link while the agent runs: never followed."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from big_models import LONG
from install_box import NOW, M, proven, publish, release_of
from servesync import disk
from servesync.domain.versions import Model, Release, Version
from servesync.errors import Reason
from servesync.install import (
    Position,
    Positions,
    Proven,
    Record,
    Refusals,
    Reserve,
    Shelf,
    Workspace,
    seal,
)
from servesync.install.content import stamps
from servesync.install.trash import take_off

ONE, TWO, THREE = Version(1), Version(2), Version(3)


class Scene:
    """Version 1 on the shelf, 2 in the reserve, 3 in staging, and something in the trash."""

    def __init__(self, folder: Path) -> None:
        self.workspace = Workspace(folder / "models")
        self.workspace.claim()
        self.workspace.prepare([M])
        self.shelf, self.reserve = Shelf(self.workspace, M), Reserve(self.workspace, M)
        self.records = {number: self._publish(number) for number in (ONE, TWO)}
        self.reserve.take(self.shelf.path / "2", TWO, self.records[TWO], NOW)
        self.shelf.forget(TWO)
        (self.workspace.trash / "gone").mkdir()
        self.staged = self.workspace.staging / "attempt/tree"
        self.staged.mkdir(parents=True)
        (self.staged / "saved_model.pb").write_text("graph 3")
        Refusals(self.workspace.refusals(M), "j").remember(THREE, "i", Reason.ARCHIVE_PATH, "no", NOW)
        self.position = Position(version=1, sequence=1, etag="e", sha256="0")
        Positions(self.workspace, M).write("stable", self.position)

    def _publish(self, number: Version) -> Record:
        return publish(self.workspace, release(number), {"saved_model.pb": f"graph {number}"})


def release(number: Version) -> Release:
    """What a store would offer."""
    return release_of(number, f"id-{number}")


def proof(tree: Path) -> Proven:
    """What is known of a tree that was sealed."""
    return replace(proven(tree), stamps=stamps(tree))


def _attempt(scene: Scene) -> None:
    tree = scene.workspace.begin_attempt()
    (tree / "saved_model.pb").write_text("graph")
    scene.workspace.end_attempt(tree)


WAYS: dict[str, Callable[[Scene], object]] = {
    "seal": lambda s: seal(s.staged, release(THREE), proven(s.staged)),
    "publish": lambda s: s.shelf.publish(s.staged, release(THREE), proof(s.staged)),
    "repair": lambda s: s.shelf.replace(s.staged, release(ONE), proof(s.staged)),
    "compare": lambda s: s.shelf.same_content(ONE, s.records[ONE].content),
    "adopt": lambda s: s.shelf.adopt(release(ONE), proven(s.shelf.path / "1"), stamps(s.shelf.path / "1")),
    "read": lambda s: s.shelf.is_right(ONE, s.records[ONE]),
    "put back": lambda s: s.shelf.put_back(s.reserve.path / "2", TWO, s.records[TWO]),
    "take off": lambda s: take_off(s.shelf.path / "1", s.workspace.trash_name(M, ONE)),
    "reserve": lambda s: s.reserve.take(s.shelf.path / "1", ONE, s.records[ONE], NOW),
    "set aside": lambda s: s.reserve.set_aside(s.staged, release(THREE), proof(s.staged)),
    "drop": lambda s: s.reserve.drop(TWO),
    "keep": lambda s: s.reserve.keep(TWO),
    "clean reserve": lambda s: s.reserve.clean(),
    "confirm": lambda s: s.shelf.confirm(ONE),
    "forget": lambda s: s.shelf.forget(ONE),
    "look": lambda s: s.shelf.inventory(),
    "refuse": lambda s: Refusals(s.workspace.refusals(M), "j").remember(
        ONE, "i", Reason.ARCHIVE_PATH, "no", NOW
    ),
    "forgive": lambda s: Refusals(s.workspace.refusals(M), "j").lift(THREE),
    "position": lambda s: Positions(s.workspace, M).write("stable", s.position),
    "attempt": _attempt,
    "give up": lambda s: s.workspace.give_up_attempt(s.staged),
    "strays": lambda s: s.workspace.stray_attempts([]),
    "make shelf": lambda s: s.workspace.make_shelf(Model("n")),
    "empty trash": lambda s: disk.empty_dir(s.workspace.trash),
    "clean": lambda s: s.workspace.clean(),
    "prepare": lambda s: s.workspace.prepare([M]),
    "ensure": lambda s: s.workspace.make_folders(),
}
FOLDERS = (
    "",
    "m",
    ".servesync",
    ".servesync/staging",
    ".servesync/staging/attempt",
    ".servesync/trash",
    ".servesync/reserve",
    ".servesync/reserve/m",
    ".servesync/reserve_records",
    ".servesync/reserve_records/m",
    ".servesync/records",
    ".servesync/records/m",
    ".servesync/refusals",
    ".servesync/refusals/m",
    ".servesync/channels",
    ".servesync/channels/m",
)
PAIRS = [(name, way) for name in FOLDERS for way in WAYS]


def below(folder: Path) -> dict[str, object]:
    """Return all that lies below a folder, and what would change if it were touched."""
    return {
        str(path.relative_to(folder)): (path.lstat().st_ino, path.lstat().st_mode, path.lstat().st_mtime_ns)
        for path in (folder, *folder.rglob("*"))
    }


@pytest.mark.parametrize(("name", "way"), PAIRS if LONG else PAIRS[::5])
def test_nothing_beyond_a_link_is_touched(name: str, way: str, tmp_path: Path) -> None:
    """Neither on a way onto the shelf or off it, nor when rubbish is removed or a record is kept."""
    scene = Scene(tmp_path)
    folder = scene.workspace.models_dir / name
    outside = folder.rename(tmp_path / "outside")
    folder.symlink_to(outside)
    before = below(outside)

    errors = []
    try:
        WAYS[way](scene)
    except OSError as error:
        errors.append(disk.describe(error, way))

    assert below(outside) == before
    assert all("not a file or a symbolic link" in str(error) for error in errors)


@pytest.mark.parametrize(
    ("name", "way"),
    [
        ("m", "publish"),
        ("m", "repair"),
        ("m", "put back"),
        ("m", "take off"),
        ("m", "reserve"),
        ("m", "look"),
        (".servesync/staging", "attempt"),
        (".servesync/staging", "publish"),
        (".servesync/trash", "take off"),
        (".servesync/trash", "drop"),
        (".servesync/reserve", "reserve"),
        (".servesync/reserve", "put back"),
        (".servesync/records", "confirm"),
        (".servesync", "publish"),
        ("", "publish"),
    ],
)
def test_a_link_is_refused_by_name(name: str, way: str, tmp_path: Path) -> None:
    """The message names it, and says what must stand in its place."""
    scene = Scene(tmp_path)
    folder = scene.workspace.models_dir / name
    folder.rename(tmp_path / "outside")
    folder.symlink_to(tmp_path / "outside")

    with pytest.raises(NotADirectoryError) as caught:
        WAYS[way](scene)

    assert repr(str(folder)) in str(disk.describe(caught.value, way))


@pytest.mark.parametrize("way", WAYS)
def test_every_way_works_without_a_link(way: str, tmp_path: Path) -> None:
    """The cases above prove something only if each of these does what it says where nothing is wrong."""
    assert WAYS[way](Scene(tmp_path)) not in (False, [OSError])


def test_a_models_directory_may_be_reached_through_links(tmp_path: Path) -> None:
    """What lies above it is the operator's business: /var/run may lead to /run."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")

    scene = Scene(tmp_path / "link")

    assert scene.shelf.publish(scene.staged, release(THREE), proof(scene.staged)).state == "installed"


def test_trash_that_cannot_be_listed_is_a_problem_and_no_crash(tmp_path: Path) -> None:
    """The caller names it and goes on."""
    scene = Scene(tmp_path)
    scene.workspace.trash.rename(tmp_path / "outside")
    scene.workspace.trash.symlink_to(tmp_path / "outside")

    problems = disk.empty_dir(scene.workspace.trash)

    assert [disk.describe(each, "emptying").reason for each in problems] == [Reason.DISK_NOT_A_DIRECTORY]
    assert (tmp_path / "outside/gone").is_dir()


def test_folders_that_somebody_removes_come_again(tmp_path: Path) -> None:
    """An attempt makes staging by itself; the rest comes at the next look."""
    scene = Scene(tmp_path)
    for folder in (scene.workspace.staging, scene.workspace.trash):
        disk.remove_tree(folder)

    _attempt(scene)
    scene.workspace.make_folders()

    assert scene.workspace.staging.is_dir()
    take_off(scene.shelf.path / "1", scene.workspace.trash_name(M, ONE))
    assert list(scene.shelf.path.iterdir()) == []
