"""Builds an agent and what it talks to from the settings."""

import sys
from functools import partial

from servesync import priority
from servesync.admin import AgentStatus
from servesync.agent.agent import Agent
from servesync.agent.context import AgentContext
from servesync.agent.discovery import discover
from servesync.agent.models_config import ConfigKeeper
from servesync.agent.ports import FootprintPort, Ports, ReloadPort, ServerPort, SystemClock
from servesync.agent.state import AgentState
from servesync.domain.versions import StoredObject
from servesync.fetch import FetchPool
from servesync.install import Lock
from servesync.jobs import JobContext, Jobs
from servesync.serving import RpcServer, ServerFootprint, connect, require_grpc
from servesync.settings import Serving, Settings
from servesync.store import S3Store, StorePort
from servesync.transfer.disk_guard import DiskGuard
from servesync.transfer.progress import for_stream
from servesync.transfer.sources.supply import Elsewhere
from servesync.transfer.transfer import Transfers
from servesync.verify import require_tensorflow


def make_ports(
    settings: Settings, jobs: Jobs, agent_status: AgentStatus, before: tuple[Settings, Ports] | None = None
) -> Ports:
    """Return the store, the server, the clock and the jobs that the settings ask for.

    `before`: the earlier settings and their ports; a port whose settings did not change is used again.
    """
    serving = settings.serving
    url = serving.rest_url
    store: StorePort | None = None
    server: ServerPort | None = None
    footprint: FootprintPort | None = None
    reload: ReloadPort | None = None
    if before is not None:
        old, ports = before
        store = None if needs_other_store(old, settings) else ports.store
        if old.serving.interfaces == serving.interfaces:
            server, reload = ports.server, ports.reload
            footprint = ports.footprint if old.memory.cgroup == settings.memory.cgroup else None
    if store is None:
        store = S3Store(
            settings.store, settings.fetch, settings.limits, on_request=agent_status.count_request
        )
    server = server or connect(*serving.interfaces)
    if reload is None and serving.grpc_target:
        reload = RpcServer(serving.grpc_target)
    footprint = footprint or ServerFootprint(url, settings.memory.cgroup)
    return Ports(store, server, SystemClock(), jobs, footprint, reload)


def needs_other_store(old: Settings, new: Settings) -> bool:
    """Whether the new settings reach or read the store in another way."""
    return (old.store, old.fetch, old.limits) != (new.store, new.fetch, new.limits)


def close_replaced(old: Ports, new: Ports) -> None:
    """Close the connections of the old ports that the new ones replace."""
    if old.store is not new.store:
        old.store.close()
    if old.server is not None and old.server is not new.server:
        old.server.close()
    if old.reload is not None and old.reload is not new.reload:
        old.reload.close()


def build_agent(
    settings: Settings,
    lock: Lock | None,
    ports: Ports,
    *,
    state: AgentState | None = None,
    agent_status: AgentStatus | None = None,
    one_pass: bool = False,
) -> Agent:
    """Return an agent that works under `settings` for as long as the caller holds `lock`.

    Args:
        settings: What is asked for.
        lock: The lock of the models directory; None for an agent that only looks.
        ports: The surroundings.
        state: What an earlier agent has learnt; None for a fresh start.
        agent_status: Where the agent shows its state to the admin interface.
        one_pass: The agent ends after this pass, so it cannot wait for a server that is starting.

    Raises:
        SettingsError: the settings ask for TensorFlow, a library of it, or grpcio, which is not installed.
    """
    if settings.verify.level == "load" and lock is not None:
        require_tensorflow(settings.verify.load.libraries)
    if settings.serving.grpc_target:
        require_grpc()
    agent_status = agent_status or AgentStatus()
    state = state or AgentState.fresh(settings, durable=lock is not None)
    tools = _transfer_tools(settings, ports, state, agent_status)
    context = AgentContext(
        settings=settings,
        ports=ports,
        state=state,
        agent_status=agent_status,
        transfers=tools,
        config=_config_keeper(settings.serving, ports, state, one_pass=one_pass),
        one_pass=one_pass,
    )
    state.documents.read = partial(_read, ports.store, tools.pool)
    discover(context)
    return Agent(context, lock)


def _config_keeper(
    serving: Serving, ports: Ports, state: AgentState, *, one_pass: bool
) -> ConfigKeeper | None:
    path = serving.config_file
    if path is None:
        return None
    if state.config is not None:
        return state.config.under(serving, path)
    return ConfigKeeper(path, serving, state.workspace, ports.clock, one_pass)


def _transfer_tools(
    settings: Settings, ports: Ports, state: AgentState, agent_status: AgentStatus
) -> Transfers:
    """Return what all transfers share, also those that began under earlier settings."""
    old = state.transfer_tools
    if old is not None:
        return old.renewed(settings, ports.store, old.pool)
    return Transfers(
        settings,
        ports.store,
        FetchPool(settings.fetch, at_start=priority.lower),
        state.workspace,
        DiskGuard(state.workspace),
        agent_status,
        for_stream(sys.stderr),
        elsewhere=Elsewhere.of(settings),
    )


def _read(store: StorePort, pool: FetchPool, item: StoredObject, job: JobContext) -> bytes:
    return pool.read_whole(item, store.read, job.should_stop)
