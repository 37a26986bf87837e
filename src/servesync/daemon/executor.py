"""Carries out one action of the planner: the thin layer where the steps meet, and the one that logs."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Final

from structlog.contextvars import bound_contextvars

from servesync import disk
from servesync.daemon.memory import Repeats
from servesync.daemon.observe import ModelView, Observer
from servesync.daemon.progress import Report, Reporter
from servesync.errors import DiskError, Reason, ReleaseRefused, Stopped, SyncError, bug
from servesync.fetch import stream
from servesync.install import Record, Shelf
from servesync.logs import Event, get_logger
from servesync.plan.facts import Action, Condition, Confirm, Install, Prune, Quarantine, Repair, Wait
from servesync.plan.lifecycle import State, advance
from servesync.plan.versions import Layout, Model, Release, StoredObject, Version
from servesync.prune import take_off
from servesync.unpack import Unpacked, unpack_archive, unpack_objects
from servesync.verify import verify_structure, verify_tensors

SLICE_BYTES: Final = 256 << 10
"""How much of an object is unpacked between two looks at the free space and at a request to stop."""


@dataclass
class Executor:
    """Turns actions into steps. `check` raises `Stopped` when the agent is to stop."""

    observer: Observer
    check: Callable[[], None]
    should_stop: Callable[[], bool]
    reporter: Reporter
    repeats: Repeats

    def execute(self, view: ModelView, action: Action) -> bool:
        """Carry out `action`; return whether it was done. What fails is logged and remembered.

        Raises:
            Stopped: the agent is to stop; nothing half-done counts.
        """
        model = view.plan.model
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
                return not isinstance(action, Wait)
        return False

    def _act(self, view: ModelView, action: Action) -> None:
        model, version = view.plan.model, action.version
        shelf = Shelf(self.observer.workspace, model, self.check)
        match action:
            case Install() | Repair():
                self._bring(view, action, shelf)
            case Confirm():
                shelf.confirm(version)
                advance(State.INSTALLED, State.AVAILABLE)
                get_logger().info(Event.VERSION_AVAILABLE, because=action.because)
            case Quarantine():
                self._quarantine(view, action, shelf)
            case Prune():
                self._take_off(shelf, model, version)
                get_logger().info(Event.VERSION_PRUNED, because=action.because)
            case Wait():
                pass

    # -- bringing a version -------------------------------------------------------------------------

    def _bring(self, view: ModelView, action: Install | Repair, shelf: Shelf) -> None:
        release = view.offered[action.version]
        self._check_space(release)
        started = time.monotonic()
        doing = f"bringing {release.model} {release.version}"
        with self.observer.workspace.attempt() as tree, disk.described(doing):
            state = State.WANTED
            unpacked = self._fetch(release, tree)
            state = advance(state, State.FETCHED)
            seconds = time.monotonic() - started
            get_logger().info(
                Event.VERSION_FETCHED,
                stored_bytes=release.stored_bytes,
                unpacked_bytes=unpacked.content.total_bytes,
                files=len(unpacked.content.files),
                seconds=round(seconds, 3),
                mb_per_second=round(release.stored_bytes / 1e6 / max(seconds, 1e-3), 1),
                proof="unproven",
            )
            tensor_bytes = self._verify(unpacked)
            state = advance(state, State.VERIFIED)
            record = self._install(view, action, shelf, unpacked, tensor_bytes)
            advance(state, State.INSTALLED)
        restored = isinstance(action, Repair) or action.version in view.inventory.orphaned
        served = (view.facts.server.versions or {}).get(action.version)
        self.observer.server_memory.installed((view.plan.model, action.version), served)
        self.observer.attempts.succeeded((view.plan.model, action.version))
        self.repeats.over_with(view.plan.model, action.version)
        self.observer.refusals(view.plan.model).forget(action.version)
        get_logger().info(
            Event.VERSION_RESTORED if restored else Event.VERSION_INSTALLED,
            because=action.because,
            digest=record.content.digest,
            seconds=round(time.monotonic() - started, 3),
        )

    def _fetch(self, release: Release, tree: Path) -> Unpacked:
        """Bring the release's bytes into `tree` in one pass; no archive ever lies on the disk."""
        settings = self.observer.settings
        with (
            self.reporter(release) as report,
            stream(release.objects, self.observer.store.read, settings.fetch, self.should_stop) as parts,
        ):
            watched = self._watched(parts, report)
            if release.layout is Layout.ARCHIVE:
                return unpack_archive(
                    (piece for _, piece in watched),
                    tree,
                    release.version,
                    settings.limits,
                    archive_bytes=release.stored_bytes,
                )
            each = groupby(watched, key=itemgetter(0))
            objects = ((item, (piece for _, piece in group)) for item, group in each)
            return unpack_objects(objects, tree, settings.limits)

    def _watched(
        self, parts: Iterator[tuple[StoredObject, memoryview]], report: Report
    ) -> Iterator[tuple[StoredObject, memoryview]]:
        """Pass the pieces on, reporting progress, and keeping `limits.disk_reserve_bytes` free."""
        done = 0
        for item, part in parts:
            for start in range(0, max(1, len(part)), SLICE_BYTES):
                piece = part[start : start + SLICE_BYTES]
                yield item, piece
                done += len(piece)
                report(done)
                self.check()
                self._check_free(0)

    def _check_space(self, release: Release) -> None:
        limit = self.observer.settings.limits.max_archive_bytes
        if release.stored_bytes > limit:
            text = (
                f"{release.objects[0].key!a}: {release.stored_bytes} bytes in the store, more than "
                f"limits.max_archive_bytes ({limit}); raise the limit if this size is right"
            )
            raise ReleaseRefused(Reason.RELEASE_TOO_BIG, text, stored_bytes=release.stored_bytes)
        self._check_free(release.stored_bytes)

    def _check_free(self, needed: int) -> None:
        reserve = self.observer.settings.limits.disk_reserve_bytes
        free = disk.free_bytes(self.observer.workspace.staging)
        if free - needed < reserve:
            text = (
                f"{free} bytes free under {self.observer.workspace.models_dir}, but {needed} are needed now "
                f"and limits.disk_reserve_bytes ({reserve}) must stay free: make space"
            )
            raise DiskError(Reason.DISK_FULL, text, free_bytes=free, needed_bytes=needed + reserve)

    def _verify(self, unpacked: Unpacked) -> int:
        """Prove the tree as far as settings ask; return the bytes of its tensors."""
        started = time.monotonic()
        level = self.observer.settings.verify.level
        found = verify_structure(unpacked.root)
        checked = verify_tensors(unpacked.root, check=self.check).tensors if level == "checksum" else 0
        get_logger().info(
            Event.VERSION_VERIFIED,
            verify_level=level,
            tensors=found.tensors,
            tensors_checked=checked,
            tensor_bytes=found.tensor_bytes,
            seconds=round(time.monotonic() - started, 3),
        )
        return found.tensor_bytes

    def _install(
        self, view: ModelView, action: Install | Repair, shelf: Shelf, unpacked: Unpacked, tensor_bytes: int
    ) -> Record:
        release = view.offered[action.version]
        now = datetime.now(UTC)
        if isinstance(action, Repair):
            return shelf.replace(unpacked.root, release, unpacked.content, tensor_bytes, now)
        present = view.inventory.versions.get(action.version)
        if present is None or present.condition is not Condition.FOREIGN:
            return shelf.publish(unpacked.root, release, unpacked.content, tensor_bytes, now)
        adopted = shelf.adopt(release, unpacked.content, tensor_bytes, now)
        if adopted is None:
            text = (
                f"{shelf.path / str(action.version)} was not put there by servesync and holds other bytes "
                "than the store's release: left alone; move it away by hand to let the store's version in"
            )
            raise ReleaseRefused(Reason.VERSION_FOREIGN, text)
        return adopted

    # -- taking versions away -----------------------------------------------------------------------

    def _quarantine(self, view: ModelView, action: Quarantine, shelf: Shelf) -> None:
        """Remember first, then take off: a crash in between leaves a version that is refused again."""
        model, version = view.plan.model, action.version
        identity = view.inventory.versions[version].identity
        refusals = self.observer.refusals(model)
        refusals.remember(version, identity, action.reason, action.because, datetime.now(UTC))
        self._take_off(shelf, model, version)
        advance(State.INSTALLED, State.QUARANTINED)
        get_logger().error(Event.VERSION_QUARANTINED, reason=action.reason, because=action.because)

    def _take_off(self, shelf: Shelf, model: Model, version: Version) -> None:
        workspace = self.observer.workspace
        take_off(shelf.path / str(version), workspace.trash_name(model, version))
        shelf.forget(version)
        self.observer.server_memory.taken_off((model, version), time.monotonic())
        self.empty_trash()

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
        if isinstance(error, ReleaseRefused) and release is not None and isinstance(action, Install | Repair):
            try:
                now = datetime.now(UTC)
                refusals = self.observer.refusals(model)
                refusals.remember(version, release.identity, error.reason, str(error), now)
            except OSError as problem:
                facts["refusal_not_recorded"] = str(disk.describe(problem, "recording a refusal"))
                self.observer.attempts.failed((model, version), release.identity, error, time.monotonic())
            get_logger().error(
                Event.VERSION_REFUSED,
                reason=error.reason,
                because=str(error),
                key=release.objects[0].key,
                facts=facts,
            )
            return
        identity = release.identity if release else ""
        pause = self.observer.attempts.failed((model, version), identity, error, time.monotonic())
        repeats = self.repeats.count((model, version, error.reason))
        if repeats is not None:
            get_logger().warning(
                Event.ACTION_FAILED,
                reason=error.reason,
                because=str(error),
                action=type(action).__name__.lower(),
                retry_in_seconds=pause,
                repeats=repeats,
                facts=facts,
            )
