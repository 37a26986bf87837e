"""`/status`: all that `AgentStatus` holds, as one JSON object with stable names; see `docs/admin.md`."""

import time
from collections.abc import Mapping
from typing import Any, Final

from servesync import __version__
from servesync.admin.agent_status import AgentStatus, transfers_among
from servesync.admin.cost import cost_of, total
from servesync.admin.metrics import SOURCES
from servesync.admin.snapshot import SCHEMA_VERSION, HeldVersion, Snapshot, Trouble, as_json, iso
from servesync.settings import Admin

MOST_SHOWN: Final = 1000


def report(agent_status: AgentStatus, settings: Admin) -> dict[str, Any]:
    """Return what `/status` shows, with numbers, strings, lists and objects only."""
    seen, activities = agent_status.snapshot, agent_status.activities
    now = time.time()
    return {
        "schema_version": SCHEMA_VERSION,
        "servesync": __version__,
        "pid": agent_status.pid,
        "now": iso(now),
        "started_at": iso(agent_status.started_at),
        "looked_at": iso(seen.at) if seen else None,
        "next_poll_at": _next_poll(seen),
        "alive": agent_status.is_alive,
        "draining_since_at": iso(agent_status.draining_since_at) if agent_status.draining_since_at else None,
        "activity": as_json(next(iter(activities), None)),
        "transfers": as_json(transfers_among(activities)),
        "models": as_json(seen.models) if seen else {},
        "store": as_json(seen.store) if seen else None,
        "server": as_json(seen.server) if seen else None,
        "disk": as_json(seen.disk) if seen else None,
        "memory": as_json(seen.memory) if seen else None,
        "bytes_by_source": {
            source: total(agent_status.metrics.source_bytes, source=source) for source in SOURCES
        },
        "cost": as_json(cost_of(agent_status, settings.prices)),
        "troubles": troubles(seen),
        "events": list(agent_status.events()),
    }


def _next_poll(seen: Snapshot | None) -> str | None:
    """Return when the store is due to be listed again, but for the jitter."""
    if seen is None or seen.store.last_poll_at is None:
        return None
    return iso(seen.store.last_poll_at + seen.poll_interval_seconds)


def troubles(seen: Snapshot | None) -> list[dict[str, str]]:
    """Return what does not work now, most general first; `about`: settings, store, server, or a model."""
    if seen is None:
        return []
    found = [
        ("settings", seen.settings_trouble),
        ("store", seen.store.trouble),
        ("server", seen.server.trouble),
    ]
    for model, item in seen.models.items():
        found += [(str(model), item.trouble), (str(model), _newest(item.held_newest))]
    return [
        {"about": about, "reason": trouble.reason.value, "text": trouble.text}
        for about, trouble in found
        if trouble is not None
    ][:MOST_SHOWN]


def _newest(held: HeldVersion | None) -> Trouble | None:
    if held is None:
        return None
    return Trouble(held.reason, f"version {held.version}, the newest, is held: {held.text}")


def running(status: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return all that a status says to be going on, the oldest activity first.

    Agents from before `transfers` name one activity.
    """
    transfers = list(status.get("transfers", ()))
    activity = status["activity"]
    return transfers if activity is None or activity in transfers else [activity, *transfers]
