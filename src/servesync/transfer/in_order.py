"""Brings a release as one stream, in the order of its bytes: a bare archive, or one object after another."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Final

from servesync.admin import Counting
from servesync.domain.versions import Layout, Release, StoredObject
from servesync.errors import ReleaseRefused, Stopped, SyncError
from servesync.fetch import FetchPool, Read
from servesync.jobs import JobContext
from servesync.settings import Limits
from servesync.store import Running
from servesync.transfer.disk_guard import Reservation
from servesync.transfer.progress import Report
from servesync.transfer.proofs import Proofs
from servesync.transfer.transit import OF_DAMAGED_ARCHIVES
from servesync.unpack import Unpacked, unpack_archive, unpack_objects

SLICE_BYTES: Final = 256 << 10
"""How many bytes are unpacked between two checks of the free space and of a request to stop."""

Item = tuple[StoredObject, memoryview]


class InOrder:
    """One run; `is_confirmed`: the store has the very bytes that were refused, by its own checksum."""

    def __init__(
        self,
        pool: FetchPool,
        read: Read,
        context: JobContext,
        limits: Limits,
        tree: Path,
        *,
        first: bool,
    ) -> None:
        self.is_confirmed = False
        self._pool = pool
        self._read = read
        self._context = context
        self._limits = limits
        self._tree = tree
        self._first = first

    def bring(
        self, release: Release, proofs: Proofs, reports: Sequence[Report | Counting], space: Reservation
    ) -> Unpacked:
        """Fetch a release and unpack it in one pass; no archive ever lies on the disk.

        Raises:
            SyncError, OSError: as `FetchPool.stream`, `unpack_archive` and `unpack_objects` do.
        """
        with self._pool.stream(
            release.objects,
            self._read,
            self._context.should_stop,
            proofs=proofs.parts,
            first=self._first,
        ) as parts:
            watched = self._watched(parts, reports, proofs.checksum, space)
            try:
                return self._write(release, watched, proofs, space)
            except ReleaseRefused as error:
                if proofs.checksum and error.reason in OF_DAMAGED_ARCHIVES:
                    self.is_confirmed = self._is_rest_right(release, watched, proofs.checksum)
                raise

    def _write(
        self, release: Release, watched: Iterator[Item], proofs: Proofs, space: Reservation
    ) -> Unpacked:
        if release.layout is Layout.ARCHIVE:
            return unpack_archive(
                (piece for _, piece in watched),
                self._tree,
                release.version,
                self._limits,
                archive_bytes=release.stored_bytes,
                promised_bytes=proofs.manifest.totals.bytes if proofs.manifest else None,
                wrote=space.wrote,
            )
        each = groupby(watched, key=itemgetter(0))
        objects = ((item, (piece for _, piece in group)) for item, group in each)
        return unpack_objects(objects, self._tree, self._limits, space.wrote)

    def _watched(
        self,
        parts: Iterator[Item],
        reports: Sequence[Report | Counting],
        checksum: Running | None,
        space: Reservation,
    ) -> Iterator[Item]:
        """Pass the bytes on in slices, reporting progress, and keeping the disk's reserve free."""
        done = 0
        for item, part in parts:
            if checksum:
                checksum.update(part)
            for start in range(0, max(1, len(part)), SLICE_BYTES):
                piece = part[start : start + SLICE_BYTES]
                yield item, piece
                done += len(piece)
                for report in reports:
                    report(done)
                self._context.check()
                space.check()

    def _is_rest_right(self, release: Release, watched: Iterator[Item], checksum: Running) -> bool:
        """Read a damaged archive to its end; return whether it is damaged in the store, too.

        Raises:
            Stopped: the job was cancelled.
        """
        try:
            for _ in watched:
                pass
            checksum.check(release.objects[0].key)
        except Stopped:
            raise
        except (SyncError, OSError):
            return False
        return True
