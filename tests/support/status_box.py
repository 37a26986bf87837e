"""An `AgentStatus` as a running agent would have filled it, for tests of what is shown."""

import time
from dataclasses import replace

from servesync.admin import (
    AgentStatus,
    DiskSpace,
    HeldVersion,
    MemoryBudget,
    ModelStatus,
    OnDisk,
    ServerStatus,
    Snapshot,
    StoreStatus,
    Trouble,
    VersionStatus,
)
from servesync.domain.versions import Model, Version
from servesync.errors import Reason
from servesync.planning.facts import Role, ServerState

M = Model("m")


def version(role: Role = Role.SERVING, on_disk: OnDisk = OnDisk.GOOD, **more: object) -> VersionStatus:
    """Return a version; a serving one, unless told otherwise."""
    served = ServerState.AVAILABLE if role is Role.SERVING else None
    base = VersionStatus(role=role, why="because", on_disk=on_disk, server=served, published_at=time.time())
    return replace(base, **more)  # type: ignore[arg-type]


def snapshot(
    versions: dict[int, VersionStatus] | None = None,
    *,
    server_url: str | None = "http://127.0.0.1:8501",
    required: bool = True,
    store_trouble: Trouble | None = None,
) -> Snapshot:
    """Return a look at one model, `m`."""
    found = {Version(number): item for number, item in (versions or {}).items()}
    wanted = tuple(sorted(number for number, item in found.items() if item.role is Role.SERVING))
    return Snapshot(
        at=time.time(),
        models={
            M: ModelStatus(
                required=required,
                policy="latest: 1",
                wanted=wanted,
                in_place=bool(wanted),
                served=bool(wanted),
                in_store=len(found),
                versions=found,
            )
        },
        store=StoreStatus("s3://acme/prod", time.time(), time.time(), 1, 0, (), store_trouble),
        server=ServerStatus(server_url, "all", True if server_url else None),
        poll_interval_seconds=10.0,
        disk=DiskSpace("/models", 1000, 400, 100),
        memory=MemoryBudget(500, 300),
    )


OUTAGE = Trouble(Reason.STORE_UNREACHABLE, "no answer")


AMBIGUOUS = HeldVersion(Reason.RELEASE_AMBIGUOUS, "two archives", Version(2))


def with_held_newest(seen: Snapshot, held: HeldVersion = AMBIGUOUS) -> Snapshot:
    """Return a look of whose models a newest version is held."""
    models = {model: replace(item, held_newest=held) for model, item in seen.models.items()}
    return replace(seen, models=models)


def full_status() -> AgentStatus:
    """Return a status in which every kind of thing has happened."""
    agent_status = AgentStatus()
    agent_status.publish(with_held_newest(snapshot({1: version(), 2: version(Role.HELD, OnDisk.ABSENT)})))
    agent_status.metrics.cycle_seconds.observe(0.01)
    agent_status.polled(None)
    agent_status.count_request("list", "ok")
    agent_status.acted("install", "done")
    agent_status.refused(Reason.ARCHIVE_FORMAT)
    agent_status.failed(Reason.DISK_FULL)
    agent_status.installed(M, Version(1))
    agent_status.available(M, Version(1), time.time() + 1)
    return agent_status
