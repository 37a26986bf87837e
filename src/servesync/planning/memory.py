"""What the server would hold in memory, and whether one version more fits: estimates in, answers out.

All figures are bytes, and all are estimates; `docs/memory.md` has the formula and where it comes from.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Final

from servesync.domain.versions import Model, Version

SHOWN: Final = 8
MOST_TIMES_THE_FACTOR: Final = 3.0
"""An observation raises an estimate to so many times the configured factor, and no further."""

GRAPH_COPIES: Final = 6
"""The graph is parsed, kept, instantiated and optimized: 50 MiB of constants in it grew TensorFlow by 300."""

_GRAPH: Final = "saved_model."
_SHARDS: Final = "variables/variables.data-"
_NOT_KEPT: Final = ("assets.extra/", "variables/variables.index")


class WhenShort(StrEnum):
    """What happens when a version does not fit beside what is loaded."""

    REFUSE = "refuse"
    RETIRE_FIRST = "retire_first"


class Remedy(StrEnum):
    """What the planner does about a shortage."""

    REFUSED = "refused"
    RETIRE = "retire"
    UNLOADING = "unloading"


@dataclass(frozen=True, slots=True)
class Budget:
    """How much all loaded versions together may hold, and in words where that figure comes from."""

    bytes: int
    source: str


@dataclass(frozen=True, slots=True)
class Loaded:
    """A version that is in the server's memory, or will be once the server looks."""

    model: Model
    version: Version
    bytes: int


@dataclass(frozen=True, slots=True)
class ModelMemory:
    """One model's part of the server's memory, now and soon.

    `loaded`: versions on the shelf, and those that have left it and are still in memory (`unloading`).
    `retirable`: those on the shelf that policy does not want once `candidate` is there. `candidate`: the
    version that comes next, if its size is known; `proven`: it lies in the reserve or in staging, so a rename
    brings it. `gap`: nothing of the model serves, because a version has made room for another one.
    `comes_back`: the candidate is that version, which fitted before. `swing`: if room was made for the
    candidate in vain, the bytes by which its need had grown meanwhile: no version makes room for it again
    unless so many bytes more become free.
    """

    model: Model
    loaded: Mapping[Version, int]
    unloading: frozenset[Version] = frozenset()
    retirable: frozenset[Version] = frozenset()
    candidate: Version | None = None
    candidate_bytes: int = 0
    proven: bool = False
    gap: bool = False
    comes_back: bool = False
    swing: int = 0

    @property
    def loaded_bytes(self) -> int:
        """Everything of this model that is in memory or about to be."""
        return sum(self.loaded.values())

    @property
    def unloading_bytes(self) -> int:
        """The bytes that the server frees when it has unloaded what left the shelf."""
        return sum(self.loaded[version] for version in self.unloading)

    @property
    def is_loading_more(self) -> bool:
        """Whether bringing what comes next makes the server load something."""
        return self.candidate is not None and self.candidate not in self.loaded.keys() - self.unloading


@dataclass(frozen=True, slots=True)
class Shortage:
    """Why a version does not fit now, and what follows. `retire`: who makes room by leaving, lowest first."""

    version: Version
    remedy: Remedy
    version_bytes: int
    loaded_bytes: int
    budget: Budget
    loaded: tuple[Loaded, ...]
    """The largest first."""
    retire: tuple[Version, ...] = ()
    claimed_bytes: int = 0
    """Kept for versions of other models that are proven and about to be loaded."""
    needed_later_bytes: int = 0
    """What would be held once everything has left that leaves, and everybody in `retire`."""
    note: str = ""
    """What else people should know of it."""

    @property
    def needed_bytes(self) -> int:
        """What would be held with the new version beside everything else."""
        return self.loaded_bytes + self.claimed_bytes + self.version_bytes

    @property
    def missing_bytes(self) -> int:
        """By how many bytes the budget is too small."""
        return self.needed_bytes - self.budget.bytes

    @property
    def text(self) -> str:
        """The figures, for people."""
        claimed = f", {self.claimed_bytes} are kept for others that come first" if self.claimed_bytes else ""
        return (
            f"it needs {self.version_bytes} bytes of the server's memory, {self.loaded_bytes} are taken"
            f"{self._by_whom()}{claimed}, and the budget is {self.budget.bytes} ({self.budget.source}): "
            f"{self.missing_bytes} bytes are missing{self.note}"
        )

    def _by_whom(self) -> str:
        if not self.loaded:
            return ""
        named = ", ".join(f"{item.model} {item.version}: {item.bytes}" for item in self.loaded[:SHOWN])
        more = f", and {len(self.loaded) - SHOWN} more" if len(self.loaded) > SHOWN else ""
        return f" ({named}{more})"


def weight_of(files: Iterable[tuple[str, int]], tensor_bytes: int | None = None) -> int:
    """Return the bytes that a version weighs in memory: tensors, assets, and the graph with its copies.

    `files`: paths relative to the version, and sizes. `tensor_bytes`: by the index; without it, all bytes of
    the data shards count. The index itself and what only belongs to the directory (`assets.extra/`) do not.
    """
    total = tensor_bytes or 0
    for path, size in files:
        if path.startswith(_NOT_KEPT) or (tensor_bytes is not None and path.startswith(_SHARDS)):
            continue
        total += size * (GRAPH_COPIES if path.startswith(_GRAPH) else 1)
    return total


def estimate(weight: int, factor: float, observed: float = 0.0) -> int:
    """Return what the server holds for a version of `weight` bytes.

    `observed`: the largest growth for each byte of weight that was seen for a version of the same model. It
    raises the factor within bounds, and never lowers it: memory of an unloaded version that the server uses
    again makes a growth look smaller than it is.
    """
    return math.ceil(weight * min(max(factor, observed), MOST_TIMES_THE_FACTOR * factor))


def check_budget(
    memories: Iterable[ModelMemory], budget: Budget, when_short: WhenShort
) -> dict[Model, Shortage]:
    """Return a shortage for every model whose next version does not fit beside all that is loaded.

    Models with a gap come first, then models with a proven candidate. What these candidates need is kept free
    from other models until the server has loaded them. A version that left to make room comes back whatever
    the estimates say now, if nothing of its model serves.
    """
    memories = list(memories)
    taken = _Taken(memories)
    found: dict[Model, Shortage] = {}
    claimed = _Claims()
    for memory in sorted(memories, key=lambda memory: (not memory.gap, not memory.proven, memory.model)):
        if not memory.is_loading_more:
            continue
        shortage = _shortage(memory, taken, budget, when_short, claimed)
        if shortage is not None and memory.comes_back and shortage.remedy is Remedy.REFUSED:
            shortage = None
        if shortage is not None:
            found[memory.model] = shortage
        if memory.proven and (shortage is None or shortage.remedy is not Remedy.REFUSED):
            claimed = claimed.plus(memory, shortage.retire if shortage else ())
    return found


class _Taken:
    """What all models together hold, added up once."""

    def __init__(self, memories: list[ModelMemory]) -> None:
        self._memories = memories
        self.bytes = sum(memory.loaded_bytes for memory in memories)
        self.unloading = sum(memory.unloading_bytes for memory in memories)

    @cached_property
    def loaded(self) -> tuple[Loaded, ...]:
        """Every version in memory, the largest first."""
        found = [
            Loaded(memory.model, v, size) for memory in self._memories for v, size in memory.loaded.items()
        ]
        return tuple(sorted(found, key=lambda item: (-item.bytes, item.model, item.version)))


@dataclass(frozen=True, slots=True)
class _Claims:
    """What proven versions add: to what is loaded now, and to what is left when all that leaves has left."""

    now: int = 0
    later: int = 0

    def plus(self, memory: ModelMemory, retire: tuple[Version, ...]) -> "_Claims":
        grown = memory.candidate_bytes - sum(memory.loaded[version] for version in retire)
        return _Claims(self.now + max(0, grown - memory.unloading_bytes), self.later + max(0, grown))


def _shortage(
    memory: ModelMemory, taken: _Taken, budget: Budget, when_short: WhenShort, claimed: _Claims
) -> Shortage | None:
    """Return why what comes next to one model does not fit; None if it does."""
    if memory.candidate is None:
        return None
    twice = memory.loaded[memory.candidate] if memory.candidate in memory.unloading else 0
    if taken.bytes - twice + claimed.now + memory.candidate_bytes <= budget.bytes:
        return None
    later = taken.bytes - taken.unloading + claimed.later + memory.candidate_bytes
    remedy, retire, note = _remedy(memory, later - budget.bytes, when_short)
    return Shortage(
        version=memory.candidate,
        remedy=remedy,
        version_bytes=memory.candidate_bytes,
        loaded_bytes=taken.bytes - twice,
        budget=budget,
        loaded=taken.loaded,
        retire=retire,
        claimed_bytes=claimed.now,
        needed_later_bytes=later - sum(memory.loaded[version] for version in retire),
        note=note,
    )


def _remedy(memory: ModelMemory, over: int, when_short: WhenShort) -> tuple[Remedy, tuple[Version, ...], str]:
    """Return what follows when `over` bytes are missing even after the server has unloaded what left."""
    if over <= 0:
        return Remedy.UNLOADING, (), ""
    if when_short is WhenShort.REFUSE:
        return Remedy.REFUSED, (), ""
    retire: list[Version] = []
    for version in sorted(memory.retirable):
        retire.append(version)
        over -= memory.loaded[version]
        if over + memory.swing <= 0:
            return Remedy.RETIRE, tuple(retire), ""
    if retire and over <= 0:
        return Remedy.REFUSED, (), _in_vain(memory.swing)
    return Remedy.REFUSED, (), ""


def _in_vain(swing: int) -> str:
    return (
        f"; room was made for it before, but it did not fit: the estimates had grown by {swing} bytes "
        "meanwhile; no version leaves for it again until that frees so many bytes more than it needs"
    )
