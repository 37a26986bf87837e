"""Looks at store, shelf and server and lets the planner decide; changes nothing anywhere."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from servesync import disk
from servesync.confirm import ModelServer
from servesync.daemon.memory import Attempts, ServerMemory
from servesync.errors import Reason, ServerError, StoreError, SyncError
from servesync.install import DamageSeen, Inventory, Refusals, Shelf, Workspace
from servesync.plan.facts import (
    Everything,
    Facts,
    Hold,
    Latest,
    ModelPlan,
    Pin,
    Policy,
    Served,
    Server,
    ServerPolicy,
)
from servesync.plan.planner import plan
from servesync.plan.versions import Model, Release, Version
from servesync.settings import ModelSettings, Settings
from servesync.store import Listing, Settling, StorePort


@dataclass(frozen=True, slots=True)
class ModelView:
    """What was found for one model, and what is to be done."""

    settings: ModelSettings
    inventory: Inventory
    offered: Mapping[Version, Release]
    facts: Facts
    plan: ModelPlan


@dataclass(frozen=True, slots=True)
class Observation:
    """One look at everything. `broken` holds the models whose shelf could not be read, and why."""

    models: Mapping[Model, ModelView]
    broken: Mapping[Model, SyncError]
    listing: Listing | None
    store_error: StoreError | None
    server_error: ServerError | None
    settling_seconds: float | None
    """Until the next directory release may count as complete; None if none is settling."""


def policy_of(settings: ModelSettings) -> Policy:
    """Return the policy that a model's settings ask for."""
    versions = settings.versions
    if versions.latest is not None:
        return Latest(versions.latest)
    if versions.pin is not None:
        return Pin(frozenset(Version(number) for number in versions.pin))
    return Everything()


@dataclass
class Observer:
    """The eyes of the agent. The last good listing stays in mind while the store does not answer."""

    settings: Settings
    store: StorePort
    server: ModelServer | None
    workspace: Workspace
    check: Callable[[], None] = lambda: None
    attempts: Attempts = field(default_factory=Attempts)
    server_memory: ServerMemory = field(default_factory=ServerMemory)
    _damaged: dict[Model, DamageSeen] = field(init=False, default_factory=dict)
    _settling: Settling = field(init=False)
    _listing: Listing | None = field(init=False, default=None)
    _store_error: StoreError | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        """Start with nothing seen."""
        self._settling = Settling(self.settings.store.settle_seconds)

    @property
    def models(self) -> dict[Model, ModelSettings]:
        """The configured models by name."""
        return {Model(item.name): item for item in self.settings.models}

    def look(self, *, ask_store: bool) -> Observation:
        """Return what is there now; the store is listed only if `ask_store`."""
        if ask_store:
            self._list_store()
        now = time.monotonic()
        settling = self._settle(now)
        views: dict[Model, ModelView] = {}
        broken: dict[Model, SyncError] = {}
        server_error: ServerError | None = None
        for model, settings in self.models.items():
            self.check()
            served, error = self._ask_server(model, unreachable=server_error)
            server_error = server_error or error
            try:
                views[model] = self._view(model, settings, served, settling, now)
            except OSError as problem:
                broken[model] = disk.describe(problem, f"reading the shelf of {model}")
        waits = [
            left
            for model, held in settling.items()
            for version, left in held.items()
            if model in views and version not in views[model].inventory.versions
        ]
        return Observation(
            views, broken, self._listing, self._store_error, server_error, min(waits, default=None)
        )

    def _list_store(self) -> None:
        wanted = self.models
        try:
            self._listing = self.store.list(wanted.__contains__)
        except StoreError as error:
            self._store_error = error
        else:
            self._store_error = None

    def _settle(self, now: float) -> dict[Model, dict[Version, float]]:
        """Return the seconds that each settling release still has to stay unchanged."""
        if self._listing is None:
            return {}
        return {
            model: self._settling.remaining(model, releases, now)
            for model, releases in self._listing.releases.items()
        }

    def _ask_server(
        self, model: Model, *, unreachable: ServerError | None
    ) -> tuple[Mapping[Version, Served] | None, ServerError | None]:
        """Ask the server about one model; when it did not answer for another, do not wait for it again."""
        if self.server is None:
            return None, None
        error = unreachable
        found: Mapping[Version, Served] | None = None
        if error is None or error.reason is not Reason.SERVER_UNREACHABLE:
            try:
                found = self.server.status(model)
            except ServerError as problem:
                error = problem
        return self.server_memory.saw(model, found, time.monotonic()), error

    def _view(
        self,
        model: Model,
        settings: ModelSettings,
        served: Mapping[Version, Served] | None,
        settling: Mapping[Model, Mapping[Version, float]],
        now: float,
    ) -> ModelView:
        inventory = Shelf(self.workspace, model, self.check).inventory(self._damaged.setdefault(model, {}))
        releases = self._listing.releases.get(model, ()) if self._listing else ()
        offered = {release.version: release for release in releases}
        facts = Facts(
            model=model,
            policy=policy_of(settings),
            offered=None
            if self._listing is None
            else {version: release.identity for version, release in offered.items()},
            held=self._holds(model, offered, settling.get(model, {}), now),
            shelf=inventory.versions,
            server=Server(
                asked=self.server is not None,
                policy=ServerPolicy(self.settings.serving.version_policy),
                versions=served,
                waited_seconds=self.server_memory.waited_for(model),
                load_timeout_seconds=self.settings.serving.load_timeout_seconds,
            ),
        )
        return ModelView(settings, inventory, offered, facts, plan(facts))

    def _holds(
        self,
        model: Model,
        offered: Mapping[Version, Release],
        settling: Mapping[Version, float],
        now: float,
    ) -> dict[Version, Hold]:
        holds = {
            version: Hold(
                Reason.RELEASE_INCOMPLETE,
                "a directory without a manifest; it counts as complete when it has not changed for "
                f"{self.settings.store.settle_seconds:g} s ({left:.0f} s left)",
            )
            for version, left in settling.items()
            if left > 0
        }
        identities = {version: release.identity for version, release in offered.items()}
        holds |= self.attempts.holds(model, identities, now)
        holds |= Refusals(self.workspace.refusals(model)).holds(offered)
        if self._listing is not None:
            holds |= {
                version: Hold(error.reason, str(error))
                for (name, version), error in self._listing.problems.items()
                if name == model
            }
        return holds
