"""Free space is counted once, however many transfers write at the same time."""

import os
import threading
from pathlib import Path

import pytest

from servesync import disk
from servesync.domain.versions import Layout, Model, Release, StoredObject, Version
from servesync.errors import DiskError, Reason, Stopped
from servesync.install import Workspace
from servesync.settings import Limits
from servesync.transfer.disk_guard import DiskGuard, SpaceNeeded, needed_by

LIMITS = Limits(disk_reserve_bytes=100, disk_reserve_inodes=10)


class Disk:
    """A filesystem with so much left."""

    def __init__(self, size: int = 1000, inodes: int | None = 1000) -> None:
        self.size = size
        self.inodes = inodes

    def free_bytes(self, _: Path) -> int:
        """Return the bytes that are free."""
        return self.size

    def free_inodes(self, _: Path) -> int | None:
        """Return the inodes that are free; None where they are not counted."""
        return self.inodes


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch) -> Disk:
    """A disk of 1,000 bytes and inodes."""
    found = Disk()
    monkeypatch.setattr(disk, "free_bytes", found.free_bytes)
    monkeypatch.setattr(disk, "free_inodes", found.free_inodes)
    return found


@pytest.fixture
def guard(tmp_path: Path) -> DiskGuard:
    """The guard of one models directory."""
    return DiskGuard(Workspace(tmp_path))


def none(_: DiskError) -> bool:
    """Have no room to make."""
    return False


def test_two_transfers_do_not_count_the_same_bytes(there: Disk, guard: DiskGuard) -> None:
    """The second one is told what is spoken for; when the first has ended, there is room for it."""
    with guard.reserve(SpaceNeeded(500), LIMITS, none):
        with (
            pytest.raises(DiskError, match="500 of them for other transfers") as caught,
            guard.reserve(SpaceNeeded(401), LIMITS, none),
        ):
            pass
        assert caught.value.reason is Reason.DISK_FULL
        assert caught.value.facts == {"free_bytes": 1000, "needed_bytes": 1001}
        with guard.reserve(SpaceNeeded(400), LIMITS, none):
            pass
    with guard.reserve(SpaceNeeded(900), LIMITS, none):
        pass


def test_nor_the_same_inodes(there: Disk, guard: DiskGuard) -> None:
    """And a filesystem that does not count them is never short of them."""
    with guard.reserve(SpaceNeeded(0, 500), LIMITS, none):
        with pytest.raises(DiskError) as caught, guard.reserve(SpaceNeeded(0, 491), LIMITS, none):
            pass
        assert caught.value.reason is Reason.DISK_INODES
        there.inodes = None
        with guard.reserve(SpaceNeeded(0, 5000), LIMITS, none):
            pass


def test_what_was_written_is_not_reserved_any_more(there: Disk, guard: DiskGuard) -> None:
    """It is no longer free, so it would count twice."""
    with guard.reserve(SpaceNeeded(500, 50), LIMITS, none) as mine:
        mine.wrote(300, 20)
        there.size = 700
        assert mine.left == SpaceNeeded(200, 30)
        mine.check()
        with guard.reserve(SpaceNeeded(400), LIMITS, none):
            pass
        mine.wrote(900, 90)  # an archive unpacks to more than it has
        assert mine.left == SpaceNeeded()


def test_who_came_last_is_short_first(there: Disk, guard: DiskGuard) -> None:
    """Something else takes space: the older transfer goes on."""
    with (
        guard.reserve(SpaceNeeded(400), LIMITS, none) as old,
        guard.reserve(SpaceNeeded(400), LIMITS, none) as new,
    ):
        there.size = 600

        old.check()
        with pytest.raises(DiskError, match="400 of them for other transfers"):
            new.check()


def test_room_is_asked_for_until_it_suffices(there: Disk, guard: DiskGuard) -> None:
    """Before the first byte, and while it writes."""
    asked = []

    def room(short: DiskError) -> bool:
        asked.append(short.reason)
        there.size += 100
        return True

    with guard.reserve(SpaceNeeded(1050), LIMITS, room) as mine:
        assert asked == [Reason.DISK_FULL] * 2
        there.size -= 51
        mine.check()
        assert len(asked) == 3


def test_a_cancelled_wait_reserves_nothing(there: Disk, guard: DiskGuard) -> None:
    """Nor does an error that ends the transfer."""

    def room(_: DiskError) -> bool:
        raise Stopped

    with pytest.raises(Stopped), guard.reserve(SpaceNeeded(5000), LIMITS, room):
        pass
    with pytest.raises(ZeroDivisionError), guard.reserve(SpaceNeeded(800), LIMITS, none):
        raise ZeroDivisionError
    with guard.reserve(SpaceNeeded(900), LIMITS, none):
        pass


def test_many_threads_are_given_no_more_than_there_is(there: Disk, guard: DiskGuard) -> None:
    """Each wants a third of what is free: three get it, all others are told that there is none."""
    most, held, told = 24, threading.Barrier(24), []

    def work() -> None:
        held.wait()
        try:
            with guard.reserve(SpaceNeeded(300), LIMITS, none):
                held.wait()
        except DiskError:
            told.append(1)
            held.wait()

    threads = [threading.Thread(target=work) for _ in range(most)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(told) == most - 3


def test_a_directory_tells_its_files_and_folders() -> None:
    """Each is an inode, besides those that servesync needs itself."""
    items = tuple(
        StoredObject(f"m/1/{path}", 10, "e", path)
        for path in ("saved_model.pb", "variables/variables.index", "variables/variables.data-00000-of-00001")
    )
    release = Release(Model("m"), Version(1), Layout.DIRECTORY, items, "i")

    found = needed_by(release, None, LIMITS)

    assert found == SpaceNeeded(30, 3 + 2 + 8)


def test_a_real_filesystem_answers(tmp_path: Path, guard: DiskGuard) -> None:
    """What is asked of it is there."""
    (tmp_path / ".servesync/staging").mkdir(parents=True)
    free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize

    with guard.reserve(SpaceNeeded(1, 1), Limits(disk_reserve_bytes=0, disk_reserve_inodes=0), none) as mine:
        mine.check()
    with (
        pytest.raises(DiskError),
        guard.reserve(SpaceNeeded(free * 2), Limits(disk_reserve_bytes=0, disk_reserve_inodes=0), none),
    ):
        pass
