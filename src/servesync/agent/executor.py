"""Carries out one action of the planner: the thin layer where the steps meet, and the one that logs."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from structlog.contextvars import bound_contextvars

from servesync import disk
from servesync.admin import Stage
from servesync.agent.bring import Bringer, Staged
from servesync.agent.memory import Repeats
from servesync.agent.observe import ModelView, Observer
from servesync.errors import DiskError, Reason, ReleaseRefused, Stopped, SyncError, bug
from servesync.install import Proven, Record, Reserve, Shelf
from servesync.logs import Event, get_logger
from servesync.plan.facts import (
    Action,
    Condition,
    Confirm,
    Install,
    Prune,
    Quarantine,
    Repair,
    Restore,
    Retry,
    Wait,
)
from servesync.plan.lifecycle import State, advance
from servesync.plan.memory import Shortage
from servesync.plan.versions import Model, Release, Version
from servesync.prune import take_off

SLOW_SCAN_SECONDS: Final = 3.0
LONGEST_REST_SECONDS: Final = 3600.0


@dataclass
class Executor:
    """Turns actions into steps. `check` raises `Stopped` when the agent is to stop."""

    observer: Observer
    bringer: Bringer
    check: Callable[[], None]
    repeats: Repeats

    def execute(self, view: ModelView, action: Action) -> bool:
        """Carry out `action`; return whether it was done. What fails is logged and remembered.

        Raises:
            Stopped: the agent is to stop; nothing half-done counts.
        """
        model = view.plan.model
        if self.is_paused(view, action):
            return False
        with bound_contextvars(model=model, version=action.version):
            try:
                self._act(view, action)
            except Stopped:
                raise
            except OSError as error:
                doing = f"{type(action).__name__.lower()} of {model} {action.version}"
                self._failed(view, action, disk.describe(error, doing))
            except SyncError as error:
                self._failed(view, action, error)
            except Exception as error:  # noqa: BLE001 (a bug with one version must not hold up the others)
                self._failed(view, action, bug(error))
            else:
                return self._done(action)
        return False

    def is_paused(self, view: ModelView, action: Action) -> bool:
        """Whether the pause after the last failure of this very action is not over."""
        key = (view.plan.model, action.version)
        return self.observer.attempts.is_paused(key, type(action).__name__, time.monotonic())

    def _act(self, view: ModelView, action: Action) -> None:
        model = view.plan.model
        shelf = Shelf(self.observer.workspace, model, self.check)
        match action:
            case Restore():
                self._restore(view, action, shelf)
            case Install() | Repair():
                self._bring(view, action, shelf)
            case Confirm():
                self._confirm(view, action, shelf)
            case Quarantine():
                self._quarantine(view, action, shelf)
            case Retry():
                self._retry(action, shelf)
            case Prune():
                kept = self._prune(view, action, shelf)
                get_logger().info(Event.VERSION_PRUNED, because=action.because, kept_in_reserve=kept)
            case Wait():
                pass

    def _confirm(self, view: ModelView, action: Confirm, shelf: Shelf) -> None:
        shelf.confirm(action.version)
        advance(State.INSTALLED, State.AVAILABLE)
        self._available(view, action.version)
        facts = {}
        grown = self.observer.admission.available((shelf.model, action.version))
        if grown is not None:
            shelf.observed(action.version, grown)
            facts["server_grew_bytes"] = grown
        get_logger().info(Event.VERSION_AVAILABLE, because=action.because, **facts)

    def _done(self, action: Action) -> bool:
        if isinstance(action, Wait):
            return False
        self.observer.board.acted(type(action).__name__.lower(), "done")
        if isinstance(action, Quarantine):
            self.observer.board.refused(action.reason)
        return True

    # -- bringing a version -------------------------------------------------------------------------

    def _bring(self, view: ModelView, action: Install | Repair, shelf: Shelf) -> None:
        release = view.offered[action.version]
        started = time.monotonic()
        doing = f"bringing {release.model} {release.version}"
        with self.observer.workspace.attempt() as tree, disk.described(doing):
            staged = self.bringer.bring(release, tree)
            short = self.observer.admission.shortage(view.facts, release, staged.weight)
            if short is not None:
                self._set_aside(release, staged, short)
                return
            self.observer.admission.about_to_load((release.model, release.version))
            repairs = isinstance(action, Repair)
            before = self.observer.said_now(release.model, release.version, replaces=repairs)
            with self.observer.board.stage(Stage.INSTALL, release.model, release.version):
                record = self._install(view, action, shelf, staged, before)
            advance(State.VERIFIED, State.INSTALLED)
        self._arrived(view, action.version)
        restored = isinstance(action, Repair) or action.version in view.inventory.orphaned
        self.observer.server_watch.installed((view.plan.model, action.version))
        self.observer.attempts.succeeded((view.plan.model, action.version))
        self.repeats.over_with(view.plan.model, action.version)
        self.observer.refusals(view.plan.model).forget(action.version)
        get_logger().info(
            Event.VERSION_RESTORED if restored else Event.VERSION_INSTALLED,
            because=action.because,
            digest=record.content.digest,
            seconds=round(time.monotonic() - started, 3),
        )

    def _set_aside(self, release: Release, staged: Staged, short: Shortage) -> None:
        """Keep a proven version in the reserve until the server's memory has room for it."""
        reserve = Reserve(self.observer.workspace, release.model)
        record = reserve.set_aside(staged.unpacked.root, release, _proven(staged), self.check)
        spare = self.observer.admission.awaited(release.model) | {release.version}
        reserve.trim(self.observer.settings.reserve.keep, spare)
        self.empty_trash()
        self.observer.attempts.succeeded((release.model, release.version))
        get_logger().info(
            Event.VERSION_SET_ASIDE,
            reason=Reason.MEMORY_SHORT,
            because=f"proven, and kept in the reserve until there is room: {short.text}",
            digest=record.content.digest,
        )

    def _install(
        self, view: ModelView, action: Install | Repair, shelf: Shelf, staged: Staged, before: str
    ) -> Record:
        release = view.offered[action.version]
        tree, proven = staged.unpacked.root, _proven(staged)
        if isinstance(action, Repair):
            return shelf.replace(tree, release, proven, before)
        present = view.inventory.versions.get(action.version)
        if present is None or present.is_ours:
            return shelf.publish(tree, release, proven, before)
        adopted = shelf.adopt(release, proven)
        if adopted is None:
            unrecorded = present.condition is Condition.UNRECORDED
            text = (
                f"{shelf.path / str(action.version)} "
                f"{'has an unreadable record' if unrecorded else 'was not put there by servesync'} and holds "
                "other bytes than the store's release: left alone; move it away by hand to let the store's "
                "version in"
            )
            raise ReleaseRefused(Reason.VERSION_FOREIGN, text)
        return adopted

    def _arrived(self, view: ModelView, version: Version) -> None:
        """Note that a version came onto the shelf; where there is no server to ask, that is the end."""
        if self.observer.server is None:
            self._available(view, version)
        else:
            self.observer.board.installed(view.plan.model, version)

    def _available(self, view: ModelView, version: Version) -> None:
        release = view.offered.get(version)
        self.observer.board.available(view.plan.model, version, release.published_at if release else None)

    # -- taking versions away -----------------------------------------------------------------------

    def _quarantine(self, view: ModelView, action: Quarantine, shelf: Shelf) -> None:
        """Remember first, then take off: a crash in between leaves a version that is refused again.

        It leaves all the same where no record can be written: on the shelf it may end the server at its next
        start, and what it gives up may be the space for the record.
        """
        model, version = view.plan.model, action.version
        try:
            self._remember(view, action)
        except OSError:
            self._take_off(shelf, model, version)
            self._remember_or_pause(view, action)
        else:
            self._take_off(shelf, model, version)
        advance(State.INSTALLED, State.QUARANTINED)
        get_logger().error(Event.VERSION_QUARANTINED, reason=action.reason, because=action.because)

    def _remember(self, view: ModelView, action: Quarantine) -> None:
        identity = view.inventory.versions[action.version].identity
        refusals = self.observer.refusals(view.plan.model)
        refusals.remember(action.version, identity, action.reason, action.because, datetime.now(UTC))

    def _remember_or_pause(self, view: ModelView, action: Quarantine) -> None:
        """Remember a refusal; where that fails, too, the version is not fetched again for a while."""
        model, version = view.plan.model, action.version
        try:
            self._remember(view, action)
        except OSError as problem:
            error = disk.describe(problem, f"recording the refusal of {model} {version}")
            release = view.offered.get(version)
            offer = release.offer if release else ""
            pause = self.observer.attempts.failed((model, version), offer, error, time.monotonic())
            text = f"{error}; it is off the shelf, and may come again"
            get_logger().warning(
                Event.ACTION_FAILED,
                reason=error.reason,
                because=text,
                action="quarantine",
                retry_in_seconds=pause,
                repeats=1,
                facts=error.facts,
            )

    def _retry(self, action: Retry, shelf: Shelf) -> None:
        """Take a version off the shelf, as it is; the planner puts it back when its rest is over."""
        version = action.version
        record = shelf.record(version)
        if record is None:
            text = f"{shelf.model} {version} has no record any more: looked at again"
            raise DiskError(Reason.RECORD_UNREADABLE, text)
        reserve = Reserve(self.observer.workspace, shelf.model)
        reserve.take(shelf.path / str(version), version, record, datetime.now(UTC), returning=True)
        rest = min(LONGEST_REST_SECONDS, self._rest_seconds * 4.0 ** min(record.tries, 3))
        self._left(shelf, version, rest)
        advance(State.INSTALLED, State.PRUNED)
        get_logger().warning(Event.VERSION_RETRIED, because=action.because, rest_seconds=rest)

    def _prune(self, view: ModelView, action: Prune, shelf: Shelf) -> bool:
        """Take a version off the shelf, into the reserve if it is good; return whether it is there now."""
        keep = self.observer.settings.reserve.keep
        good = view.inventory.versions[action.version].condition is Condition.GOOD
        record = shelf.record(action.version)
        withdrawn = action.version in view.facts.withdrawn
        reserve = Reserve(self.observer.workspace, shelf.model)
        if not keep or not good or record is None or withdrawn or not reserve.is_free(action.version):
            self._take_off(shelf, shelf.model, action.version)
            return False
        reserve.take(shelf.path / str(action.version), action.version, record, datetime.now(UTC))
        self._left(shelf, action.version)
        reserve.trim(keep, self.observer.admission.awaited(shelf.model))
        self.empty_trash()
        return True

    def _restore(self, view: ModelView, action: Restore, shelf: Shelf) -> None:
        """Put a version of the reserve back; one that is not as it was is dropped, and fetched next time."""
        started = time.monotonic()
        reserve = Reserve(self.observer.workspace, shelf.model)
        record = reserve.versions()[action.version]
        if not reserve.is_sound(action.version, record):
            reserve.drop(action.version)
            self.empty_trash()
            text = f"{action.version} is no longer in the reserve as it was proven; dropped from there"
            raise DiskError(Reason.VERSION_DAMAGED, text)
        self.observer.admission.about_to_load((shelf.model, action.version))
        before = self.observer.said_now(shelf.model, action.version)
        shelf.put_back(reserve.path / str(action.version), action.version, record, before)
        advance(State.PRUNED, State.INSTALLED)
        reserve.forget(action.version)
        self._arrived(view, action.version)
        self.observer.server_watch.installed((shelf.model, action.version))
        get_logger().info(
            Event.VERSION_RESTORED,
            because=action.because,
            digest=record.content.digest,
            seconds=round(time.monotonic() - started, 3),
        )

    def _take_off(self, shelf: Shelf, model: Model, version: Version) -> None:
        workspace = self.observer.workspace
        take_off(shelf.path / str(version), workspace.trash_name(model, version))
        self._left(shelf, version)
        self.empty_trash()

    @property
    def _rest_seconds(self) -> float:
        """How long a number stays away, so that the server misses it at a scan."""
        return 2 * self.observer.settings.serving.scan_interval_seconds + SLOW_SCAN_SECONDS

    def _left(self, shelf: Shelf, version: Version, rest_seconds: float | None = None) -> None:
        """Forget a version that is off the shelf."""
        shelf.forget(version)
        rest = self._rest_seconds if rest_seconds is None else rest_seconds
        self.observer.server_watch.taken_off((shelf.model, version), time.monotonic(), rest)

    def empty_trash(self) -> None:
        """Remove what has left the shelf; what resists is named, and removed at a later poll."""
        for problem in disk.empty_dir(self.observer.workspace.trash):
            error = disk.describe(problem, "removing what has left the shelf")
            repeats = self.repeats.count(("trash", error.reason))
            if repeats is not None:
                get_logger().warning(
                    Event.ACTION_FAILED,
                    reason=error.reason,
                    because=str(error),
                    action="empty_trash",
                    repeats=repeats,
                    facts=error.facts,
                )

    # -- failures -----------------------------------------------------------------------------------

    def _failed(self, view: ModelView, action: Action, error: SyncError) -> None:
        """Log a failure once, and see to it that the same is not tried in vain again and again."""
        model, version = view.plan.model, action.version
        release = view.offered.get(version)
        facts = dict(error.facts)
        name = type(action).__name__.lower()
        if isinstance(error, ReleaseRefused) and release is not None and isinstance(action, Install | Repair):
            try:
                now = datetime.now(UTC)
                refusals = self.observer.refusals(model)
                refusals.remember(version, release.offer, error.reason, str(error), now)
            except OSError as problem:
                facts["refusal_not_recorded"] = str(disk.describe(problem, "recording a refusal"))
                self.observer.attempts.failed((model, version), release.offer, error, time.monotonic())
            self.observer.board.acted(name, "refused")
            self.observer.board.refused(error.reason)
            get_logger().error(
                Event.VERSION_REFUSED,
                reason=error.reason,
                because=str(error),
                key=release.objects[0].key,
                facts=facts,
            )
            return
        self.observer.board.acted(name, "failed")
        self.observer.board.failed(error.reason)
        brings = release is not None and isinstance(action, Install | Repair)
        identity = release.offer if release and brings else type(action).__name__
        pause = self.observer.attempts.failed((model, version), identity, error, time.monotonic())
        repeats = self.repeats.count((model, version, error.reason))
        if repeats is not None:
            get_logger().warning(
                Event.ACTION_FAILED,
                reason=error.reason,
                because=str(error),
                action=name,
                retry_in_seconds=pause,
                repeats=repeats,
                facts=facts,
            )


def _proven(staged: Staged) -> Proven:
    unpacked = staged.unpacked
    return Proven(
        unpacked.content,
        staged.tensor_bytes,
        staged.proven_by,
        datetime.now(UTC),
        staged.signatures,
        unpacked.stamps,
    )
