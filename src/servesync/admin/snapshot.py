"""What the agent knows at one moment: frozen values that the deciding thread makes and all others read.

Times are seconds since 1970 (UTC); `/status` shows them in ISO 8601. `docs/admin.md` describes each field.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

from servesync.domain.versions import Model, Version
from servesync.errors import Reason
from servesync.planning.facts import Role, ServerState

SCHEMA_VERSION: Final = 1


class OnDisk(StrEnum):
    """Where a version lies on this machine, and in which state."""

    GOOD = "good"
    DAMAGED = "damaged"
    FOREIGN = "foreign"
    UNRECORDED = "unrecorded"
    CHECKING = "checking"
    RESERVED = "reserved"
    ABSENT = "absent"


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something that does not work now, and why, in words."""

    reason: Reason
    text: str


@dataclass(frozen=True, slots=True)
class HeldVersion(Trouble):
    """A version that policy would want, and that something keeps away: `reason` and `text` say why."""

    version: Version


@dataclass(frozen=True, slots=True)
class VersionStatus:
    """One version of a model. `identity` changes exactly when its bytes in the store may have changed.

    `untried`: the server has it for the first time, and it has not answered the trial requests yet.
    """

    role: Role
    why: str
    on_disk: OnDisk
    server: ServerState | None = None
    untried: bool = False
    identity: str = ""
    proven_by: str | None = None
    bytes: int | None = None
    tensor_bytes: int | None = None
    published_at: float | None = None
    installed_at: float | None = None

    @property
    def is_proven(self) -> bool:
        """Whether it lies on the shelf as it was proven, as far as can be told."""
        return self.on_disk in {OnDisk.GOOD, OnDisk.UNRECORDED, OnDisk.CHECKING}


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """One model. `more_versions`: how many of the store's versions that nobody wants are not shown.

    `held_newest`: the newest version, above all that are wanted, where something keeps it away
    (`servesync.planning.newest`).
    """

    required: bool
    policy: str
    wanted: tuple[Version, ...] = ()
    in_place: bool = False
    served: bool = False
    in_store: int | None = None
    versions: Mapping[Version, VersionStatus] = field(default_factory=dict)
    more_versions: int = 0
    strange_names: tuple[str, ...] = ()
    trouble: Trouble | None = None
    held_newest: HeldVersion | None = None

    @property
    def proven(self) -> frozenset[Version]:
        """The versions that lie on the shelf as they were proven."""
        return frozenset(version for version, item in self.versions.items() if item.is_proven)


@dataclass(frozen=True, slots=True)
class StoreStatus:
    """What came of asking the store. `requests`: what the last good listing cost."""

    url: str
    last_poll_at: float | None = None
    last_good_poll_at: float | None = None
    requests: int | None = None
    ignored_keys: int | None = None
    ignored_examples: tuple[str, ...] = ()
    trouble: Trouble | None = None


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """The model server. `url` None: no server is configured; `answers` None: it was not asked yet."""

    url: str | None
    policy: str
    answers: bool | None = None
    trouble: Trouble | None = None


@dataclass(frozen=True, slots=True)
class DiskSpace:
    """The filesystem of the models, in bytes; `reserve_bytes` of it are to stay free."""

    path: str
    size_bytes: int
    free_bytes: int
    reserve_bytes: int


@dataclass(frozen=True, slots=True)
class MemoryBudget:
    """What the loaded versions are estimated to take of the server's memory, in bytes."""

    budget_bytes: int | None
    estimate_bytes: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One look at everything."""

    at: float
    models: Mapping[Model, ModelStatus]
    store: StoreStatus
    server: ServerStatus
    poll_interval_seconds: float
    disk: DiskSpace | None = None
    memory: MemoryBudget | None = None
    config_file_missing: str | None = None
    """Why the server cannot be started with `serving.config_file` yet; None if it can, or none is kept."""
    settings_trouble: Trouble | None = None
    """Why the settings on the disk are not in force: rejected, or good and not to be put in force yet."""


def as_json(value: object) -> Any:  # noqa: ANN401 (what the json module takes)
    """Return frozen values as plain ones for JSON; seconds since 1970 (`at`, `*_at`) as ISO 8601."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [item.name for item in dataclasses.fields(value)]
        return {name: _field(name, getattr(value, name)) for name in names}
    if isinstance(value, Mapping):
        return {str(key): _field(str(key), item) for key, item in value.items()}
    if isinstance(value, tuple | list | frozenset):
        return [as_json(item) for item in value]
    return value


def _field(name: str, value: object) -> object:
    if isinstance(value, float) and (name == "at" or name.endswith("_at")):
        return iso(value)
    return as_json(value)


def iso(seconds: float) -> str:
    """Return a time in seconds since 1970 in the form of the log (`2026-01-31T12:00:00Z`)."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
