"""Can the agent work in the models directory? Probes try it, beside a running agent, and are removed."""

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from servesync import disk
from servesync.doctor.findings import Check, Finding, fail, ok, warn
from servesync.doctor.mounts import examine_kind
from servesync.doctor.probes import try_renames, try_sync
from servesync.domain.versions import Model
from servesync.errors import DiskError
from servesync.install import Inventory, Shelf, Workspace
from servesync.planning.facts import Condition
from servesync.settings import Limits

SMALL_FILES: Final = 10_000
SHOWN: Final = 5


class DiskArea:
    """Examines the models directory, from whether it exists to what is on the shelves."""

    def __init__(self, workspace: Workspace, models: Sequence[Model], limits: Limits) -> None:
        self._workspace = workspace
        self._root = workspace.models_dir
        self._models = models
        self._limits = limits

    def examine(self, largest_bytes: int) -> Iterator[Finding]:
        """Yield what is found; `largest_bytes` is the largest release that may have to fit."""
        place = examine_models_dir(self._root)
        yield place
        kind = examine_kind(_existing(self._root))
        if kind is not None:
            yield kind
        yield from examine_space(_existing(self._root), self._limits, largest_bytes)
        if not self._root.is_dir() or self._root.is_symlink():
            return
        yield from self._owner()
        yield from self._work()
        for model in self._models:
            yield from self._shelf(model)

    def _owner(self) -> Iterator[Finding]:
        """Warn if the doctor runs as another user than the agent, who may have other rights."""
        try:
            owner = self._workspace.root.lstat().st_uid
        except OSError:
            return
        if owner != os.getuid():
            text = f"the workspace belongs to uid {owner}, and the doctor runs as uid {os.getuid()}"
            advice = "run it as the agent's user: what it tries here says nothing about another one"
            yield warn(Check.DISK_OWNER, text, advice)
        else:
            yield ok(Check.DISK_OWNER, f"the workspace belongs to this user (uid {owner})")

    def _work(self) -> Iterator[Finding]:
        """Try what the agent does: write, sync, rename."""
        base = self._workspace.root if self._workspace.root.is_dir() else self._root
        try:
            yield from try_sync(base)
        except OSError as error:
            yield failed(Check.DISK_WRITE, disk.describe(error, f"writing to {base}"))
            return
        yield ok(Check.DISK_WRITE, f"{base} can be written")
        shelves = [shelf for model in self._models if (shelf := self._workspace.shelf(model)).is_dir()]
        yield from try_renames(base, shelves)

    def _shelf(self, model: Model) -> Iterator[Finding]:
        shelf = self._workspace.shelf(model)
        if shelf.is_symlink() or (shelf.exists() and not shelf.is_dir()):
            advice = "it must be a directory of this filesystem: move it away, the agent makes it"
            yield fail(Check.DISK_SHELF, f"{shelf} is a link or a file", advice, model)
            return
        try:
            found = _inventory(Shelf(self._workspace, model))
        except OSError as error:
            yield failed(Check.DISK_SHELF, disk.describe(error, f"reading {shelf}"), model)
            return
        foreign = [str(v) for v, item in found.versions.items() if item.condition is Condition.FOREIGN]
        damaged = [str(v) for v, item in found.versions.items() if item.condition is Condition.DAMAGED]
        if found.strange:
            text = f"the server takes these names for versions: {_some([*map(ascii, found.strange)])}"
            advice = f"move them out of {shelf}: only servesync should put numbers there"
            yield fail(Check.DISK_SHELF, text, advice, model)
        if foreign:
            text = f"not put there by servesync: {_some(foreign)}"
            advice = (
                "they are served and never removed; the store's same bytes are taken over, else move them"
            )
            yield warn(Check.DISK_SHELF, text, advice, model)
        if damaged:
            text = f"changed since they were installed: {_some(damaged)}"
            yield warn(Check.DISK_SHELF, text, "a running agent repairs them from the store", model)
        if found.unreadable:
            text = _some(list(found.unreadable.values()))
            yield warn(
                Check.DISK_SHELF, text, "`servesync plan` shows every record that cannot be read", model
            )
        if not (found.strange or foreign or damaged or found.unreadable):
            yield ok(Check.DISK_SHELF, f"versions: {len(found.versions)}, all as installed", model)


def _inventory(shelf: Shelf) -> Inventory:
    """Read the shelf; read it once more if a running agent removes something meanwhile.

    Raises:
        OSError: the shelf cannot be read.
    """
    try:
        return shelf.reread()
    except FileNotFoundError:
        return shelf.reread()


def failed(check: Check, error: DiskError, subject: str = "") -> Finding:
    """Return the finding for an error of the disk."""
    return fail(check, error.what, error.advice, subject)


def examine_models_dir(root: Path) -> Finding:
    """Return the finding on the path `serving.models_dir`."""
    if root.is_symlink():
        advice = f"name the directory itself: serving.models_dir: {root.resolve()}"
        return fail(Check.DISK_MODELS_DIR, f"{root} is a symbolic link", advice)
    if root.is_dir():
        mode = stat.S_IMODE(root.stat().st_mode)
        return ok(Check.DISK_MODELS_DIR, f"{root} (uid {root.stat().st_uid}, mode {mode:o})")
    if root.exists():
        advice = "serving.models_dir must be a directory: correct it"
        return fail(Check.DISK_MODELS_DIR, f"{root} is no directory", advice)
    parent = root.parent
    if not parent.is_dir():
        advice = f"make {parent} (a volume that is not mounted?), or correct serving.models_dir"
        return fail(Check.DISK_MODELS_DIR, f"{root} is not there, and neither is {parent}", advice)
    if not os.access(parent, os.W_OK | os.X_OK):
        text = f"{root} is not there, and uid {os.getuid()} cannot make it in {parent}"
        return fail(Check.DISK_MODELS_DIR, text, f"make it, and give it to uid {os.getuid()}")
    advice = "the agent makes it; if a volume should be there, it is not mounted"
    return warn(Check.DISK_MODELS_DIR, f"{root} is not there yet", advice)


def examine_space(place: Path, limits: Limits, largest_bytes: int) -> Iterator[Finding]:
    """Yield whether a further version has room, in bytes and in inodes."""
    found = os.statvfs(place)
    free = found.f_bavail * found.f_frsize - limits.disk_reserve_bytes
    text = f"{_mb(found.f_bavail * found.f_frsize)} free, of which {_mb(limits.disk_reserve_bytes)} stay free"
    advice = "make room, give it a larger disk, or lower limits.disk_reserve_bytes"
    if found.f_bavail * found.f_frsize <= limits.disk_reserve_bytes:
        yield fail(Check.DISK_SPACE, f"{text} (limits.disk_reserve_bytes): no version fits", advice)
    elif free < largest_bytes:
        said = f"{text}; the largest release has {_mb(largest_bytes)} packed"
        yield fail(Check.DISK_SPACE, said, advice)
    elif free < 2 * largest_bytes:
        said = f"{text}; the largest release has {_mb(largest_bytes)} packed, and more unpacked"
        yield warn(Check.DISK_SPACE, said, advice)
    else:
        yield ok(Check.DISK_SPACE, text)
    if found.f_files and found.f_favail == 0:
        yield fail(Check.DISK_INODES, "no inode is free", "remove files, or make the filesystem with more")
    elif found.f_files and found.f_favail < SMALL_FILES:
        advice = "a version takes one for each of its files: make the filesystem with more"
        yield warn(Check.DISK_INODES, f"only {found.f_favail} inodes are free", advice)
    elif found.f_files:
        yield ok(Check.DISK_INODES, f"{found.f_favail} inodes are free")


def _existing(path: Path) -> Path:
    return next(place for place in (path, *path.parents) if place.exists())


def _mb(number: int) -> str:
    return f"{number / 1e6:,.0f} MB"


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
