"""The shelf: what gets onto it, what an inventory finds, and what neither ever does."""

import errno
import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from install_box import GRAPH, NOW, M, attempt, proven, publish, release_of, sealed
from servesync import disk
from servesync.domain.versions import Content, FileFact, ProvenBy, Release, Version
from servesync.errors import DiskError, Reason, ReleaseRefused
from servesync.install import Proven, Refusals, Reserve, Shelf, Workspace, seal
from servesync.install.content import stamps
from servesync.planning.facts import Condition


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A prepared models directory with the one model `m`."""
    workspace = Workspace(tmp_path / "models")
    workspace.claim()
    workspace.prepare([M])
    return workspace


def put(workspace: Workspace, number: int, text: str = "graph") -> Shelf:
    """Publish a small tree as version `number`."""
    files = {"saved_model.pb": text, "variables/variables.index": "index"}
    publish(workspace, release_of(number), files)
    return Shelf(workspace, M)


def condition(shelf: Shelf, number: int) -> Condition:
    """Return what an inventory says of one version, after what is in doubt was read."""
    return shelf.reread().versions[Version(number)].condition


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
    with attempt(workspace) as tree, pytest.raises(ReleaseRefused) as caught:
        seal(tree, release_of(3), Proven(Content.of(files), 7, ProvenBy.NOTHING, NOW))

    assert caught.value.reason is Reason.RELEASE_TOO_BIG


def test_a_refusal_holds_for_one_judge(workspace: Workspace) -> None:
    """Other limits may come to another verdict; the model server's verdict does not depend on ours."""
    offered = {Version(1): release_of(1), Version(2): release_of(2)}
    strict = Refusals(workspace.refusals(M), "strict")
    strict.remember(Version(1), "id-1", Reason.ARCHIVE_RATIO, "too dense", NOW)
    strict.remember(Version(2), "id-1", Reason.SERVER_REFUSED, "DATA_LOSS", NOW)

    assert set(strict.holds(offered, set())) == {1, 2}
    assert set(Refusals(workspace.refusals(M), "lenient").holds(offered, set())) == {2}
    assert strict.holds({Version(1): release_of(1, "id-2")}, set()) == {}


def test_a_refusal_for_a_foreign_directory_ends_with_it(workspace: Workspace) -> None:
    """Somebody moved it away, as the refusal asked for."""
    refusals = Refusals(workspace.refusals(M), "judge")
    refusals.remember(Version(1), "id-1", Reason.VERSION_FOREIGN, "other bytes", NOW)

    assert set(refusals.holds({Version(1): release_of(1)}, {Version(1)})) == {1}
    assert refusals.holds({Version(1): release_of(1)}, set()) == {}


def test_an_inventory_changes_nothing(workspace: Workspace) -> None:
    """Looking writes no file, not even a record."""
    shelf = put(workspace, 1)
    (shelf.path / "1/saved_model.pb").touch()
    before = {path: path.stat().st_mtime_ns for path in workspace.models_dir.rglob("*")}

    shelf.reread()

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

    assert shelf.inventory().versions[Version(1)].condition is Condition.CHECKING
    found = shelf.reread()
    shelf.write_refreshed(found)

    assert list(found.refreshed) == [1]
    assert shelf.inventory().refreshed == {}
    assert condition(shelf, 1) is Condition.GOOD


def test_a_crash_after_the_rename_is_adopted(workspace: Workspace) -> None:
    """A record that says `installing` and a complete directory make an installed version."""
    shelf = put(workspace, 1)
    path = workspace.records(M) / "1.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"state": "installing", "stamps": {}}))

    assert shelf.inventory().versions[Version(1)].condition is Condition.CHECKING
    found = shelf.reread()
    shelf.write_refreshed(found)

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
    assert found.foreign_names == ("+5", "007", "9")


def test_the_same_bytes_are_adopted_and_others_are_not(workspace: Workspace) -> None:
    """A foreign version becomes ours only when it is the store's to the byte."""
    shelf = Shelf(workspace, M)
    foreign = shelf.path / "4"
    foreign.mkdir()
    (foreign / "saved_model.pb").write_text("graph")
    with attempt(workspace) as tree:
        (tree / "saved_model.pb").write_text("graph")
        same = proven(tree)
        (tree / "saved_model.pb").write_text("other")
        other = proven(tree)

    assert shelf.same_content(Version(4), other.content) is None
    found = shelf.same_content(Version(4), same.content)
    assert condition(shelf, 4) is Condition.FOREIGN
    assert found is not None
    shelf.adopt(release_of(4), same, found)
    assert shelf.inventory().versions[Version(4)].condition is Condition.GOOD


def test_what_changed_after_it_was_compared_is_not_adopted(workspace: Workspace) -> None:
    """Its stamps tell; it stays foreign, and is compared anew."""
    shelf = Shelf(workspace, M)
    file = shelf.path / "4/saved_model.pb"
    file.parent.mkdir()
    file.write_text("graph")
    proof = proven(file.parent)
    found = shelf.same_content(Version(4), proof.content)
    assert found is not None
    file.write_text("grapH")

    with pytest.raises(DiskError, match="compared anew"):
        shelf.adopt(release_of(4), proof, found)

    assert condition(shelf, 4) is Condition.FOREIGN


def test_a_repair_swaps_in_one_step(workspace: Workspace) -> None:
    """The damaged tree is exchanged; afterwards the number holds the good one and staging the other."""
    shelf = put(workspace, 1)
    (shelf.path / "1/saved_model.pb").write_text("broken")
    with attempt(workspace) as tree:
        shelf.replace(tree, release_of(1), sealed(tree, release_of(1)))
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
    return replace(proven(tree), stamps=stamps(tree))


@pytest.mark.parametrize("way", ["seal", "publish", "replace", "set_aside"])
@pytest.mark.parametrize("kind", MEDDLING)
def test_staging_that_somebody_changes_is_not_the_releases_fault(
    workspace: Workspace, kind: str, way: str
) -> None:
    """Compared when it is sealed, and just before the rename: the disk is blamed, nothing else changes."""
    shelf = put(workspace, 1, "damaged") if way == "replace" else Shelf(workspace, M)
    before = sorted(path.name for path in shelf.path.iterdir())
    ways: dict[str, Callable[[Path, Release, Proven], object]] = {
        "seal": seal,
        "publish": shelf.publish,
        "replace": shelf.replace,
        "set_aside": Reserve(workspace, M).set_aside,
    }
    with attempt(workspace) as tree:
        proof = written(tree) if way == "seal" else sealed(tree, release_of(1))
        MEDDLING[kind](tree)
        with pytest.raises((DiskError, OSError)) as caught:
            ways[way](tree, release_of(1), proof)

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
    """A backup that sets times, say: stamps only tell what must be read again, while that is a job's work."""
    shelf = Shelf(workspace, M)
    with attempt(workspace) as tree:
        proof = written(tree)
        (tree / "saved_model.pb").touch()
        shelf.publish(tree, release_of(1), seal(tree, release_of(1), proof))

    assert shelf.inventory().versions[Version(1)].condition is Condition.GOOD


@pytest.mark.parametrize("way", ["publish", "replace", "set_aside"])
def test_what_was_touched_after_it_was_sealed_is_not_read_again(workspace: Workspace, way: str) -> None:
    """The decider reads nothing: the transfer is done anew."""
    shelf = put(workspace, 1) if way == "replace" else Shelf(workspace, M)
    ways = {"publish": shelf.publish, "replace": shelf.replace, "set_aside": Reserve(workspace, M).set_aside}
    with attempt(workspace) as tree:
        proof = sealed(tree, release_of(1))
        (tree / "saved_model.pb").touch()
        with pytest.raises(DiskError, match="fetched again") as caught:
            ways[way](tree, release_of(1), proof)

    assert caught.value.reason is Reason.DISK_FAILED
    assert Reserve(workspace, M).versions() == {}


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

    with attempt(workspace) as tree, monkeypatch.context() as patch:
        proof = sealed(tree, release_of(1))
        there = stamps(shelf.path / "1") if way == "adopt" else {}
        patch.setattr(disk, "sync_dir", sync_dir)
        if way == "publish":
            shelf.publish(tree, release_of(1), proof)
        elif way == "adopt":
            shelf.adopt(release_of(1), proof, there)
        else:
            shelf.put_back(reserve.path / "1", Version(1), record)

    assert condition(shelf, 1) is Condition.DAMAGED


def test_a_look_reads_no_file_of_a_version(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever has been touched, removed or left half-done: the decider never reads gigabytes."""
    shelf = put(workspace, 1)
    put(workspace, 2)
    (shelf.path / "1/saved_model.pb").touch()
    shelf.doubt(Version(2), NOW)

    def readv(*_: object) -> int:
        pytest.fail("a file of a version was read")

    monkeypatch.setattr(os, "readv", readv)

    found = shelf.inventory()

    assert {item.condition for item in found.versions.values()} == {Condition.CHECKING}
    assert found.to_check == found.recorded == shelf.records()
    assert found.refreshed == {}


def test_a_verdict_counts_for_the_stamps_under_which_it_was_found(workspace: Workspace) -> None:
    """Right makes it good, wrong makes it damaged; after a further change it is read again."""
    shelf = put(workspace, 1)
    file = shelf.path / "1/saved_model.pb"
    file.touch()
    record = shelf.records()[Version(1)]
    checked = {Version(1): shelf.is_right(Version(1), record)}

    found = shelf.inventory(checked)
    assert found.versions[Version(1)].condition is Condition.GOOD
    assert set(found.refreshed) == {1}
    assert found.to_check == {}

    file.write_text("grapH")
    assert set(shelf.inventory(checked).to_check) == {1}
    checked = {Version(1): shelf.is_right(Version(1), record)}
    assert shelf.inventory(checked).versions[Version(1)].condition is Condition.DAMAGED

    file.write_text("graph")
    assert shelf.inventory(checked).versions[Version(1)].condition is Condition.CHECKING


def test_a_change_while_it_is_read_is_seen(workspace: Workspace) -> None:
    """The stamps are those of before the reading: what it found says nothing of what is there now."""
    shelf = put(workspace, 1)
    file = shelf.path / "1/saved_model.pb"
    file.touch()

    def check() -> None:
        file.write_text("grapX")

    verdict = shelf.is_right(Version(1), shelf.records()[Version(1)], check)

    assert shelf.inventory({Version(1): verdict}).versions[Version(1)].condition is Condition.CHECKING


@pytest.mark.parametrize("gone", ["1", "1/assets"])
def test_what_is_removed_during_an_inventory_is_read_again(workspace: Workspace, gone: str) -> None:
    """Somebody removes a version, or a folder of it, just before it is opened: no error, no damage yet."""
    shelf = Shelf(workspace, M)
    publish(workspace, release_of(1), GRAPH | {"assets/words.txt": "a b c"})
    to_remove = [str(shelf.path / gone)]

    def remove(event: str, arguments: tuple[object, ...]) -> None:
        if event == "os.scandir" and str(arguments[0]) in to_remove:
            shutil.rmtree(to_remove.pop())

    sys.addaudithook(remove)  # it stays for good, and does nothing any more

    assert shelf.inventory().versions[Version(1)].condition is Condition.CHECKING
    assert to_remove == []


def test_what_is_being_read_again_is_as_confirmed_as_before(workspace: Workspace) -> None:
    """The planner goes by that."""
    shelf = put(workspace, 1)
    shelf.confirm(Version(1))
    (shelf.path / "1/saved_model.pb").touch()

    item = shelf.inventory().versions[Version(1)]

    assert (item.condition, item.confirmed, item.identity) == (Condition.CHECKING, True, "id-1")


def test_an_intention_without_its_version_is_orphaned(workspace: Workspace) -> None:
    """A crash before the rename: there is nothing to read."""
    shelf = put(workspace, 1)
    shelf.doubt(Version(1), NOW)
    (shelf.path / "1").rename(workspace.trash / "gone")

    found = shelf.inventory()

    assert (set(found.orphaned), found.to_check, found.versions) == ({1}, {}, {})


@pytest.mark.parametrize("number", [errno.EIO, errno.EUCLEAN, errno.EBADMSG])
def test_what_the_disk_cannot_read_is_not_right(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """A lost sector is damage of that version; another error says nothing of it."""
    shelf = put(workspace, 1)
    shelf.doubt(Version(1), NOW)
    record = shelf.records()[Version(1)]
    raised = [number, errno.EMFILE]

    def readv(*_: object) -> int:
        raise OSError(raised[0], os.strerror(raised[0]))

    with monkeypatch.context() as patch:
        patch.setattr(os, "readv", readv)
        verdict = shelf.is_right(Version(1), record)
        raised.pop(0)
        with pytest.raises(OSError, match="Too many open files"):
            shelf.is_right(Version(1), record)

    assert shelf.inventory({Version(1): verdict}).versions[Version(1)].condition is Condition.DAMAGED


def test_a_scrub_reads_what_lies_on_the_disk(workspace: Workspace) -> None:
    """The same answer, whatever the page cache holds."""
    shelf = put(workspace, 1)
    record = shelf.records()[Version(1)]
    assert shelf.is_right(Version(1), record, from_disk=True) == (record.stamps, True)

    (shelf.path / "1/saved_model.pb").write_text("grapX")
    assert not shelf.is_right(Version(1), record, from_disk=True)[1]


def test_publishing_syncs_and_reads_nothing_of_the_version(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That was a job's work, in `seal`; the decider renames, and writes two small records."""
    calls: list[str] = []
    with attempt(workspace) as tree:
        proof = sealed(tree, release_of(1))
        for name in ("sync_tree", "sync_file", "sync_dir", "rename_noreplace", "write_file"):
            real = getattr(disk, name)

            def noted(*args: object, real: Callable[..., object] = real, name: str = name) -> object:
                calls.append(name)
                return real(*args)

            monkeypatch.setattr(disk, name, noted)
        Shelf(workspace, M).publish(tree, release_of(1), proof)

    inside_write_file = ["sync_dir"]
    write = ["write_file", *inside_write_file]
    assert calls == [*write, "rename_noreplace", "sync_dir", *write]
