"""What the planner is told about one model, and what it answers: frozen values, nothing else."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar

from servesync.domain.versions import Model, ProvenBy, Version
from servesync.errors import Reason
from servesync.planning.memory import Shortage


@dataclass(frozen=True, slots=True)
class Latest:
    """Serve the `count` highest good versions."""

    count: int


@dataclass(frozen=True, slots=True)
class Pin:
    """Serve exactly these versions."""

    versions: frozenset[Version]


@dataclass(frozen=True, slots=True)
class Everything:
    """Serve every good version of the store."""


@dataclass(frozen=True, slots=True)
class Follow:
    """Serve the versions that these channels point to."""

    channels: tuple[str, ...]


Policy = Latest | Pin | Everything | Follow


class ServerPolicy(StrEnum):
    """The version policy that the model server was started with."""

    ALL = "all"
    LATEST = "latest"


@dataclass(frozen=True, slots=True)
class Hold:
    """Why an offered version is not to be fetched now; `text` is for people.

    `passing`: it is likely to go by itself soon, so the version is still wanted rather than an older one.
    """

    reason: Reason
    text: str
    passing: bool = False


class Condition(StrEnum):
    """What a numbered directory on the shelf is.

    `UNRECORDED`: servesync put it there, but its record cannot be read, so nothing is known of its bytes. It
    counts as what policy wants of its number, and is neither repaired nor taken off. `CHECKING`: its files
    have other times than when they were proven, or a crash came before its record was complete. It is being
    read again; until then it counts as an unrecorded one does, but may leave when it is withdrawn.
    """

    GOOD = "good"
    DAMAGED = "damaged"
    FOREIGN = "foreign"
    UNRECORDED = "unrecorded"
    CHECKING = "checking"


@dataclass(frozen=True, slots=True)
class Shelved:
    """One numbered directory on the shelf.

    `confirmed`: the server has said AVAILABLE for these bytes at least once. `tries`: how often it was taken
    off since, for the server to try it anew. `said_before`: see `servesync.planning.status_staleness`.
    """

    condition: Condition
    confirmed: bool = False
    identity: str = ""
    proven_by: ProvenBy = ProvenBy.NOTHING
    tries: int = 0
    said_before: str = ""

    @property
    def is_ours(self) -> bool:
        """Whether servesync is known to have put it there, whatever has become of its files."""
        return self.condition in {Condition.GOOD, Condition.DAMAGED, Condition.CHECKING}


class ServerState(StrEnum):
    """The states of TensorFlow Serving's `ModelVersionStatus`."""

    UNKNOWN = "UNKNOWN"
    START = "START"
    LOADING = "LOADING"
    AVAILABLE = "AVAILABLE"
    UNLOADING = "UNLOADING"
    END = "END"


@dataclass(frozen=True, slots=True)
class Served:
    """What the server says of one version. `stale`: it is about bytes that lay there before."""

    state: ServerState
    error_code: str = "OK"
    message: str = ""
    stale: bool = False

    @property
    def failed(self) -> bool:
        """Whether the server tried these bytes, failed, and will not try again."""
        return self.state is ServerState.END and self.error_code != "OK" and not self.stale


@dataclass(frozen=True, slots=True)
class Ends:
    """How often the server has ended while a version lay on the shelf that it had never served.

    `now`: since the version came there last; `ever`: with these bytes, as far as is known. `had_answered`:
    the server that ended last had answered before, so it can live without this version.
    """

    now: int = 0
    ever: int = 0
    had_answered: bool = False


@dataclass(frozen=True, slots=True)
class Server:
    """What the model server was told and what it answers for one model.

    `asked` False: there is no server to ask, and installation is the end. `versions` None: it did not
    answer; `may_be_starting` then tells whether it may be about to. `waited_seconds`: how long an answering
    server has been seen with a version that is not available, or not even listed. `unreachable_seconds`: how
    long a version has lain on the shelf while nothing listened where the server should be. `ends`: how often
    it has ended with a version that it never served. `has_answered`: it has answered since the agent
    started. `answered_seconds`: for how long it has answered without interruption. `scan_seconds`: how
    often it looks at the shelf. `latest`: how many of the highest versions a server with policy latest
    serves.
    """

    asked: bool = True
    policy: ServerPolicy = ServerPolicy.ALL
    versions: Mapping[Version, Served] | None = None
    waited_seconds: Mapping[Version, float] = field(default_factory=dict)
    unreachable_seconds: Mapping[Version, float] = field(default_factory=dict)
    ends: Mapping[Version, Ends] = field(default_factory=dict)
    has_answered: bool = False
    answered_seconds: float = math.inf
    load_timeout_seconds: float = 600.0
    scan_seconds: float = 1.0
    may_be_starting: bool = True
    latest: int = 1


@dataclass(frozen=True, slots=True)
class Facts:
    """All that is known of one model now.

    `offered`: the identity of each version that the store offers; None if the store was never listed.
    `reserve`: the identity of each version that lies unpacked beside the shelf. `returning`: those of them
    that go back to the shelf as soon as the server has seen them gone. `cooling_down`: versions that left the
    shelf so recently that the server may not have seen them gone. `channels`: the last good position of each
    channel. `withdrawn`: versions that no instance may serve any more. `memory`: why the next version does
    not fit into the server's memory yet, if waiting or retiring another version makes it fit; a version that
    does not fit at all is held.
    """

    model: Model
    policy: Policy
    offered: Mapping[Version, str] | None
    held: Mapping[Version, Hold]
    shelf: Mapping[Version, Shelved]
    server: Server
    reserve: Mapping[Version, str] = field(default_factory=dict)
    returning: frozenset[Version] = frozenset()
    cooling_down: frozenset[Version] = frozenset()
    channels: Mapping[str, Version] = field(default_factory=dict)
    withdrawn: frozenset[Version] = frozenset()
    labels: Mapping[str, Version | None] = field(default_factory=dict)
    """Where each label is to point; None for one whose target is not known now."""
    labelled: frozenset[Version] = frozenset()
    """Versions that a label points to, is about to point to, or may still point to in the server."""
    memory: Shortage | None = None
    retired: Mapping[Version, Version] = field(default_factory=dict)
    """Versions of the reserve that left the shelf to make room in the server's memory, and for which one."""


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


class Role(StrEnum):
    """What a version is to the plan."""

    SERVING = "serving"
    WAITING = "waiting"
    TO_INSTALL = "to_install"
    TO_REPAIR = "to_repair"
    TO_PRUNE = "to_prune"
    KEPT = "kept"
    RESERVED = "reserved"
    HELD = "held"
    FOREIGN = "foreign"
    NOT_WANTED = "not_wanted"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a version is to the plan, and why, in words."""

    role: Role
    why: str


@dataclass(frozen=True, slots=True)
class ModelPlan:
    """What to do next for one model, and a verdict on every version that store, shelf or policy names."""

    model: Model
    wanted: frozenset[Version]
    actions: tuple[Action, ...]
    verdicts: Mapping[Version, Verdict]
    in_place: bool
    """Every wanted version (at least one) is complete on the shelf, but for those that a passing failure
    holds up while others are there; of pinned versions, every one."""
    served: bool
    """The server serves (or there is no server to ask) every version that it should."""
