"""Estimates of what versions weigh in the server's memory, in bytes, from the cheapest source for each."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from servesync.domain.versions import Layout, Model, Release, Version
from servesync.install import Record, Reserve, Shelf, Workspace
from servesync.install.content import walk
from servesync.planning.fleet_facts import Key
from servesync.planning.memory import weight_of

NOISE_BYTES: Final = 64 * 1024 * 1024
"""By so much the server's memory may grow or not, whatever was loaded: for versions of 1 MB it was seen to
grow by anything from 0 to 35 MB (docs/contract.md)."""


@dataclass(frozen=True, slots=True)
class _Known:
    identity: str
    weight: int
    growth: int = 0


@dataclass
class MemoryEstimates:
    """Caches weights, and by how many bytes the server grew for a version where that was measured."""

    workspace: Workspace
    _installed: dict[Key, _Known] = field(init=False, default_factory=dict)
    _offers: dict[Key, tuple[str, int | None]] = field(init=False, default_factory=dict)

    def keep(self, model: Model, present: Collection[Version], offered: Mapping[Version, Release]) -> None:
        """Forget versions of a model that are not `present` any more, and releases that are not offered."""
        for key in [key for key in self._installed if key[0] == model and key[1] not in present]:
            del self._installed[key]
        for key in [key for key in self._offers if key[0] == model and key[1] not in offered]:
            del self._offers[key]

    def of_installed(self, key: Key, identity: str | None) -> int | None:
        """Return the weight of a version on the shelf or in the reserve; None if there is no record of it.

        `identity` None: it has left both; the last known weight counts.

        Raises:
            OSError: the records cannot be read.
        """
        known = self._installed.get(key)
        if known is not None and identity in (known.identity, None):
            return known.weight
        model, version = key
        record = Shelf(self.workspace, model).records().get(version)
        if record is None or record.identity != identity:
            record = Reserve(self.workspace, model).versions().get(version)
        if record is None:
            return None
        self._installed[key] = _Known(record.identity, _weight_of(record), record.observed_bytes)
        return self._installed[key].weight

    def of_foreign(self, key: Key) -> int:
        """Return the weight of a directory on the shelf that is not ours, by its files.

        Raises:
            OSError: it cannot be read.
        """
        model, version = key
        found = walk(self.workspace.shelf(model) / str(version))
        return weight_of((path, entry.stat(follow_symlinks=False).st_size) for path, entry in found)

    def of_offered(self, release: Release) -> int | None:
        """Return what a release will weigh; None if it is unknown until the bytes are here.

        Raises:
            KeyError: its manifest has the figures, and has not been read yet; see `cache`.
        """
        offer, weight = self._offers.get((release.model, release.version), ("", None))
        if offer == release.offer:
            return weight
        if release.manifest is not None:
            raise KeyError(release.version)
        if release.layout is Layout.ARCHIVE:
            return None
        return weight_of((item.path, item.size) for item in release.objects)

    def cache(self, release: Release, weight: int | None) -> None:
        """Cache the weight of a release until its offer changes."""
        self._offers[release.model, release.version] = (release.offer, weight)

    def grew(self, key: Key, growth: int) -> None:
        """Remember by how many bytes the server grew for a version."""
        known = self._installed.get(key)
        if known is not None:
            self._installed[key] = replace(known, growth=growth)

    def observed(self, model: Model) -> float:
        """Return the largest growth for each byte of weight among a model's versions; 0 if none is known.

        Only what exceeds the noise counts.
        """
        ratios = (
            max(0, known.growth - NOISE_BYTES) / known.weight
            for (name, _), known in self._installed.items()
            if name == model and known.weight
        )
        return max(ratios, default=0.0)


class OfferedEstimates(Mapping[Key, int | None]):
    """The weights of what the store offers, each looked up when it is asked for."""

    def __init__(
        self, estimates: MemoryEstimates, offered: Mapping[Model, Mapping[Version, Release]]
    ) -> None:
        self._estimates = estimates
        self._offered = offered

    def __getitem__(self, key: Key) -> int | None:
        """Return the weight of a release; see `MemoryEstimates.of_offered`."""
        model, version = key
        return self._estimates.of_offered(self._offered[model][version])

    def __iter__(self) -> Iterator[Key]:
        """Yield every version that the store offers."""
        return ((model, version) for model, found in self._offered.items() for version in found)

    def __len__(self) -> int:
        """Return how many versions the store offers."""
        return sum(len(found) for found in self._offered.values())


def _weight_of(record: Record) -> int:
    return weight_of(((file.path, file.size) for file in record.files), record.tensor_bytes)
