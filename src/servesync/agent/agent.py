"""The deciding thread's work: take in results, look, plan, act, say so. It never waits for anything slow."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from servesync import disk
from servesync.admin import HeldVersion
from servesync.agent import announce, asking, polling, tidying
from servesync.agent.context import AgentContext
from servesync.agent.discovery import discover
from servesync.agent.effects import Effects
from servesync.agent.jobs import Ended, JobKind, Message, RoomWanted
from servesync.agent.models_config import ConfigWriter, Draft
from servesync.agent.report import report
from servesync.agent.scrub import begin_scrubbing, take_in_scrubbed
from servesync.agent.seen import Seen
from servesync.agent.snapshot import ModelSnapshot, Snapshot, refusals_of, take_snapshot
from servesync.agent.status import status_of
from servesync.agent.transfer_jobs import give_up_all, take_in
from servesync.errors import DiskError, Reason
from servesync.install import Lock
from servesync.plan.facts import ModelPlan, Wait
from servesync.plan.fleet import plan_fleet
from servesync.plan.fleet_facts import FleetPlan
from servesync.plan.load_gate import after_step
from servesync.plan.memory import Shortage
from servesync.plan.newest import held_newest
from servesync.plan.versions import Model
from servesync.settings import EVERY_MODEL

_TAKE_IN: Final = {
    JobKind.LIST: polling.take_in_listing,
    JobKind.DOCUMENT: polling.take_in_document,
    JobKind.ASK_SERVER: asking.take_in_answers,
    JobKind.TRANSFER: take_in,
    JobKind.REREAD: tidying.take_in_reread,
    JobKind.SCRUB: take_in_scrubbed,
    JobKind.EMPTY_TRASH: tidying.take_in_emptied,
}
_WORK: Final = (JobKind.LIST, JobKind.DOCUMENT, JobKind.TRANSFER, JobKind.REREAD, JobKind.EMPTY_TRASH)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a turn did, and what is left. `seen` None: it looked at nothing, as an answer is awaited.

    `acted`: a step was done, or has failed, so that there may be another one to do now.
    `is_due`: another turn is due at once: the agent has acted, and there is no server whose answer it awaits.
    `waiting`: the server (if it answers) is about to say more about a version, and is not overdue, or a step
    waits for the load gate. `busy`: a job is at work whose result may change what is to be done, or the trash
    is being emptied.
    """

    acted: bool = False
    is_due: bool = False
    waiting: bool = False
    busy: bool = False
    seen: Seen | None = None
    settling_seconds: float | None = None
    retry_seconds: float | None = None
    missing: tuple[Model, ...] = ()
    """Required models without every wanted version complete on the shelf."""

    @property
    def plans(self) -> Mapping[Model, ModelPlan]:
        """Each model's plan."""
        return self.seen.plan.models if self.seen else {}

    @property
    def store_failed(self) -> bool:
        """Whether the store did not answer when it was last asked."""
        return self.seen is not None and self.seen.store_error is not None

    @property
    def server_answers(self) -> bool:
        """Whether the server answers, or there is none to ask."""
        return self.seen is None or self.seen.server_error is None


class Agent:
    """One agent at work. `lock`: held by the caller; None for an agent that only looks."""

    def __init__(self, context: AgentContext, lock: Lock | None) -> None:
        self.context = context
        self._lock = lock
        self._config = ConfigWriter(context.config, context.state.repeats) if context.config else None
        self._seen: Seen | None = None
        self._outcome = Outcome(busy=True)

    # -- beginning and end --------------------------------------------------------------------------

    def prepare(self) -> None:
        """Make every directory and put what an earlier run left half-done into the trash.

        A model whose base path cannot be used is reported, and looked at again in each turn.

        Raises:
            DiskError: the models directory cannot be used, or no model's base path in it.
        """
        context, workspace = self.context, self.context.workspace
        discover(context)
        models = list(context.models)
        try:
            workspace.prepare(models)
        except OSError as error:
            self._prepare_new()
            if not context.state.prepared:
                raise disk.describe(error, f"preparing {workspace.models_dir}") from error
        else:
            context.state.prepared = set(models)
        for problem in self._clean():
            announce.failed(context, disk.describe(problem, "removing what an earlier run left"))
        if self._config is not None:
            self._config.prepare(context.models, names_all=context.every_model is None)
        self._take_charge()

    def _take_charge(self) -> None:
        """Let what outlives this agent be that of its settings, now that they are in force."""
        context, state = self.context, self.context.state
        state.config, state.transfer_tools = context.config, context.transfers
        context.transfers.pool.apply(context.settings.fetch)

    def _clean(self) -> list[OSError]:
        context = self.context
        at_work = [item.staged.tree for item in context.state.transfers.values() if item.staged]
        problems = [] if context.is_busy(JobKind.TRANSFER) else context.workspace.clean(at_work)
        for model in context.models:
            try:
                context.reserve(model).clean()
            except OSError as error:
                problems.append(error)
        context.state.trash_is_due = True
        return problems

    def close(self) -> None:
        """Close all connections to store and server; jobs are ended by whoever started them."""
        self.context.ports.store.close()
        if self.context.ports.server is not None:
            self.context.ports.server.close()

    def give_up_transfers(self) -> None:
        """End all transfers: what is to be brought, and how, may have changed."""
        give_up_all(self.context)

    # -- a turn -------------------------------------------------------------------------------------

    def turn(self, *, poll: bool = False, look: bool = True, hurry: bool = False) -> Outcome:
        """Do what can be done now, without waiting.

        Args:
            poll: List the store.
            look: Something may have changed on the disk or in the server.
            hurry: Try again at once what has failed.

        Raises:
            LockHeld: the lock was taken away; nothing may be changed any more.
        """
        context = self.context
        if self._lock is not None:
            self._lock.check()
        if hurry:
            context.state.attempts.end_pauses()
        news = self._take_messages()
        if look or poll or news:
            asking.want_answer(context)
        if poll:
            polling.begin_poll(context)
            if self._lock is not None:
                tidying.try_again(context)
        polling.look_once_more(context)
        asking.begin_asking(context)
        polling.begin_documents(context)
        standing = asking.standing(context)
        if not standing.is_known or polling.is_being_understood(context):
            self._begin_tidying()
            return Outcome(busy=True, retry_seconds=asking.PATIENCE_SECONDS, missing=self._outcome.missing)
        self._outcome = self._cycle(server_is_late=standing.is_late)
        return self._outcome

    def _take_messages(self) -> bool:
        """Take in what jobs say; return whether it may change what is to be done."""
        news = False
        for message in self.context.ports.jobs.take():
            news |= self._take(message)
        return news

    def _take(self, message: Message) -> bool:
        context = self.context
        match message:
            case RoomWanted():
                tidying.make_room(context, message, self._seen)
            case Ended(job=job):
                context.state.jobs[job.kind] -= 1
                _TAKE_IN[job.kind](context, message)
                return job.kind not in {JobKind.ASK_SERVER, JobKind.EMPTY_TRASH}
            case _:
                pass
        return False

    def _begin_tidying(self) -> None:
        if self._lock is None:
            return
        tidying.begin_emptying(self.context)
        begin_scrubbing(self.context)

    def _cycle(self, *, server_is_late: bool) -> Outcome:
        context = self.context
        seen = self._look(server_is_late=server_is_late)
        acted = False
        if self._lock is not None:
            context.board.publish(status_of(context, seen))
            store = context.state.store
            polled, store.is_new = store.is_new, False
            report(context, seen, polled=polled)
            acted = self._act(seen)
            self._begin_tidying()
        tidying.begin_rereading(context, seen)
        polling.begin_documents(context)
        if acted:
            asking.want_answer(context, changed=True)
            asking.begin_asking(context)
        return self._outcome_of(seen, acted=acted, server_is_late=server_is_late)

    def _look(self, *, server_is_late: bool) -> Seen:
        """Find out what there is, and decide what is to be done."""
        context = self.context
        self._ensure_shelves()
        if context.config is not None:
            context.config.look()
        snapshot = take_snapshot(context, server_is_late=server_is_late)
        plan = plan_fleet(snapshot.fleet)
        for model, version in plan.to_weigh:
            polling.weigh(context, snapshot.models[model].offered[version])
        context.last_memory = snapshot.fleet.memory
        error = asking.server_error(context)
        store = context.state.store
        self._seen = Seen(
            snapshot=snapshot,
            plan=plan,
            listing=store.listing,
            store_error=store.error,
            server_error=error,
            config=self._draft(snapshot.models),
            held=self._held(snapshot, plan),
        )
        return self._seen

    def _held(self, snapshot: Snapshot, plan: FleetPlan) -> dict[Model, HeldVersion]:
        """Return of each model the newest version, where something keeps it away."""
        watch, now = self.context.state.held, self.context.now()
        short: dict[Model, list[Shortage]] = {}
        for model, shortage in plan.shortages:
            short.setdefault(model, []).append(shortage)
        watch.keep(frozenset(snapshot.models))
        found = {
            model: watch.saw(model, held_newest(plan.models[model], item.facts, short.get(model, ())), now)
            for model, item in snapshot.models.items()
        }
        return {model: held for model, held in found.items() if held is not None}

    def _draft(self, models: Mapping[Model, ModelSnapshot]) -> Draft | None:
        """Return what `serving.config_file` is to say, after what was seen."""
        config = self.context.config
        if config is None:
            return None
        facts = {model: found.facts for model, found in models.items()}
        config.saw(facts, asking.server_error(self.context))
        return config.draft(self.context.models, facts)

    def _act(self, seen: Seen) -> bool:
        """Write what the server reads, and carry out the plan; return whether anything was done or failed."""
        context, state = self.context, self.context.state
        acted = self._config is not None and seen.config is not None and self._config.write(seen.config)
        for found in seen.snapshot.models.values():
            self._settle(found)
        effects = Effects(context, seen.snapshot.models, seen.plan)
        state.gate = seen.plan.gate
        for step in seen.plan.steps:
            done = effects.carry_out(step)
            acted |= done
            planned = seen.snapshot.models.get(step.model)
            if planned is not None:
                state.gate = after_step(state.gate, step, planned.facts, context.now(), done=done)
        acted |= effects.failed
        if acted:
            state.trash_is_due = True
        polling.look_once_more(context)
        return acted

    # -- what is kept in order ----------------------------------------------------------------------

    def _settle(self, found: ModelSnapshot) -> None:
        """Write down what a look has shown of records that were behind the truth."""
        context, model = self.context, found.facts.model
        shelf = context.shelf(model)
        try:
            shelf.settle(found.inventory)
            for version, said in found.said.items():
                shelf.note_said(version, said)
            if found.unreadable:
                refusals_of(context, model).settle(found.offered, context.utc())
        except OSError as error:
            announce.failed(context, disk.describe(error, f"writing records of {model}"))

    def _prepare_new(self) -> None:
        """Make the directories of models that are new, or whose base path could not be used before."""
        context = self.context
        for model in context.models.keys() - context.state.prepared:
            try:
                context.workspace.prepare([model])
            except OSError as error:
                context.failed(disk.describe(error, f"making the directories of {model}"))
            else:
                context.state.prepared.add(model)

    def _ensure_shelves(self) -> None:
        """Put back what somebody removed of the workspace, and base paths of models that never had a version.

        Without a base path the server stops updating every model. Where versions were served, the base path
        comes back together with the next one.
        """
        if self._lock is None:
            return
        context = self.context
        self._prepare_new()
        try:
            context.workspace.make_folders()
        except OSError as error:
            context.failed(disk.describe(error, f"making {context.workspace.root}"))
        for model in context.models:
            try:
                there = context.workspace.make_shelf(model)
            except OSError as error:
                context.failed(disk.describe(error, f"making the base path of {model}"))
                continue
            if not there:
                text = (
                    f"somebody removed {context.workspace.shelf(model)}: what the server has in memory stays "
                    "until the folder is there again, so it comes back with a version in it"
                )
                context.failed(DiskError(Reason.SHELF_REMOVED, text), model)

    # -- what comes next ----------------------------------------------------------------------------

    def _outcome_of(self, seen: Seen, *, acted: bool, server_is_late: bool) -> Outcome:
        context, plans = self.context, seen.plan.models
        answers = seen.server_error is None
        return Outcome(
            acted=acted,
            is_due=acted and context.ports.server is None,
            waiting=answers
            and (
                bool(seen.plan.postponed)
                or any(
                    isinstance(action, Wait) and not action.overdue
                    for plan in plans.values()
                    for action in plan.actions
                )
            ),
            busy=any(context.is_busy(kind) for kind in _WORK)
            or (self._lock is not None and context.state.trash_is_due)
            or (context.is_busy(JobKind.ASK_SERVER) and not server_is_late)
            or not context.state.documents.is_idle
            or bool(context.state.transfers)
            or tidying.is_checking(seen),
            seen=seen,
            settling_seconds=seen.snapshot.settling_seconds,
            retry_seconds=self._retry_seconds(),
            missing=self._missing(plans),
        )

    def _missing(self, plans: Mapping[Model, ModelPlan]) -> tuple[Model, ...]:
        """Return the required models that are not in place; "*" itself as long as it stands for none."""
        models, every = self.context.models, self.context.every_model
        missing = [
            model
            for model, settings in models.items()
            if settings.required and not (model in plans and plans[model].in_place)
        ]
        if every is not None and every.required and not models:
            missing.append(Model(EVERY_MODEL))
        return tuple(missing)

    def _retry_seconds(self) -> float | None:
        """Return after how many seconds something is due by itself; None if nothing is."""
        context, now = self.context, self.context.now()
        state = context.state
        due = [state.attempts.next_due(now), state.watch.next_due(now), tidying.next_reread(context)]
        if context.config is not None:
            due.append(context.config.next_due())
        if state.gate.ended_at is not None:
            left = state.gate.ended_at + context.settings.serving.pause_between_loads_seconds - now
            due.append(left if left > 0 else None)
        return min((seconds for seconds in due if seconds is not None), default=None)
