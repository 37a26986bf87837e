"""Carries out the steps of the plan: each calls an action, and updates the agent's state.

A step that fails is logged, and pauses before it is tried again.
"""

from collections.abc import Mapping
from typing import Final

from structlog.contextvars import bound_contextvars

from servesync import disk
from servesync.admin import Stage
from servesync.agent import actions, announce
from servesync.agent.context import AgentContext
from servesync.agent.model_snapshot import ModelSnapshot, refusals_of
from servesync.agent.state import TransferUnderWay
from servesync.agent.transfer_jobs import begin_transfer, give_up, refuse
from servesync.agent.trials import begin_trial
from servesync.domain.versions import Model, Version
from servesync.errors import DiskError, LockHeld, ReleaseRefused, Stopped, SyncError, internal_error
from servesync.install import Record, keep_pieces
from servesync.planning.actions import (
    Cancel,
    Confirm,
    Drop,
    Fetch,
    Forget,
    Install,
    Keep,
    Kind,
    Prune,
    Quarantine,
    Repair,
    Restore,
    Retry,
    SetAside,
    Try,
)
from servesync.planning.fleet_facts import FleetPlan, Key, Step
from servesync.planning.status_staleness import LOAD_IN_FLIGHT, NEVER_SEEN, status_token
from servesync.transfer.transfer import Staged

SLOW_SCAN_SECONDS: Final = 3.0
LONGEST_COOL_DOWN_SECONDS: Final = 3600.0
MOST_COOL_DOWNS: Final = 3
"""After so many tries the time grows no further."""
_COUNTED: Final = frozenset(
    {
        Kind.RESTORE,
        Kind.INSTALL,
        Kind.REPAIR,
        Kind.TRY,
        Kind.CONFIRM,
        Kind.QUARANTINE,
        Kind.RETRY,
        Kind.PRUNE,
        Kind.SET_ASIDE,
    }
)
_ARRIVES: Final = frozenset({Kind.INSTALL, Kind.REPAIR, Kind.SET_ASIDE})


class Effects:
    """Carries out the steps of one plan, in the deciding thread."""

    def __init__(self, context: AgentContext, models: Mapping[Model, ModelSnapshot], plan: FleetPlan) -> None:
        self._context = context
        self._models = models
        self._plan = plan
        self.failed = False
        """Whether a step has failed: a refused or paused version may leave room for another one."""

    def carry_out(self, step: Step) -> bool:
        """Carry out one step; return whether it was done. A failure is logged, and the step pauses.

        Raises:
            LockHeld: the lock was taken away.
        """
        model, action = step.model, step.action
        found = self._models.get(model)
        with bound_contextvars(model=model, version=action.version):
            try:
                done = self._act(step, found)
            except (Stopped, LockHeld):
                raise
            except OSError as error:
                self._failed(step, disk.describe(error, f"{action.kind.value} of {model} {action.version}"))
            except SyncError as error:
                self._failed(step, error)
            except Exception as error:  # noqa: BLE001 (a bug with one version must not hold up the others)
                self._failed(step, internal_error(error))
            else:
                if done and action.kind in _COUNTED:
                    self._context.agent_status.acted(action.kind.value, "done")
                return done
        return False

    def _act(self, step: Step, found: ModelSnapshot | None) -> bool:
        if isinstance(step.action, Cancel):
            return self._cancel(step, step.action)
        if found is None:
            return False
        return self._do(step, found)

    def _do(self, step: Step, found: ModelSnapshot) -> bool:
        match step.action:
            case Fetch() | Try():
                return self._begin(step, found)
            case Install() | Repair() | SetAside() | Restore():
                self._arrive(step, found)
            case Confirm() as action:
                self._confirm(step, found, action)
            case Quarantine() as action:
                self._quarantine(step, found, action)
            case Retry() as action:
                self._step_aside(step, action)
            case Prune() as action:
                self._prune(step, action)
            case Drop() | Keep() | Forget():
                self._tidy(step)
            case _:
                return False
        return True

    def _begin(self, step: Step, found: ModelSnapshot) -> bool:
        match step.action:
            case Fetch() as action:
                return begin_transfer(self._context, found, action)
            case Try() as action:
                return begin_trial(self._context, found, action)
            case _:
                return False

    def _tidy(self, step: Step) -> None:
        reserve = self._context.reserve(step.model)
        match step.action:
            case Drop(version=version):
                reserve.drop(version)
            case Keep(version=version):
                reserve.keep(version)
            case Forget(version=version):
                self._context.shelf(step.model).forget(version)
            case _:
                pass

    # -- arriving -----------------------------------------------------------------------------------

    def _arrive(self, step: Step, found: ModelSnapshot) -> None:
        match step.action:
            case Install() | Repair() as action:
                self._put_in_place(step, found, action)
            case SetAside() as action:
                self._set_aside(step, action)
            case Restore() as action:
                self._restore(step, found, action)
            case _:
                pass

    def _put_in_place(self, step: Step, found: ModelSnapshot, action: Install | Repair) -> None:
        context, key = self._context, (step.model, action.version)
        transfer, staged = self._staged(key)
        shelf = context.shelf(step.model)
        present = found.inventory.versions.get(action.version)
        self._note_memory(key)
        before = self._token_now(found, action.version, replaces=isinstance(action, Repair))
        with context.agent_status.stage(Stage.INSTALL, *key):
            if isinstance(action, Repair):
                record = actions.repair(shelf, staged, before)
            elif present is None or present.is_ours:
                record = actions.install(shelf, staged, before)
            else:
                record = actions.take_over(shelf, staged, present.condition, staged.adoptable)
        keep_pieces(context.workspace, staged.tree, staged.proven.content)
        give_up(context, key)
        again = isinstance(action, Repair) or action.version in found.inventory.orphaned
        seconds = context.now() - transfer.started_at
        self._arrived(step, record, seconds, again=again)
        context.state.attempts.succeeded(key)
        context.state.throttle.over_with(*key)
        refusals_of(context, step.model).forget(action.version)

    def _staged(self, key: Key) -> tuple[TransferUnderWay, Staged]:
        transfer = self._context.state.transfers[key]
        if transfer.staged is None:
            raise internal_error(RuntimeError("planned for a transfer that is not ready"))
        return transfer, transfer.staged

    def _arrived(self, step: Step, record: Record, seconds: float, *, again: bool) -> None:
        context, key = self._context, (step.model, step.action.version)
        found = self._models[step.model]
        announce.arrived(context, key, found.offered.get(step.action.version))
        context.state.watch.installed(key)
        context.state.trials.pop(key, None)
        announce.installed(key, record, step.action.because, seconds, again=again)

    def _token_now(self, found: ModelSnapshot, version: Version, *, replaces: bool = False) -> str:
        """Return the status token for the record of a version that is about to come to the shelf.

        `replaces`: it replaces damaged bytes, which a silent server may be loading at this moment.
        """
        server = found.facts.server
        if not server.asked:
            return NEVER_SEEN
        if server.versions is None:
            return LOAD_IN_FLIGHT if replaces else NEVER_SEEN
        return status_token(server.versions.get(version))

    def _set_aside(self, step: Step, action: SetAside) -> None:
        context, key = self._context, (step.model, action.version)
        _, staged = self._staged(key)
        record = actions.set_aside(context.reserve(step.model), staged)
        keep_pieces(context.workspace, staged.tree, staged.proven.content)
        context.state.memory.estimates.cache(staged.release, staged.weight)
        give_up(context, key)
        context.state.attempts.succeeded(key)
        announce.set_aside(key, record, action.short)

    def _restore(self, step: Step, found: ModelSnapshot, action: Restore) -> None:
        context, key = self._context, (step.model, action.version)
        began = context.now()
        self._note_memory(key)
        if action.instead_of is not None:
            context.reserve(step.model).note_swing(action.instead_of, action.swing_bytes)
        record = actions.restore(
            context.shelf(step.model),
            context.reserve(step.model),
            action.version,
            self._token_now(found, action.version),
        )
        self._arrived(step, record, context.now() - began, again=True)

    def _note_memory(self, key: Key) -> None:
        """Note how many bytes the server holds before a version comes to the shelf.

        Nothing is noted for the first version, which pays for the server's runtime, nor while the server
        unloads: the memory that it frees would hide the memory that it takes.
        """
        context = self._context
        before = context.state.memory.before_load
        before.clear()
        memory = context.last_memory
        if memory is None or memory.budget is None or not self._plan.loaded:
            return
        used = None if any(memory.unloading.values()) else context.ports.footprint.used_bytes()
        if used is not None:
            before[key] = used

    def _confirm(self, step: Step, found: ModelSnapshot, action: Confirm) -> None:
        context, key = self._context, (step.model, action.version)
        shelf = context.shelf(step.model)
        shelf.confirm(action.version)
        announce.available(context, key, found.offered.get(action.version))
        before = context.state.memory.before_load.pop(key, None)
        used = None if before is None else context.ports.footprint.used_bytes()
        grown = None if before is None or used is None or used <= before else used - before
        if grown is not None:
            context.state.memory.estimates.grew(key, grown)
            shelf.observed(action.version, grown)
        announce.confirmed(key, action.because, grown)

    # -- leaving ------------------------------------------------------------------------------------

    def _quarantine(self, step: Step, found: ModelSnapshot, action: Quarantine) -> None:
        context, key = self._context, (step.model, action.version)
        problem = actions.quarantine(
            context.shelf(step.model),
            refusals_of(context, step.model),
            action,
            found.inventory.versions[action.version].identity,
            context.utc(),
        )
        self._left(key)
        context.agent_status.refused(action.reason)
        announce.quarantined(key, action.reason, action.because)
        if problem is not None:
            text = f"recording the refusal of {step.model} {action.version}"
            error = disk.describe(problem, text)
            release = found.offered.get(action.version)
            offer = release.offer if release else ""
            pause = context.state.attempts.failed(key, offer, error, context.now())
            text = f"{error}; it is off the shelf, and may come again"
            error = DiskError(error.reason, text, **error.facts)
            announce.action_failed(context, key, Kind.QUARANTINE, error, pause)

    def _step_aside(self, step: Step, action: Retry) -> None:
        context, key = self._context, (step.model, action.version)
        tries = actions.step_aside(
            context.shelf(step.model), context.reserve(step.model), action.version, context.utc()
        )
        rest = min(LONGEST_COOL_DOWN_SECONDS, self._cool_down_seconds * 4.0 ** min(tries, MOST_COOL_DOWNS))
        self._left(key, rest)
        announce.stepped_aside(key, action.because, rest)

    def _prune(self, step: Step, action: Prune) -> None:
        context, key = self._context, (step.model, action.version)
        kept = actions.prune(context.shelf(step.model), context.reserve(step.model), action, context.utc())
        self._left(key)
        announce.pruned(key, action.because, kept_in_reserve=kept)

    @property
    def _cool_down_seconds(self) -> float:
        """How long a number stays away, so that the server misses it at a scan."""
        return 2 * self._context.settings.serving.scan_interval_seconds + SLOW_SCAN_SECONDS

    def _left(self, key: Key, cool_down_seconds: float | None = None) -> None:
        rest = self._cool_down_seconds if cool_down_seconds is None else cool_down_seconds
        self._context.state.watch.taken_off(key, self._context.now(), rest)
        self._context.state.trials.pop(key, None)

    def _cancel(self, step: Step, action: Cancel) -> bool:
        key = (step.model, action.version)
        if give_up(self._context, key, is_unwanted=True):
            announce.fetch_cancelled(key, action.because)
            return True
        return False

    # -- failures -----------------------------------------------------------------------------------

    def _failed(self, step: Step, error: SyncError) -> None:
        """Log a failure; refuse the release if it is bad, or else pause the step."""
        self.failed = True
        context, key, kind = self._context, (step.model, step.action.version), step.action.kind
        found = self._models.get(step.model)
        release = found.offered.get(step.action.version) if found else None
        if kind in _ARRIVES:
            give_up(context, key)
        if isinstance(error, ReleaseRefused) and release is not None and kind in _ARRIVES:
            refuse(context, key, release, error, kind)
            return
        identity = release.offer if release and kind in _ARRIVES else kind.value
        pause = context.state.attempts.failed(key, identity, error, context.now())
        announce.action_failed(context, key, kind, error, pause)
