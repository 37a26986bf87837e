"""Keeps space and inodes of the filesystem free, while several transfers write to it at once."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from servesync import disk
from servesync.domain.manifest import Manifest
from servesync.domain.versions import Release
from servesync.errors import DiskError, Reason, ReleaseRefused
from servesync.install import Workspace
from servesync.settings import Limits

OWN_INODES: Final = 8
"""Staging's own directories, and a record with its temporary file."""

MakeRoom = Callable[[DiskError], bool]
"""Asks the agent to free space; returns whether more may be free now."""


@dataclass(frozen=True, slots=True)
class SpaceNeeded:
    """What unpacking a release takes from the filesystem."""

    bytes: int = 0
    inodes: int = 0


def needed_by(release: Release, found: Manifest | None, limits: Limits) -> SpaceNeeded:
    """Return what unpacking takes, by the manifest or a directory's listing; else the least that it can be.

    Raises:
        ReleaseRefused: `RELEASE_TOO_BIG`: it would be over `limits.max_unpacked_bytes`.
    """
    if found is None:
        paths = [item.path for item in release.objects if item.path]
        return SpaceNeeded(release.stored_bytes, _inodes(paths))
    if found.totals.bytes > limits.max_unpacked_bytes:
        text = (
            f"{release.model} {release.version} unpacks to {found.totals.bytes} bytes, more than "
            f"limits.max_unpacked_bytes ({limits.max_unpacked_bytes}); raise the limit if this size is right"
        )
        raise ReleaseRefused(Reason.RELEASE_TOO_BIG, text, unpacked_bytes=found.totals.bytes)
    return SpaceNeeded(found.totals.bytes, _inodes([file.path for file in found.files]))


def _inodes(paths: list[str]) -> int:
    folders = {folder for path in paths for folder in PurePosixPath(path).parents}
    return len(paths) + len(folders) + OWN_INODES


class Reservation:
    """What one transfer still needs of the filesystem; it shrinks as the transfer writes."""

    def __init__(self, guard: "DiskGuard", needed: SpaceNeeded, limits: Limits, make_room: MakeRoom) -> None:
        self.limits = limits
        self._guard = guard
        self._make_room = make_room
        self._bytes = needed.bytes
        self._inodes = needed.inodes
        self._lock = threading.Lock()

    @property
    def left(self) -> SpaceNeeded:
        """What is still to be written."""
        with self._lock:
            return SpaceNeeded(self._bytes, self._inodes)

    def wrote(self, size: int, inodes: int) -> None:
        """Note that so many bytes, files and directories have been written; any thread may call this."""
        with self._lock:
            self._bytes = max(0, self._bytes - size)
            self._inodes = max(0, self._inodes - inodes)

    def check(self) -> None:
        """Make sure that the rest still fits; ask the agent to free space if it does not.

        Raises:
            DiskError: `DISK_FULL`, `DISK_INODES`: it does not, and there is no room to be made.
            Stopped: the transfer was cancelled while it waited for room.
            OSError: the filesystem does not answer.
        """
        while (short := self._guard.shortage(self)) is not None:
            if not self._make_room(short):
                raise short


class DiskGuard:
    """The filesystem of one models directory: shelves, staging, reserve and trash all lie on it.

    Every transfer reserves what it still has to write, so that two of them never count on the same free
    bytes. When something else takes space meanwhile, the transfer that came last is short first.
    One guard serves one workspace for as long as the process runs; any thread may call it.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._lock = threading.Lock()
        self._reservations: list[Reservation] = []

    @contextmanager
    def reserve(self, needed: SpaceNeeded, limits: Limits, make_room: MakeRoom) -> Iterator[Reservation]:
        """Reserve space beside what must stay free, until the context ends.

        `make_room` is called as long as space is short, without any lock.

        Raises:
            DiskError: `DISK_FULL`, `DISK_INODES`: there is not enough, and no room to be made.
            Stopped: the transfer was cancelled while it waited for room.
            OSError: the filesystem does not answer.
        """
        mine = Reservation(self, needed, limits, make_room)
        while (short := self._admit(mine)) is not None:
            if not make_room(short):
                raise short
        try:
            yield mine
        finally:
            with self._lock:
                self._reservations.remove(mine)

    def shortage(self, mine: Reservation) -> DiskError | None:
        """Return the error if what is free does not suffice for `mine` and those that came before it."""
        with self._lock:
            return self._shortage(mine)

    def _admit(self, mine: Reservation) -> DiskError | None:
        """Enter a reservation, or return why there is no space for it."""
        with self._lock:
            short = self._shortage(mine)
            if short is None:
                self._reservations.append(mine)
            return short

    def _shortage(self, mine: Reservation) -> DiskError | None:
        workspace, limits, needed = self._workspace, mine.limits, mine.left
        others = [each.left for each in self._before(mine)]
        free, taken = disk.free_bytes(workspace.staging), sum(each.bytes for each in others)
        if free - taken - needed.bytes < limits.disk_reserve_bytes:
            text = (
                f"{free} bytes free under {workspace.models_dir}{_spoken_for(taken)}, but {needed.bytes} "
                f"are needed now and limits.disk_reserve_bytes ({limits.disk_reserve_bytes}) must stay free: "
                "make space"
            )
            least = taken + needed.bytes + limits.disk_reserve_bytes
            return DiskError(Reason.DISK_FULL, text, free_bytes=free, needed_bytes=least)
        inodes, used = disk.free_inodes(workspace.staging), sum(each.inodes for each in others)
        if inodes is not None and inodes - used - needed.inodes < limits.disk_reserve_inodes:
            text = (
                f"{inodes} inodes free under {workspace.models_dir}{_spoken_for(used)}, but {needed.inodes} "
                f"are needed now and limits.disk_reserve_inodes ({limits.disk_reserve_inodes}) must stay "
                "free: remove files, or make the filesystem anew with more (df -i)"
            )
            least = used + needed.inodes + limits.disk_reserve_inodes
            return DiskError(Reason.DISK_INODES, text, free_inodes=inodes, needed_inodes=least)
        return None

    def _before(self, mine: Reservation) -> list[Reservation]:
        found = self._reservations
        return found[: found.index(mine)] if mine in found else found


def _spoken_for(count: int) -> str:
    return f", {count} of them for other transfers" if count else ""
