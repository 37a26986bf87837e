"""What an agent makes of documents in the store when its own disk refuses."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from agent_parts import run_job
from servesync import disk
from servesync.agent.channels import Moved, StoreDocuments, Withdrawn
from servesync.agent.documents import DocumentReader
from servesync.domain import channel
from servesync.domain.channel import Entry, Withdrawal
from servesync.domain.versions import Layout, Model, Release, StoredObject, Version
from servesync.errors import Reason
from servesync.install import Position, Positions, Refusals, Workspace

M = Model("m")


def withdrawal(number: int) -> bytes:
    """Return a sound withdrawal."""
    at = "2026-01-02T03:04:05Z"
    return channel.dump(Withdrawal(model=M, version=number, time=at, who="me", reason="wrong data"))


def refuse(path: Path, data: bytes) -> None:
    """Refuse to write, as a full disk does."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def reading(read: Callable[[StoredObject], bytes]) -> DocumentReader:
    """Return documents that jobs read so."""
    return DocumentReader(lambda item, _: read(item))


def let_read(store_documents: StoreDocuments) -> None:
    """Let all jobs that read a document run."""
    while jobs := store_documents.documents.jobs():
        for job in jobs:
            ended = run_job(job)
            assert ended.error is None
            store_documents.documents.ended(job, ended.result, None)


def follow(store_documents: StoreDocuments, item: StoredObject) -> None:
    """Take over where `stable` stands by a new listing, as soon as the document is read."""
    store_documents.documents.listed()
    store_documents.follow(M, ["stable"], {"stable": item})
    let_read(store_documents)
    store_documents.follow(M, ["stable"], {"stable": item})


def at(number: int) -> tuple[StoredObject, bytes]:
    """Return the object of a channel that stands at a version, and what it says."""
    entry = Entry(Version(number), "promote", "2026-01-02T03:04:05Z", "me", "")
    data = channel.dump(channel.moved(None, M, "stable", entry, after=number))
    return StoredObject("m/channels/stable.json", len(data), f"e{number}"), data


def test_a_full_disk_holds_no_channel_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rollback is in force at once, and recorded as soon as the disk takes it."""
    workspace = Workspace(tmp_path / "models")
    workspace.claim()
    documents: dict[str, bytes] = {}
    store_documents = StoreDocuments(workspace, reading(lambda item: documents[item.etag]), durable=True)
    for number in (7, 8):
        item, documents[item.etag] = at(number)
        with monkeypatch.context() as patch:
            patch.setattr(disk, "write_file", refuse)
            for _ in range(2):
                with pytest.raises(OSError, match="No space"):
                    follow(store_documents, item)
            assert store_documents.positions(M) == {"stable": number}
            assert StoreDocuments(workspace, reading(lambda _: b"")).positions(M) != {"stable": number}
        follow(store_documents, item)
        kept = Positions(workspace, M).read()["stable"]
        assert isinstance(kept, Position)
        assert kept.version == number
    assert [event.now.version for event in store_documents.events if isinstance(event, Moved)] == [7, 8]


def test_a_full_disk_hides_no_withdrawal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It counts at once, is said once, and is recorded as soon as the disk takes it."""
    workspace = Workspace(tmp_path / "models")
    workspace.claim()
    workspace.prepare([M])
    documents = {f"m/{number}.manifest.json": withdrawal(number) for number in (1, 2)}
    releases = [
        Release(M, Version(number), Layout.ARCHIVE, (item,), f"id-{number}", document)
        for number in (1, 2)
        for item in [StoredObject(f"m/{number}.tar.gz", 10, "e")]
        for document in [StoredObject(f"m/{number}.manifest.json", 200, "w")]
    ]
    offered = {release.version: release for release in releases}
    refusals = Refusals(workspace.refusals(M), "judge")
    store_documents = StoreDocuments(workspace, reading(lambda item: documents[item.key]), durable=True)

    store_documents.look_for_withdrawals(M, releases, offered, refusals)
    assert store_documents.withdrawn(M, offered, refusals) == set()
    let_read(store_documents)

    with monkeypatch.context() as patch:
        patch.setattr(disk, "write_file", refuse)
        for _ in range(2):
            with pytest.raises(OSError, match="No space"):
                store_documents.look_for_withdrawals(M, releases, offered, refusals)
        assert store_documents.withdrawn(M, offered, refusals) == {1, 2}
        assert refusals.withdrawn(offered) == {}

    store_documents.look_for_withdrawals(M, releases, offered, refusals)

    assert refusals.withdrawn(offered).keys() == {1, 2}
    assert [
        (type(event), event.version) for event in store_documents.events if isinstance(event, Withdrawn)
    ] == [
        (Withdrawn, 1),
        (Withdrawn, 2),
    ]


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A models directory with the one model `m`."""
    workspace = Workspace(tmp_path / "models")
    workspace.claim()
    workspace.prepare([M])
    return workspace


def test_an_older_channel_is_not_taken_for_want_of_a_readable_position(workspace: Workspace) -> None:
    """Nobody can tell how old it is: nothing moves, people are told, and a mended record ends it."""
    (first, older), (second, later) = at(1), at(2)
    documents = {first.etag: older, second.etag: later}

    def start() -> StoreDocuments:
        return StoreDocuments(workspace, reading(lambda item: documents[item.etag]), durable=True)

    follow(start(), second)
    path = workspace.root / "channels/m/stable.json"
    good = path.read_text()
    path.write_text(good[:20])
    store_documents = start()

    follow(store_documents, first)

    assert store_documents.positions(M) == {}
    assert store_documents.errors[M, "stable"].reason is Reason.RECORD_UNREADABLE
    assert str(path) in store_documents.unreadable(M)["stable"]
    assert path.read_text() == good[:20]

    path.write_text(good)
    follow(store_documents, first)

    assert store_documents.errors[M, "stable"].reason is Reason.CHANNEL_WENT_BACK
    assert store_documents.positions(M) == {"stable": 2}
    assert store_documents.unreadable(M) == {}


def test_a_removed_position_lets_the_stores_count(workspace: Workspace) -> None:
    """That is the operator's way out, which the message names."""
    item, data = at(1)
    path = workspace.root / "channels/m/stable.json"
    path.parent.mkdir()
    path.write_text("")
    store_documents = StoreDocuments(workspace, reading(lambda _: data), durable=True)
    follow(store_documents, item)
    assert store_documents.positions(M) == {}
    assert "remove the record" in store_documents.unreadable(M)["stable"]

    path.unlink()
    follow(store_documents, item)

    assert store_documents.positions(M) == {"stable": 1}
