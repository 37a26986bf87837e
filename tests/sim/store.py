"""A store in memory: real keys, real listings, real archives, and everything that may go wrong with one."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, Protocol

import archives
from servesync.domain import channel
from servesync.domain.versions import Model, Release, StoredObject, Version
from servesync.errors import Reason, Stopped, StoreError, SyncError, TransferError
from servesync.store import KeyPattern, Listing, manifest_key
from servesync.store.checksums import ObjectChecksum
from servesync.store.keys import ARCHIVE_ENDINGS
from servesync.store.listing import ListingBuilder
from servesync.store.port import ObjectFacts
from servesync.store.substitutes import check_no_page
from sim.clock import SimClock
from sim.contents import GRAPH, Contents, archive_of, manifest_of, tree_of

PREFIX: Final = "prod/"
URL: Final = "s3://bucket/prod"
PAGE: Final = b"<!DOCTYPE html><html><body>502 Bad Gateway</body></html>"
MOST_MEMBERS: Final = 100
WHO: Final = "ops"
SHARDS: Final = b"variables/variables.data-"


class Gate(Protocol):
    """What everybody passes who asks a store or a server; see `SimJobs.at_point`."""

    def __call__(
        self, what: str, holds: Callable[[], bool] = ..., key: str = "", *, is_ahead: bool = False
    ) -> None:
        """Wait as long as `holds` says so."""


def no_gate(
    what: str, holds: Callable[[], bool] = lambda: False, key: str = "", *, is_ahead: bool = False
) -> None:
    """Hold nobody."""


@dataclass(frozen=True)
class Stored:
    """One object. `checksum`: the store keeps one of the whole object."""

    data: bytes
    etag: str
    at: float
    checksum: bool = True
    manifest_to_come: bool = False


@dataclass
class SimStore:
    """One bucket, as the agent sees it, and as publishers and operators change it.

    `gate` is called before every answer; see `SimJobs.at_point`. Numbers are seconds of the clock.
    """

    clock: SimClock = field(default_factory=SimClock)
    gate: Gate = no_gate
    objects: dict[str, Stored] = field(default_factory=dict)
    published: dict[tuple[Model, Version], list[Contents]] = field(default_factory=dict)
    """All that was ever published under a number, the latest last."""

    withdrawn: dict[tuple[Model, Version], str] = field(default_factory=dict)
    """The identities of contents that were withdrawn, and not published anew."""

    channels: dict[tuple[Model, str], channel.Channel] = field(default_factory=dict)

    # what goes wrong
    error: SyncError | None = None
    """Every request fails with it."""

    list_error: SyncError | None = None
    lists_nothing: bool = False
    unlisted: set[str] = field(default_factory=set)
    """Keys that listings lack."""

    denied: set[str] = field(default_factory=set)
    """Keys that may not be read."""

    breaks: bool = False
    """Every body breaks off."""

    flips_until: float = 0.0
    """Until then something on the way flips one bit in every body of an archive or a file of a version."""

    pages_until: float = 0.0
    """Until then an error page comes in place of every body."""

    hanging: set[str] = field(default_factory=set)
    """Keys whose reads hang."""

    list_hangs: bool = False
    read_seconds: float = 0.0
    """How long the read of an archive takes."""

    list_seconds: float = 0.0

    # what was asked
    asked: Counter[str] = field(default_factory=Counter)
    """How often each object was read; "list": how often all was listed."""

    listed_at: float = -1.0
    """When the last complete listing was given."""

    is_closed: bool = False
    _etags: int = 0

    # -- publishers and operators -------------------------------------------------------------------------

    def publish(
        self,
        model: str,
        number: int,
        contents: Contents,
        *,
        ending: str = ".tar",
        with_manifest: bool = False,
        checksum: bool = True,
    ) -> str:
        """Put an archive under a number, in place of what is there; return its key."""
        self.unpublish(model, number)
        key = self.add_archive(model, number, contents, ending, checksum=checksum)
        if with_manifest:
            self._put_manifest(key, model, number, contents, ending)
        self._note(model, number, contents)
        return key

    def publish_folder(self, model: str, number: int, contents: Contents) -> None:
        """Put the files of a version, without an archive."""
        self.unpublish(model, number)
        for path, data in tree_of(contents).items():
            self._put(f"{_stem(model, number)}/{path}", data)
        self._note(model, number, contents)

    def add_archive(
        self, model: str, number: int, contents: Contents, ending: str, *, checksum: bool = True
    ) -> str:
        """Put an archive beside whatever is there already."""
        key = _stem(model, number) + ending
        self._put(key, archive_of(contents, ending), checksum=checksum)
        return key

    def publish_archive_of_two(self, model: str, number: int, contents: Contents, ending: str) -> None:
        """Put the archive of a release whose manifest is still to come."""
        self.unpublish(model, number)
        key = _stem(model, number) + ending
        self._put(key, archive_of(contents, ending), manifest_to_come=True)
        self._note(model, number, contents)

    def complete(self, model: str, number: int, ending: str) -> None:
        """Put the manifest of an archive that is there."""
        contents = self.contents(model, number)
        assert contents is not None
        self._put_manifest(_stem(model, number) + ending, model, number, contents, ending)

    def unpublish(self, model: str, number: int) -> None:
        """Remove all that is there under a number."""
        stem = _stem(model, number)
        ends = {*(stem + ending for ending in ARCHIVE_ENDINGS), f"{stem}.manifest.json"}
        for key in [key for key in self.objects if key in ends or key.startswith(f"{stem}/")]:
            del self.objects[key]

    def promote(self, model: str, name: str, number: int, *, back: bool = False) -> None:
        """Bring a channel to a version."""
        entry = channel.Entry(Version(number), "rollback" if back else "promote", self._time(), WHO, "")
        moved = channel.moved(self.channels.get((Model(model), name)), Model(model), name, entry)
        self.channels[Model(model), name] = moved
        self._put(PREFIX + channel.key_of(Model(model), name), channel.dump(moved))

    def withdraw(self, model: str, number: int) -> None:
        """Take a version back, everywhere: a document takes the place of its manifest."""
        contents = self.contents(model, number)
        found = channel.Withdrawal(
            model=model, version=number, time=self._time(), who=WHO, reason="it is bad"
        )
        self._put(f"{_stem(model, number)}.manifest.json", channel.dump(found))
        if contents is not None:
            self.withdrawn[Model(model), Version(number)] = contents.identity

    def contents(self, model: str, number: int) -> Contents | None:
        """Return what was published last under a number."""
        found = self.published.get((Model(model), Version(number)))
        return found[-1] if found else None

    def key_of(self, model: str, number: int) -> str:
        """Return the key of the archive under a number."""
        stem = _stem(model, number)
        return next(stem + ending for ending in ARCHIVE_ENDINGS if stem + ending in self.objects)

    def _note(self, model: str, number: int, contents: Contents) -> None:
        key = (Model(model), Version(number))
        self.published.setdefault(key, []).append(contents)
        self.withdrawn.pop(key, None)

    def _put_manifest(self, key: str, model: str, number: int, contents: Contents, ending: str) -> None:
        self._put(manifest_key(key), manifest_of(contents, Model(model), Version(number), ending))

    def _put(self, key: str, data: bytes, *, checksum: bool = True, manifest_to_come: bool = False) -> None:
        self._etags += 1
        etag = f'"{self._etags:032x}"'
        self.objects[key] = Stored(data, etag, self.clock.wall(), checksum, manifest_to_come)

    def _time(self) -> str:
        minutes, seconds = divmod(int(self.clock.now), 60)
        hours, minutes = divmod(minutes, 60)
        return f"2026-10-{1 + hours // 24:02d}T{hours % 24:02d}:{minutes:02d}:{seconds:02d}Z"

    # -- what is true -------------------------------------------------------------------------------------

    def offers(self, model: str) -> dict[Version, Release]:
        """Return what a complete listing shows of a model now; nothing that is ambiguous or incomplete."""
        found = self._grouped(lambda name: name == model, sorted(self.objects)).releases
        return {release.version: release for release in found.get(Model(model), ())}

    def comes_as(self, model: str, number: int) -> Contents | None:
        """Return the contents that fetching a version brings, once nothing goes wrong; None if nothing."""
        release = self.offers(model).get(Version(number))
        contents = self.contents(model, number)
        if release is None or contents is None or (Model(model), Version(number)) in self.withdrawn:
            return None
        keys = [item.key for item in release.objects]
        is_waiting = release.manifest is None and any(self.objects[key].manifest_to_come for key in keys)
        return None if is_waiting or self.denied.intersection(keys) else contents

    def heal(self) -> None:
        """End all faults, but for what may not be read."""
        self.error = self.list_error = None
        self.lists_nothing = self.breaks = self.list_hangs = False
        self.flips_until = self.pages_until = 0.0
        self.hanging.clear()
        self.unlisted.clear()

    # -- the agent's side ---------------------------------------------------------------------------------

    def list(self, wants: Callable[[Model], bool], *, should_stop: Callable[[], bool]) -> Listing:
        """Return what is listed."""
        self.asked["list"] += 1
        begun = self.clock.now
        self.gate("list", lambda: self.list_hangs or self.clock.now < begun + self.list_seconds)
        if should_stop():
            raise Stopped
        for error in (self.error, self.list_error):
            if error is not None:
                raise error
        keys: Iterable[str] = () if self.lists_nothing else self.objects.keys() - self.unlisted
        found = self._grouped(wants, sorted(keys))
        self.listed_at = self.clock.now
        return found

    def _grouped(self, wants: Callable[[Model], bool], keys: Iterable[str]) -> Listing:
        builder = ListingBuilder(KeyPattern("{model}/{version}"), PREFIX, wants, MOST_MEMBERS)
        for key in keys:
            item = self.objects[key]
            builder.add(key, len(item.data), item.etag, item.at)
        return builder.finish(1)

    def describe(self, item: StoredObject) -> ObjectFacts:
        """Return what is known of an object."""
        self.gate(f"describe {item.key}")
        found = self._found(item)
        digest = hashlib.sha256(found.data).digest()
        return ObjectFacts(
            ObjectChecksum("SHA256", digest) if found.checksum else None, found.manifest_to_come
        )

    def read(
        self,
        item: StoredObject,
        offset: int,
        length: int,
        buffer: memoryview,
        should_stop: Callable[[], bool],
    ) -> None:
        """Fill the buffer, after a while, with what comes."""
        self.asked[item.key] += 1
        begun = self.clock.now
        seconds = 0.0 if item.key.endswith(".json") else self.read_seconds
        self.gate(
            f"read {item.key}",
            lambda: item.key in self.hanging or self.clock.now < begun + seconds,
            item.key,
            is_ahead=offset > 0 or item.path not in {"", GRAPH},
        )
        if should_stop():
            raise Stopped
        found = self._found(item)
        if self.breaks:
            raise TransferError(Reason.TRANSFER_BROKEN, f"reading {item.key!a}: reset")
        data = self._on_the_way(item.key, found.data[offset : offset + length])
        buffer[:length] = data
        check_no_page(f"reading {item.key!a}", item, offset, buffer[:length], "")

    def _found(self, item: StoredObject) -> Stored:
        if self.error is not None:
            raise self.error
        if item.key in self.denied:
            raise StoreError(Reason.STORE_DENIED, f"{item.key!a}: access denied")
        found = self.objects.get(item.key)
        if found is None:
            raise TransferError(Reason.OBJECT_GONE, f"{item.key!a} is gone")
        if found.etag != item.etag:
            raise TransferError(Reason.OBJECT_CHANGED, f"{item.key!a} was replaced")
        return found

    def _on_the_way(self, key: str, data: bytes) -> bytes:
        """Return what arrives of a body."""
        if self.clock.now < self.pages_until:
            return PAGE[: len(data)].ljust(len(data))
        at = _weak_spot(key, data)
        if self.clock.now < self.flips_until and at is not None:
            return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        return data

    def close(self) -> None:
        """Close all connections."""
        self.is_closed = True


def down(reason: Reason = Reason.STORE_UNREACHABLE) -> StoreError:
    """Return the error of a store that does not answer."""
    return StoreError(reason, "the store does not answer")


def _weak_spot(key: str, data: bytes) -> int | None:
    """Return a place in a body at which a flipped bit some proof finds: in a tensor, or in a gzip file."""
    if key.endswith(".tar"):
        name = data.find(SHARDS)
        return None if name < 0 else name + archives.BLOCK
    if key.endswith((".tar.gz", ".tar.zst")):
        return len(data) // 2
    return 0 if SHARDS in key.encode() and data else None


def _stem(model: str, number: int) -> str:
    return f"{PREFIX}{model}/{number}"
