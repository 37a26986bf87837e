"""Keeps space and inodes of the filesystem free; the reserve gives way first."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from servesync import disk
from servesync.agent.observe import Observer
from servesync.errors import DiskError, Reason, ReleaseRefused
from servesync.install import Record, Reserve
from servesync.logs import Event, get_logger
from servesync.manifest import Manifest
from servesync.plan.versions import Release, Version

OWN_INODES = 8
"""Staging's own directories, and a record with its temporary file."""


@dataclass(frozen=True, slots=True)
class Needed:
    """What unpacking a release takes from the filesystem."""

    bytes: int = 0
    inodes: int = 0


def needed_by(release: Release, found: Manifest | None, max_unpacked_bytes: int) -> Needed:
    """Return what unpacking takes, by the manifest or a directory's listing; else the least that it can be.

    Raises:
        ReleaseRefused: it would be over `limits.max_unpacked_bytes`.
    """
    if found is None:
        paths = [item.path for item in release.objects if item.path]
        return Needed(release.stored_bytes, _inodes(paths))
    if found.totals.bytes > max_unpacked_bytes:
        text = (
            f"{release.model} {release.version} unpacks to {found.totals.bytes} bytes, more than "
            f"limits.max_unpacked_bytes ({max_unpacked_bytes}); raise the limit if this size is right"
        )
        raise ReleaseRefused(Reason.RELEASE_TOO_BIG, text, unpacked_bytes=found.totals.bytes)
    return Needed(found.totals.bytes, _inodes([file.path for file in found.files]))


def _inodes(paths: list[str]) -> int:
    folders = {folder for path in paths for folder in PurePosixPath(path).parents}
    return len(paths) + len(folders) + OWN_INODES


@dataclass(frozen=True)
class Space:
    """The filesystem of one models directory: shelves, staging, reserve and trash all lie on it."""

    observer: Observer

    def check(self, needed: Needed) -> None:
        """Make sure that `needed` fits beside what must stay free, by dropping from the reserve if need be.

        Raises:
            DiskError: it does not.
            OSError: the filesystem does not answer.
        """
        while (short := self._shortage(needed)) is not None:
            if not self._drop_from_reserve(short):
                raise short

    def _shortage(self, needed: Needed) -> DiskError | None:
        workspace, limits = self.observer.workspace, self.observer.settings.limits
        free = disk.free_bytes(workspace.staging)
        if free - needed.bytes < limits.disk_reserve_bytes:
            text = (
                f"{free} bytes free under {workspace.models_dir}, but {needed.bytes} are needed now and "
                f"limits.disk_reserve_bytes ({limits.disk_reserve_bytes}) must stay free: make space"
            )
            least = needed.bytes + limits.disk_reserve_bytes
            return DiskError(Reason.DISK_FULL, text, free_bytes=free, needed_bytes=least)
        inodes = disk.free_inodes(workspace.staging)
        if inodes is not None and inodes - needed.inodes < limits.disk_reserve_inodes:
            text = (
                f"{inodes} inodes free under {workspace.models_dir}, but {needed.inodes} are needed now and "
                f"limits.disk_reserve_inodes ({limits.disk_reserve_inodes}) must stay free: remove files, or "
                "make the filesystem anew with more (df -i)"
            )
            least = needed.inodes + limits.disk_reserve_inodes
            return DiskError(Reason.DISK_INODES, text, free_inodes=inodes, needed_inodes=least)
        return None

    def _drop_from_reserve(self, short: DiskError) -> bool:
        """Give up the version that has been in the reserve for longest; return whether there was one."""
        workspace = self.observer.workspace
        found = [
            (record.reserved_at or record.at, model, version)
            for model in self.observer.models
            for version, record in _in_reserve(Reserve(workspace, model)).items()
            if version not in self.observer.admission.awaited(model) and not record.returning
        ]
        if not found:
            return False
        _, model, version = min(found)
        Reserve(workspace, model).drop(version)
        problems = disk.empty_dir(workspace.trash)
        get_logger().warning(
            Event.RESERVE_GAVE_WAY,
            reason=short.reason,
            dropped=f"{model} {version}",
            because="space is needed" if short.reason is Reason.DISK_FULL else "inodes are needed",
        )
        return not problems


def _in_reserve(reserve: Reserve) -> Mapping[Version, Record]:
    """Return what may be given up; nothing if the records cannot be read, which each look reports."""
    try:
        return reserve.versions()
    except OSError:
        return {}
