"""Reads what is on the shelf again, slowly and now and then: disks forget, and stamps do not tell.

A thread only reads. What follows from it, the deciding thread does: a version whose bytes have changed counts
as damaged from then on, and is repaired from the store, make before break.
"""

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from servesync.errors import Stopped
from servesync.install import Record, Shelf, hash_tree
from servesync.logs import Event, get_logger
from servesync.plan.versions import Model, Version
from servesync.settings import Scrub

LOOK_EVERY_SECONDS: Final = 60.0
BLOCK_BYTES: Final = 1 << 20
LONGEST_NAP_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True)
class Job:
    """One version to read again, and what it must hold."""

    shelf: Shelf
    version: Version
    record: Record


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


class Scrubber:
    """At most one version is read at a time. Used by the deciding thread; `wake` is called from the other."""

    def __init__(self, settings: Scrub, wake: Callable[[], None]) -> None:
        self._settings = settings
        self._wake = wake
        self._thread: threading.Thread | None = None
        self._job: Job | None = None
        self._same: bool | None = None
        self._ending = threading.Event()
        self._next_look = 0.0

    def turn(self, shelves: Iterable[Shelf]) -> None:
        """Take over what was found out, and begin with the next version if one is due.

        Models whose records cannot be read are passed over.

        Raises:
            OSError: what was found out cannot be written down; the version is read again at another time.
        """
        if self._settings.interval_hours is None or (self._thread and self._thread.is_alive()):
            return
        if self._job is not None:
            job, self._job = self._job, None
            self._take_over(job)
        elif time.monotonic() < self._next_look:
            return
        by_model = {shelf.model: shelf for shelf in shelves}
        known = [
            (model, version, record)
            for model, shelf in by_model.items()
            for version, record in _records_of(shelf).items()
        ]
        found = due(known, self._settings, datetime.now(UTC))
        if found is None:
            self._next_look = time.monotonic() + LOOK_EVERY_SECONDS
            return
        model, version = found
        record = next(record for name, number, record in known if (name, number) == found)
        self._begin(Job(by_model[model], version, record))

    def close(self) -> None:
        """End the reading."""
        self._ending.set()

    def _begin(self, job: Job) -> None:
        self._job, self._same = job, None
        self._thread = threading.Thread(target=self._read, args=(job,), name="servesync-scrub", daemon=True)
        self._thread.start()

    def _read(self, job: Job) -> None:
        seconds = BLOCK_BYTES / self._settings.max_bytes_per_second
        begun = time.monotonic()
        blocks = 0

        def pace() -> None:
            nonlocal blocks
            blocks += 1
            while (left := begun + blocks * seconds - time.monotonic()) > 0:
                if self._ending.wait(min(left, LONGEST_NAP_SECONDS)):
                    raise Stopped
            if self._ending.is_set():
                raise Stopped

        try:
            found = hash_tree(job.shelf.path / str(job.version), pace, from_disk=True)
        except (
            OSError,
            Stopped,
        ):  # a version that leaves meanwhile, or that cannot be read: the next look tells
            self._same = None
        else:
            self._same = found == job.record.content
        self._wake()

    def _take_over(self, job: Job) -> None:
        """Note the result, if the version is still the one that was read."""
        if job.shelf.records().get(job.version) != job.record:
            return
        log = get_logger().bind(model=job.shelf.model, version=job.version)
        if self._same:
            job.shelf.scrubbed(job.version, datetime.now(UTC))
            log.info(Event.VERSION_SCRUBBED, bytes=job.record.content.total_bytes)
        else:
            job.shelf.doubt(job.version, datetime.now(UTC))
            log.warning(
                Event.VERSION_DOUBTED, because="it could not be read as it was installed; read once more"
            )


def _records_of(shelf: Shelf) -> Mapping[Version, Record]:
    """Return the records of a model; none if they cannot be read, which each look reports."""
    try:
        return shelf.records()
    except OSError:
        return {}
