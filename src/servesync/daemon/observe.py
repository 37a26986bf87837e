"""Looks at store, shelf and server and lets the planner decide; changes nothing anywhere."""

import hashlib
import time
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Final

from servesync import __version__, disk
from servesync.admin import Board, Stage
from servesync.confirm import ModelServer
from servesync.daemon.memory import Attempts, ServerMemory
from servesync.errors import Reason, ServerError, Stopped, StoreError, SyncError, bug
from servesync.install import DamageSeen, Inventory, Refusals, Reserve, Shelf, Workspace
from servesync.plan.facts import (
    Condition,
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
from servesync.plan.versions import Model, Release, Version, parse_version
from servesync.plan.view import View, chosen
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
    """Until a listing may show that a wanted directory release has settled; None if none is settling."""


TAKES_THE_NUMBER: Final = (
    "was not put there by servesync, and the server takes its name for this version: move it away by hand"
)


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
    """The eyes of the agent. The last good listing stays in mind while the store does not answer.

    `one_pass`: there is no later look at which a server that starts now would have answered.
    `polled_at`: when the store was last asked, `listed_at`: when it last answered, in seconds since 1970.
    """

    settings: Settings
    store: StorePort
    server: ModelServer | None
    workspace: Workspace
    check: Callable[[], None] = lambda: None
    one_pass: bool = False
    attempts: Attempts = field(default_factory=Attempts)
    server_memory: ServerMemory = field(default_factory=ServerMemory)
    board: Board = field(default_factory=Board)
    polled_at: float | None = field(init=False, default=None)
    listed_at: float | None = field(init=False, default=None)
    _damaged: dict[Model, DamageSeen] = field(init=False, default_factory=dict)
    _settling: Settling = field(init=False)
    _listing: Listing | None = field(init=False, default=None)
    _listed_at: float = field(init=False, default=0.0)
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
        settling = self._settle()
        views: dict[Model, ModelView] = {}
        broken: dict[Model, SyncError] = {}
        server_error: ServerError | None = None
        for model, settings in self.models.items():
            self.check()
            served, error = self._ask_server(model, unreachable=server_error)
            server_error = server_error or error
            try:
                views[model] = self._view(model, settings, served, settling.get(model, {}), now)
            except OSError as problem:
                broken[model] = disk.describe(problem, f"reading the shelf of {model}")
            except Stopped:
                raise
            except Exception as problem:  # noqa: BLE001 (a bug with one model must not hold up the others)
                broken[model] = bug(problem)
        waits = [
            settling[model][version] + self._listed_at - now
            for model, view in views.items()
            for version in _awaited(view, settling.get(model, {}).keys())
        ]
        return Observation(
            views, broken, self._listing, self._store_error, server_error, min(waits, default=None)
        )

    def served_now(self, model: Model) -> Version | None:
        """Return the highest installed version that the server has confirmed; None if there is none.

        Where there is no server to ask, the highest installed one.
        """
        good = [
            version
            for version, record in Shelf(self.workspace, model, self.check).records().items()
            if record.state == "installed" and (record.confirmed or self.server is None)
        ]
        return max(good, default=None)

    def refusals(self, model: Model) -> Refusals:
        """Return the refused releases of `model`, as far as the present settings would refuse them again."""
        settings, wish = self.settings, self.models[model].signatures
        parts = [
            __version__,
            settings.verify.model_dump_json(),
            settings.limits.model_dump_json(),
            repr(wish),
        ]
        if wish == "as_served":
            parts.append(str(self.served_now(model)))
        judge = "\n".join(parts)
        return Refusals(self.workspace.refusals(model), hashlib.sha256(judge.encode()).hexdigest()[:16])

    def _list_store(self) -> None:
        wanted = self.models
        asked_at = time.monotonic()
        self.polled_at = time.time()
        try:
            with self.board.stage(Stage.LIST):
                self._listing = self.store.list(wanted.__contains__)
        except StoreError as error:
            self._store_error = error
        else:
            self._store_error = None
            self._listed_at = asked_at
            self.listed_at = self.polled_at
        self.board.polled(self._store_error.reason if self._store_error else None)

    def _settle(self) -> dict[Model, dict[Version, float]]:
        """Return the seconds after the last listing that each settling release must stay unchanged."""
        if self._listing is None:
            return {}
        return {
            model: self._settling.remaining(model, releases, self._listed_at)
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
        return found, error

    def _view(
        self,
        model: Model,
        settings: ModelSettings,
        served: Mapping[Version, Served] | None,
        settling: Mapping[Version, float],
        now: float,
    ) -> ModelView:
        inventory = Shelf(self.workspace, model, self.check).inventory(self._damaged.setdefault(model, {}))
        versions = self.server_memory.saw(model, served, time.monotonic(), inventory.versions)
        releases = self._listing.releases.get(model, ()) if self._listing else ()
        offered = {release.version: release for release in releases}
        facts = Facts(
            model=model,
            policy=policy_of(settings),
            offered=None
            if self._listing is None
            else {version: release.identity for version, release in offered.items()},
            held=self._holds(model, offered, inventory, settling, now),
            shelf=inventory.versions,
            reserve={
                version: record.identity
                for version, record in Reserve(self.workspace, model).versions().items()
            },
            server=Server(
                asked=self.server is not None,
                policy=ServerPolicy(self.settings.serving.version_policy),
                versions=versions,
                waited_seconds=self.server_memory.waited_for(model),
                load_timeout_seconds=self.settings.serving.load_timeout_seconds,
                may_be_starting=self._may_be_starting(model, now),
            ),
        )
        return ModelView(settings, inventory, offered, facts, plan(facts))

    def _may_be_starting(self, model: Model, now: float) -> bool:
        if self.one_pass:
            return False
        return self.server_memory.silent_seconds(model, now) < self.settings.serving.load_timeout_seconds

    def _holds(
        self,
        model: Model,
        offered: Mapping[Version, Release],
        inventory: Inventory,
        settling: Mapping[Version, float],
        now: float,
    ) -> dict[Version, Hold]:
        """Return why versions are not to be fetched now; what is said last counts."""
        holds = {
            version: Hold(
                Reason.RELEASE_INCOMPLETE,
                "a directory without a manifest; it counts as complete when it has not changed for "
                f"{self.settings.store.settle_seconds:g} s (at the last listing, {left:.0f} s were left)",
            )
            for version, left in settling.items()
        }
        identities = {version: release.offer for version, release in offered.items()}
        if self.settings.store.require_manifest:
            text = (
                "it has no manifest, and store.require_manifest asks for one; `servesync manifest` makes it"
            )
            holds |= {
                version: Hold(Reason.RELEASE_UNPROVEN, text)
                for version, release in offered.items()
                if release.manifest is None
            }
        holds |= self.attempts.holds(model, identities, now)
        holds |= self.server_memory.resting(model, now)
        foreign = {v for v, item in inventory.versions.items() if item.condition is Condition.FOREIGN}
        holds |= self.refusals(model).holds(offered, foreign)
        holds |= {
            version: Hold(
                Reason.VERSION_FOREIGN, f"{str(self.workspace.shelf(model) / name)!a} {TAKES_THE_NUMBER}"
            )
            for name in inventory.strange
            if (version := parse_version(name.strip(" \t\n\v\f\r").removeprefix("+"))) is not None
        }
        if self._listing is not None:
            holds |= {
                version: Hold(error.reason, str(error))
                for (name, version), error in self._listing.problems.items()
                if name == model
            }
        return holds


def _awaited(view: ModelView, settling: AbstractSet[Version]) -> frozenset[Version]:
    """Return the settling versions that policy would bring if they were complete."""
    present = View(view.facts).candidates
    return chosen(view.facts.policy, present | settling) & settling - view.inventory.versions.keys()
