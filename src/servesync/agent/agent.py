"""A turn of the deciding thread: take in results, take a snapshot, plan, act, log. It never waits."""

from collections.abc import Mapping
from typing import Final

from servesync import disk
from servesync.admin import HeldVersion
from servesync.agent import announce, asking, leftovers, polling, tidying
from servesync.agent.context import AgentContext
from servesync.agent.effects import Effects
from servesync.agent.model_snapshot import ModelSnapshot
from servesync.agent.models_config import Draft
from servesync.agent.models_config_writer import ConfigWriter
from servesync.agent.outcome import Outcome, outcome_of
from servesync.agent.reloading import begin_reload, take_in_reloaded
from servesync.agent.report import report
from servesync.agent.scrub import begin_scrubbing, take_in_scrubbed
from servesync.agent.snapshot import Seen, Snapshot, take_snapshot
from servesync.agent.status import status_of
from servesync.agent.transfer_jobs import give_up_all, take_in
from servesync.agent.trials import take_in_trial
from servesync.agent.upkeep import clean, ensure_shelves, prepare_folders, update_records
from servesync.domain.versions import Model
from servesync.install import Lock
from servesync.jobs import Ended, JobKind, Message, RoomWanted
from servesync.planning.fleet import plan_fleet
from servesync.planning.fleet_facts import FleetPlan
from servesync.planning.load_gate import after_step
from servesync.planning.memory import Shortage
from servesync.planning.newest import held_newest

_TAKE_IN: Final = {
    JobKind.LIST: polling.take_in_listing,
    JobKind.DOCUMENT: polling.take_in_document,
    JobKind.ASK_SERVER: asking.take_in_answers,
    JobKind.TRIAL: take_in_trial,
    JobKind.RELOAD: take_in_reloaded,
    JobKind.TRANSFER: take_in,
    JobKind.REREAD: tidying.take_in_reread,
    JobKind.SCRUB: take_in_scrubbed,
    JobKind.EMPTY_TRASH: tidying.take_in_emptied,
}


class Agent:
    """One agent at work. `lock`: held by the caller; None for an agent that changes nothing."""

    def __init__(self, context: AgentContext, lock: Lock | None) -> None:
        self.context = context
        self._lock = lock
        self._config = ConfigWriter(context.config, context.state.throttle) if context.config else None
        self._seen: Seen | None = None
        self._outcome = Outcome(busy=True)

    # -- beginning and end --------------------------------------------------------------------------

    def prepare(self) -> None:
        """Make every directory, and move what an earlier run left unfinished into the trash.

        The agent reports a model whose base path cannot be used, and tries it again in each turn.

        Raises:
            DiskError: the models directory cannot be used, or no model's base path in it.
        """
        context = self.context
        prepare_folders(context)
        for problem in clean(context):
            announce.failed(context, disk.describe(problem, "removing what an earlier run left"))
        if self._config is not None:
            self._config.prepare(context.models, names_all=context.every_model is None)
        self._take_charge()

    def _take_charge(self) -> None:
        """Hand the keeper and the transfers of the new settings to the state, which outlives this agent."""
        context, state = self.context, self.context.state
        state.config, state.transfer_tools = context.config, context.transfers
        context.transfers.pool.apply(context.settings.fetch)

    def close(self) -> None:
        """Close all connections to store and server; the caller that started the jobs ends them."""
        self.context.ports.store.close()
        for port in (self.context.ports.server, self.context.ports.reload):
            if port is not None:
                port.close()

    def give_up_transfers(self) -> None:
        """End all transfers: the settings may have changed which versions come, and how."""
        give_up_all(self.context)

    # -- a turn -------------------------------------------------------------------------------------

    def turn(self, *, poll: bool = False, refresh: bool = True, hurry: bool = False) -> Outcome:
        """Do what can be done now, without waiting.

        Args:
            poll: List the store.
            refresh: Something may have changed on the disk or in the server.
            hurry: Retry failed work at once.

        Raises:
            LockHeld: the lock was taken away; nothing may be changed any more.
        """
        context = self.context
        if self._lock is not None:
            self._lock.check()
        if hurry:
            context.state.attempts.end_pauses()
        news = self._take_messages()
        if refresh or poll or news:
            asking.want_answer(context)
        if poll or context.state.store.is_wanted:
            polling.begin_poll(context)
        if poll and self._lock is not None:
            tidying.try_again(context)
        polling.list_once_more(context)
        asking.begin_asking(context)
        polling.begin_documents(context)
        standing = asking.standing(context)
        if not standing.is_known or polling.is_being_understood(context):
            self._begin_tidying()
            return Outcome(busy=True, retry_seconds=asking.PATIENCE_SECONDS, missing=self._outcome.missing)
        self._outcome = self._cycle(server_is_late=standing.is_late)
        return self._outcome

    def _take_messages(self) -> bool:
        """Take in the messages of jobs; return whether one of them may change the plan."""
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
        return False

    def _begin_tidying(self) -> None:
        if self._lock is None:
            return
        tidying.begin_emptying(self.context)
        begin_scrubbing(self.context)

    def _cycle(self, *, server_is_late: bool) -> Outcome:
        context = self.context
        seen = self._decide(server_is_late=server_is_late)
        acted = False
        if self._lock is not None:
            context.agent_status.publish(status_of(context, seen))
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
        works = self._lock is not None
        return outcome_of(context, seen, acted=acted, is_late=server_is_late, works=works)

    def _decide(self, *, server_is_late: bool) -> Seen:
        """Take a snapshot, and plan what to do."""
        context = self.context
        if self._lock is not None:
            ensure_shelves(context)
        if context.config is not None:
            context.config.read_file()
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
        """Return each model's newest version, where something keeps it off the shelf."""
        watch, now = self.context.state.held, self.context.now()
        short: dict[Model, list[Shortage]] = {}
        for model, shortage in plan.shortages:
            short.setdefault(model, []).append(shortage)
        watch.keep(frozenset(snapshot.models))
        found = {
            model: watch.observe(
                model, held_newest(plan.models[model], item.facts, short.get(model, ())), now
            )
            for model, item in snapshot.models.items()
        }
        return {model: held for model, held in found.items() if held is not None}

    def _draft(self, models: Mapping[Model, ModelSnapshot]) -> Draft | None:
        """Return what `serving.config_file` is to say by this snapshot; None if the agent writes none."""
        config = self.context.config
        if config is None:
            return None
        facts = {model: found.facts for model, found in models.items()}
        config.record_answers(facts, asking.server_error(self.context))
        return config.draft(self.context.models, facts)

    def _act(self, seen: Seen) -> bool:
        """Write what the server reads, and carry out the plan; return whether anything was done or failed."""
        context, state = self.context, self.context.state
        acted = False
        if self._config is not None and seen.config is not None and self._config.write(seen.config):
            acted, state.reload.wanted = True, seen.config.config
        begin_reload(context)
        for found in seen.snapshot.models.values():
            update_records(context, found)
        leftovers.give_up_outdated(context, seen.plan.outdated)
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
            state.upkeep.trash_is_due = True
        polling.list_once_more(context)
        return acted
