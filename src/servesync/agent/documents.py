"""Small documents of the store, read by jobs: channels, manifests, withdrawals.

A caller asks for a document. If it has not been read, `get` raises `NotReadYet`, a job reads it, and the
caller asks again. A document that could not be read is read again after the next listing.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from servesync.domain.versions import Model, StoredObject
from servesync.errors import SyncError
from servesync.jobs import Job, JobContext, JobKind

MOST_AT_ONCE: Final = 4

Key = tuple[str, str]
ReadBytes = Callable[[StoredObject, JobContext], bytes]
Digest = Callable[[bytes], object]


class NotReadYet(Exception):
    """The document is being read, or will be: ask again when a job has ended."""


@dataclass
class DocumentReader:
    """Has documents read by jobs, and keeps them until the next listing. Used by the deciding thread only.

    `read`: called in jobs; returns the bytes of a document.
    """

    read: ReadBytes | None = None
    _found: dict[Key, object] = field(default_factory=dict)
    _wanted: dict[Key, tuple[StoredObject, Model, Digest]] = field(default_factory=dict)
    _running: set[Key] = field(default_factory=set)

    def get(self, item: StoredObject, model: Model, digest: Digest = lambda data: data) -> object:
        """Return the result of `digest`, which a job calls with the bytes of a document.

        `model`: whose document it is.

        Raises:
            NotReadYet: it has not been read; it will be.
            SyncError: it could not be read, or is not what it should be.
        """
        key = (item.key, item.etag)
        if key not in self._found:
            if key not in self._running:
                self._wanted[key] = (item, model, digest)
            raise NotReadYet(item.key)
        found = self._found[key]
        if isinstance(found, SyncError):
            raise found
        return found

    def listed(self) -> None:
        """Forget documents and errors, because a new listing has come."""
        self._found.clear()
        self._wanted.clear()

    def jobs(self) -> list[Job]:
        """Return the jobs to start now, a few at a time."""
        jobs = []
        for key in list(self._wanted)[: max(0, MOST_AT_ONCE - len(self._running))]:
            item, model, digest = self._wanted.pop(key)
            self._running.add(key)
            jobs.append(self._job(key, item, model, digest))
        return jobs

    def _job(self, key: Key, item: StoredObject, model: Model, digest: Digest) -> Job:
        read = self.read

        def work(context: JobContext) -> object:
            return digest(read(item, context)) if read else None

        return Job(JobKind.DOCUMENT, work, model, name="\0".join(key))

    def ended(self, job: Job, result: object, error: SyncError | None) -> None:
        """Take in what a job has found."""
        name, _, etag = job.name.partition("\0")
        self._running.discard((name, etag))
        self._found[name, etag] = result if error is None else error

    @property
    def is_idle(self) -> bool:
        """Whether every requested document has been read."""
        return not self._wanted and not self._running
