"""Turns what a turn has found into the frozen snapshot that the admin interface shows."""

import shutil
from typing import Final

from servesync.admin import (
    DiskSpace,
    MemoryBudget,
    ModelStatus,
    OnDisk,
    ServerStatus,
    Snapshot,
    StoreStatus,
    Trouble,
    VersionStatus,
)
from servesync.agent import asking
from servesync.agent.context import AgentContext
from servesync.agent.model_snapshot import ModelSnapshot
from servesync.agent.snapshot import Seen
from servesync.domain.versions import Model, Version
from servesync.errors import Reason, SyncError
from servesync.planning.facts import Condition, ModelPlan, Role
from servesync.planning.facts_index import FactsIndex
from servesync.settings import ModelSettings

MOST_NOT_WANTED: Final = 20
MOST_SHOWN: Final = 1000
_ON_DISK: Final = {
    Condition.GOOD: OnDisk.GOOD,
    Condition.DAMAGED: OnDisk.DAMAGED,
    Condition.FOREIGN: OnDisk.FOREIGN,
    Condition.UNRECORDED: OnDisk.UNRECORDED,
    Condition.CHECKING: OnDisk.CHECKING,
}


def status_of(context: AgentContext, seen: Seen) -> Snapshot:
    """Return what was seen, as values that any thread may read for as long as it likes.

    Bounded: of a model's versions that nobody wants only the highest few are in it, the others are counted.
    """
    settings, listing, store = context.settings, seen.listing, context.state.store
    return Snapshot(
        at=context.ports.clock.wall(),
        models={model: _model(model, item, seen) for model, item in context.models.items()},
        store=StoreStatus(
            url=settings.store.url,
            last_poll_at=store.polled_at,
            last_good_poll_at=store.listed_at,
            requests=listing.requests if listing else None,
            ignored_keys=listing.ignored_keys if listing else None,
            ignored_examples=listing.ignored_examples if listing else (),
            trouble=_trouble(seen.store_error),
        ),
        server=ServerStatus(
            url=settings.serving.rest_url,
            policy=settings.serving.version_policy,
            answers=asking.is_answering(context),
            trouble=_trouble(seen.server_error),
        ),
        poll_interval_seconds=settings.poll.interval_seconds,
        disk=_disk(context),
        memory=_memory(seen),
        config_file_missing=_config_file_missing(seen),
        settings_trouble=_trouble(context.state.settings_error),
    )


def _model(model: Model, settings: ModelSettings, seen: Seen) -> ModelStatus:
    wish = settings.versions.model_dump(exclude_none=True)
    policy = ", ".join(f"{name}: {value}" for name, value in wish.items())
    found, plan = seen.snapshot.models.get(model), seen.plan.models.get(model)
    if found is None or plan is None:
        trouble = _trouble(seen.snapshot.broken.get(model))
        return ModelStatus(required=settings.required, policy=policy, trouble=trouble)
    shown = _shown(plan)
    return ModelStatus(
        required=settings.required,
        policy=FactsIndex(found.facts).policy,
        wanted=tuple(sorted(plan.wanted)),
        in_place=plan.in_place,
        served=plan.served,
        in_store=None if found.facts.offered is None else len(found.offered),
        versions={version: _version(found, plan, version) for version in shown},
        more_versions=len(plan.verdicts) - len(shown),
        strange_names=tuple(ascii(name) for name in found.inventory.foreign_names[:MOST_NOT_WANTED]),
        trouble=_unreadable(found.unreadable),
        held_newest=seen.held.get(model),
    )


def _unreadable(texts: tuple[str, ...]) -> Trouble | None:
    if not texts:
        return None
    more = f" (and {len(texts) - 1} more records)" if len(texts) > 1 else ""
    return Trouble(Reason.RECORD_UNREADABLE, f"{texts[0][:1000]}{more}")


def _shown(plan: ModelPlan) -> list[Version]:
    """Return the versions to show, the highest first."""
    verdicts = sorted(plan.verdicts.items(), reverse=True)
    of_interest = [version for version, verdict in verdicts if verdict.role is not Role.NOT_WANTED]
    others = [version for version, verdict in verdicts if verdict.role is Role.NOT_WANTED]
    return sorted(of_interest[:MOST_SHOWN] + others[:MOST_NOT_WANTED], reverse=True)


def _version(found: ModelSnapshot, plan: ModelPlan, version: Version) -> VersionStatus:
    verdict = plan.verdicts[version]
    shelved = found.facts.shelf.get(version)
    release = found.offered.get(version)
    served = (found.facts.server.versions or {}).get(version)
    record = found.inventory.recorded.get(version)
    if shelved is not None:
        on_disk = _ON_DISK[shelved.condition]
    else:
        on_disk = OnDisk.RESERVED if version in found.facts.reserve else OnDisk.ABSENT
    return VersionStatus(
        role=verdict.role,
        why=verdict.why,
        on_disk=on_disk,
        server=served.state if served else None,
        untried=version in found.facts.untried(),
        identity=(shelved.identity if shelved else "") or (release.identity if release else ""),
        proven_by=record.proven_by.value if record else None,
        bytes=sum(file.size for file in record.files) if record else None,
        tensor_bytes=record.tensor_bytes if record else None,
        published_at=release.published_at if release else None,
        installed_at=record.at.timestamp() if record else None,
    )


def _memory(seen: Seen) -> MemoryBudget:
    budget = seen.snapshot.fleet.memory.budget
    return MemoryBudget(budget.bytes if budget else None, sum(item.bytes for item in seen.plan.loaded))


def _config_file_missing(seen: Seen) -> str | None:
    """Return why there is no models.config of ours yet, for a server that is to start with it."""
    draft = seen.config
    if draft is None or draft.path.exists():
        return None
    why = str(draft.problem) if draft.problem else "it is about to be written"
    return f"{draft.path} (serving.config_file) is not there: {why}"


def _disk(context: AgentContext) -> DiskSpace | None:
    path = context.workspace.models_dir
    try:
        found = shutil.disk_usage(path)
    except OSError:
        return None
    reserve = context.settings.limits.disk_reserve_bytes
    return DiskSpace(str(path), found.total, found.free, reserve)


def _trouble(error: SyncError | None) -> Trouble | None:
    return None if error is None else Trouble(error.reason, str(error)[:1000])
