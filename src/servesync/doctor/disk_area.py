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


def examine_disk(
    workspace: Workspace, models: Sequence[Model], limits: Limits, largest_bytes: int
) -> Iterator[Finding]:
    """Yield the findings on the models directory, from whether it exists to what is on the shelves.

    `largest_bytes`: the largest release that may have to fit.
    """
    root = workspace.models_dir
    place = next(place for place in (root, *root.parents) if place.exists())
    yield _models_dir(root)
    kind = examine_kind(place)
    if kind is not None:
        yield kind
    yield from _space(place, limits, largest_bytes)
    if not root.is_dir() or root.is_symlink():
        return
    yield from _owner(workspace)
    shelves = [workspace.shelf(model) for model in models]
    yield from _work(workspace.root if workspace.root.is_dir() else root, shelves)
    for model, shelf in zip(models, shelves, strict=True):
        yield from _shelf(workspace, model, shelf)


def _owner(workspace: Workspace) -> Iterator[Finding]:
    """Warn if the doctor runs as another user than the agent, who may have other rights."""
    try:
        owner = workspace.root.lstat().st_uid
    except OSError:
        return
    if owner != os.getuid():
        text = f"the workspace belongs to uid {owner}, and the doctor runs as uid {os.getuid()}"
        advice = "run it as the agent's user: what it tries here says nothing about another one"
        yield warn(Check.DISK_OWNER, text, advice)
    else:
        yield ok(Check.DISK_OWNER, f"the workspace belongs to this user (uid {owner})")


def _work(base: Path, shelves: Sequence[Path]) -> Iterator[Finding]:
    """Try what the agent does: write, sync, rename."""
    try:
        yield from try_sync(base)
    except OSError as error:
        yield _failed(Check.DISK_WRITE, disk.describe(error, f"writing to {base}"))
        return
    yield ok(Check.DISK_WRITE, f"{base} can be written")
    yield from try_renames(base, [shelf for shelf in shelves if shelf.is_dir()])


def _shelf(workspace: Workspace, model: Model, shelf: Path) -> Iterator[Finding]:
    if shelf.is_symlink() or (shelf.exists() and not shelf.is_dir()):
        advice = "it must be a directory of this filesystem: move it away, the agent makes it"
        yield fail(Check.DISK_SHELF, f"{shelf} is a link or a file", advice, model)
        return
    try:
        found = _inventory(Shelf(workspace, model))
    except OSError as error:
        yield _failed(Check.DISK_SHELF, disk.describe(error, f"reading {shelf}"), model)
        return
    foreign = [str(v) for v, item in found.versions.items() if item.condition is Condition.FOREIGN]
    damaged = [str(v) for v, item in found.versions.items() if item.condition is Condition.DAMAGED]
    if found.foreign_names:
        text = f"the server takes these names for versions: {_some([*map(ascii, found.foreign_names)])}"
        advice = f"move them out of {shelf}: only servesync should put numbers there"
        yield fail(Check.DISK_SHELF, text, advice, model)
    if foreign:
        text = f"not put there by servesync: {_some(foreign)}"
        advice = "they are served and never removed; the store's same bytes are taken over, else move them"
        yield warn(Check.DISK_SHELF, text, advice, model)
    if damaged:
        text = f"changed since they were installed: {_some(damaged)}"
        yield warn(Check.DISK_SHELF, text, "a running agent repairs them from the store", model)
    if found.unreadable:
        text = _some(list(found.unreadable.values()))
        yield warn(Check.DISK_SHELF, text, "`servesync plan` shows every record that cannot be read", model)
    if not (found.foreign_names or foreign or damaged or found.unreadable):
        yield ok(Check.DISK_SHELF, f"versions: {len(found.versions)}, all as installed", model)


def _inventory(shelf: Shelf) -> Inventory:
    """Read the shelf; read it once more if a running agent removes something meanwhile."""
    try:
        return shelf.reread()
    except FileNotFoundError:
        return shelf.reread()


def _failed(check: Check, error: DiskError, subject: str = "") -> Finding:
    """Return the finding for an error of the disk."""
    return fail(check, error.what, error.advice, subject)


def _models_dir(root: Path) -> Finding:
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


def _space(place: Path, limits: Limits, largest_bytes: int) -> Iterator[Finding]:
    """Yield whether a further version has room, in bytes and in inodes."""
    reserve, inodes = limits.disk_reserve_bytes, disk.free_inodes(place)
    free = disk.free_bytes(place) - reserve
    text = f"{_mb(free + reserve)} free, of which {_mb(reserve)} stay free"
    advice = "make room, give it a larger disk, or lower limits.disk_reserve_bytes"
    if free <= 0:
        yield fail(Check.DISK_SPACE, f"{text} (limits.disk_reserve_bytes): no version fits", advice)
    elif free < largest_bytes:
        said = f"{text}; the largest release has {_mb(largest_bytes)} packed"
        yield fail(Check.DISK_SPACE, said, advice)
    elif free < 2 * largest_bytes:
        said = f"{text}; the largest release has {_mb(largest_bytes)} packed, and more unpacked"
        yield warn(Check.DISK_SPACE, said, advice)
    else:
        yield ok(Check.DISK_SPACE, text)
    if inodes == 0:
        yield fail(Check.DISK_INODES, "no inode is free", "remove files, or make the filesystem with more")
    elif inodes is not None and inodes < SMALL_FILES:
        advice = "a version takes one for each of its files: make the filesystem with more"
        yield warn(Check.DISK_INODES, f"only {inodes} inodes are free", advice)
    elif inodes is not None:
        yield ok(Check.DISK_INODES, f"{inodes} inodes are free")


def _mb(number: int) -> str:
    return f"{number / 1e6:,.0f} MB"


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
