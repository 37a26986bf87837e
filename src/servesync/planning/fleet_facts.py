"""What `plan_fleet` knows of all models of one instance, and the plan that it returns: frozen values.

Clock values are seconds of one monotonic clock; bytes are bytes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from servesync.domain.versions import Model, Version
from servesync.planning.actions import FleetAction, Kind
from servesync.planning.facts import Facts, ModelPlan
from servesync.planning.memory import Budget, Loaded, Shortage, WhenShort

Key = tuple[Model, Version]


class TransferState(StrEnum):
    """How far a transfer has come.

    `READY`: the version lies in staging, proven and durable. `ENDING`: it was cancelled, and has not ended.
    """

    RUNNING = "running"
    READY = "ready"
    ENDING = "ending"


@dataclass(frozen=True, slots=True)
class Transfer:
    """A version that is being brought into staging, or lies there.

    `offer`: `Release.offer` of what is brought. `weight`: bytes in memory, once it is `READY`.
    """

    model: Model
    version: Version
    offer: str
    state: TransferState
    weight: int | None = None


@dataclass(frozen=True, slots=True)
class Reserved:
    """A version in the reserve. `at`: seconds since 1970 at which it came there.

    `retired_for`: the version that it made room for in the server's memory, if it left the shelf for that,
    and `need_bytes`: what the server was thought to hold with that one in its place. `swing_bytes`: if others
    had made room for this one and it did not fit after all, by how much the need had grown meanwhile.
    """

    at: float
    returning: bool = False
    retired_for: Version | None = None
    need_bytes: int | None = None
    swing_bytes: int = 0


@dataclass(frozen=True, slots=True)
class MemoryFacts:
    """The server's memory. `budget` None: nothing is compared, and `source` says why.

    `weights`: bytes of the versions on the shelf, in the reserve, and in memory without being on the shelf.
    `offered_weights`: of releases of the store whose weight is known; None for one of which nothing tells
    before its bytes are there. One that is not in it can be told after a small document has been read.
    `observed`: the largest growth for each byte of weight that was seen for a version of a model.
    `unloading`: versions that have left the shelf and are still in memory, as far as is known.
    """

    budget: Budget | None = None
    source: str = ""
    when_short: WhenShort = WhenShort.REFUSE
    factor: float = 1.0
    weights: Mapping[Key, int] = field(default_factory=dict)
    offered_weights: Mapping[Key, int | None] = field(default_factory=dict)
    observed: Mapping[Model, float] = field(default_factory=dict)
    unloading: Mapping[Model, frozenset[Version]] = field(default_factory=dict)
    elsewhere: tuple[Loaded, ...] = ()
    """What models have loaded that cannot be read now; it takes room, and no version of them comes."""


@dataclass(frozen=True, slots=True)
class LoadGate:
    """Whether the server may get a version to load.

    `ended_at`: when it was last seen to have finished loading a version. `loading`: models of which it was
    loading one when that was last looked at. `retired_at`: models that have retired a version before its
    successor came, and when; they are next for `patience_seconds`.

    A plan answers with the gate as it is then; `load_gate.after_step` adds what was carried out since.
    """

    pause_seconds: float = 0.0
    patience_seconds: float = 600.0
    ended_at: float | None = None
    loading: frozenset[Model] = frozenset()
    retired_at: Mapping[Model, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FleetFacts:
    """All that is known of all models now.

    `offers`: `Release.offer` of what the store offers. `paused`: actions that have just failed and must
    pause. `last_brought`: when a transfer of a model was last started. `orphaned`:
    records of versions that are no longer on the shelf. `interrupted`: what transfers have left unfinished.
    """

    now: float
    models: Mapping[Model, Facts]
    offers: Mapping[Model, Mapping[Version, str]] = field(default_factory=dict)
    memory: MemoryFacts = field(default_factory=MemoryFacts)
    gate: LoadGate = field(default_factory=LoadGate)
    transfers: tuple[Transfer, ...] = ()
    interrupted: tuple[Transfer, ...] = ()
    most_transfers: int = 2
    required: frozenset[Model] = frozenset()
    last_brought: Mapping[Model, float] = field(default_factory=dict)
    paused: frozenset[tuple[Model, Version, Kind]] = frozenset()
    reserve: Mapping[Model, Mapping[Version, Reserved]] = field(default_factory=dict)
    reserve_keep: int = 1
    orphaned: Mapping[Model, frozenset[Version]] = field(default_factory=dict)
    broken: frozenset[Model] = frozenset()
    unreadable: Mapping[Model, frozenset[Version]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Step:
    """One action for one model."""

    model: Model
    action: FleetAction


@dataclass(frozen=True, slots=True)
class FleetPlan:
    """What is to be done now over all models, in this order, and why every version is where it is.

    `models`: each model's plan, with memory taken into account. `steps`: what may be done now; `Wait` is not
    among them. `postponed`: what waits for the load gate, or for a free transfer. `to_weigh`: offered
    versions whose manifest must be read before anything can be decided about them. `loading`: models of which
    an answering server is loading a version, or about to. `awaited`: versions of the reserve that are about
    to come to the shelf, or may have to come back: they must not give way for space. `gate`: the load gate as
    it is now. `outdated`: unfinished transfers with which nobody will go on, and why.
    """

    models: Mapping[Model, ModelPlan]
    steps: tuple[Step, ...] = ()
    postponed: tuple[Step, ...] = ()
    shortages: tuple[tuple[Model, Shortage], ...] = ()
    loaded: tuple[Loaded, ...] = ()
    to_weigh: frozenset[Key] = frozenset()
    loading: frozenset[Model] = frozenset()
    awaited: frozenset[Key] = frozenset()
    outdated: Mapping[Key, str] = field(default_factory=dict)
    gate: LoadGate = field(default_factory=LoadGate)
