"""The deciding thread of `run` waits for news and takes a turn; no error ends it silently."""

import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from servesync.agent.agent import Agent
from servesync.agent.outcome import Outcome
from servesync.errors import LockHeld, Reason, Stopped, SyncError, internal_error
from servesync.install import Lock
from servesync.jobs import ThreadJobs
from servesync.logs import Event, get_logger
from servesync.runtime.pace import Pace
from servesync.runtime.reload import Reloader
from servesync.runtime.triggers import Triggers, Wake
from servesync.settings import Settings

if TYPE_CHECKING:
    from servesync.runtime.listener import Listener

Result = TypeVar("Result")
JOBS_END_SECONDS: Final = 1.0
SLOW_TURN_SECONDS: Final = 1.0


class Loop:
    """Takes turns until it is told to stop. Exactly one thread calls `run`.

    `failure` is the error that ended the loop, if any. `jobs_ended`: all jobs have ended.
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
        self._settings = settings
        self._wake = wake
        self._agent_status = listener.agent_status
        self._triggers = Triggers(wake, path)
        self._jobs = ThreadJobs(wake.result)
        self._reloader = Reloader(path, environment, lock, self._jobs, listener)
        self._pace = Pace()
        self._watched: dict[Path, tuple[int, int]] | None = None
        self.failure: SyncError | None = None
        self.jobs_ended = False

    def run(self) -> None:
        """Work until stopped; the lock must be held."""
        try:
            agent = self._reloader.start(self._settings)
            self._wake.poll()
            while not self._wake.stop.is_set():
                agent = self._turn(agent)
        except Stopped:
            pass
        except SyncError as error:
            self.failure = error
        except Exception as error:  # noqa: BLE001 (the thread must say why it ends)
            get_logger().exception(Event.INTERNAL_ERROR, reason=Reason.INTERNAL_ERROR)
            self.failure = internal_error(error)
        finally:
            self._triggers.stop()
            self.jobs_ended = self._jobs.close(JOBS_END_SECONDS)

    def _turn(self, agent: Agent) -> Agent:
        """Reload the settings if somebody asked for it, take one turn, and sleep."""
        woken = self._wake.clear()
        now = time.monotonic()
        poll = woken.poll or self._pace.is_poll_due(now)
        if woken.reload or self._reloader.is_due(now):
            reload = partial(self._reloader.reload, agent, asked=woken.asked)
            fresh = self._isolate(reload) or agent
            if fresh is not agent:
                agent, poll, self._watched = fresh, True, None
        if poll:
            self._pace.polled(agent.context.settings.poll, now)
        refresh = woken.refresh or poll or self._pace.is_refresh_due(now)
        if refresh:
            self._pace.refreshed()
        outcome = self._isolate(partial(agent.turn, poll=poll, refresh=refresh, hurry=woken.hurry))
        self._watch(agent)
        self._measure(time.monotonic() - now)
        self._sleep(outcome)
        return agent

    def _measure(self, seconds: float) -> None:
        self._agent_status.metrics.cycle_seconds.observe(seconds)
        if seconds > SLOW_TURN_SECONDS:
            get_logger().warning(Event.SLOW_TURN, seconds=round(seconds, 3))

    def _sleep(self, outcome: Outcome | None) -> None:
        now = time.monotonic()
        seconds = self._pace.pause(outcome, now)
        reload = self._reloader.seconds_left(now)
        seconds = seconds if reload is None else min(seconds, reload)
        self._agent_status.sleeping(seconds)
        self._wake.wait(seconds)
        self._agent_status.awake()

    def _watch(self, agent: Agent) -> None:
        """Restart timer and watchers if the folders changed: other models, or a folder that was replaced."""
        context = agent.context
        shelves = [context.workspace.shelf(model) for model in context.models]
        found = {shelf: identity for shelf in shelves if (identity := _identity_of(shelf)) is not None}
        if found != self._watched:
            self._watched = found
            self._triggers.start(context.settings.poll, found)
            self._wake.refresh()  # for changes before the watchers started

    def _isolate(self, work: Callable[[], Result]) -> Result | None:
        """Run `work`, log an unexpected error, and go on: this is the only catch-all of the loop."""
        try:
            return work()
        except (Stopped, LockHeld):
            raise
        except Exception:  # noqa: BLE001 (one bad turn or reload must not end the agent)
            self._agent_status.failed(Reason.INTERNAL_ERROR)
            get_logger().exception(Event.INTERNAL_ERROR, reason=Reason.INTERNAL_ERROR)
            return None


def _identity_of(folder: Path) -> tuple[int, int] | None:
    """Return the identity of a folder, which changes if it is made anew; None if there is none."""
    try:
        found = folder.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
