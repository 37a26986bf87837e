"""Can bytes come from elsewhere than the store: can the cache be written, and do the mirrors answer?"""

import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

from servesync import disk
from servesync.doctor.findings import Check, Finding, ok, warn
from servesync.domain.versions import StoredObject
from servesync.install import HostCache
from servesync.settings import Fetch, Limits, Store
from servesync.store import Mirror, MirrorFailed

ANSWER_SECONDS: Final = 20.0


def examine_cache(store: Store, limits: Limits) -> Iterator[Finding]:
    """Yield whether the cache of `store.cache_dir` can be used, by writing a part of a few bytes into it."""
    if store.cache_dir is None:
        return
    folder = store.cache_dir
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        text = f"{folder} is a link or a file"
        yield warn(Check.DISK_CACHE, text, "name a directory in store.cache_dir: nothing is kept there")
        return
    if not folder.exists() and not _may_make(folder):
        text = f"{folder} is not there, and uid {os.getuid()} cannot make it"
        yield warn(Check.DISK_CACHE, text, f"make it, and give it to uid {os.getuid()}, or to a common group")
        return
    is_new = not folder.exists()
    place = folder.parent if is_new else folder
    free = disk.free_bytes(place) - limits.disk_reserve_bytes
    if free <= 0:
        text = f"no more than limits.disk_reserve_bytes is free under {place}"
        yield warn(Check.DISK_CACHE, text, "nothing more is kept there: make room, or take another disk")
    elif is_new:
        yield ok(Check.DISK_CACHE, f"{folder} is not there yet; the agent makes it")
    elif not _works(HostCache(folder, store.cache_max_bytes, 0)):
        text = f"uid {os.getuid()} cannot write to {folder}"
        yield warn(Check.DISK_CACHE, text, "let the agents that share it write to it; else nothing is kept")
    else:
        yield ok(Check.DISK_CACHE, f"{folder} holds at most {store.cache_max_bytes / 1e9:.1f} GB")


def _may_make(folder: Path) -> bool:
    return folder.parent.is_dir() and os.access(folder.parent, os.W_OK | os.X_OK)


def _works(cache: HostCache) -> bool:
    data = f"servesync doctor {os.getpid()} {time.time_ns()}".encode()
    sha256 = hashlib.sha256(data).hexdigest()
    try:
        return cache.put(sha256, memoryview(data)) and cache.read(sha256, memoryview(bytearray(len(data))))
    finally:
        cache.drop(sha256)


def examine_mirrors(fetch: Fetch, sample: StoredObject | None) -> Iterator[Finding]:
    """Yield whether each mirror sends the first byte of `sample`, an object of the store."""
    for url in fetch.mirrors:
        with closing(Mirror(url, connections=1)) as mirror:
            yield _mirror(mirror, sample)


def _mirror(mirror: Mirror, sample: StoredObject | None) -> Finding:
    if sample is None:
        text = "could not be tried: the store has no archive with a manifest yet"
        return warn(Check.STORE_MIRROR, text, "publish a version, then run this again", mirror.name)
    buffer, until = bytearray(1), time.monotonic() + ANSWER_SECONDS
    try:
        mirror.read(sample, 0, memoryview(buffer), "", lambda: time.monotonic() > until)
    except MirrorFailed as error:
        text = f"reading {sample.key!a:.100}: {error}"
        advice = (
            "it must answer GET URL/KEY, KEY being the whole key in the bucket, with the range that is asked "
            "for, and read the store with a right of its own; until then the store is read"
        )
        return warn(Check.STORE_MIRROR, text, advice, mirror.name)
    return ok(Check.STORE_MIRROR, f"sends ranges, tried with {sample.key!a:.100}", mirror.name)
