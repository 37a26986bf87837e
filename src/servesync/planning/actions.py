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
    TRY = "try"
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
class _OfVersion:
    """What all have in common: the version that is acted on, and the reason in words."""

    kind: ClassVar[Kind]
    version: Version
    because: str


@dataclass(frozen=True, slots=True)
class Restore(_OfVersion):
    """Put a version of the reserve back on the shelf: a rename, without the store.

    `instead_of`: the version of the reserve for which it had made room, and which does not fit after all. Its
    record must keep `swing_bytes` (see `Reserved`) before this one is back, so that this happens once.
    """

    kind = Kind.RESTORE
    instead_of: Version | None = None
    swing_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Install(_OfVersion):
    """Fetch, prove and shelve a version."""

    kind = Kind.INSTALL


@dataclass(frozen=True, slots=True)
class Repair(_OfVersion):
    """Fetch and prove a version anew and swap it with the damaged one, whose name never disappears."""

    kind = Kind.REPAIR


@dataclass(frozen=True, slots=True)
class Try(_OfVersion):
    """Send the trial requests to a version that the server calls AVAILABLE, before anything depends on it.

    `against`: the version that it replaces, which gets the same requests; None if nothing else serves.
    """

    kind = Kind.TRY
    against: Version | None = None


@dataclass(frozen=True, slots=True)
class Confirm(_OfVersion):
    """Record that the server serves a version."""

    kind = Kind.CONFIRM


@dataclass(frozen=True, slots=True)
class Quarantine(_OfVersion):
    """Take a version that the server refused off the shelf and remember its identity."""

    kind = Kind.QUARANTINE
    reason: Reason


@dataclass(frozen=True, slots=True)
class Retry(_OfVersion):
    """Take a version off the shelf until the server has seen it gone: back there, it is tried anew."""

    kind = Kind.RETRY


@dataclass(frozen=True, slots=True)
class Prune(_OfVersion):
    """Take a version off the shelf that policy no longer wants.

    `to_reserve`: it is good and stays unpacked beside the shelf, if its record can be read. `retired_for`:
    the version that it makes room for in the server's memory (`memory.when_short: retire_first`), and
    `need_bytes`: what the server is thought to hold with that one in its place. Its record in the reserve
    keeps both.
    """

    kind = Kind.PRUNE
    to_reserve: bool = False
    retired_for: Version | None = None
    need_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Wait(_OfVersion):
    """Do nothing yet: the server is about to say more about this version.

    `overdue`: it has had all the time that it was given, so nothing else is held up by it any more.
    """

    kind = Kind.WAIT
    overdue: bool = False


@dataclass(frozen=True, slots=True)
class Fetch(_OfVersion):
    """Start a transfer: fetch a version into staging, unpack it and prove it there."""

    kind = Kind.FETCH


@dataclass(frozen=True, slots=True)
class Cancel(_OfVersion):
    """End a transfer that nobody wants any more, or give its proven version up; its staging is given back."""

    kind = Kind.CANCEL


@dataclass(frozen=True, slots=True)
class SetAside(_OfVersion):
    """Move a proven version from staging into the reserve: the server's memory has no room for it yet."""

    kind = Kind.SET_ASIDE
    short: Shortage


@dataclass(frozen=True, slots=True)
class Drop(_OfVersion):
    """Remove a version from the reserve."""

    kind = Kind.DROP


@dataclass(frozen=True, slots=True)
class Keep(_OfVersion):
    """Let a version of the reserve stay there as one that left by policy.

    It was to be tried again, or had made room for another one: neither counts any more (`returning`,
    `retired_for` and `need_bytes` of its record are cleared).
    """

    kind = Kind.KEEP


@dataclass(frozen=True, slots=True)
class Forget(_OfVersion):
    """Remove the record of a version that is no longer on the shelf."""

    kind = Kind.FORGET


Action = Restore | Install | Repair | Try | Confirm | Quarantine | Retry | Prune | Wait
"""What one model's plan may ask for; `Install` and `Repair` there mean: bring this version."""

FleetAction = Action | Fetch | Cancel | SetAside | Drop | Keep | Forget
"""What the plan over all models may ask for; `Install` and `Repair` there: put a proven version in place."""
