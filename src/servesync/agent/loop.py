"""The deciding thread of `run`: clear, look, act, wait; nothing that goes wrong ends it silently."""

import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from servesync.agent.agent import Agent, Outcome
from servesync.agent.build import build_agent
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


class Loop:
    """Runs cycles until it is told to stop. Exactly one thread calls `run`.

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
        self._waits = 0
        self._poll_at = 0.0
        self._rejected = ""
        self._watched: tuple[Model, ...] | None = None
        self.failure: SyncError | None = None

    def run(self) -> None:
        """Work until stopped; the lock must be held."""
        try:
            agent = self._start(self._settings)
            self._wake.poll()
            while not self._wake.stop.is_set():
                woken = self._wake.clear()
                poll = woken.poll or time.monotonic() >= self._poll_at
                if woken.reload:
                    agent = self._guarded(partial(self._reload, agent, asked=woken.asked)) or agent
                    poll = True
                if woken.hurry:
                    agent.observer.attempts.end_pauses()
                if poll:
                    self._poll_at = time.monotonic() + longest_wait(self._settings.poll)
                outcome = self._guarded(partial(agent.cycle, ask_store=poll))
                self._watch(agent)
                self._sleep(self._pause(outcome))
        except Stopped:
            pass
        except SyncError as error:
            self.failure = error
        except Exception as error:  # noqa: BLE001 (the thread must say why it ends)
            get_logger().exception(Event.INTERNAL_ERROR, reason=Reason.INTERNAL_ERROR)
            self.failure = bug(error)
        finally:
            self._triggers.stop()

    def _sleep(self, seconds: float) -> None:
        self._board.rest(seconds)
        self._wake.wait(seconds)
        self._board.woke()

    def _start(self, settings: Settings, before: Agent | None = None) -> Agent:
        """Return an agent under `settings` that remembers what the one `before` it has learnt."""
        agent = build_agent(
            settings, self._lock, self._wake.stop.is_set, wake=self._wake.look, board=self._board
        )
        if before is not None:
            agent.observer.server_watch = before.observer.server_watch
            agent.observer.attempts = before.observer.attempts
        try:
            agent.prepare()
        except SyncError:
            agent.close()
            raise
        self._watched = None
        self._watch(agent)
        return agent

    def _watch(self, agent: Agent) -> None:
        """Set timer and watchers anew when the models have changed."""
        models = tuple(agent.observer.models)
        if models != self._watched:
            self._watched = models
            shelves = [agent.observer.workspace.shelf(model) for model in models]
            self._triggers.start(agent.observer.settings.poll, shelves)

    def _guarded(self, work: Callable[[], Result]) -> Result | None:
        """Do one thing; a bug in it is logged, and the loop goes on: the one catch-all of the program."""
        try:
            return work()
        except (Stopped, LockHeld):
            raise
        except Exception:  # noqa: BLE001 (one bad cycle or reload must not end the agent)
            self._board.failed(Reason.INTERNAL_ERROR)
            get_logger().exception(Event.INTERNAL_ERROR, reason=Reason.INTERNAL_ERROR)
            return None

    def _pause(self, outcome: Outcome | None) -> float:
        """Return how long to sleep unless woken; the poll never depends on the wall clock alone."""
        if outcome is None:
            return AFTER_A_BUG_SECONDS
        if outcome.acted:
            self._waits = 0
            return 0.0
        if outcome.settling_seconds is not None and not outcome.store_failed:
            settled_at = time.monotonic() + max(SETTLED_AGAIN_SECONDS, outcome.settling_seconds)
            self._poll_at = min(self._poll_at, settled_at)
        due = [outcome.retry_seconds, self._poll_at - time.monotonic()]
        if not outcome.server_answers:
            due.append(SERVER_AGAIN_SECONDS)
        if outcome.waiting:
            due.append(min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2.0 ** min(self._waits, 8)))
            self._waits += 1
        known = [max(0.05, seconds) for seconds in due if seconds is not None]
        return min(known)

    def _reload(self, agent: Agent, *, asked: bool) -> Agent:
        """Take over changed settings, or keep the old ones and say why.

        `asked`: somebody sent SIGHUP and is always answered; a change of the file may turn out to be none.
        """
        try:
            settings = load_settings(self._path, self._environment)
            self._check_change(settings)
            fresh = agent if settings == self._settings else self._start(settings, agent)
        except SyncError as error:
            if asked or str(error) != self._rejected:
                get_logger().error(Event.SETTINGS_REJECTED, reason=error.reason, because=str(error))
            self._rejected = str(error)
            self._board.reloaded("rejected")
            return agent
        self._rejected = ""
        self._board.reloaded("unchanged" if fresh is agent else "applied")
        if fresh is agent:
            if asked:
                get_logger().info(Event.SETTINGS_RELOADED, changed=[])
            return agent
        configure(settings.log.level, settings.log.format)
        changed = [
            name
            for name in type(settings).model_fields
            if getattr(settings, name) != getattr(self._settings, name)
        ]
        self._settings = settings
        self._listener.apply(settings)
        agent.close()
        get_logger().info(Event.SETTINGS_RELOADED, changed=changed)
        return fresh

    def _check_change(self, settings: Settings) -> None:
        """The lock belongs to one directory for as long as the process lives."""
        if settings.serving.models_dir != self._settings.serving.models_dir:
            text = "serving.models_dir cannot change while the agent runs: restart it with the new one"
            raise SettingsError(Reason.SETTINGS_INVALID, text)
