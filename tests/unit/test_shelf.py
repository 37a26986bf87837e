"""The shelf: what gets onto it, what an inventory finds, and what neither ever does."""

import json
import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from servesync import disk
from servesync.errors import DiskError, Reason, ReleaseRefused
from servesync.install import Proven, Refusals, Reserve, Shelf, Workspace, hash_tree
from servesync.install.content import stamps
from servesync.plan.facts import Condition
from servesync.plan.versions import Content, FileFact, Layout, Model, ProvenBy, Release, StoredObject, Version

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
M = Model("m")


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A prepared models directory with the one model `m`."""
    workspace = Workspace(tmp_path / "models")
    workspace.claim()
    workspace.prepare([M])
    return workspace


def release(number: int, identity: str = "id-1") -> Release:
    """What a store would offer."""
    item = StoredObject(f"m/{number}.tar.gz", 10, '"etag"')
    return Release(M, Version(number), Layout.ARCHIVE, (item,), identity)


def proven(tree: Path) -> Proven:
    """What is known of a tree after it was fetched and verified."""
    return Proven(hash_tree(tree), 7, ProvenBy.NOTHING, NOW)


def put(workspace: Workspace, number: int, text: str = "graph") -> Shelf:
    """Publish a small tree as version `number`."""
    shelf = Shelf(workspace, M)
    with workspace.attempt() as tree:
        (tree / "saved_model.pb").write_text(text)
        (tree / "variables").mkdir()
        (tree / "variables/variables.index").write_text("index")
        shelf.publish(tree, release(number), proven(tree))
    return shelf


def condition(shelf: Shelf, number: int) -> Condition:
    """Return what an inventory says of one version."""
    return shelf.inventory().versions[Version(number)].condition


def test_a_published_version_is_whole_and_good(workspace: Workspace) -> None:
    """What was staged stands under its canonical number, and staging is empty again."""
    shelf = put(workspace, 3)

    assert (shelf.path / "3/saved_model.pb").read_text() == "graph"
    assert condition(shelf, 3) is Condition.GOOD
    assert list(workspace.staging.iterdir()) == []


def test_an_occupied_number_is_left_alone(workspace: Workspace) -> None:
    """Even an empty directory under the number is not replaced."""
    (workspace.shelf(M) / "3").mkdir()

    with pytest.raises(DiskError) as caught:
        put(workspace, 3)

    assert caught.value.reason is Reason.VERSION_THERE
    assert list((workspace.shelf(M) / "3").iterdir()) == []
    assert condition(Shelf(workspace, M), 3) is Condition.FOREIGN


def test_a_version_that_no_record_can_hold_is_refused(workspace: Workspace) -> None:
    """Otherwise it would count as foreign at the next look, and be fetched again and again."""
    files = (FileFact(f"assets/{'x' * 200}/{number}", 1, "0" * 64) for number in range(60_000))
    with workspace.attempt() as tree, pytest.raises(ReleaseRefused) as caught:
        Shelf(workspace, M).publish(tree, release(3), Proven(Content.of(files), 7, ProvenBy.NOTHING, NOW))

    assert caught.value.reason is Reason.RELEASE_TOO_BIG
    assert list(workspace.shelf(M).iterdir()) == []


def test_an_attempt_that_leaves_something_behind_is_cleared_up_by_the_next(workspace: Workspace) -> None:
    """What cannot be removed is no reason to call the attempt a failure."""
    (workspace.staging / "left").mkdir()
    with workspace.attempt():
        assert len(list(workspace.staging.iterdir())) == 1


def test_a_refusal_holds_for_one_judge(workspace: Workspace) -> None:
    """Other limits may come to another verdict; the model server's verdict does not depend on ours."""
    offered = {Version(1): release(1), Version(2): release(2)}
    strict = Refusals(workspace.refusals(M), "strict")
    strict.remember(Version(1), "id-1", Reason.ARCHIVE_RATIO, "too dense", NOW)
    strict.remember(Version(2), "id-1", Reason.SERVER_REFUSED, "DATA_LOSS", NOW)

    assert set(strict.holds(offered, set())) == {1, 2}
    assert set(Refusals(workspace.refusals(M), "lenient").holds(offered, set())) == {2}
    assert strict.holds({Version(1): release(1, "id-2")}, set()) == {}


def test_a_refusal_for_a_foreign_directory_ends_with_it(workspace: Workspace) -> None:
    """Somebody moved it away, as the refusal asked for."""
    refusals = Refusals(workspace.refusals(M), "judge")
    refusals.remember(Version(1), "id-1", Reason.VERSION_FOREIGN, "other bytes", NOW)

    assert set(refusals.holds({Version(1): release(1)}, {Version(1)})) == {1}
    assert refusals.holds({Version(1): release(1)}, set()) == {}


def test_an_inventory_changes_nothing(workspace: Workspace) -> None:
    """Looking writes no file, not even a record."""
    shelf = put(workspace, 1)
    (shelf.path / "1/saved_model.pb").touch()
    before = {path: path.stat().st_mtime_ns for path in workspace.models_dir.rglob("*")}

    shelf.inventory()

    assert before == {path: path.stat().st_mtime_ns for path in workspace.models_dir.rglob("*")}


@pytest.mark.parametrize(
    "damage",
    [
        lambda version: (version / "saved_model.pb").write_text("grapH"),
        lambda version: (version / "saved_model.pb").unlink(),
        lambda version: (version / "extra").write_text(""),
        lambda version: os.truncate(version / "variables/variables.index", 2),
        lambda version: ((version / "saved_model.pb").unlink(), (version / "saved_model.pb").symlink_to("x")),
    ],
    ids=["changed", "removed", "added", "cut", "link"],
)
def test_damage_by_hand_is_seen(workspace: Workspace, damage: object) -> None:
    """Every change of a file below a version is noticed at the next look."""
    shelf = put(workspace, 1)

    assert callable(damage)
    damage(shelf.path / "1")

    assert condition(shelf, 1) is Condition.DAMAGED


def test_a_same_size_change_with_the_old_mtime_is_seen(workspace: Workspace) -> None:
    """Setting the time back does not hide a change: ctime cannot be set."""
    shelf = put(workspace, 1)
    victim = shelf.path / "1/saved_model.pb"
    old = victim.stat()
    victim.write_text("grapX")
    os.utime(victim, ns=(old.st_atime_ns, old.st_mtime_ns))

    assert condition(shelf, 1) is Condition.DAMAGED


def test_a_touched_version_is_still_good(workspace: Workspace) -> None:
    """A new time on the same bytes is read once, and then known."""
    shelf = put(workspace, 1)
    (shelf.path / "1/saved_model.pb").touch()

    found = shelf.inventory()
    shelf.settle(found)

    assert list(found.refreshed) == [1]
    assert shelf.inventory().refreshed == {}
    assert condition(shelf, 1) is Condition.GOOD


def test_a_crash_after_the_rename_is_adopted(workspace: Workspace) -> None:
    """A record that says `installing` and a complete directory make an installed version."""
    shelf = put(workspace, 1)
    path = workspace.records(M) / "1.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"state": "installing", "stamps": {}}))

    found = shelf.inventory()
    shelf.settle(found)

    assert found.versions[Version(1)].condition is Condition.GOOD
    assert json.loads(path.read_text())["state"] == "installed"


def test_what_others_put_there_is_foreign(workspace: Workspace) -> None:
    """A number without our record is not ours; names that the server reads as numbers are reported."""
    shelf = put(workspace, 1)
    (shelf.path / "2").mkdir()
    (shelf.path / "007").mkdir()
    (shelf.path / "+5").mkdir()
    (shelf.path / "9").write_text("a plain file")
    (shelf.path / "tmp-5").mkdir()
    (shelf.path / ".hidden").mkdir()

    found = shelf.inventory()

    assert found.versions[Version(2)].condition is Condition.FOREIGN
    assert found.strange == ("+5", "007", "9")


def test_the_same_bytes_are_adopted_and_others_are_not(workspace: Workspace) -> None:
    """A foreign version becomes ours only when it is the store's to the byte."""
    shelf = Shelf(workspace, M)
    foreign = shelf.path / "4"
    foreign.mkdir()
    (foreign / "saved_model.pb").write_text("graph")
    with workspace.attempt() as tree:
        (tree / "saved_model.pb").write_text("graph")
        same = hash_tree(tree)
        (tree / "saved_model.pb").write_text("other")
        other = hash_tree(tree)

    assert shelf.adopt(release(4), Proven(other, 0, ProvenBy.NOTHING, NOW)) is None
    assert condition(shelf, 4) is Condition.FOREIGN
    assert shelf.adopt(release(4), Proven(same, 0, ProvenBy.NOTHING, NOW)) is not None
    assert condition(shelf, 4) is Condition.GOOD


def test_a_repair_swaps_in_one_step(workspace: Workspace) -> None:
    """The damaged tree is exchanged; afterwards the number holds the good one and staging the other."""
    shelf = put(workspace, 1)
    (shelf.path / "1/saved_model.pb").write_text("broken")
    with workspace.attempt() as tree:
        (tree / "saved_model.pb").write_text("graph")
        shelf.replace(tree, release(1), proven(tree))
        assert (tree / "saved_model.pb").read_text() == "broken"

    assert (shelf.path / "1/saved_model.pb").read_text() == "graph"
    assert condition(shelf, 1) is Condition.GOOD


def test_a_record_without_its_version_is_orphaned(workspace: Workspace) -> None:
    """A version removed by hand leaves a record, so that its return counts as a restoration."""
    shelf = put(workspace, 1)
    for path in sorted((shelf.path / "1").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    (shelf.path / "1").rmdir()

    assert list(shelf.inventory().orphaned) == [1]


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
    """Half a download and half a removal, whatever their modes, are gone after clean()."""
    for folder in (workspace.staging / "attempt/tree/variables", workspace.trash / "m.1.x/variables"):
        folder.mkdir(parents=True)
        (folder / "data").write_text("half")
        folder.chmod(0o500)

    assert workspace.clean() == []
    assert list(workspace.staging.iterdir()) == list(workspace.trash.iterdir()) == []


def swap(tree: Path) -> None:
    """Put another file of the same size in place of one."""
    (tree / "new").write_text("grapX")
    (tree / "new").replace(tree / "saved_model.pb")


MEDDLING: dict[str, Callable[[Path], object]] = {
    "changed": lambda tree: (tree / "saved_model.pb").write_text("grapH"),
    "cut": lambda tree: os.truncate(tree / "saved_model.pb", 2),
    "swapped": swap,
    "removed": lambda tree: (tree / "saved_model.pb").unlink(),
    "added": lambda tree: (tree / "extra").touch(),
    "all removed": shutil.rmtree,
    "led elsewhere": lambda tree: tree.rename(tree.with_name("x")).joinpath("../tree").symlink_to("x"),
}


def written(tree: Path) -> Proven:
    """Write a tree, and return what is known of it at that moment."""
    (tree / "saved_model.pb").write_text("graph")
    return Proven(hash_tree(tree), 7, ProvenBy.NOTHING, NOW, stamps=stamps(tree))


@pytest.mark.parametrize("way", ["publish", "replace", "set_aside"])
@pytest.mark.parametrize("kind", MEDDLING)
def test_staging_that_somebody_changes_is_not_the_releases_fault(
    workspace: Workspace, kind: str, way: str
) -> None:
    """Compared with what was written just before the rename: the disk is blamed, nothing else changes."""
    shelf = put(workspace, 1, "damaged") if way == "replace" else Shelf(workspace, M)
    before = sorted(path.name for path in shelf.path.iterdir())
    ways: dict[str, Callable[[Path, Release, Proven], object]] = {
        "publish": shelf.publish,
        "replace": shelf.replace,
        "set_aside": Reserve(workspace, M).set_aside,
    }
    with workspace.attempt() as tree:
        proof = written(tree)
        MEDDLING[kind](tree)
        with pytest.raises((DiskError, OSError)) as caught:
            ways[way](tree, release(1), proof)

    error = caught.value
    told = disk.describe(error, way) if isinstance(error, OSError) else error
    assert isinstance(told, DiskError)
    assert told.reason in {Reason.DISK_FAILED, Reason.DISK_NOT_A_DIRECTORY}
    assert "keep other programs out of" in str(told) or "not a file or a symbolic link" in str(told)
    assert sorted(path.name for path in shelf.path.iterdir()) == before
    assert Reserve(workspace, M).versions() == {}
    if way == "replace":
        assert (shelf.path / "1/saved_model.pb").read_text() == "damaged"


def test_touched_staging_that_holds_the_same_bytes_is_good(workspace: Workspace) -> None:
    """A backup that sets times, say: stamps only tell what must be read again."""
    with workspace.attempt() as tree:
        proof = written(tree)
        (tree / "saved_model.pb").touch()
        shelf = Shelf(workspace, M)
        shelf.publish(tree, release(1), proof)

    assert condition(shelf, 1) is Condition.GOOD


@pytest.mark.parametrize("way", ["publish", "adopt", "put_back"])
def test_a_change_just_after_the_proof_does_not_pass_for_what_was_proven(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """The record holds the stamps of the proof, not those of whatever lies there a moment later."""
    shelf, reserve = put(workspace, 1), Reserve(workspace, M)
    record = shelf.records()[Version(1)]
    reserve.take(shelf.path / "1", Version(1), record, NOW)
    if way == "adopt":
        (reserve.path / "1").rename(shelf.path / "1")
    shelf.forget(Version(1))
    real = disk.sync_dir

    def sync_dir(path: Path) -> None:
        if path == shelf.path:
            (path / "1/saved_model.pb").write_text("grapH")
        real(path)

    with workspace.attempt() as tree, monkeypatch.context() as patch:
        proof = written(tree)
        patch.setattr(disk, "sync_dir", sync_dir)
        if way == "publish":
            shelf.publish(tree, release(1), proof)
        elif way == "adopt":
            shelf.adopt(release(1), Proven(hash_tree(shelf.path / "1"), 7, ProvenBy.NOTHING, NOW))
        else:
            shelf.put_back(reserve.path / "1", Version(1), record)

    assert condition(shelf, 1) is Condition.DAMAGED
