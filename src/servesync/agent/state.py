"""Everything that an agent remembers between two turns; it has one owner and survives a reload as a whole.

All else is read from the disk again. A restart loses this state, and the agent finds it out again.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from servesync.agent.channels import StoreDocuments
from servesync.agent.documents import DocumentReader
from servesync.agent.held_watch import HeldWatch
from servesync.agent.memory_estimates import MemoryEstimates
from servesync.agent.models_config import ConfigKeeper
from servesync.agent.poll_summary import PollSummary
from servesync.agent.server_watch import ServerWatch
from servesync.domain.versions import Model, Release, Stamp, Version
from servesync.errors import Reason, ServerError, StoreError, SyncError
from servesync.install import Checked, Interrupted, Workspace
from servesync.jobs import JobKind, RoomWanted, Running
from servesync.log_throttle import LogThrottle
from servesync.planning.facts import Served, Trial
from servesync.planning.fleet_facts import Key, LoadGate
from servesync.planning.unloading import Unloading
from servesync.serving.models_config import ModelsConfig
from servesync.settings import EVERY_MODEL, ModelSettings, Settings
from servesync.store import Listing, Settling
from servesync.transfer.attempts import Attempts
from servesync.transfer.transfer import Staged, Transfers


@dataclass
class TransferUnderWay:
    """A transfer: the job at work on it, or what the job has brought into staging.

    `ready_at`: when that arrived (monotonic seconds). `is_cancelled`: its job has not ended yet.
    `is_unwanted`: it was cancelled because nobody wants the version any more.
    """

    release: Release
    running: Running
    started_at: float
    is_repair: bool = False
    staged: Staged | None = None
    ready_at: float | None = None
    is_cancelled: bool = False
    is_unwanted: bool = False


@dataclass(frozen=True, slots=True)
class Answers:
    """The model server's statuses of each model, or the error in their place.

    `asked_at`: monotonic seconds. `started_at`: when its process started, in seconds since 1970, if known.
    """

    asked_at: float
    statuses: Mapping[Model, Mapping[Version, Served] | ServerError]
    started_at: float | None = None


@dataclass
class ReloadState:
    """The configuration that the server is still to get over gRPC, and when (monotonic seconds)."""

    wanted: ModelsConfig | None = None
    not_before: float = 0.0


@dataclass
class TrialUnderWay:
    """The trial by request of one version: a job at work, a pause, or what it came to.

    `misses`: how often it has told nothing, or no answer came in time. `not_before`: monotonic seconds.
    """

    result: Trial | None = None
    is_running: bool = False
    misses: int = 0
    not_before: float = 0.0


@dataclass
class StoreView:
    """The last good listing, and the result of the last attempt to get one.

    `polled_at`, `listed_at`: when the store was last asked, and last with success, in seconds since 1970.
    `asked_at`: the latter by the monotonic clock, as those that follow. `tried_at`: when the last attempt
    that has ended began. `arrived_at`: when the last good listing arrived.
    """

    listing: Listing | None = None
    names: frozenset[str] = frozenset()
    """The models that it was asked for."""
    error: StoreError | None = None
    polled_at: float | None = None
    listed_at: float | None = None
    asked_at: float = 0.0
    arrived_at: float | None = None
    tried_at: float | None = None
    asking_since: float = 0.0
    running: Running | None = None
    is_wanted: bool = False
    """A listing was asked for while another one, which counts no more, was under way."""
    is_new: bool = False
    """It has not been reported yet."""

    def listing_of(self, model: Model) -> Listing | None:
        """Return the last good listing if it was asked for a model, else None."""
        return self.listing if {model, EVERY_MODEL} & self.names else None


@dataclass
class ServerView:
    """The last answers, and since when newer ones are wanted (monotonic seconds)."""

    answers: Answers | None = None
    unnoted: list[Answers] = field(default_factory=list)
    """Answers that the watch has not recorded yet, the oldest first."""
    wanted_since: float = 0.0
    changed_at: float = 0.0
    """When the agent last changed what the server sees."""
    waiting_since: float | None = None
    asking_since: float | None = None
    running: Running | None = None


@dataclass
class Announced:
    """What the log has said already."""

    unrecognized: dict[Model, tuple[object, ...]] = field(default_factory=dict)
    unreadable: dict[Model, frozenset[str]] = field(default_factory=dict)
    trouble: dict[str, object] = field(default_factory=dict)
    server_asked_at: float | None = None
    once: set[object] = field(default_factory=set)
    channels: set[tuple[str, str, str]] = field(default_factory=set)
    held_newest: dict[Model, tuple[Version, Reason]] = field(default_factory=dict)
    budget: object = None
    short: dict[Key, object] = field(default_factory=dict)
    poll: PollSummary = field(default_factory=PollSummary)
    poll_failed: bool = False


@dataclass
class MemoryState:
    """What is known of the server's memory.

    `before_load`: what the server held before a version came that it is loading now. `last_weights`: of the
    models that could be read last.
    """

    estimates: MemoryEstimates
    unloading: Unloading = field(default_factory=Unloading)
    before_load: dict[Key, int] = field(default_factory=dict)
    last_weights: dict[Key, int] = field(default_factory=dict)


@dataclass
class UpkeepState:
    """What is done slowly beside the rest, and what of it is due (monotonic seconds)."""

    prepared: set[Model] = field(default_factory=set)
    """Models whose directories have been made."""
    checked: dict[Model, Checked] = field(default_factory=dict)
    """What the re-reading of versions came to."""
    reread_again_at: dict[Key, float] = field(default_factory=dict)
    """When versions may be read again that could not be read."""
    scrub_not_before: float = 0.0
    trash_is_due: bool = True
    """Something has been put into the trash since a job last emptied it."""
    trash_resists: bool = False
    """Something in the trash could not be removed."""
    may_have_strays: bool = False
    """A transfer may have left something in staging that could not be removed."""
    interrupted: dict[Key, Interrupted] = field(default_factory=dict)
    """Trees in staging with which the next transfer of the same offer goes on."""
    room_wanted: list[RoomWanted] = field(default_factory=list)
    """Transfers that wait until the trash has been emptied."""


@dataclass
class AgentState:
    """See the module. Used by the deciding thread only."""

    workspace: Workspace
    settling: Settling
    attempts: Attempts
    store_documents: StoreDocuments
    memory: MemoryState
    watch: ServerWatch = field(default_factory=ServerWatch)
    documents: DocumentReader = field(default_factory=DocumentReader)
    throttle: LogThrottle = field(default_factory=LogThrottle)
    store: StoreView = field(default_factory=StoreView)
    server: ServerView = field(default_factory=ServerView)
    gate: LoadGate = field(default_factory=LoadGate)
    held: HeldWatch = field(default_factory=HeldWatch)
    announced: Announced = field(default_factory=Announced)
    upkeep: UpkeepState = field(default_factory=UpkeepState)
    models: dict[Model, ModelSettings] = field(default_factory=dict)
    ignored_models: int = 0
    transfers: dict[Key, TransferUnderWay] = field(default_factory=dict)
    trials: dict[Key, TrialUnderWay] = field(default_factory=dict)
    """Of versions that the server has for the first time, since they came to the shelf."""
    reload: ReloadState = field(default_factory=ReloadState)
    last_brought: dict[Model, float] = field(default_factory=dict)
    config: ConfigKeeper | None = None
    transfer_tools: Transfers | None = None
    """What transfers share, also those that were started under other settings."""
    settings_error: SyncError | None = None
    """Why the settings on the disk are not in force."""
    weighing: dict[str, Release] = field(default_factory=dict)
    """Whose manifest a job reads, by the job's name."""
    jobs: dict[JobKind, int] = field(default_factory=dict)
    """How many jobs of each kind are at work."""

    @classmethod
    def fresh(cls, settings: Settings, *, durable: bool) -> "AgentState":
        """Return the state of an agent that has seen nothing. `durable`: it may write records."""
        workspace = Workspace(settings.serving.models_dir)
        documents = DocumentReader()
        return cls(
            workspace=workspace,
            settling=Settling(settings.store.settle_seconds),
            attempts=Attempts(workspace),
            store_documents=StoreDocuments(workspace, documents, durable=durable),
            memory=MemoryState(MemoryEstimates(workspace)),
            documents=documents,
        )

    def follow(self, old: Settings, new: Settings) -> None:
        """Take over other settings, and forget only what they make untrue.

        The caller cancels the transfers.
        """
        if new.store != old.store or new.models != old.models:
            self._list_anew()
        if new.store != old.store:
            self.store = StoreView(is_wanted=True)
            self.store_documents = StoreDocuments(
                self.workspace, self.documents, durable=self.store_documents.durable
            )
            self.settling = Settling(new.store.settle_seconds)
        if new.serving.interfaces != old.serving.interfaces:
            if self.server.running is not None:
                self.server.running.cancel()
            self.server = ServerView()
            self.watch = ServerWatch()
            self.trials = {}

    def _list_anew(self) -> None:
        """Cancel the listing under way: it is of another store, or of other models.

        The last good one stays for those models that it was asked for.
        """
        if self.store.running is not None:
            self.store.running.cancel()
        self.store.running, self.store.is_wanted = None, True
        self.documents.listed()

    def know_stamps(self, model: Model, version: Version, found: tuple[Mapping[str, Stamp], bool]) -> None:
        """Remember what the re-reading of a version came to."""
        self.upkeep.checked.setdefault(model, {})[version] = found
