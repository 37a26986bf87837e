"""The reserve: versions that left the shelf, complete, and back in one rename."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from servesync import disk
from servesync.agent.build import build_observer
from servesync.errors import DiskError, Reason
from servesync.install import Proven, Reserve, Shelf, Workspace, hash_tree
from servesync.plan.facts import Condition
from servesync.plan.versions import Layout, Model, ProvenBy, Release, StoredObject, Version
from servesync.settings import Settings

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
M = Model("m")


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A prepared models directory with the one model `m`."""
    workspace = Workspace(tmp_path / "models")
    workspace.claim()
    workspace.prepare([M])
    return workspace


def leave(workspace: Workspace, number: int, minutes: int = 0) -> None:
    """Publish a version, and let it leave for the reserve at a later time."""
    shelf = Shelf(workspace, M)
    item = StoredObject(f"m/{number}.tar.gz", 10, "e")
    with workspace.attempt() as tree:
        (tree / "saved_model.pb").write_text(f"graph {number}")
        release = Release(M, Version(number), Layout.ARCHIVE, (item,), f"id-{number}")
        record = shelf.publish(tree, release, Proven(hash_tree(tree), 7, ProvenBy.NOTHING, NOW))
    folder = shelf.path / str(number)
    Reserve(workspace, M).take(folder, Version(number), record, NOW + timedelta(minutes=minutes))
    shelf.forget(Version(number))


def test_a_version_leaves_and_comes_back_as_it_was(workspace: Workspace) -> None:
    """Off the shelf, sound, and on it again; the server has to confirm it anew."""
    reserve, shelf = Reserve(workspace, M), Shelf(workspace, M)
    leave(workspace, 1)
    assert shelf.inventory().versions == {}
    record = reserve.versions()[Version(1)]
    assert reserve.is_sound(Version(1), record)

    shelf.put_back(reserve.path / "1", Version(1), record)
    reserve.forget(Version(1))

    found = shelf.inventory().versions[Version(1)]
    assert (found.condition, found.confirmed, found.identity) == (Condition.GOOD, False, "id-1")
    assert (shelf.path / "1/saved_model.pb").read_text() == "graph 1"
    assert reserve.versions() == {}


def test_only_the_last_ones_are_kept(workspace: Workspace) -> None:
    """By the time at which they left, not by their number."""
    reserve = Reserve(workspace, M)
    for number, minutes in ((3, 0), (1, 2), (2, 1)):
        leave(workspace, number, minutes)

    assert set(reserve.trim(2)) == {3}
    assert set(reserve.versions()) == {1, 2}
    assert len(list(workspace.trash.iterdir())) == 1


def test_what_has_changed_in_the_reserve_is_not_sound(workspace: Workspace) -> None:
    """A touched file is read again, a changed one is not good enough."""
    reserve = Reserve(workspace, M)
    leave(workspace, 1)
    record = reserve.versions()[Version(1)]
    file = reserve.path / "1/saved_model.pb"
    file.touch()
    assert reserve.is_sound(Version(1), record)

    file.write_text("graph X")
    assert not reserve.is_sound(Version(1), record)


def test_an_occupied_number_is_left_alone(workspace: Workspace) -> None:
    """Somebody put a directory there meanwhile."""
    reserve, shelf = Reserve(workspace, M), Shelf(workspace, M)
    leave(workspace, 1)
    (shelf.path / "1").mkdir()

    with pytest.raises(DiskError) as caught:
        shelf.put_back(reserve.path / "1", Version(1), reserve.versions()[Version(1)])

    assert caught.value.reason is Reason.VERSION_THERE
    assert shelf.inventory().versions[Version(1)].condition is Condition.FOREIGN
    assert (reserve.path / "1/saved_model.pb").exists()


def test_what_a_crash_leaves_is_cleared_up(workspace: Workspace) -> None:
    """A directory without a record, and a record without a directory, count for nothing and go."""
    reserve = Reserve(workspace, M)
    leave(workspace, 1)
    leave(workspace, 2)
    (reserve.path / "3").mkdir()
    (reserve.path / "1").rename(workspace.trash / "gone")
    assert set(reserve.versions()) == {2}

    reserve.clean()

    assert [path.name for path in reserve.path.iterdir()] == ["2"]
    assert set(reserve.versions()) == {2}


def aside(workspace: Workspace, number: int) -> Release:
    """Set a staged version aside, which never was on the shelf."""
    item = StoredObject(f"m/{number}.tar.gz", 10, "e")
    release = Release(M, Version(number), Layout.ARCHIVE, (item,), f"id-{number}")
    with workspace.attempt() as tree:
        (tree / "saved_model.pb").write_text(f"graph {number}")
        Reserve(workspace, M).set_aside(tree, release, Proven(hash_tree(tree), 7, ProvenBy.NOTHING, NOW))
    return release


def test_a_version_that_was_set_aside_comes_by_a_rename(workspace: Workspace) -> None:
    """Sound without being read again, and never on the shelf before."""
    reserve, shelf = Reserve(workspace, M), Shelf(workspace, M)
    aside(workspace, 4)
    assert shelf.inventory().versions == {}
    assert shelf.inventory().orphaned == {}
    record = reserve.versions()[Version(4)]
    assert record.tensor_bytes == 7
    assert reserve.is_sound(Version(4), record)

    shelf.put_back(reserve.path / "4", Version(4), record)
    reserve.forget(Version(4))

    found = shelf.inventory().versions[Version(4)]
    assert (found.condition, found.confirmed, found.identity) == (Condition.GOOD, False, "id-4")


def test_setting_aside_replaces_an_older_one_of_the_same_number(workspace: Workspace) -> None:
    """The release has changed in the store."""
    aside(workspace, 4)
    aside(workspace, 4)

    assert set(Reserve(workspace, M).versions()) == {4}
    assert len(list(workspace.trash.iterdir())) == 1


def test_what_is_awaited_does_not_make_way_for_what_left(workspace: Workspace) -> None:
    """However few are kept: its model may have no other."""
    reserve = Reserve(workspace, M)
    aside(workspace, 4)
    leave(workspace, 1, minutes=1)
    leave(workspace, 2, minutes=2)

    assert set(reserve.trim(1, spare={Version(4)})) == {1}
    assert set(reserve.trim(0, spare={Version(4)})) == {2}
    assert set(reserve.versions()) == {4}


def test_a_look_reads_a_record_of_the_reserve_once(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It names every file of its version; an agent of many models does little else than read records."""
    leave(workspace, 1)
    settings = {
        "store": {"url": "s3://bucket", "endpoint_url": "http://127.0.0.1:9", "region": "us-east-1"},
        "serving": {"models_dir": str(workspace.models_dir), "rest_url": None},
        "models": [{"name": M}],
    }
    observer = build_observer(Settings.model_validate(settings))
    read: list[str] = []
    real = disk.read_file

    def read_file(path: Path, most_bytes: int) -> bytes:
        read.append(path.parent.parent.name)
        return real(path, most_bytes)

    monkeypatch.setattr(disk, "read_file", read_file)

    view = observer.look(ask_store=False).models[M]

    assert view.facts.reserve.keys() == {1}
    assert read.count("reserve_records") == 1
