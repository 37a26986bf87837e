"""What an agent makes of documents in the store when its own disk refuses."""

import errno
import os
from pathlib import Path

import pytest

from servesync import channel, disk
from servesync.channel import Withdrawal
from servesync.daemon.channels import Notices, Withdrawn
from servesync.install import Refusals, Workspace
from servesync.plan.versions import Layout, Model, Release, StoredObject, Version

M = Model("m")


def withdrawal(number: int) -> bytes:
    """Return a sound withdrawal."""
    at = "2026-01-02T03:04:05Z"
    return channel.dump(Withdrawal(model=M, version=number, time=at, who="me", reason="wrong data"))


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
    notices = Notices(workspace, lambda item: documents[item.key], durable=True)

    def refuse(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(disk, "write_file", refuse)
        for _ in range(2):
            with pytest.raises(OSError, match="No space"):
                notices.look_for_withdrawals(M, releases, offered, refusals)
        assert notices.withdrawn(M, offered, refusals) == {1, 2}
        assert refusals.withdrawn(offered) == {}

    notices.look_for_withdrawals(M, releases, offered, refusals)

    assert refusals.withdrawn(offered).keys() == {1, 2}
    assert [(type(news), news.version) for news in notices.news if isinstance(news, Withdrawn)] == [
        (Withdrawn, 1),
        (Withdrawn, 2),
    ]
