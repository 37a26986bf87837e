"""The reserve: versions that left the shelf, complete, and back in one rename."""

import json
from datetime import timedelta
from pathlib import Path

import pytest

from install_box import NOW, M, attempt, publish, release_of, sealed
from servesync.domain.versions import Release, Version
from servesync.errors import DiskError, Reason
from servesync.install import Leaving, Reserve, Shelf, Workspace
from servesync.planning.facts import Condition


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
    release = release_of(number, f"id-{number}")
    record = publish(workspace, release, {"saved_model.pb": f"graph {number}"})
    folder = shelf.path / str(number)
    Reserve(workspace, M).take(folder, Version(number), record, NOW + timedelta(minutes=minutes))
    shelf.forget(Version(number))


def test_a_version_leaves_and_comes_back_as_it_was(workspace: Workspace) -> None:
    """Off the shelf, sound, and on it again; the server has to confirm it anew."""
    reserve, shelf = Reserve(workspace, M), Shelf(workspace, M)
    leave(workspace, 1)
    assert shelf.inventory().versions == {}
    record = reserve.versions()[Version(1)]
    assert reserve.stamps_match(Version(1), record)

    shelf.put_back(reserve.path / "1", Version(1), record)
    reserve.forget(Version(1))

    found = shelf.inventory().versions[Version(1)]
    assert (found.condition, found.confirmed, found.identity) == (Condition.GOOD, False, "id-1")
    assert (shelf.path / "1/saved_model.pb").read_text() == "graph 1"
    assert reserve.versions() == {}


@pytest.mark.parametrize("served", [True, False])
def test_what_has_served_is_known_to_have_served_when_it_is_back(
    workspace: Workspace, *, served: bool
) -> None:
    """Twice there and back: it still has to be AVAILABLE anew, and a rollback waits for no request."""
    reserve, shelf, version = Reserve(workspace, M), Shelf(workspace, M), Version(1)
    publish(workspace, release_of(1, "id-1"), {"saved_model.pb": "graph"})
    if served:
        shelf.confirm(version)
    for _ in range(2):
        record = shelf.record(version)
        assert record is not None
        reserve.take(shelf.path / "1", version, record, NOW)
        shelf.forget(version)
        shelf.put_back(reserve.path / "1", version, reserve.versions()[version])
        reserve.forget(version)

    found = shelf.inventory().versions[version]
    assert (found.confirmed, found.has_served) == (False, served)


def test_only_the_last_ones_are_kept(workspace: Workspace) -> None:
    """By the time at which they left, not by their number."""
    reserve = Reserve(workspace, M)
    for number, minutes in ((3, 0), (1, 2), (2, 1)):
        leave(workspace, number, minutes)

    assert set(reserve.trim(2)) == {3}
    assert set(reserve.versions()) == {1, 2}
    assert len(list(workspace.trash.iterdir())) == 1


def test_what_was_touched_in_the_reserve_is_not_as_it_was_proven(workspace: Workspace) -> None:
    """Nor is a version that is gone: it does not come back, and is fetched again."""
    reserve = Reserve(workspace, M)
    leave(workspace, 1)
    record = reserve.versions()[Version(1)]
    assert reserve.stamps_match(Version(1), record)

    (reserve.path / "1/saved_model.pb").touch()
    assert not reserve.stamps_match(Version(1), record)

    (reserve.path / "1").rename(workspace.trash / "gone")
    assert not reserve.stamps_match(Version(1), record)


def test_for_whom_a_version_left_is_known_until_it_is_back(workspace: Workspace) -> None:
    """It may always come back if its successor does not come; kept or on the shelf it is as any other."""
    reserve, shelf = Reserve(workspace, M), Shelf(workspace, M)
    record = publish(workspace, release_of(1))
    reserve.take(shelf.path / "1", Version(1), record, NOW, why=Leaving(retired_for=Version(2)))
    left = reserve.versions()[Version(1)]
    assert (left.retired_for, left.returning) == (2, False)

    assert shelf.put_back(reserve.path / "1", Version(1), left).retired_for is None
    reserve.take(shelf.path / "1", Version(1), left, NOW, why=Leaving(retired_for=Version(2)))
    reserve.keep(Version(1))
    assert reserve.versions()[Version(1)].retired_for is None
    reserve.drop(Version(1))
    assert reserve.versions() == {}


def test_a_record_of_0_1_0_is_read_as_before(workspace: Workspace) -> None:
    """It does not say for whom its version left."""
    leave(workspace, 1)
    path = workspace.root / "reserve_records/m/1.json"
    old = json.loads(path.read_text())
    del old["retired_for"]
    path.write_text(json.dumps(old))

    assert Reserve(workspace, M).versions()[Version(1)].retired_for is None
    assert Reserve(workspace, M).unreadable() == {}


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
    release = release_of(number, f"id-{number}")
    with attempt(workspace) as tree:
        proof = sealed(tree, release, {"saved_model.pb": f"graph {number}"})
        Reserve(workspace, M).set_aside(tree, release, proof)
    return release


def test_a_version_that_was_set_aside_comes_by_a_rename(workspace: Workspace) -> None:
    """Sound without being read again, and never on the shelf before."""
    reserve, shelf = Reserve(workspace, M), Shelf(workspace, M)
    aside(workspace, 4)
    assert shelf.inventory().versions == {}
    assert shelf.inventory().orphaned == {}
    record = reserve.versions()[Version(4)]
    assert record.tensor_bytes == 7
    assert reserve.stamps_match(Version(4), record)

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
