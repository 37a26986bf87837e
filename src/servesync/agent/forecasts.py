"""How much of what comes is to be fetched: only for people who ask, since it costs a request for each."""

import time
from collections.abc import Mapping
from typing import Final

from servesync.agent.context import AgentContext
from servesync.agent.snapshot import Seen
from servesync.domain.versions import Release
from servesync.errors import SyncError
from servesync.planning.actions import Fetch
from servesync.planning.fleet_facts import Key
from servesync.transfer.manifests import read_manifest
from servesync.transfer.sources.supply import Forecast

MOST: Final = 20
"""For so many versions it is found out."""


def forecasts(context: AgentContext, seen: Seen, until: float) -> Mapping[Key, Forecast]:
    """Return it for the versions whose transfer the plan begins, or postpones, and that have a manifest.

    What cannot be told is left out. `until`: then nothing more is read (monotonic seconds).
    """
    found: dict[Key, Forecast] = {}
    for step in (*seen.plan.steps, *seen.plan.postponed):
        snapshot = seen.snapshot.models.get(step.model)
        release = snapshot.offered.get(step.action.version) if snapshot else None
        if isinstance(step.action, Fetch) and release is not None and len(found) < MOST:
            forecast = _forecast(context, release, until)
            if forecast is not None:
                found[step.model, step.action.version] = forecast
    return found


def _forecast(context: AgentContext, release: Release, until: float) -> Forecast | None:
    if release.manifest is None or time.monotonic() > until:
        return None
    transfers = context.transfers
    try:
        document = read_manifest(
            release,
            release.manifest,
            lambda item: transfers.pool.read_whole(
                item, transfers.store.read, lambda: time.monotonic() > until
            ),
        )
        return transfers.elsewhere.forecast(context.workspace, document)
    except (SyncError, OSError):
        return None
