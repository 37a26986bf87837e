"""Puts together from where the bytes of one release may come, the cheapest first."""

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice
from typing import Final

from servesync.domain.manifest import Manifest, Part
from servesync.errors import DiskError, Reason
from servesync.fetch import Read
from servesync.install import HostCache, Workspace
from servesync.settings import Settings
from servesync.transfer.landing import Landing
from servesync.transfer.sources import Source
from servesync.transfer.sources.cache import CacheSource
from servesync.transfer.sources.mirrors import Mirrors
from servesync.transfer.sources.remote import Remote
from servesync.transfer.sources.staging import StagingSource
from servesync.transfer.sources.tally import Tally
from servesync.transfer.sources.versions import VersionSource, find_places

MOST_AT_ONCE: Final = 4
"""Reading and hashing keep a processor each; more of them would only take memory."""


class Local:
    """The sources on this machine, in the order in which they are asked for each part."""

    def __init__(self, sources: Sequence[Source], tally: Tally) -> None:
        self._sources = sources
        self._tally = tally

    def lacking(self, parts: Sequence[Part]) -> frozenset[int]:
        """Return where the parts begin of which it is known that no source has them."""
        return frozenset(
            part.offset for part in parts if not any(source.may_have(part) for source in self._sources)
        )

    def bring(
        self,
        parts: Sequence[Part],
        landing: Landing,
        report: Callable[[int], None],
        should_stop: Callable[[], bool],
        make_sure_of_room: Callable[[], None],
    ) -> None:
        """Have everything land that is on this machine, several parts at a time.

        `report` is told how many bytes of the archive are done. Only this thread calls it, and
        `make_sure_of_room`, after each part; both may raise.

        Raises:
            ReleaseRefused, OSError: as `Source.bring` does.
            Stopped: `should_stop` returned True.
        """
        if not self._sources:
            return
        is_over = threading.Event()
        at_once = min(MOST_AT_ONCE, len(os.sched_getaffinity(0)))
        done = sum(part.size for part in parts if not landing.missing(part))
        with ThreadPoolExecutor(at_once, "servesync-local") as workers:
            try:
                for size in self._in_turn(workers, parts, landing, lambda: is_over.is_set() or should_stop()):
                    done += size
                    report(done)
                    make_sure_of_room()
            finally:
                is_over.set()

    def _in_turn(
        self,
        workers: ThreadPoolExecutor,
        parts: Sequence[Part],
        landing: Landing,
        should_stop: Callable[[], bool],
    ) -> Iterator[int]:
        """Yield the stored bytes of each part that has landed, without more work under way than needed."""
        rest = iter(parts)
        running: set[Future[int]] = set()
        while True:
            for part in islice(rest, 2 * MOST_AT_ONCE - len(running)):
                running.add(workers.submit(self._one, part, landing, should_stop))
            if not running:
                return
            ended, running = wait(running, return_when=FIRST_COMPLETED)
            for future in ended:
                yield future.result()

    def _one(self, part: Part, landing: Landing, should_stop: Callable[[], bool]) -> int:
        """Return the stored bytes of a part if a source could land it, else 0."""
        for source in self._sources if landing.missing(part) else ():
            if source.bring(part, landing, should_stop):
                self._tally.count(source.name, part.size)
                return part.size
        return 0


@dataclass(frozen=True, slots=True)
class Forecast:
    """How many parts of a release's archive, and how many of its bytes, there are and are to be fetched."""

    parts: int
    bytes: int
    parts_to_fetch: int
    bytes_to_fetch: int

    def __str__(self) -> str:
        """Say it to people."""
        here = self.parts - self.parts_to_fetch
        return f"{self.parts_to_fetch} of {self.parts} parts are to be fetched, {here} are here"


def _is_here(part: Part, places: Mapping[str, object]) -> bool:
    return part.content is not None and all(piece.sha256 in places for piece in part.content)


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Where bytes may come from besides store and models directory: cache and mirrors of the settings."""

    cache: HostCache | None = None
    mirrors: Mirrors | None = None

    @classmethod
    def of(cls, settings: Settings) -> "Elsewhere":
        """Return what the settings ask for; nothing is opened yet."""
        store, fetch = settings.store, settings.fetch
        cache = None
        if store.cache_dir is not None:
            cache = HostCache(store.cache_dir, store.cache_max_bytes, settings.limits.disk_reserve_bytes)
        return cls(cache, Mirrors(fetch.mirrors, fetch.connections) if fetch.mirrors else None)

    def renewed(self, old: Settings, new: Settings) -> "Elsewhere":
        """Return what new settings ask for; what stays the same keeps what it knows of cache and mirrors."""
        return self if _asked(old) == _asked(new) else Elsewhere.of(new)

    def remote(self, store_read: Read, found: Manifest | None, tally: Tally) -> Remote:
        """Return how to read one release, which `found` proves; without a manifest from the store alone."""
        if found is None:
            return Remote(store_read, (), tally)
        return Remote(store_read, found.archive.proofs, tally, self.mirrors, self.cache)

    def local(self, workspace: Workspace, found: Manifest, tally: Tally, *, is_kept: bool) -> Local:
        """Return the sources on this machine. `is_kept`: the tree is that of an interrupted transfer."""
        sources: list[Source] = [StagingSource()] if is_kept else []
        places = find_places(workspace, found)
        if places:
            sources.append(VersionSource(places))
        if self.cache is not None:
            sources.append(CacheSource(self.cache))
        return Local(sources, tally)

    def forecast(self, workspace: Workspace, found: Manifest) -> Forecast:
        """Return how much of a release is on this machine, by what is written down: nothing is proven."""
        places = find_places(workspace, found)
        lacking = [
            part
            for part in found.archive.parts
            if not _is_here(part, places)
            and not (self.cache is not None and self.cache.has(part.sha256, part.size))
        ]
        return Forecast(
            parts=len(found.archive.parts),
            bytes=found.archive.size,
            parts_to_fetch=len(lacking),
            bytes_to_fetch=sum(part.size for part in lacking),
        )

    def gives_way(self, workspace: Workspace, short: DiskError) -> bool:
        """Have the cache make room for a transfer, if it lies on the models' filesystem.

        Returns whether there is more space now.
        """
        free, needed = short.facts.get("free_bytes"), short.facts.get("needed_bytes")
        if self.cache is None or short.reason is not Reason.DISK_FULL:
            return False
        if not isinstance(free, int) or not isinstance(needed, int):
            return False
        return self.cache.give_way(workspace.models_dir.stat().st_dev, needed - free)


def _asked(settings: Settings) -> tuple[object, ...]:
    store, fetch, limits = settings.store, settings.fetch, settings.limits
    return (
        store.cache_dir,
        store.cache_max_bytes,
        limits.disk_reserve_bytes,
        fetch.mirrors,
        fetch.connections,
    )
