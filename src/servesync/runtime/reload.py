"""Puts changed settings in force, or keeps the old ones and says why until that changes."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from servesync.agent.agent import Agent
from servesync.errors import Reason, SettingsError, SyncError
from servesync.install import Lock
from servesync.jobs import Jobs
from servesync.logs import Event, configure, get_logger
from servesync.runtime.build import build_agent, close_replaced, make_ports, needs_other_store
from servesync.settings import EVERY_MODEL, Settings
from servesync.settings_file import load_settings

if TYPE_CHECKING:
    from servesync.runtime.listener import Listener

AGAIN_SECONDS: Final = 5.0


class Reloader:
    """Builds the agent for the settings in force; settings that fail now are tried again."""

    def __init__(
        self, path: Path, environment: Mapping[str, str], lock: Lock, jobs: Jobs, listener: "Listener"
    ) -> None:
        self._path = path
        self._environment = environment
        self._lock = lock
        self._jobs = jobs
        self._listener = listener
        self._rejected = ""
        self._again_at: float | None = None

    def start(self, settings: Settings, before: Agent | None = None) -> Agent:
        """Return an agent under `settings` that keeps the state of `before` and its unchanged ports.

        Raises:
            SyncError: the settings cannot be put in force; `before` is unchanged.
        """
        agent_status = self._listener.agent_status
        old = (before.context.settings, before.context.ports) if before else None
        state = before.context.state if before else None
        ports = make_ports(settings, self._jobs, agent_status, old)
        try:
            agent = build_agent(settings, self._lock, ports, state=state, agent_status=agent_status)
            agent.prepare()
        except SyncError:
            if old is not None:
                close_replaced(ports, old[1])
            raise
        return agent

    def is_due(self, now: float) -> bool:
        """Whether it is time to try settings again that could not be put in force."""
        return self._again_at is not None and now >= self._again_at

    def seconds_left(self, now: float) -> float | None:
        """Return the seconds until that time; None if no settings wait."""
        return None if self._again_at is None else max(0.0, self._again_at - now)

    def reload(self, agent: Agent, *, asked: bool) -> Agent:
        """Read the file and return the agent to go on with: a new one if the settings changed.

        `asked`: somebody sent SIGHUP, so the log always answers; a touched file may hold no change.
        """
        self._again_at = None
        old = agent.context.settings
        try:
            settings = load_settings(self._path, self._environment)
            _check_change(old, settings)
        except SyncError as error:
            return self._keep(agent, error, asked=asked)
        if settings == old:
            return self._unchanged(agent, asked=asked)
        try:
            fresh = self._start_anew(agent, settings)
        except SyncError as error:
            self._again_at = time.monotonic() + AGAIN_SECONDS
            return self._keep(agent, error, asked=asked)
        self._in_force(fresh, old)
        return fresh

    def _start_anew(self, agent: Agent, settings: Settings) -> Agent:
        """Return an agent under other settings; if that fails, the current agent is unchanged."""
        state, old = agent.context.state, agent.context.settings
        models, read = state.models, state.documents.read
        try:
            fresh = self.start(settings, agent)
        except SyncError:
            state.models, state.documents.read = models, read
            raise
        if _changes_transfers(old, settings):
            agent.give_up_transfers()
        state.follow(old, settings)
        close_replaced(agent.context.ports, fresh.context.ports)
        return fresh

    def _in_force(self, fresh: Agent, old: Settings) -> None:
        settings = fresh.context.settings
        configure(settings.log.level, settings.log.format)
        changed = [
            name for name in type(settings).model_fields if getattr(settings, name) != getattr(old, name)
        ]
        self._listener.apply(settings)
        self._rejected = ""
        fresh.context.state.settings_error = None
        self._listener.agent_status.reloaded("applied")
        get_logger().info(Event.SETTINGS_RELOADED, changed=changed)

    def _unchanged(self, agent: Agent, *, asked: bool) -> Agent:
        self._rejected = ""
        agent.context.state.settings_error = None
        self._listener.agent_status.reloaded("unchanged")
        if asked:
            get_logger().info(Event.SETTINGS_RELOADED, changed=[])
        return agent

    def _keep(self, agent: Agent, error: SyncError, *, asked: bool) -> Agent:
        """Log why the old settings stay in force, and show it until other settings are."""
        if asked or str(error) != self._rejected:
            get_logger().error(Event.SETTINGS_REJECTED, reason=error.reason, because=str(error))
        self._rejected = str(error)
        agent.context.state.settings_error = error
        self._listener.agent_status.reloaded("rejected")
        return agent


def _check_change(old: Settings, new: Settings) -> None:
    """The lock belongs to one directory for as long as the process lives."""
    if new.serving.models_dir != old.serving.models_dir:
        text = "serving.models_dir cannot change while the agent runs: restart it with the new one"
        raise SettingsError(Reason.SETTINGS_INVALID, text)


def _changes_transfers(old: Settings, new: Settings) -> bool:
    """Whether running transfers must start anew: the source changed, or the checks."""
    if needs_other_store(old, new) or old.verify != new.verify:
        return True
    before, after = ({item.name: item.signatures for item in each.models} for each in (old, new))
    return any(_are_signatures_new(name, before, after) for name in before.keys() | after.keys())


def _are_signatures_new(name: str, before: Mapping[str, object], after: Mapping[str, object]) -> bool:
    """Whether the signatures changed of a model that both settings name, perhaps by "*"."""
    old, new = (each.get(name, each.get(EVERY_MODEL, each)) for each in (before, after))
    return old is not before and new is not after and old != new
