"""The deciding thread of `run`: wait until something is new, take a turn; nothing ends it silently."""

import math
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from servesync.agent.agent import Agent, Outcome
from servesync.agent.build import build_agent, close_replaced, make_ports, needs_other_store
from servesync.agent.jobs import ThreadJobs
from servesync.agent.state import AgentState
from servesync.agent.triggers import Triggers, Wake, longest_wait
from servesync.errors import LockHeld, Reason, SettingsError, Stopped, SyncError, bug
from servesync.install import Lock
from servesync.logs import Event, configure, get_logger
from servesync.plan.versions import Model
from servesync.settings import Settings
from servesync.settings_file import load_settings

if TYPE_CHECKING:
    from servesync.agent.listener import Listener

Result = TypeVar("Result")
FIRST_WAIT_SECONDS: Final = 0.25
LONGEST_WAIT_SECONDS: Final = 2.0
AFTER_A_BUG_SECONDS: Final = 10.0
SERVER_AGAIN_SECONDS: Final = 5.0
SETTLED_AGAIN_SECONDS: Final = 1.0
SETTINGS_AGAIN_SECONDS: Final = 5.0
JOBS_END_SECONDS: Final = 1.0
SLOW_TURN_SECONDS: Final = 1.0


class Loop:
    """Takes turns until it is told to stop. Exactly one thread calls `run`.

    `failure` holds the error that ended the loop, if one did.
    """

    def __init__(
        self,
        path: Path,
        settings: Settings,
        environment: Mapping[str, str],
        lock: Lock,
        wake: Wake,
        listener: "Listener",
    ) -> None:
        self._path = path
        self._settings = settings
        self._environment = environment
        self._lock = lock
        self._wake = wake
        self._listener = listener
        self._board = listener.board
        self._triggers = Triggers(wake, path)
        self._jobs = ThreadJobs(wake.result)
        self._waits = 0
        self._poll_at = 0.0
        self._look_at = 0.0
        self._rejected = ""
        self._reload_at: float | None = None
        self._watched: tuple[Model, ...] | None = None
        self.failure: SyncError | None = None

    def run(self) -> None:
        """Work until stopped; the lock must be held."""
        try:
            state = AgentState.fresh(self._settings, durable=True)
            agent = self._start(self._settings, state)
            self._wake.poll()
            while not self._wake.stop.is_set():
                agent = self._turn(agent)
        except Stopped:
            pass
        except SyncError as error:
            self.failure = error
        except Exception as error:  # noqa: BLE001 (the thread must say why it ends)
            get_logger().exception(Event.INTERNAL_ERROR, reason=Reason.INTERNAL_ERROR)
            self.failure = bug(error)
        finally:
            self._triggers.stop()
            self._jobs.close(JOBS_END_SECONDS)

    def _turn(self, agent: Agent) -> Agent:
        """Take one turn, after reading the settings anew if that is asked for, and sleep."""
        woken = self._wake.clear()
        now = time.monotonic()
        poll = woken.poll or now >= self._poll_at
        if woken.reload or (self._reload_at is not None and now >= self._reload_at):
            fresh = self._isolate(partial(self._reload, agent, asked=woken.asked)) or agent
            poll = poll or fresh is not agent
            agent = fresh
        if poll:
            self._poll_at = now + longest_wait(self._settings.poll)
        look = woken.look or poll or now >= self._look_at
        if look:
            self._look_at = math.inf
        outcome = self._isolate(partial(agent.turn, poll=poll, look=look, hurry=woken.hurry))
        self._watch(agent)
        seconds = time.monotonic() - now
        self._board.cycled(seconds)
        if seconds > SLOW_TURN_SECONDS:
            get_logger().warning(Event.SLOW_TURN, seconds=round(seconds, 3))
        self._sleep(self._pause(outcome))
        return agent

    def _sleep(self, seconds: float) -> None:
        self._board.rest(seconds)
        self._wake.wait(seconds)
        self._board.woke()

    def _start(self, settings: Settings, state: AgentState, before: Agent | None = None) -> Agent:
        """Return an agent under `settings` that knows what is known, with what of `before` stays the same."""
        old = (before.context.settings, before.context.ports) if before else None
        ports = make_ports(settings, self._jobs, self._board, old)
        try:
            agent = build_agent(settings, self._lock, ports, state=state, board=self._board)
            agent.prepare()
        except SyncError:
            if old is not None:
                close_replaced(ports, old[1])
            raise
        self._watched = None
        return agent

    def _watch(self, agent: Agent) -> None:
        """Set timer and watchers anew when the models have changed."""
        context = agent.context
        models = tuple(context.models)
        if models != self._watched:
            self._watched = models
            shelves = [context.workspace.shelf(model) for model in models]
            self._triggers.start(context.settings.poll, shelves)

    def _isolate(self, work: Callable[[], Result]) -> Result | None:
        """Do one thing; a bug in it is logged, and the loop goes on: the one catch-all of the program."""
        try:
            return work()
        except (Stopped, LockHeld):
            raise
        except Exception:  # noqa: BLE001 (one bad turn or reload must not end the agent)
            self._board.failed(Reason.INTERNAL_ERROR)
            get_logger().exception(Event.INTERNAL_ERROR, reason=Reason.INTERNAL_ERROR)
            return None

    def _pause(self, outcome: Outcome | None) -> float:
        """Return how long to sleep unless woken; the poll never depends on the wall clock alone."""
        now = time.monotonic()
        if outcome is None:
            self._look_at = now + AFTER_A_BUG_SECONDS
            return AFTER_A_BUG_SECONDS
        if outcome.acted:
            self._waits = 0
        if outcome.is_due:
            self._look_at = now
            return 0.0
        if outcome.settling_seconds is not None and not outcome.store_failed:
            settled_at = now + max(SETTLED_AGAIN_SECONDS, outcome.settling_seconds)
            self._poll_at = min(self._poll_at, settled_at)
        due = [outcome.retry_seconds, self._poll_at - now]
        if self._reload_at is not None:
            due.append(self._reload_at - now)
        if not outcome.server_answers:
            due.append(SERVER_AGAIN_SECONDS)
        if outcome.waiting:
            due.append(min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2.0 ** min(self._waits, 8)))
            self._waits += 1
        pause = min(max(0.05, seconds) for seconds in due if seconds is not None)
        if outcome.seen is not None:
            self._look_at = now + pause
        return pause

    # -- settings -----------------------------------------------------------------------------------

    def _reload(self, agent: Agent, *, asked: bool) -> Agent:
        """Put changed settings in force, or keep the old ones and say why.

        What cannot be put in force now is tried again until it can, or until the file changes.
        `asked`: somebody sent SIGHUP and is always answered; a change of the file may turn out to be none.
        """
        self._reload_at = None
        try:
            settings = load_settings(self._path, self._environment)
            self._check_change(settings)
        except SyncError as error:
            return self._keep(agent, error, asked=asked)
        if settings == self._settings:
            return self._unchanged(agent, asked=asked)
        try:
            fresh = self._start_anew(agent, settings)
        except SyncError as error:
            self._reload_at = time.monotonic() + SETTINGS_AGAIN_SECONDS
            return self._keep(agent, error, asked=asked)
        self._in_force(settings)
        fresh.context.state.settings_error = None
        return fresh

    def _start_anew(self, agent: Agent, settings: Settings) -> Agent:
        """Return an agent under other settings; if that fails, the one at work is as it was."""
        state, models = agent.context.state, agent.context.state.models
        try:
            fresh = self._start(settings, state, agent)
        except SyncError:
            state.models = models
            raise
        if _changes_transfers(self._settings, settings):
            agent.give_up_transfers()
        state.follow(self._settings, settings)
        close_replaced(agent.context.ports, fresh.context.ports)
        return fresh

    def _in_force(self, settings: Settings) -> None:
        configure(settings.log.level, settings.log.format)
        changed = [
            name
            for name in type(settings).model_fields
            if getattr(settings, name) != getattr(self._settings, name)
        ]
        self._settings = settings
        self._listener.apply(settings)
        self._rejected = ""
        self._board.reloaded("applied")
        get_logger().info(Event.SETTINGS_RELOADED, changed=changed)

    def _unchanged(self, agent: Agent, *, asked: bool) -> Agent:
        self._rejected = ""
        agent.context.state.settings_error = None
        self._board.reloaded("unchanged")
        if asked:
            get_logger().info(Event.SETTINGS_RELOADED, changed=[])
        return agent

    def _keep(self, agent: Agent, error: SyncError, *, asked: bool) -> Agent:
        """Say why the old settings stay in force, and let that be seen until it is over."""
        if asked or str(error) != self._rejected:
            get_logger().error(Event.SETTINGS_REJECTED, reason=error.reason, because=str(error))
        self._rejected = str(error)
        agent.context.state.settings_error = error
        self._board.reloaded("rejected")
        return agent

    def _check_change(self, settings: Settings) -> None:
        """The lock belongs to one directory for as long as the process lives."""
        if settings.serving.models_dir != self._settings.serving.models_dir:
            text = "serving.models_dir cannot change while the agent runs: restart it with the new one"
            raise SettingsError(Reason.SETTINGS_INVALID, text)


def _changes_transfers(old: Settings, new: Settings) -> bool:
    """Whether what is being brought must be brought anew: from elsewhere, or proven by other rules."""
    signatures = [{item.name: item.signatures for item in each.models} for each in (old, new)]
    return needs_other_store(old, new) or old.verify != new.verify or signatures[0] != signatures[1]
