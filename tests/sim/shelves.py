"""What lies on the real disk of the simulated world, read as anybody could, and remembered by its stamps."""

import hashlib
import json
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from servesync.domain.versions import Content, FileFact, Model, Version, parse_canonical, server_sees_version
from servesync.install.records import Record, Refusal

T = TypeVar("T", Record, Refusal)
Stamps = tuple[tuple[str, int, int, int, int], ...]


class Broken(AssertionError):
    """A guarantee does not hold."""


@dataclass(frozen=True)
class Item:
    """One numbered directory on a shelf. `record`: what servesync has written about it, if anything."""

    inode: int
    digest: str
    record: Record | None


@dataclass(frozen=True)
class Shelf:
    """One model's shelf at one moment, with what is in the reserve and what is refused."""

    items: Mapping[Version, Item] = field(default_factory=dict)
    reserve: Mapping[Version, Record] = field(default_factory=dict)
    refusals: Mapping[Version, Refusal] = field(default_factory=dict)


@dataclass
class Eye:
    """Reads shelves. What has the stamps of before has the content of before."""

    models_dir: Path
    _digests: dict[tuple[int, Stamps], str] = field(default_factory=dict)
    _records: dict[tuple[str, int, int, int], Record | Refusal | None] = field(default_factory=dict)

    @property
    def workspace(self) -> Path:
        """The hidden directory."""
        return self.models_dir / ".servesync"

    def shelf(self, model: Model) -> Shelf:
        """Return what there is of a model.

        Raises:
            Broken: the server would take something for a version that is none.
        """
        path = self.models_dir / model
        names = _names(path)
        records = self._read_all(path.parent / ".servesync/records" / model, Record)
        numbered = {name: _version(path, name) for name in names if server_sees_version(name)}
        items = {
            version: Item((path / name).stat().st_ino, self.digest(path / name), records.get(version))
            for name, version in numbered.items()
        }
        kept = self._read_all(self.workspace / "reserve_records" / model, Record)
        there = {v: record for v, record in kept.items() if (self.reserve(model) / str(v)).is_dir()}
        return Shelf(items, there, self._read_all(self.workspace / "refusals" / model, Refusal))

    def reserve(self, model: Model) -> Path:
        """Return where the reserve of a model lies."""
        return self.workspace / "reserve" / model

    def staging(self) -> list[str]:
        """Return what lies in staging."""
        return _names(self.workspace / "staging")

    def trash(self) -> list[str]:
        """Return what waits to be removed."""
        return _names(self.workspace / "trash")

    def positions(self, model: Model) -> Mapping[str, Version]:
        """Return where the agent has seen the channels last, as it has recorded that."""
        folder = self.workspace / "channels" / model
        found = {}
        for name in _names(folder):
            if name.endswith(".json") and not name.startswith("."):
                number = _number_in(folder / name)
                if number is not None:
                    found[name.removesuffix(".json")] = Version(number)
        return found

    def digest(self, folder: Path) -> str:
        """Return the digest of a tree, as servesync computes it."""
        stamps = tuple(sorted(_stamps(folder)))
        key = (folder.stat().st_ino, stamps)
        if key not in self._digests:
            facts = []
            for path, *_ in stamps:
                data = (folder / path).read_bytes()
                facts.append(FileFact(path, len(data), hashlib.sha256(data).hexdigest()))
            self._digests[key] = Content.of(facts).digest
        return self._digests[key]

    def _read_all(self, folder: Path, kind: type[T]) -> dict[Version, T]:
        found = {}
        for name in _names(folder):
            version = parse_canonical(name.removesuffix(".json"))
            if version is not None and name.endswith(".json"):
                record = self._read(folder / name, kind)
                if record is not None:
                    found[version] = record
        return found

    def _read(self, path: Path, kind: type[T]) -> T | None:
        try:
            facts = path.stat()
            key = (str(path), facts.st_ino, facts.st_mtime_ns, facts.st_size)
            if key not in self._records:
                self._records[key] = _parsed(path, kind)
        except OSError:
            return None
        found = self._records[key]
        return found if isinstance(found, kind) else None


def _parsed(path: Path, kind: type[T]) -> T | None:
    try:
        return kind.model_validate_json(path.read_bytes())
    except ValidationError:
        return None


def _version(shelf: Path, name: str) -> Version:
    version = parse_canonical(name)
    if version is None or not stat.S_ISDIR((shelf / name).lstat().st_mode):
        raise Broken(f"the server takes {shelf / name} for a version")
    return version


def _stamps(root: Path) -> Iterator[tuple[str, int, int, int, int]]:
    folders = [""]
    while folders:
        folder = folders.pop()
        with os.scandir(f"{root}/{folder}") as found:
            for entry in found:
                path = folder + entry.name
                if entry.is_dir(follow_symlinks=False):
                    folders.append(f"{path}/")
                    continue
                facts = entry.stat(follow_symlinks=False)
                yield path, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns


def _number_in(path: Path) -> int | None:
    try:
        found = json.loads(path.read_bytes())["version"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if isinstance(found, int) else None


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))  # noqa: PTH208 (called so often that it matters)
    except (FileNotFoundError, NotADirectoryError):
        return []
