"""One cycle of the agent: look, let the planner decide, act, and say in one line what was done and why."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from servesync import disk
from servesync.daemon.executor import Executor
from servesync.daemon.memory import Repeats
from servesync.daemon.observe import ModelView, Observation, Observer
from servesync.daemon.scrub import Scrubber
from servesync.daemon.status import snapshot_of
from servesync.errors import Reason, ServerError, StoreError, SyncError
from servesync.install import Lock, Reserve, Shelf
from servesync.logs import Event, get_logger
from servesync.plan.facts import Action, Condition, Install, ModelPlan, Repair, Restore, Role, Verdict, Wait
from servesync.plan.versions import Model, Version


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a cycle did, and what is left."""

    acted: bool
    waiting: bool
    """The server (if it answers) is about to say more about a version, and is not overdue."""
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
        self._last_brought: dict[Model, float] = {}
        self._known_strange: dict[Model, tuple[object, ...]] = {}
        self._last_summary: object = None
        self._last_trouble: dict[str, object] = {}
        self._said: set[object] = set()

    def prepare(self) -> None:
        """Make every directory and remove what an earlier run left half-done.

        Raises:
            DiskError: the models directory cannot be used.
        """
        workspace = self.observer.workspace
        try:
            workspace.prepare(self.observer.models)
            problems = workspace.clean()
            for model in self.observer.models:
                Reserve(workspace, model).clean()
        except OSError as error:
            raise disk.describe(error, f"preparing {workspace.models_dir}") from error
        for problem in problems:
            self._say_failed(disk.describe(problem, "removing what an earlier run left"))

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
        self.observer.board.publish(snapshot_of(seen, self.observer))
        self._report(seen, asked_store=ask_store)
        acted = False
        for view in seen.models.values():
            self._settle(view)
            for action in view.plan.actions:
                if not isinstance(action, Restore | Install | Repair):
                    acted |= self._executor.execute(view, action)
        for view, action in self._arrivals(seen):
            self._last_brought[view.plan.model] = time.monotonic()
            acted |= self._executor.execute(view, action)
            acted = True  # a refusal changes what is wanted, too
            break
        return self._outcome(seen, acted=acted)

    def _arrivals(self, seen: Observation) -> Iterator[tuple[ModelView, Action]]:
        """Yield what is to be brought, the model that has waited longest first."""
        found = [
            (self._last_brought.get(view.plan.model, 0.0), view, action)
            for view in seen.models.values()
            for action in view.plan.actions
            if isinstance(action, Restore | Install | Repair)
        ]
        for _, view, action in sorted(found, key=lambda item: item[0]):
            yield view, action

    def _ensure_shelves(self) -> None:
        """Put a base path back that somebody removed: without it the server stops updating every model."""
        for model in self.observer.models:
            try:
                disk.make_dir(self.observer.workspace.shelf(model), 0o755)
            except OSError as error:
                self._say_failed(disk.describe(error, f"making the base path of {model}"))

    def _scrub(self) -> None:
        """Go on with the slow reading of what is on the shelf."""
        if self._scrubber is not None:
            try:
                self._scrubber.turn(Shelf(self.observer.workspace, model) for model in self.observer.models)
            except OSError as error:
                self._say_failed(disk.describe(error, "reading what is on the shelf again"))

    def _settle(self, view: ModelView) -> None:
        shelf = Shelf(self.observer.workspace, view.plan.model)
        try:
            shelf.settle(view.inventory)
            for version in view.inventory.orphaned.keys() - view.plan.wanted - view.facts.held.keys():
                shelf.forget(version)
        except OSError as error:
            self._say_failed(disk.describe(error, f"writing records of {view.plan.model}"))

    def _outcome(self, seen: Observation, *, acted: bool) -> Outcome:
        plans = {model: view.plan for model, view in seen.models.items()}
        return Outcome(
            acted=acted,
            waiting=seen.server_error is None
            and any(
                isinstance(action, Wait) and not action.overdue
                for plan in plans.values()
                for action in plan.actions
            ),
            server_answers=seen.server_error is None,
            settling_seconds=seen.settling_seconds,
            retry_seconds=self._retry_seconds(),
            plans=plans,
            store_failed=seen.store_error is not None,
            missing=tuple(
                model
                for model, settings in self.observer.models.items()
                if settings.required and not (model in plans and plans[model].in_place)
            ),
        )

    def _retry_seconds(self) -> float | None:
        now = time.monotonic()
        due = (self.observer.attempts.next_due(now), self.observer.server_memory.next_due(now))
        return min((seconds for seconds in due if seconds is not None), default=None)

    # -- what the log says --------------------------------------------------------------------------

    def _report(self, seen: Observation, *, asked_store: bool) -> None:
        if asked_store:
            self._report_trouble("store", seen.store_error, Event.POLL_FAILED, None)
        self._report_trouble("server", seen.server_error, Event.SERVER_UNREACHABLE, Event.SERVER_ANSWERS)
        for model, error in seen.broken.items():
            self._say_failed(error, model=model)
        for model, view in seen.models.items():
            self._report_strange(model, view)
            self._report_store(model, view)
        summary = {
            model: {str(version): verdict.role.value for version, verdict in _of_interest(view)}
            for model, view in seen.models.items()
        }
        offered = {model: len(view.offered) for model, view in seen.models.items()}
        facts = (summary, offered, seen.store_error is None)
        say = get_logger().info if facts != self._last_summary else get_logger().debug
        if seen.store_error is None:
            say(Event.POLL_FINISHED, models=summary, in_store=offered, **_listing_facts(seen))
        self._last_summary = facts

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
