"""What a plan asks for: one frozen value per action, each with its reason in words."""

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

from servesync.domain.versions import Version
from servesync.errors import Reason
from servesync.planning.memory import Shortage


class Kind(StrEnum):
    """What an action does; the word in `servesync plan --json`, in metrics and in the log."""

    RESTORE = "restore"
    INSTALL = "install"
    REPAIR = "repair"
    CONFIRM = "confirm"
    QUARANTINE = "quarantine"
    RETRY = "retry"
    PRUNE = "prune"
    WAIT = "wait"
    FETCH = "fetch"
    CANCEL = "cancel"
    SET_ASIDE = "set_aside"
    DROP = "drop"
    KEEP = "keep"
    FORGET = "forget"


@dataclass(frozen=True, slots=True)
class Restore:
    """Put a version of the reserve back on the shelf: a rename, without the store.

    `instead_of`: the version of the reserve for which it had made room, and which does not fit after all. Its
    record must keep `swing_bytes` (see `Reserved`) before this one is back, so that this happens once.
    """

    kind: ClassVar[Kind] = Kind.RESTORE
    version: Version
    because: str
    instead_of: Version | None = None
    swing_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Install:
    """Fetch, prove and shelve a version."""

    kind: ClassVar[Kind] = Kind.INSTALL
    version: Version
    because: str


@dataclass(frozen=True, slots=True)
class Repair:
    """Fetch and prove a version anew and swap it with the damaged one, whose name never disappears."""

    kind: ClassVar[Kind] = Kind.REPAIR
    version: Version
    because: str


@dataclass(frozen=True, slots=True)
class Confirm:
    """Record that the server serves a version."""

    kind: ClassVar[Kind] = Kind.CONFIRM
    version: Version
    because: str


@dataclass(frozen=True, slots=True)
class Quarantine:
    """Take a version that the server refused off the shelf and remember its identity."""

    kind: ClassVar[Kind] = Kind.QUARANTINE
    version: Version
    because: str
    reason: Reason


@dataclass(frozen=True, slots=True)
class Retry:
    """Take a version off the shelf until the server has seen it gone: back there, it is tried anew."""

    kind: ClassVar[Kind] = Kind.RETRY
    version: Version
    because: str


@dataclass(frozen=True, slots=True)
class Prune:
    """Take a version off the shelf that policy no longer wants.

    `to_reserve`: it is good and stays unpacked beside the shelf, if its record can be read. `retired_for`:
    the version that it makes room for in the server's memory (`memory.when_short: retire_first`), and
    `need_bytes`: what the server is thought to hold with that one in its place. Its record in the reserve
    keeps both.
    """

    kind: ClassVar[Kind] = Kind.PRUNE
    version: Version
    because: str
    to_reserve: bool = False
    retired_for: Version | None = None
    need_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Wait:
    """Do nothing yet: the server is about to say more about this version.

    `overdue`: it has had all the time that it was given, so nothing else is held up by it any more.
    """

    kind: ClassVar[Kind] = Kind.WAIT
    version: Version
    because: str
    overdue: bool = False


@dataclass(frozen=True, slots=True)
class Fetch:
    """Start a transfer: fetch a version into staging, unpack it and prove it there."""

    kind: ClassVar[Kind] = Kind.FETCH
    version: Version
    because: str


@dataclass(frozen=True, slots=True)
class Cancel:
    """End a transfer that nobody wants any more, or give its proven version up; its staging is given back."""

    kind: ClassVar[Kind] = Kind.CANCEL
    version: Version
    because: str


@dataclass(frozen=True, slots=True)
class SetAside:
    """Move a proven version from staging into the reserve: the server's memory has no room for it yet."""

    kind: ClassVar[Kind] = Kind.SET_ASIDE
    version: Version
    because: str
    short: Shortage


@dataclass(frozen=True, slots=True)
class Drop:
    """Remove a version from the reserve."""

    kind: ClassVar[Kind] = Kind.DROP
    version: Version
    because: str


@dataclass(frozen=True, slots=True)
class Keep:
    """Let a version of the reserve stay there as one that left by policy.

    It was to be tried again, or had made room for another one: neither counts any more (`returning`,
    `retired_for` and `need_bytes` of its record are cleared).
    """

    kind: ClassVar[Kind] = Kind.KEEP
    version: Version
    because: str


@dataclass(frozen=True, slots=True)
class Forget:
    """Remove the record of a version that is no longer on the shelf."""

    kind: ClassVar[Kind] = Kind.FORGET
    version: Version
    because: str


Action = Restore | Install | Repair | Confirm | Quarantine | Retry | Prune | Wait
"""What one model's plan may ask for; `Install` and `Repair` there mean: bring this version."""

FleetAction = Action | Fetch | Cancel | SetAside | Drop | Keep | Forget
"""What the plan over all models may ask for; `Install` and `Repair` there: put a proven version in place."""
