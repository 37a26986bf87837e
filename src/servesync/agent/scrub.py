"""Reads installed versions again, slowly and now and then: a disk can lose bytes without a new time stamp.

A job only reads. The deciding thread acts on the result: it has a version whose bytes have changed read once
more, counts it as damaged if they have, and repairs it from the store while it stays on the shelf.
"""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Final

from servesync import disk
from servesync.agent.context import AgentContext
from servesync.domain.versions import Model, Version
from servesync.errors import Stopped
from servesync.install import Record, Shelf
from servesync.jobs import Ended, Job, JobContext, JobKind
from servesync.logs import Event, get_logger
from servesync.settings import Scrub

LOOK_EVERY_SECONDS: Final = 60.0
BLOCK_BYTES: Final = 1 << 20
LONGEST_NAP_SECONDS: Final = 0.5


def due(
    records: Iterable[tuple[Model, Version, Record]], settings: Scrub, now: datetime
) -> tuple[Model, Version] | None:
    """Return the version that has waited longest, if it has waited long enough and this is the time of day.

    `now` is UTC.
    """
    if settings.interval_hours is None or not settings.is_time(now.time()):
        return None
    waiting = [
        (record.scrubbed_at or record.at, model, version)
        for model, version, record in records
        if record.state == "installed"
    ]
    if not waiting:
        return None
    since, model, version = min(waiting)
    late = now - since >= timedelta(hours=settings.interval_hours)
    return (model, version) if late else None


@dataclass(frozen=True, slots=True)
class Scrubbed:
    """A version that was read. `is_same` None: unknown, because the version has left meanwhile."""

    shelf: Shelf
    version: Version
    record: Record
    is_same: bool | None


def begin_scrubbing(context: AgentContext) -> None:
    """Start to read the next version if one is due.

    Models whose records cannot be read are passed over.
    """
    settings, state = context.settings.scrub, context.state
    if settings.interval_hours is None or context.one_pass or context.is_busy(JobKind.SCRUB):
        return
    if context.now() < state.upkeep.scrub_not_before:
        return
    known = [
        (model, version, record)
        for model in context.models
        for version, record in _records_of(context.shelf(model)).items()
    ]
    found = due(known, settings, context.utc())
    if found is None:
        state.upkeep.scrub_not_before = context.now() + LOOK_EVERY_SECONDS
        return
    model, version = found
    record = next(record for name, number, record in known if (name, number) == found)
    work = partial(_read, context.shelf(model), version, record, settings.max_bytes_per_second)
    context.start(Job(JobKind.SCRUB, work, model, version))


def _read(shelf: Shelf, version: Version, record: Record, bytes_per_second: int, job: JobContext) -> Scrubbed:
    seconds = BLOCK_BYTES / bytes_per_second
    begun = time.monotonic()
    blocks = 0

    def pace() -> None:
        nonlocal blocks
        blocks += 1
        while (left := begun + blocks * seconds - time.monotonic()) > 0:
            job.check()
            time.sleep(min(left, LONGEST_NAP_SECONDS))
        job.check()

    try:
        _, is_same = shelf.is_right(version, record, pace, from_disk=True)
    except OSError:  # the version leaves meanwhile, which the next snapshot shows
        return Scrubbed(shelf, version, record, None)
    return Scrubbed(shelf, version, record, is_same)


def take_in_scrubbed(context: AgentContext, message: Ended) -> None:
    """Note the result, if the version is still the one that was read."""
    found = message.result
    if not isinstance(found, Scrubbed):
        if message.error is not None and not isinstance(message.error, Stopped | OSError):
            context.failed(message.error, message.job.model)
        return
    try:
        if found.shelf.records().get(found.version) == found.record:
            _note(context, found)
    except OSError as error:
        context.failed(disk.describe(error, "reading what is on the shelf again"))


def _note(context: AgentContext, found: Scrubbed) -> None:
    log = get_logger().bind(model=found.shelf.model, version=found.version)
    if found.is_same is None:
        return
    if found.is_same:
        found.shelf.scrubbed(found.version, context.utc())
        log.info(Event.VERSION_SCRUBBED, bytes=found.record.content.total_bytes)
    else:
        found.shelf.doubt(found.version, context.utc())
        context.state.upkeep.checked.get(found.shelf.model, {}).pop(found.version, None)
        log.warning(
            Event.VERSION_DOUBTED, because="its bytes are not those that were installed; it is read once more"
        )


def _records_of(shelf: Shelf) -> Mapping[Version, Record]:
    """Return the records of a model; none if they cannot be read, which each snapshot reports."""
    try:
        return shelf.records()
    except OSError:
        return {}
