"""Reads what is not on this machine: from a mirror, else from the store; the host's cache gets a copy.

It takes the place of the `read` of a store. Without a manifest there are no proofs, so only the store's own
bytes may be taken: neither mirror nor cache is asked. Of agents that share a cache, one fetches a part, and
the others wait for it.
"""

import hashlib
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from operator import attrgetter
from typing import Final

from servesync.domain.versions import Proof, StoredObject
from servesync.errors import Stopped
from servesync.fetch import Read
from servesync.install import HostCache
from servesync.install.host_cache import CLAIM_POLL_SECONDS, CLAIM_SECONDS
from servesync.transfer.sources.mirrors import Mirrors
from servesync.transfer.sources.tally import Tally

CACHE: Final = "cache"
MIRROR: Final = "mirror"
STORE: Final = "store"


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A range that is to be read, and the proofs of whole parts that it consists of."""

    item: StoredObject
    offset: int
    data: memoryview
    proofs: Sequence[Proof]
    should_stop: Callable[[], bool]

    def of(self, proof: Proof) -> memoryview:
        """Return where a part belongs in the buffer."""
        begin = proof.offset - self.offset
        return self.data[begin : begin + proof.size]

    def only(self, proofs: Sequence[Proof]) -> "_Wanted":
        """Return the range of some of the parts, which follow each other."""
        begin, last = proofs[0].offset - self.offset, proofs[-1]
        data = self.data[begin : last.offset + last.size - self.offset]
        return _Wanted(self.item, proofs[0].offset, data, proofs, self.should_stop)

    def is_right(self) -> bool:
        """Tell whether the buffer holds what it should."""
        return all(_is_right(self.of(proof), proof) for proof in self.proofs)


class Remote:
    """A `Read` for one release. `proofs`: of its whole object, in order; none if there is no manifest."""

    def __init__(
        self,
        store_read: Read,
        proofs: Sequence[Proof],
        tally: Tally,
        mirrors: Mirrors | None = None,
        cache: HostCache | None = None,
    ) -> None:
        self._store_read = store_read
        self._proofs = proofs
        self._tally = tally
        self._mirrors = mirrors
        self._cache = cache

    def read(
        self,
        item: StoredObject,
        offset: int,
        length: int,
        buffer: memoryview,
        should_stop: Callable[[], bool],
    ) -> None:
        """Fill `buffer` as the store's `read` does, and raise as it does.

        What comes from the store may still be wrong; the caller proves it.
        """
        wanted = _Wanted(item, offset, buffer[:length], self._proofs_of(offset, length), should_stop)
        if self._cache is None or not wanted.proofs:
            self._fetch(wanted)
        else:
            self._through(self._cache, wanted)

    def _proofs_of(self, offset: int, length: int) -> Sequence[Proof]:
        """Return the proofs of the parts that are exactly this range; none if it does not consist of such."""
        first = bisect_left(self._proofs, offset, key=attrgetter("offset"))
        last = bisect_left(self._proofs, offset + length, key=attrgetter("offset"))
        found = self._proofs[first:last]
        fits = (
            bool(found) and found[0].offset == offset and found[-1].offset + found[-1].size == offset + length
        )
        return found if fits else ()

    def _through(self, cache: HostCache, wanted: _Wanted) -> None:
        """Fetch what the cache does not have, unless another agent is fetching it already."""
        until = time.monotonic() + CLAIM_SECONDS
        left = wanted.proofs
        while left := self._bring(cache, wanted, left):
            if wanted.should_stop():
                raise Stopped
            if time.monotonic() > until:
                cache.waited_in_vain()
            time.sleep(CLAIM_POLL_SECONDS)

    def _bring(self, cache: HostCache, wanted: _Wanted, proofs: Sequence[Proof]) -> Sequence[Proof]:
        """Read parts from the cache, and fetch those that nobody else fetches; return the others."""
        mine: list[Proof] = []
        others: list[Proof] = []
        with ExitStack() as claims:
            for proof in proofs:
                is_mine = claims.enter_context(cache.claimed(proof.sha256))
                if self._from_cache(cache, wanted, proof):
                    continue
                (mine if is_mine else others).append(proof)
            for run in _runs(mine):
                part = wanted.only(run)
                self._fetch(part)
                for proof in run:
                    if _is_right(part.of(proof), proof):
                        cache.put(proof.sha256, part.of(proof))
        return others

    def _from_cache(self, cache: HostCache, wanted: _Wanted, proof: Proof) -> bool:
        into = wanted.of(proof)
        if not cache.read(proof.sha256, into):
            return False
        if not _is_right(into, proof):
            cache.drop(proof.sha256)
            return False
        self._tally.count(CACHE, proof.size)
        return True

    def _fetch(self, wanted: _Wanted) -> None:
        """Read a range from a mirror if one sends what is right, else from the store."""
        size = len(wanted.data)
        if self._mirrors is not None and wanted.proofs:
            sha256 = wanted.proofs[0].sha256
            if self._mirrors.read(
                wanted.item, wanted.offset, wanted.data, sha256, wanted.is_right, wanted.should_stop
            ):
                self._tally.count(MIRROR, size)
                return
        self._store_read(wanted.item, wanted.offset, size, wanted.data, wanted.should_stop)
        self._tally.count(STORE, size)


def _runs(proofs: Sequence[Proof]) -> Iterator[Sequence[Proof]]:
    """Yield parts that follow each other, together."""
    run: list[Proof] = []
    for proof in proofs:
        if run and run[-1].offset + run[-1].size != proof.offset:
            yield run
            run = []
        run.append(proof)
    if run:
        yield run


def _is_right(data: memoryview, proof: Proof) -> bool:
    return hashlib.sha256(data).hexdigest() == proof.sha256
