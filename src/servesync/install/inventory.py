"""What lies on one model's shelf, found without changing anything and without reading what is in files."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from servesync import disk
from servesync.domain.versions import Model, Stamp, Version, parse_canonical, server_sees_version
from servesync.install import records
from servesync.install.content import stamps
from servesync.install.proof import UNREADABLE
from servesync.install.records import Record, Unreadable
from servesync.install.workspace import Workspace
from servesync.planning.facts import Condition, Shelved

LOST: Final = "if it is wanted, the same bytes in the store bring a new record; else move it away by hand"
LEFT: Final = (
    "nothing is done with it until the record can be read; if that never comes, remove the record: then the "
    "version is compared with the store's and taken over again"
)
NOT_INSTALLED: Final = ", and is not put there before the record can be read or removed"

Checked = dict[Version, tuple[Mapping[str, Stamp], bool]]
"""The stamps under which a version was last read whole, and whether it was as proven."""


@dataclass(frozen=True, slots=True)
class Inventory:
    """What is on the shelf, found without changing anything.

    `foreign_names`: names that the server takes for versions though servesync would never write them.
    `refreshed`: new records for those that are out of date; `Shelf.write_refreshed` writes them.
    `orphaned`: records of versions that are no longer on the shelf. `recorded`: those of the ones that are.
    `unreadable`: what to say of records that are there and cannot be read; of those in `blocking` nothing new
    may take the place, so their versions are left as they are, or away. `to_check`: the records of the
    versions that must be read whole before anything is known of them. `is_missing`: the base path is not
    there; somebody removed it, with all versions in it.
    """

    versions: Mapping[Version, Shelved]
    foreign_names: tuple[str, ...] = ()
    refreshed: Mapping[Version, Record] = field(default_factory=dict)
    orphaned: Mapping[Version, Record] = field(default_factory=dict)
    recorded: Mapping[Version, Record] = field(default_factory=dict)
    unreadable: Mapping[Version, str] = field(default_factory=dict)
    blocking: frozenset[Version] = frozenset()
    to_check: Mapping[Version, Record] = field(default_factory=dict)
    is_missing: bool = False


def take_inventory(workspace: Workspace, model: Model, checked: Checked) -> Inventory:
    """Return what is on the shelf of a model, compared with its records; see `Shelf.inventory`.

    Raises:
        OSError: the shelf or the records cannot be read.
    """
    there = records.read_all(workspace.records(model), Record)
    known = dict(there.known)
    versions: dict[Version, Shelved] = {}
    refreshed: dict[Version, Record] = {}
    recorded: dict[Version, Record] = {}
    foreign_names = []
    is_missing, shelf = not workspace.has_shelf(model), workspace.shelf(model)
    for entry in disk.entries(shelf):
        version = parse_canonical(entry.name)
        if version is None or not entry.is_dir(follow_symlinks=False):
            if server_sees_version(entry.name):
                foreign_names.append(entry.name)
            continue
        record = known.pop(version, None)
        if version in there.unreadable:
            versions[version] = Shelved(Condition.UNRECORDED)
        elif record is None:
            versions[version] = Shelved(Condition.FOREIGN)
        else:
            recorded[version] = record
            versions[version], fresh = _examine(shelf / str(version), record, checked.get(version))
            if fresh is not None:
                refreshed[version] = fresh
    to_check = {v: recorded[v] for v, i in versions.items() if i.condition is Condition.CHECKING}
    unreadable = {version: _said(item, version, versions) for version, item in there.unreadable.items()}
    blocking = frozenset(version for version, item in there.unreadable.items() if not item.is_lost)
    return Inventory(
        versions, tuple(foreign_names), refreshed, known, recorded, unreadable, blocking, to_check, is_missing
    )


def _examine(
    folder: Path, record: Record, verdict: tuple[Mapping[str, Stamp], bool] | None
) -> tuple[Shelved, Record | None]:
    """Return the condition of a version, and a new record if the stored one is out of date."""
    found = _stamps(folder)
    good = Shelved(
        Condition.GOOD,
        confirmed=record.confirmed,
        has_served=record.has_served,
        identity=record.identity,
        proven_by=record.proven_by,
        tries=record.tries,
        said_before=record.said_before,
    )
    if record.state == "installed" and found == record.stamps:
        return good, None
    if verdict is None or dict(verdict[0]) != found:
        return replace(good, condition=Condition.CHECKING), None
    if not verdict[1]:
        return replace(good, condition=Condition.DAMAGED), None
    return good, record.model_copy(update={"state": "installed", "stamps": found})


def _stamps(folder: Path) -> Mapping[str, Stamp]:
    """Return the stamps of a version; none, which no version has, if it is unreadable or is being removed."""
    try:
        return stamps(folder)
    except OSError as error:
        if isinstance(error, FileNotFoundError) or error.errno in UNREADABLE:
            return {}
        raise


def _said(item: Unreadable, version: Version, shelf: Mapping[Version, Shelved]) -> str:
    """Return what to say of an unreadable record, with what follows for its version and what to do."""
    if version not in shelf:
        return item.said(f"version {version} is not on the shelf" + ("" if item.is_lost else NOT_INSTALLED))
    return item.said(f"version {version} stays on the shelf as it is; {LOST if item.is_lost else LEFT}")
