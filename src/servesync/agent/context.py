"""What every part of one agent works with: its settings, its surroundings, and its state."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TypeVar

from servesync.admin import AgentStatus
from servesync.agent.models_config import ConfigKeeper
from servesync.agent.ports import Ports
from servesync.agent.state import AgentState
from servesync.domain.versions import Model
from servesync.errors import Stopped, SyncError, internal_error
from servesync.install import Reserve, Shelf, Workspace
from servesync.jobs import Job, JobKind, Running
from servesync.planning.fleet_facts import MemoryFacts
from servesync.settings import EVERY_MODEL, ModelSettings, Settings
from servesync.transfer.transfer import Transfers

T = TypeVar("T")


@dataclass
class AgentContext:
    """Used by the deciding thread only.

    `one_pass`: there is no later moment at which a server that starts now would have answered.
    """

    settings: Settings
    ports: Ports
    state: AgentState
    agent_status: AgentStatus
    transfers: Transfers
    config: ConfigKeeper | None = None
    one_pass: bool = False
    last_memory: MemoryFacts | None = None
    errors: list[tuple[Model | None, SyncError]] = field(default_factory=list)
    """What failed since the announcer last said so."""

    @property
    def workspace(self) -> Workspace:
        """Where things lie on the disk."""
        return self.state.workspace

    @property
    def models(self) -> Mapping[Model, ModelSettings]:
        """The configured models by name, and those that "*" stands for, as far as they are known by now."""
        return self.state.models

    @property
    def every_model(self) -> ModelSettings | None:
        """The settings of "*"; None if every model is named."""
        return next((item for item in self.settings.models if item.name == EVERY_MODEL), None)

    def shelf(self, model: Model) -> Shelf:
        """Return the shelf of a model."""
        return Shelf(self.workspace, model)

    def reserve(self, model: Model) -> Reserve:
        """Return the reserve of a model."""
        return Reserve(self.workspace, model)

    def start(self, job: Job) -> Running:
        """Start a job beside the deciding thread."""
        self.state.jobs[job.kind] = self.state.jobs.get(job.kind, 0) + 1
        return self.ports.jobs.start(job)

    def is_busy(self, kind: JobKind) -> bool:
        """Whether a job of a kind is at work."""
        return bool(self.state.jobs.get(kind))

    def now(self) -> float:
        """Return monotonic seconds."""
        return self.ports.clock.monotonic()

    def utc(self) -> datetime:
        """Return the time of day, in UTC."""
        return datetime.fromtimestamp(self.ports.clock.wall(), UTC)

    def failed(self, error: SyncError, model: Model | None = None) -> None:
        """Note what failed beside the actions of the plan, for the log."""
        self.errors.append((model, error))


def isolate(work: Callable[[], T]) -> T | SyncError:
    """Return what `work` returns, or its failure: a bug with one model must not hold up the others.

    Raises:
        Stopped: the agent is to stop.
        OSError: the disk refused.
    """
    try:
        return work()
    except (Stopped, OSError):
        raise
    except SyncError as error:
        return error
    except Exception as error:  # noqa: BLE001
        return internal_error(error)
