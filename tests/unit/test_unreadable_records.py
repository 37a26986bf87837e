"""Records that are there and cannot be read: only "no such file" means that there is none."""

import errno
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from install_box import NOW, M, proven, publish, release_of
from servesync import disk
from servesync.domain.versions import Version
from servesync.errors import DiskError, Reason
from servesync.install import Positions, Record, Refusals, Reserve, Shelf, Unreadable, Workspace
from servesync.planning.facts import Condition

ONE = Version(1)
DAMAGED = {"empty": "it is damaged", "truncated": "it is damaged", "other": "it is damaged"}
REPLACEABLE = DAMAGED | {
    "newer": r"written by a newer servesync \(schema_version 7, this one reads 1\)",
    "empty directory": "it is a directory",
    "link": "it is a symbolic link",
    "pipe": "it is a pipe, not a regular file",
}
LEFT = {
    "full directory": "move .*1.json away",
    "EIO": "Input/output error",
    "EACCES": "Permission denied",
}
Spoil = Callable[[Path, str], None]


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A prepared models directory with the one model `m`."""
    workspace = Workspace(tmp_path / "models")
    workspace.claim()
    workspace.prepare([M])
    return workspace


@pytest.fixture
def spoil(monkeypatch: pytest.MonkeyPatch) -> Iterator[Spoil]:
    """Makes a record unreadable in one of the ways above."""
    with monkeypatch.context() as patch:
        yield lambda path, kind: _spoil(path, kind, patch)


def _spoil(path: Path, kind: str, patch: pytest.MonkeyPatch) -> None:
    text = path.read_text()
    if kind in {"EIO", "EACCES"}:
        _refuse_to_read(path, getattr(errno, kind), patch)
        return
    path.unlink()
    match kind:
        case "empty" | "truncated" | "other":
            path.write_text({"empty": "", "truncated": text[:40], "other": '{"a": [1]}'}[kind])
        case "newer":
            path.write_text(json.dumps(json.loads(text) | {"schema_version": 7}))
        case "empty directory" | "full directory":
            path.mkdir()
            if kind == "full directory":
                (path / "somebody's").write_text("x")
        case "link":
            path.with_suffix(".elsewhere").write_text(text)
            path.symlink_to(path.with_suffix(".elsewhere"))
        case _:
            os.mkfifo(path)


def _refuse_to_read(path: Path, number: int, patch: pytest.MonkeyPatch) -> None:
    real = disk.read_file

    def read_file(asked: Path, most_bytes: int) -> bytes:
        if asked == path:
            raise OSError(number, os.strerror(number), str(path))
        return real(asked, most_bytes)

    patch.setattr(disk, "read_file", read_file)


def state(path: Path) -> object:
    """Return what there is under a name, to see whether it was touched."""
    found = path.lstat()
    return found.st_ino, found.st_mode, found.st_mtime_ns


def put(workspace: Workspace, number: int) -> Shelf:
    """Publish a small tree as version `number`."""
    publish(workspace, release_of(number))
    return Shelf(workspace, M)


def adopt(shelf: Shelf) -> Record:
    """Take version 1 over, as one that is the store's to the byte."""
    proof = proven(shelf.path / "1")
    found = shelf.same_content(ONE, proof.content)
    assert found is not None
    return shelf.adopt(release_of(1), proof, found)


def leave(workspace: Workspace, number: int) -> Path:
    """Let a version leave the shelf for the reserve; return its record there."""
    shelf = put(workspace, number)
    record = shelf.record(Version(number))
    assert record is not None
    Reserve(workspace, M).take(shelf.path / str(number), Version(number), record, NOW)
    shelf.forget(Version(number))
    return workspace.root / f"reserve_records/m/{number}.json"


@pytest.mark.parametrize("kind", [*REPLACEABLE, *LEFT])
def test_a_version_of_the_reserve_outlives_its_record(workspace: Workspace, spoil: Spoil, kind: str) -> None:
    """Nobody knows what it was kept for: neither the start nor a fuller reserve removes it; it is named."""
    path = leave(workspace, 1)
    leave(workspace, 2)
    spoil(path, kind)
    before, reserve = state(path), Reserve(workspace, M)

    reserve.clean()

    assert set(reserve.versions()) == {2}
    assert set(reserve.trim(0)) == {2}
    assert (reserve.path / "1/saved_model.pb").read_text() == "graph"
    assert state(path) == before
    assert set(reserve.unreadable()) == {1}
    assert str(path) in reserve.unreadable()[ONE]


def test_without_a_record_a_directory_of_the_reserve_goes(workspace: Workspace) -> None:
    """That is what a crash leaves, and the only thing that counts as no record."""
    leave(workspace, 1).unlink()

    Reserve(workspace, M).clean()

    assert not (Reserve(workspace, M).path / "1").exists()
    assert Reserve(workspace, M).unreadable() == {}


@pytest.mark.parametrize("kind", [*REPLACEABLE, *LEFT])
def test_a_version_on_the_shelf_is_not_foreign_for_a_bad_record(
    workspace: Workspace, spoil: Spoil, kind: str
) -> None:
    """It was put there by servesync: what is wrong is said, with the record's name; nothing is touched."""
    shelf = put(workspace, 1)
    path = workspace.records(M) / "1.json"
    spoil(path, kind)
    before = state(path)

    found = shelf.inventory()
    shelf.write_refreshed(found)

    assert found.versions[ONE].condition is Condition.UNRECORDED
    assert found.unreadable.keys() == shelf.unrecorded() == {1}
    with pytest.raises(DiskError, match="cannot be read"):
        shelf.record(ONE)
    text = found.unreadable[ONE]
    assert str(path) in text
    assert re.search((REPLACEABLE | LEFT)[kind], text)
    assert found.blocking == (frozenset({1}) if kind in LEFT else frozenset())
    assert ("if it is wanted" in text) == (kind in REPLACEABLE)
    assert state(path) == before


@pytest.mark.parametrize("kind", REPLACEABLE)
def test_a_record_is_written_anew_when_the_bytes_are_the_stores(
    workspace: Workspace, spoil: Spoil, kind: str
) -> None:
    """As a foreign version is taken over; what a link led to is not touched."""
    shelf = put(workspace, 1)
    path = workspace.records(M) / "1.json"
    spoil(path, kind)

    adopt(shelf)

    assert shelf.inventory().versions[ONE].condition is Condition.GOOD
    assert path.is_file()
    assert not path.is_symlink()
    if kind == "link":
        assert path.with_suffix(".elsewhere").exists()


def test_a_directory_with_something_in_it_is_never_replaced(workspace: Workspace, spoil: Spoil) -> None:
    """It is somebody's: the record cannot be written, and says so; the shelf is untouched."""
    shelf = put(workspace, 1)
    path = workspace.records(M) / "1.json"
    spoil(path, "full directory")

    with pytest.raises(OSError, match="not empty") as caught:
        adopt(shelf)

    assert "move it away" in str(disk.describe(caught.value, "writing"))
    assert (path / "somebody's").read_text() == "x"
    assert (shelf.path / "1/saved_model.pb").read_text() == "graph"


@pytest.mark.parametrize("kind", LEFT)
def test_the_reserve_takes_nothing_over_a_record_that_may_be_read_later(
    workspace: Workspace, spoil: Spoil, kind: str
) -> None:
    """What lies there stays, and the version that was to come stays where it is."""
    spoil(leave(workspace, 1), kind)
    reserve, shelf = Reserve(workspace, M), put(workspace, 1)
    record = shelf.record(ONE)
    assert record is not None
    assert not reserve.is_free(ONE)

    with pytest.raises(DiskError) as caught:
        reserve.take(shelf.path / "1", ONE, record, NOW)

    assert caught.value.reason is Reason.RECORD_UNREADABLE
    assert (reserve.path / "1/saved_model.pb").exists()
    assert (shelf.path / "1/saved_model.pb").exists()
    assert list(workspace.trash.iterdir()) == []


@pytest.mark.parametrize("kind", [*REPLACEABLE, *LEFT])
def test_an_unreadable_refusal_refuses(workspace: Workspace, spoil: Spoil, kind: str) -> None:
    """What it kept away may end the server: it does not come again because of a bad sector."""
    refusals = Refusals(workspace.refusals(M), "judge")
    refusals.remember(ONE, "id-1", Reason.SERVER_REFUSED, "DATA_LOSS", NOW)
    spoil(workspace.refusals(M) / "1.json", kind)
    offered = {ONE: release_of(1), Version(2): release_of(2)}

    holds = refusals.holds(offered, set())

    assert set(holds) == {1}
    assert holds[ONE].reason is Reason.RECORD_UNREADABLE
    assert "servesync retry" in holds[ONE].text


@pytest.mark.parametrize("kind", [*REPLACEABLE, *LEFT])
def test_a_damaged_refusal_ends_as_any_other(workspace: Workspace, spoil: Spoil, kind: str) -> None:
    """Written anew for what is offered now, by this judge; one that may be read later stays as it is."""
    path = workspace.refusals(M) / "1.json"
    refusals = Refusals(workspace.refusals(M), "judge")
    refusals.remember(ONE, "id-0", Reason.ARCHIVE_RATIO, "too dense", NOW)
    spoil(path, kind)
    before, offered = state(path), {ONE: release_of(1)}

    refusals.replace_damaged(offered, NOW)

    assert refusals.holds(offered, set())[ONE].reason is Reason.RECORD_UNREADABLE
    changed = {ONE: release_of(1, "id-2")}
    if kind in LEFT or kind == "newer":
        assert state(path) == before
        assert set(refusals.holds(changed, set())) == {1}
    else:
        assert refusals.unreadable() == {}
        assert refusals.holds(changed, set()) == {}
        assert Refusals(workspace.refusals(M), "other").holds(offered, set()) == {}


@pytest.mark.parametrize("kind", REPLACEABLE)
def test_an_operator_lifts_an_unreadable_refusal(workspace: Workspace, spoil: Spoil, kind: str) -> None:
    """`retry` says what it found, and the version may come again."""
    refusals = Refusals(workspace.refusals(M), "")
    refusals.remember(ONE, "id-1", Reason.ARCHIVE_RATIO, "too dense", NOW)
    spoil(workspace.refusals(M) / "1.json", kind)

    assert "record_unreadable" in refusals.lift(ONE)

    assert refusals.holds({ONE: release_of(1)}, set()) == {}
    assert refusals.lift(ONE) == ""


def test_only_the_name_of_a_record_is_one(workspace: Workspace) -> None:
    """What else lies in the folder counts for nothing, whatever number it begins with."""
    shelf = put(workspace, 1)
    (workspace.records(M) / "2").write_text("{}")
    (workspace.records(M) / "03.json").write_text("{}")

    assert set(shelf.records()) == {1}
    assert shelf.inventory().unreadable == {}


def test_what_dies_while_it_writes_a_position_is_cleared_up(workspace: Workspace) -> None:
    """As with every other kind of record."""
    folder = workspace.root / "channels/m"
    folder.mkdir()
    (folder / ".stable.json.new").write_text("{")

    assert workspace.clean() == []

    assert list(folder.iterdir()) == []


def test_an_unreadable_position_is_no_position(workspace: Workspace) -> None:
    """It is told apart from none."""
    folder = workspace.root / "channels/m"
    folder.mkdir()
    (folder / "stable.json").write_text('{"schema_version": 2, "version": 1, "sequence": 9}')

    found = Positions(workspace, M).read()["stable"]

    assert isinstance(found, Unreadable)
    assert "newer servesync" in found.why
