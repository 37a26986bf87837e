"""What the planner knows of one model, and the plan that it returns: frozen values, nothing else."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from servesync.domain.versions import Model, ProvenBy, Version
from servesync.errors import Reason
from servesync.planning.actions import Action
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

    `confirmed`: the server has served the version since it came to the shelf, and it has passed the trial by
    request, if there was one. `has_served`: that is true of these bytes at any time. `tries`: how often it
    was taken off since, for the server to try it anew. `said_before`: see
    `servesync.planning.status_staleness`.
    """

    condition: Condition
    confirmed: bool = False
    has_served: bool = False
    identity: str = ""
    proven_by: ProvenBy = ProvenBy.NOTHING
    tries: int = 0
    said_before: str = ""

    @property
    def is_ours(self) -> bool:
        """Whether servesync is known to have put it there, whatever has become of its files."""
        return self.condition in {Condition.GOOD, Condition.DAMAGED, Condition.CHECKING}

    @property
    def is_new(self) -> bool:
        """Whether the server has never served these bytes."""
        return not self.confirmed and not self.has_served


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
class Trial:
    """How a version that the server calls AVAILABLE has answered the trial requests.

    `failed`: it does not answer as it must. `text`: what it answered, in words.
    """

    failed: bool
    text: str


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
    serves. `trials`: how versions have answered the trial requests; None if versions need no trial.
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
    trials: Mapping[Version, Trial] | None = None


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

    def untried(self) -> frozenset[Version]:
        """Return the versions on which nothing may depend yet, whether the server has loaded them or not.

        The server has them for the first time, and they have not answered the trial requests as they must.
        """
        if self.server.trials is None:
            return frozenset()
        answered = {v for v, trial in self.server.trials.items() if not trial.failed}
        new = {v for v, item in self.shelf.items() if item.condition is Condition.GOOD and item.is_new}
        return frozenset(new - answered)

    def on_trial(self) -> frozenset[Version]:
        """Return the untried versions that the server calls AVAILABLE."""
        versions = self.server.versions or {}
        up = {v for v, said in versions.items() if said.state is ServerState.AVAILABLE}
        return self.untried() & up


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
