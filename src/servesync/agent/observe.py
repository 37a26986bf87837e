"""Looks at store, shelf and server and lets the planner decide; changes nothing anywhere."""

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Final

from servesync import __version__, disk
from servesync.admin import Board, Stage
from servesync.agent.admission import Admission, MemoryView
from servesync.agent.channels import Notices
from servesync.agent.memory import Attempts
from servesync.agent.models_config import ConfigKeeper, Draft, labels_of, told
from servesync.agent.server_watch import Said, ServerWatch
from servesync.confirm import ModelServer
from servesync.errors import Reason, ServerError, Stopped, StoreError, SyncError, bug
from servesync.fetch import read_whole
from servesync.install import DamageSeen, Inventory, Record, Refusals, Reserve, Shelf, Workspace, awaited_back
from servesync.plan.facts import (
    Everything,
    Facts,
    Follow,
    Hold,
    Latest,
    ModelPlan,
    Pin,
    Policy,
    Served,
    Server,
    ServerPolicy,
)
from servesync.plan.hearsay import NOTHING, READING, heard, said
from servesync.plan.planner import plan
from servesync.plan.versions import Model, Release, StoredObject, Version, parse_version
from servesync.plan.view import View, chosen
from servesync.settings import EVERY_MODEL, ModelSettings, Settings
from servesync.store import Listing, Settling, StorePort


@dataclass(frozen=True, slots=True)
class ModelView:
    """What was found for one model, and what is to be done."""

    settings: ModelSettings
    inventory: Inventory
    offered: Mapping[Version, Release]
    facts: Facts
    plan: ModelPlan
    said: Mapping[Version, str]
    """What records are to keep of the server's word, where that has changed."""
    unreadable: tuple[str, ...] = ()
    """What to say of records of this model that are there and cannot be read."""


@dataclass(frozen=True, slots=True)
class Observation:
    """One look at everything. `broken` holds the models whose shelf could not be read, and why."""

    models: Mapping[Model, ModelView]
    broken: Mapping[Model, SyncError]
    listing: Listing | None
    store_error: StoreError | None
    server_error: ServerError | None
    memory: MemoryView
    settling_seconds: float | None
    """Until a listing may show that a wanted directory release has settled; None if none is settling."""
    config: Draft | None = None
    """What `serving.config_file` is to say; None if none is kept."""


MOST_MODELS: Final = 1000

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
    if versions.channel is not None:
        return Follow(tuple(versions.channel))
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
    admission: Admission
    check: Callable[[], None] = lambda: None
    one_pass: bool = False
    config: ConfigKeeper | None = None
    attempts: Attempts = field(default_factory=Attempts)
    server_watch: ServerWatch = field(default_factory=ServerWatch)
    notices: Notices = field(init=False)
    notice_error: SyncError | None = field(init=False, default=None)
    _models: dict[Model, ModelSettings] = field(init=False, default_factory=dict)
    _ignored_models: int = field(init=False, default=0)
    board: Board = field(default_factory=Board)
    polled_at: float | None = field(init=False, default=None)
    listed_at: float | None = field(init=False, default=None)
    _damaged: dict[Model, DamageSeen] = field(init=False, default_factory=dict)
    _settling: Settling = field(init=False)
    _listing: Listing | None = field(init=False, default=None)
    _listed_at: float = field(init=False, default=0.0)
    _store_error: StoreError | None = field(init=False, default=None)
    _server_error: ServerError | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        """Start with nothing seen."""
        self.notices = Notices(self.workspace, self._read_whole)
        self._settling = Settling(self.settings.store.settle_seconds)
        self._discover()

    @property
    def models(self) -> dict[Model, ModelSettings]:
        """The configured models by name, and those that "*" stands for, as far as they are known by now."""
        return dict(self._models)

    @property
    def ignored_models(self) -> int:
        """How many models of the store "*" would stand for if it were not for `MOST_MODELS`."""
        return self._ignored_models

    def _should_stop(self) -> bool:
        try:
            self.check()
        except Stopped:
            return True
        return False

    def _read_whole(self, item: StoredObject) -> bytes:
        return read_whole(item, self.store.read, self.settings.fetch, self._should_stop)

    def _discover(self) -> None:
        """Take up every model of the store and of the shelf that "*" stands for.

        One that leaves the store stays for as long as there is something of it on this machine, and no new
        one takes its place.
        """
        before = self._models
        named = {item.name: item for item in self.settings.models}
        others = named.pop(EVERY_MODEL, None)
        self._models = {Model(name): item for name, item in named.items()}
        if others is None:
            return
        try:
            here = self.workspace.recorded()
            here |= awaited_back(self.workspace, here)
        except OSError as problem:  # what was known stays
            self.notice_error = disk.describe(problem, "reading which models have records")
            self._models = before | self._models
            return
        found = set(here)
        if self._listing is not None:
            found |= self._listing.releases.keys() | {model for model, _ in self._listing.problems}
        fresh = sorted(found - self._models.keys(), key=lambda model: (model not in here, model))
        room = max(0, MOST_MODELS - len(self._models))
        self._ignored_models = len(fresh[room:])
        self._models |= {model: others.model_copy(update={"name": model}) for model in fresh[:room]}

    def look(self, *, ask_store: bool) -> Observation:
        """Return what is there now; the store is listed only if `ask_store`."""
        if ask_store:
            self._list_store()
        if self.config is not None:
            self.config.look()
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
        memory = self._admit(views, now)
        for model, cause in memory.unreadable:
            views.pop(model, None)
            doing = f"reading what the versions of {model} weigh"
            broken[model] = disk.describe(cause, doing) if isinstance(cause, OSError) else bug(cause)
        draft = self._draft(views, server_error, now)
        waits = [
            settling[model][version] + self._listed_at - now
            for model, view in views.items()
            for version in _awaited(view, settling.get(model, {}).keys())
        ]
        return Observation(
            views,
            broken,
            self._listing,
            self._store_error,
            server_error,
            memory,
            min(waits, default=None),
            draft,
        )

    def _admit(self, views: dict[Model, ModelView], now: float) -> MemoryView:
        """Plan anew for models whose next version the server's memory has no room for."""
        looked = {model: view.facts for model, view in views.items()}
        offered = {model: view.offered for model, view in views.items()}
        changed, memory = self.admission.admit(looked, offered, now)
        for model, facts in changed.items():
            views[model] = replace(views[model], facts=facts, plan=plan(facts))
        return memory

    def _draft(
        self, views: Mapping[Model, ModelView], server_error: ServerError | None, now: float
    ) -> Draft | None:
        """Return what `serving.config_file` is to say, after what was seen."""
        if self.config is None:
            return None
        facts = {model: view.facts for model, view in views.items()}
        self.config.saw(facts, server_error, now)
        return self.config.draft(self.models, facts, now)

    def served_now(self, model: Model) -> tuple[Version, Record | None] | None:
        """Return the highest version that the server has confirmed, and its record; None if there is none.

        Where there is no server to ask, the highest installed one. It counts while it is repaired,
        doubted, or off the shelf for a moment, too; and so does one whose record cannot be read.
        """
        away = Reserve(self.workspace, model).versions().items()
        known = {version: record for version, record in away if record.returning}
        shelf = Shelf(self.workspace, model, self.check)
        known |= shelf.records()
        good = {version for version, record in known.items() if record.confirmed or self.server is None}
        good |= shelf.unrecorded()
        return (max(good), known.get(max(good))) if good else None

    def said_now(self, model: Model, version: Version, *, replaces: bool = False) -> str:
        """Return what a record is to keep of the server's word when bytes are about to come under a number.

        `replaces`: damaged bytes lie there, which a server that does not answer may be reading just now.
        """
        if self.server is None:
            return NOTHING
        try:
            return said(self.server.status(model).get(version))
        except ServerError:
            return READING if replaces else NOTHING

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
            served = self.served_now(model)
            parts.append(str(served[0] if served else None))
        judge = "\n".join(parts)
        return Refusals(self.workspace.refusals(model), hashlib.sha256(judge.encode()).hexdigest()[:16])

    def _list_store(self) -> None:
        names = {item.name for item in self.settings.models}
        asked_at = time.monotonic()
        self.polled_at = time.time()
        try:
            with self.board.stage(Stage.LIST):
                self._listing = self.store.list(
                    lambda model: EVERY_MODEL in names or model in names, should_stop=self._should_stop
                )
        except StoreError as error:
            self._store_error = error
        else:
            self._store_error = self.notice_error = None
            self._listed_at = asked_at
            self.listed_at = self.polled_at
            self._discover()
            self._read_notices(self._listing)
        self.board.polled(self._store_error.reason if self._store_error else None)

    def _read_notices(self, listing: Listing) -> None:
        """Take over where channels stand, and what is withdrawn; what fails is looked at again next time."""
        for model, settings in self.models.items():
            with self._going_on(model):
                self.notices.follow(model, settings.channels, listing.channels.get(model, {}))
            with self._going_on(model):
                shelf, reserve = Shelf(self.workspace, model), Reserve(self.workspace, model)
                here = {*shelf.records(), *shelf.unrecorded(), *reserve.versions()}
                releases = listing.documented(model)
                self.notices.look_for_withdrawals(model, releases, here, self.refusals(model))

    @contextmanager
    def _going_on(self, model: Model) -> Iterator[None]:
        """Keep what fails for the log, and go on."""
        try:
            yield
        except Stopped:
            raise
        except SyncError as error:
            self.notice_error = error
        except OSError as problem:
            self.notice_error = disk.describe(problem, f"recording what the store says of {model}")

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
        self._server_error = error
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
        self._watch(model, served, inventory)
        versions, said = _heard(served, inventory)
        reserve, lost = Reserve(self.workspace, model).contents()
        refusals = self.refusals(model)
        returning = frozenset(version for version, record in reserve.items() if record.returning)
        resting = self.server_watch.cooling_down(model, now)
        releases = self._listing.releases.get(model, ()) if self._listing else ()
        offered = {release.version: release for release in releases}
        policy, latest = told(self.settings.serving, settings)
        channels = self.notices.positions(model)
        labels = labels_of(self.settings.serving, settings, channels)
        facts = Facts(
            model=model,
            policy=policy_of(settings),
            offered=None
            if self._listing is None
            else {version: release.identity for version, release in offered.items()},
            held=_rests(resting - returning) | self._holds(model, offered, inventory, settling, now),
            shelf=inventory.versions,
            reserve={version: record.identity for version, record in reserve.items()},
            returning=returning,
            resting=resting,
            channels=channels,
            withdrawn=self.notices.withdrawn(model, offered, refusals),
            server=self._server_facts(model, versions, policy, latest, now),
            labels=labels,
            labelled=self.config.labelled(model, labels) if self.config else frozenset(),
        )
        unreadable = (
            *inventory.unreadable.values(),
            *lost.values(),
            *refusals.unreadable().values(),
            *self.notices.unreadable(model).values(),
        )
        return ModelView(settings, inventory, offered, facts, plan(facts), said, unreadable)

    def _watch(self, model: Model, served: Mapping[Version, Served] | None, inventory: Inventory) -> None:
        """Take note of what the server said, unless there is none to ask."""
        said: Said | None = self._server_error if served is None else served
        if said is not None:
            started_at = self.admission.footprint.started_at()
            self.server_watch.saw(model, said, inventory.versions, time.monotonic(), started_at)

    def _server_facts(
        self,
        model: Model,
        versions: Mapping[Version, Served] | None,
        policy: ServerPolicy,
        latest: int,
        now: float,
    ) -> Server:
        server = Server(
            asked=self.server is not None,
            policy=policy,
            versions=versions,
            load_timeout_seconds=self.settings.serving.load_timeout_seconds,
            scan_seconds=self.settings.serving.scan_interval_seconds,
            may_be_starting=self._may_be_starting(model, now),
            latest=latest,
        )
        found = self.server_watch.facts(model, now, server)
        if self.one_pass:
            return replace(found, unreachable_seconds={}, answered_seconds=math.inf)
        return found

    def _may_be_starting(self, model: Model, now: float) -> bool:
        if self.one_pass:
            return False
        return self.server_watch.silent_seconds(model, now) < self.settings.serving.load_timeout_seconds

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
        foreign = {v for v, item in inventory.versions.items() if not item.is_ours}
        holds |= self.refusals(model).holds(offered, foreign)
        holds |= {
            version: Hold(
                Reason.VERSION_FOREIGN, f"{str(self.workspace.shelf(model) / name)!a} {TAKES_THE_NUMBER}"
            )
            for name in inventory.strange
            if (version := parse_version(name.strip(" \t\n\v\f\r").removeprefix("+"))) is not None
        }
        holds |= {
            version: Hold(Reason.RECORD_UNREADABLE, inventory.unreadable[version])
            for version in inventory.blocking
        }
        if self._listing is not None:
            holds |= {
                version: Hold(error.reason, str(error))
                for (name, version), error in self._listing.problems.items()
                if name == model
            }
        return holds


def _heard(
    versions: Mapping[Version, Served] | None, inventory: Inventory
) -> tuple[Mapping[Version, Served] | None, dict[Version, str]]:
    """Return what the server says with old news marked as such, and what records are to keep of it now."""
    if versions is None:
        return None, {}
    found, said = dict(versions), {}
    for version, item in inventory.versions.items():
        served, kept = heard(versions.get(version), item.said_before)
        if served is not None:
            found[version] = served
        if kept != item.said_before:
            said[version] = kept
    return found, said


def _rests(versions: AbstractSet[Version]) -> dict[Version, Hold]:
    text = "taken off the shelf a moment ago; the server must see it gone before it may come again"
    return dict.fromkeys(versions, Hold(Reason.SERVER_REFUSED, text))


def _awaited(view: ModelView, settling: AbstractSet[Version]) -> frozenset[Version]:
    """Return the settling versions that policy would bring if they were complete."""
    present = View(view.facts).candidates
    return (
        chosen(view.facts.policy, present | settling, view.facts.channels)
        & settling - view.inventory.versions.keys()
    )
