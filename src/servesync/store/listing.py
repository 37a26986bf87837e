"""Turns the keys of a bucket into releases, one key at a time; keeps only what is wanted."""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from servesync.domain import channel
from servesync.domain.paths import MODEL_FILES
from servesync.domain.versions import Layout, Model, Release, StoredObject, Version
from servesync.errors import Reason, ReleaseRefused, SyncError
from servesync.store.guesses import find_deeper
from servesync.store.keys import MANIFEST_ENDING, KeyKind, KeyPattern, ParsedKey, manifest_key
from servesync.store.placeholders import without_placeholders

EXAMPLES: Final = 5
SHOWN_CHARACTERS: Final = 80
MOST_CHANNELS: Final = 1000


@dataclass(frozen=True, slots=True)
class Listing:
    """What one complete listing of the store shows.

    `problems`: why a version that has keys is no release. `ignored_keys`: how many keys name no version of
    any model, with a few examples, escaped. `requests`: how many requests the listing took. `channels`: the
    objects of each model's channels, by name. `orphaned`: manifests, or withdrawals in their place, whose
    archives are gone; each of them is also in `problems`.
    """

    releases: Mapping[Model, tuple[Release, ...]]
    problems: Mapping[tuple[Model, Version], SyncError]
    ignored_keys: int
    ignored_examples: tuple[str, ...]
    requests: int
    channels: Mapping[Model, Mapping[str, StoredObject]] = field(default_factory=dict)
    orphaned: Mapping[Model, tuple[Release, ...]] = field(default_factory=dict)

    def documented(self, model: Model) -> tuple[Release, ...]:
        """Return all versions of a model that may have a manifest or a withdrawal, offered or not."""
        return (*self.releases.get(model, ()), *self.orphaned.get(model, ()))


@dataclass(slots=True)
class _Found:
    archives: dict[str, StoredObject] = field(default_factory=dict)
    manifests: dict[str, StoredObject] = field(default_factory=dict)
    members: dict[str, StoredObject] = field(default_factory=dict)
    unreadable: str = ""
    """A key that the store lists without a size or an ETag, if there is one."""

    @property
    def folders(self) -> set[str]:
        """The keys of the folders in which something is not empty."""
        return {item.key.removesuffix(item.path) for item in self.members.values() if item.size}


class ListingBuilder:
    """Builds a listing out of keys that are added one by one."""

    def __init__(
        self, pattern: KeyPattern, prefix: str, wants: Callable[[Model], bool], max_members: int
    ) -> None:
        self._pattern = pattern
        self._prefix = prefix
        self._wants = wants
        self._max_members = max_members
        self._found: dict[tuple[Model, Version], _Found] = {}
        self._too_many: set[tuple[Model, Version]] = set()
        self._channels: dict[Model, dict[str, StoredObject]] = {}
        self._ignored = 0
        self._examples: list[str] = []

    def add(self, key: str, size: int | None, etag: str | None, modified: float | None = None) -> bool:
        """Add one key of the listing; False if it was added before, which a sound listing never does.

        An empty object that marks a folder is ignored; any other empty object is a file. Objects of wanted
        releases need a size and an ETag: without them, the release gets a problem.
        """
        relative = key.removeprefix(self._prefix)
        if self._pattern.is_marker(relative, size):
            return True
        parsed = self._pattern.parse(relative)
        path = parsed.path if parsed else ""
        item = StoredObject(key, size, etag, path, modified) if size is not None and etag else None
        if parsed is None:
            return self._add_other(relative, item)
        if not self._wants(parsed.model):
            return True
        found = self._found.setdefault((parsed.model, parsed.version), _Found())
        if item is None:
            found.unreadable = found.unreadable or key
            return True
        return self._add_to(found, parsed, item)

    def _add_to(self, found: _Found, parsed: ParsedKey, item: StoredObject) -> bool:
        if parsed.kind is KeyKind.ARCHIVE:
            kept = found.archives
        elif parsed.kind is KeyKind.MANIFEST:
            kept = found.manifests
        else:
            if len(found.members) >= self._max_members:
                self._too_many.add((parsed.model, parsed.version))
                return True
            kept = found.members
        fresh = item.key not in kept
        kept[item.key] = item
        return fresh

    def _add_other(self, relative: str, item: StoredObject | None) -> bool:
        """Add a key that belongs to no release: a channel's key, or one that is ignored."""
        place = channel.parse_key(relative)
        if place is not None and item is not None:
            return self._add_channel(*place, item)
        self._ignore(relative)
        return True

    def _add_channel(self, model: Model, name: str, item: StoredObject) -> bool:
        if not self._wants(model):
            return True
        known = self._channels.setdefault(model, {})
        fresh = name not in known
        if len(known) < MOST_CHANNELS:
            known[name] = item
        return fresh

    def _ignore(self, key: str) -> None:
        self._ignored += 1
        if len(self._examples) < EXAMPLES:
            shown = ascii(key)
            self._examples.append(
                shown if len(shown) <= SHOWN_CHARACTERS else shown[:SHOWN_CHARACTERS] + "..."
            )

    def finish(self, requests: int) -> Listing:
        """Return the listing of all keys that were added."""
        releases: dict[Model, list[Release]] = {}
        orphaned: dict[Model, list[Release]] = {}
        problems: dict[tuple[Model, Version], SyncError] = {}
        for (model, version), found in sorted(self._found.items()):
            if found.members and not (found.archives or found.manifests or found.folders or found.unreadable):
                continue  # it has only empty objects
            try:
                release = self._release(model, version, found)
            except ReleaseRefused as problem:
                problems[model, version] = problem
                if len(found.manifests) == 1 and not found.archives and not found.folders:
                    (item,) = found.manifests.values()
                    left = Release(model, version, Layout.ARCHIVE, (), "", item)
                    orphaned.setdefault(model, []).append(left)
            else:
                releases.setdefault(model, []).append(release)
        return Listing(
            _frozen(releases),
            problems,
            self._ignored,
            tuple(self._examples),
            requests,
            channels=self._channels,
            orphaned=_frozen(orphaned),
        )

    def _release(self, model: Model, version: Version, found: _Found) -> Release:
        if found.unreadable:
            text = (
                f"the store lists {found.unreadable!a} without a size or an ETag, so its bytes cannot be "
                "verified: upload it again; if the store always lists it so, publish under a new number"
            )
            raise ReleaseRefused(Reason.RELEASE_INCOMPLETE, text)
        sources = sorted(found.archives) + sorted(found.folders)
        if len(sources) > 1:
            shown = ", ".join(ascii(source) for source in sources[:EXAMPLES])
            text = f"{model} {version} is in the store {len(sources)} times ({shown}): remove all but one"
            raise ReleaseRefused(Reason.RELEASE_AMBIGUOUS, text)
        if found.archives:
            (archive,) = found.archives.values()
            manifest = _manifest_of(archive, found.manifests)
            return Release(model, version, Layout.ARCHIVE, (archive,), _identity([archive]), manifest)
        if found.manifests and not found.folders:
            text = (
                f"{min(found.manifests)!a} belongs to an archive that is missing: put the archive back, or "
                "publish under a new number"
            )
            raise ReleaseRefused(Reason.RELEASE_INCOMPLETE, text)
        if (model, version) in self._too_many:
            text = f"{sources[0]!a} holds more than limits.max_members ({self._max_members}) files"
            raise ReleaseRefused(Reason.RELEASE_TOO_BIG, text)
        inside = [item for item in found.members.values() if item.key.startswith(sources[0])]
        members = tuple(sorted(without_placeholders(inside), key=lambda item: item.path))
        paths = [item.path for item in members]
        if MODEL_FILES.isdisjoint(paths):
            deeper = find_deeper(sources[0], self._pattern.text, model, version, paths)
            text = f"{sources[0]!a} has no saved_model.pb (yet): finish the upload, or publish an archive"
            raise ReleaseRefused(Reason.RELEASE_INCOMPLETE, deeper or text)
        manifest = found.manifests.get(sources[0].removesuffix("/") + MANIFEST_ENDING)
        return Release(model, version, Layout.DIRECTORY, members, _identity(members), manifest)


def _manifest_of(archive: StoredObject, manifests: Mapping[str, StoredObject]) -> StoredObject | None:
    """Return the manifest of an archive; refuse one whose name does not say which archive it means."""
    expected = manifest_key(archive.key)
    others = sorted(manifests.keys() - {expected})
    if others:
        text = f"{others[0]!a} is not named after the archive {archive.key!a}: it must be {expected!a}"
        raise ReleaseRefused(Reason.RELEASE_AMBIGUOUS, text)
    return manifests.get(expected)


def _frozen(releases: Mapping[Model, list[Release]]) -> dict[Model, tuple[Release, ...]]:
    return {model: tuple(items) for model, items in releases.items()}


def modified_at(found: object) -> float | None:
    """Return a `LastModified` as seconds since 1970; None if it is no time, or out of a clock's range."""
    try:
        return found.timestamp() if isinstance(found, datetime) else None
    except (OverflowError, ValueError):
        return None


def _identity(items: Iterable[StoredObject]) -> str:
    """Return a SHA-256 that changes whenever a key, a size or an ETag does."""
    lines = "".join(f"{item.key}\0{item.size}\0{item.etag}\n" for item in items)
    return hashlib.sha256(lines.encode(errors="surrogatepass")).hexdigest()


class Settling:
    """Tells since when each directory release has not changed, by the caller's monotonic clock.

    Only listings count: a release has settled when one that is late enough still shows the same.
    """

    def __init__(self, settle_seconds: float) -> None:
        self._settle_seconds = settle_seconds
        self._since: dict[Model, dict[Version, tuple[str, float]]] = {}

    def remaining(self, model: Model, releases: Iterable[Release], listed_at: float) -> dict[Version, float]:
        """Return the seconds after `listed_at` for which each release must still stay as it is.

        Archives need none. `listed_at` is when the listing that shows `releases` was requested.
        """
        known = self._since.get(model, {})
        seen: dict[Version, tuple[str, float]] = {}
        for release in releases:
            if release.layout is Layout.DIRECTORY:
                identity, since = known.get(release.version, ("", listed_at))
                same = identity == release.identity
                seen[release.version] = (release.identity, since if same else listed_at)
        self._since[model] = seen
        left = {version: since + self._settle_seconds - listed_at for version, (_, since) in seen.items()}
        return {version: seconds for version, seconds in left.items() if seconds > 0}
