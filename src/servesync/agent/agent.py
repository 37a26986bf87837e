"""One cycle of the agent: look, let the planner decide, act, and say in one line what was done and why."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from servesync import disk
from servesync.agent.channels import Moved, Withdrawn
from servesync.agent.executor import Executor
from servesync.agent.memory import Repeats
from servesync.agent.memory_log import MemoryLog
from servesync.agent.models_config import ConfigWriter
from servesync.agent.observe import MOST_MODELS, ModelView, Observation, Observer
from servesync.agent.scrub import Scrubber
from servesync.agent.status import snapshot_of
from servesync.agent.turns import Turns, retires
from servesync.errors import Reason, ServerError, StoreError, SyncError, TransferError, bug
from servesync.install import Lock, Reserve, Shelf
from servesync.logs import Event, get_logger
from servesync.plan.facts import Action, Condition, Install, ModelPlan, Repair, Restore, Role, Verdict, Wait
from servesync.plan.versions import Model, Version
from servesync.settings import EVERY_MODEL


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a cycle did, and what is left."""

    acted: bool
    waiting: bool
    """The server (if it answers) is about to say more about a version, and is not overdue; or it rests."""
    server_answers: bool
    settling_seconds: float | None
    retry_seconds: float | None
    plans: Mapping[Model, ModelPlan]
    store_failed: bool
    missing: tuple[Model, ...]
    """Required models without every wanted version complete on the shelf."""


class Agent:
    """Everything that one agent at work is made of; the lock is held by the caller."""

    def __init__(
        self,
        observer: Observer,
        executor: Executor,
        lock: Lock,
        repeats: Repeats,
        scrubber: Scrubber | None = None,
    ) -> None:
        self.observer = observer
        self._executor = executor
        self._lock = lock
        self._repeats = repeats
        self._scrubber = scrubber
        self._config = ConfigWriter(observer.config, repeats) if observer.config else None
        self._last_brought: dict[Model, float] = {}
        self._known_strange: dict[Model, tuple[object, ...]] = {}
        self._unreadable: dict[Model, frozenset[str]] = {}
        self._last_summary: object = None
        self._last_trouble: dict[str, object] = {}
        self._said: set[object] = set()
        self._prepared: set[Model] = set()
        self._channel_troubles: set[tuple[str, str, str]] = set()
        serving = observer.settings.serving
        self._turns = Turns(serving.pause_between_loads_seconds, serving.load_timeout_seconds)
        self._memory_log = MemoryLog()

    def prepare(self) -> None:
        """Make every directory and remove what an earlier run left half-done.

        A model whose base path cannot be used is reported, and looked at again in each cycle.

        Raises:
            DiskError: the models directory cannot be used, or no model's base path in it.
        """
        workspace = self.observer.workspace
        try:
            workspace.prepare(self.observer.models)
        except OSError as error:
            self._prepare_new()
            if not self._prepared:
                raise disk.describe(error, f"preparing {workspace.models_dir}") from error
        else:
            self._prepared = set(self.observer.models)
        problems = workspace.clean()
        for model in self.observer.models:
            try:
                Reserve(workspace, model).clean()
            except OSError as error:
                problems.append(error)
        for problem in problems:
            self._say_failed(disk.describe(problem, "removing what an earlier run left"))
        if self._config is not None:
            names_all = all(item.name != EVERY_MODEL for item in self.observer.settings.models)
            self._config.prepare(self.observer.models, names_all=names_all)

    def close(self) -> None:
        """Close all connections to store and server, and end what goes on beside the deciding thread."""
        if self._scrubber is not None:
            self._scrubber.close()
        self.observer.store.close()
        if self.observer.server is not None:
            self.observer.server.close()

    def cycle(self, *, ask_store: bool) -> Outcome:
        """Do what can be done now; of the versions to bring, one.

        Raises:
            LockHeld: the lock was taken away; nothing may be changed any more.
            Stopped: the agent is to stop.
        """
        self._lock.check()
        self._ensure_shelves()
        if ask_store:
            self._executor.empty_trash()
        self._scrub()
        seen = self.observer.look(ask_store=ask_store)
        self._prepare_new()
        self.observer.board.publish(snapshot_of(seen, self.observer))
        self._report(seen, asked_store=ask_store)
        self._turns.look([(view.facts, view.plan) for view in seen.models.values()], time.monotonic())
        acted, resting = self._write_config(seen), False
        for view, action in self._others(seen):
            if not self._turns.is_due(view.facts, action, time.monotonic()):
                resting = True
            elif self._executor.execute(view, action):
                acted = True
                if retires(view.facts, action):
                    self._turns.retired(view.plan.model, time.monotonic())
        for view, action in self._arrivals(seen):
            if not self._turns.is_due(view.facts, action, time.monotonic()):
                resting = True
                continue
            self._last_brought[view.plan.model] = time.monotonic()
            brought = self._executor.execute(view, action)
            self._turns.tried(view.facts, brought=brought)
            acted = True  # a refusal changes what is wanted, too
            break
        return self._outcome(seen, acted=acted, resting=resting)

    def _others(self, seen: Observation) -> Iterator[tuple[ModelView, Action]]:
        """Yield what is to be done besides bringing versions."""
        for view in seen.models.values():
            self._settle(view)
            for action in view.plan.actions:
                if not isinstance(action, Restore | Install | Repair):
                    yield view, action

    def _arrivals(self, seen: Observation) -> Iterator[tuple[ModelView, Action]]:
        """Yield what is to be brought: for whom room was made, then for the model that waited longest."""
        found = [
            (self._rank(view.plan.model), view, action)
            for view in seen.models.values()
            for action in view.plan.actions
            if isinstance(action, Restore | Install | Repair) and not self._executor.is_paused(view, action)
        ]
        for _, view, action in sorted(found, key=lambda item: item[0]):
            yield view, action

    def _prepare_new(self) -> None:
        """Make the directories of models that are new, or whose base path could not be used before."""
        for model in self.observer.models.keys() - self._prepared:
            try:
                self.observer.workspace.prepare([model])
            except OSError as error:
                self._say_failed(disk.describe(error, f"making the directories of {model}"))
            else:
                self._prepared.add(model)

    def _rank(self, model: Model) -> tuple[bool, float]:
        return not self._turns.is_next(model), self._last_brought.get(model, 0.0)

    def _ensure_shelves(self) -> None:
        """Put a base path back that somebody removed: without it the server stops updating every model.

        So with the workspace's own folders.
        """
        try:
            self.observer.workspace.make_folders()
        except OSError as error:
            self._say_failed(disk.describe(error, f"making {self.observer.workspace.root}"))
        for model in self.observer.models:
            try:
                disk.make_dir(self.observer.workspace.shelf(model), 0o755)
            except OSError as error:
                self._say_failed(disk.describe(error, f"making the base path of {model}"))

    def _write_config(self, seen: Observation) -> bool:
        """Tell the server its models and labels, before anything leaves the shelf."""
        return self._config is not None and seen.config is not None and self._config.write(seen.config)

    def _scrub(self) -> None:
        """Go on with the slow reading of what is on the shelf."""
        if self._scrubber is not None:
            try:
                self._scrubber.turn(Shelf(self.observer.workspace, model) for model in self.observer.models)
            except OSError as error:
                self._say_failed(disk.describe(error, "reading what is on the shelf again"))
            except Exception as error:  # noqa: BLE001 (a bug in what goes on beside must not stop the rest)
                self._say_failed(bug(error))

    def _settle(self, view: ModelView) -> None:
        shelf = Shelf(self.observer.workspace, view.plan.model)
        try:
            shelf.settle(view.inventory)
            for version, said in view.said.items():
                shelf.note_said(version, said)
            self._settle_reserve(view)
            if view.unreadable:
                self.observer.refusals(view.plan.model).settle(view.offered, datetime.now(UTC))
            for version in view.inventory.orphaned.keys() - view.plan.wanted - view.facts.held.keys():
                shelf.forget(version)
        except OSError as error:
            self._say_failed(disk.describe(error, f"writing records of {view.plan.model}"))

    def _settle_reserve(self, view: ModelView) -> None:
        """Drop what was withdrawn; keep what was to be tried again, and is not wanted, as the rest."""
        model = view.plan.model
        reserve = Reserve(self.observer.workspace, model)
        for version in view.facts.withdrawn & view.facts.reserve.keys():
            reserve.drop(version)
        left = view.facts.returning - view.plan.wanted - view.facts.withdrawn
        if left and view.plan.served:
            for version in left:
                reserve.keep(version)
            reserve.trim(self.observer.settings.reserve.keep, self.observer.admission.awaited(model))
            self._executor.empty_trash()

    def _outcome(self, seen: Observation, *, acted: bool, resting: bool) -> Outcome:
        plans = {model: view.plan for model, view in seen.models.items()}
        return Outcome(
            acted=acted,
            waiting=seen.server_error is None
            and (
                resting
                or any(
                    isinstance(action, Wait) and not action.overdue
                    for plan in plans.values()
                    for action in plan.actions
                )
            ),
            server_answers=seen.server_error is None,
            settling_seconds=seen.settling_seconds,
            retry_seconds=self._retry_seconds(),
            plans=plans,
            store_failed=seen.store_error is not None,
            missing=self._missing(plans),
        )

    def _missing(self, plans: Mapping[Model, ModelPlan]) -> tuple[Model, ...]:
        """Return the required models that are not in place; "*" itself as long as it stands for none."""
        models = self.observer.models
        missing = [
            model
            for model, settings in models.items()
            if settings.required and not (model in plans and plans[model].in_place)
        ]
        every = [item for item in self.observer.settings.models if item.name == EVERY_MODEL]
        if every and every[0].required and not models:
            missing.append(Model(EVERY_MODEL))
        return tuple(missing)

    def _retry_seconds(self) -> float | None:
        now = time.monotonic()
        due = [self.observer.attempts.next_due(now), self.observer.server_watch.next_due(now)]
        if self.observer.config is not None:
            due.append(self.observer.config.next_due(now))
        return min((seconds for seconds in due if seconds is not None), default=None)

    # -- what the log says --------------------------------------------------------------------------

    def _report(self, seen: Observation, *, asked_store: bool) -> None:
        if asked_store:
            self._report_trouble("store", seen.store_error, Event.POLL_FAILED, None)
        self._report_trouble("server", seen.server_error, Event.SERVER_UNREACHABLE, Event.SERVER_ANSWERS)
        if asked_store:
            self._report_notices()
        for model, error in seen.broken.items():
            self._say_failed(error, model=model)
        for model, view in seen.models.items():
            self._report_unreadable(model, view)
            self._report_strange(model, view)
            self._report_store(model, view)
        self._report_ignored(self.observer.ignored_models)
        self._memory_log.report(seen.memory)
        summary = {
            model: {str(version): verdict.role.value for version, verdict in _of_interest(view)}
            for model, view in seen.models.items()
        }
        offered = {model: len(view.offered) for model, view in seen.models.items()}
        facts = (summary, offered, seen.store_error is None)
        news = asked_store and facts != self._last_summary
        say = get_logger().info if news else get_logger().debug
        if seen.store_error is None:
            say(Event.POLL_FINISHED, models=summary, in_store=offered, **_listing_facts(seen))
        if asked_store:
            self._last_summary = facts

    def _report_notices(self) -> None:
        """Say where channels have moved to, what was withdrawn, and what of that could not be understood."""
        notices = self.observer.notices
        for news in notices.news:
            log = get_logger().bind(model=news.model)
            match news:
                case Moved(name=name, was=was, now=now):
                    log.info(
                        Event.CHANNEL_MOVED,
                        version=now.version,
                        channel=name,
                        was=was,
                        sequence=now.sequence,
                        who=now.who,
                        why=now.why,
                    )
                case Withdrawn(version=version, text=text):
                    log.warning(Event.VERSION_WITHDRAWN, version=version, because=text)
        notices.news.clear()
        troubles = {(str(model), name, str(error)) for (model, name), error in notices.troubles.items()}
        for (model, name), error in notices.troubles.items():
            if (model, name, str(error)) not in self._channel_troubles:
                log = get_logger().bind(model=model, channel=name)
                say = log.warning if isinstance(error, StoreError | TransferError) else log.error
                say(Event.CHANNEL_REFUSED, reason=error.reason, because=str(error))
        self._channel_troubles = troubles
        if self.observer.notice_error is not None:
            self._say_failed(self.observer.notice_error)

    def _report_ignored(self, count: int) -> None:
        """Say when the store has more models than one agent takes."""
        if count and ("too many", count) not in self._said:
            self._said.add(("too many", count))
            because = (
                f'"*" stands for at most {MOST_MODELS} models: name those that count, or use more agents'
            )
            get_logger().warning(Event.TOO_MANY_MODELS, because=because, ignored=count)

    def _report_trouble(
        self, who: str, error: StoreError | ServerError | None, event: Event, over: Event | None
    ) -> None:
        before = self._last_trouble.pop(who, None)
        if error is None or error.reason is not before:
            self._repeats.over((who, before))
        if error is None:
            if before is not None and over:
                get_logger().info(over)
            return
        self._last_trouble[who] = error.reason
        repeats = self._repeats.count((who, error.reason))
        if repeats is not None:
            get_logger().warning(
                event, reason=error.reason, because=str(error), repeats=repeats, facts=error.facts
            )

    def _report_unreadable(self, model: Model, view: ModelView) -> None:
        """Say once of each record that cannot be read what follows; again if it could be read in between."""
        before = self._unreadable.get(model, frozenset())
        self._unreadable[model] = frozenset(view.unreadable)
        for text in view.unreadable:
            if text not in before:
                log = get_logger().bind(model=model)
                log.error(Event.RECORD_UNREADABLE, reason=Reason.RECORD_UNREADABLE, because=text)

    def _report_strange(self, model: Model, view: ModelView) -> None:
        """Say once what lies on the shelf that servesync did not put there, or that somebody damaged."""
        by_condition = {
            condition: tuple(v for v, item in view.inventory.versions.items() if item.condition is condition)
            for condition in (Condition.DAMAGED, Condition.FOREIGN)
        }
        found = (view.inventory.strange, *by_condition.values())
        if found == self._known_strange.get(model, ((), (), ())):
            return
        self._known_strange[model] = found
        log = get_logger().bind(model=model)
        for version in by_condition[Condition.DAMAGED]:
            log.error(
                Event.VERSION_DAMAGED,
                version=version,
                reason=Reason.VERSION_DAMAGED,
                because="its files are not those that were installed",
            )
        names = [str(version) for version in by_condition[Condition.FOREIGN]]
        names += [ascii(name) for name in view.inventory.strange]
        if names:
            because = "not put there by servesync: left alone, but the server loads whatever has such a name"
            log.warning(Event.VERSION_FOREIGN, names=names, because=because)

    def _report_store(self, model: Model, view: ModelView) -> None:
        """Warn once when the store no longer has what is served, or has something else under its number."""
        log = get_logger().bind(model=model)
        owned = sorted(v for v, item in view.inventory.versions.items() if item.identity)
        empty = ("empty", model)
        if view.facts.offered == {} and owned:
            if empty not in self._said:
                because = (
                    "the store lists no version of this model; that removes nothing, what is there stays"
                )
                log.warning(Event.STORE_EMPTY, because=because, on_shelf=owned)
            self._said.add(empty)
        elif view.facts.offered:
            self._said.discard(empty)
        for action in view.plan.actions:
            if isinstance(action, Wait) and action.overdue:
                self._say_overdue(model, action)
        for version in owned:
            ours, theirs = view.inventory.versions[version].identity, (view.facts.offered or {}).get(version)
            changed = ("changed", model, version, theirs)
            if theirs is not None and theirs != ours and changed not in self._said:
                self._said.add(changed)
                because = "versions are immutable: the one on the shelf stays; publish under a new number"
                log.warning(
                    Event.VERSION_CHANGED_IN_STORE,
                    version=version,
                    because=because,
                    on_shelf=ours,
                    in_store=theirs,
                )

    def _say_overdue(self, model: Model, action: Wait) -> None:
        overdue = ("overdue", model, action.version)
        if overdue not in self._said:
            self._said.add(overdue)
            log = get_logger().bind(model=model, version=action.version)
            log.warning(Event.VERSION_NOT_LOADED, because=action.because)

    def _say_failed(self, error: SyncError, **facts: str) -> None:
        self.observer.board.failed(error.reason)
        repeats = self._repeats.count((error.reason, str(error)))
        if repeats is not None:
            get_logger().warning(
                Event.ACTION_FAILED,
                reason=error.reason,
                because=str(error),
                repeats=repeats,
                facts=error.facts | facts,
            )


def _of_interest(view: ModelView) -> Iterator[tuple[Version, Verdict]]:
    for version, verdict in view.plan.verdicts.items():
        if verdict.role is not Role.NOT_WANTED:
            yield version, verdict


def _listing_facts(seen: Observation) -> dict[str, int]:
    if seen.listing is None:
        return {}
    return {"requests": seen.listing.requests, "ignored_keys": seen.listing.ignored_keys}
