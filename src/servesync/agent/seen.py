"""What one turn of the agent has found and decided: for the log, the page, and `servesync plan`."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from servesync.admin import HeldVersion
from servesync.agent.models_config import Draft
from servesync.agent.snapshot import Snapshot
from servesync.domain.versions import Model
from servesync.errors import ServerError, StoreError
from servesync.planning.fleet_facts import FleetPlan
from servesync.store import Listing


@dataclass(frozen=True, slots=True)
class Seen:
    """`config`: what `serving.config_file` is to say; None if none is kept.

    `held`: of each model the newest version, where something keeps it away.
    """

    snapshot: Snapshot
    plan: FleetPlan
    listing: Listing | None = None
    store_error: StoreError | None = None
    server_error: ServerError | None = None
    config: Draft | None = None
    held: Mapping[Model, HeldVersion] = field(default_factory=dict)
