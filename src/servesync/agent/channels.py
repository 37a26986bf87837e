"""What the store says beside its releases: where channels stand, and which versions are withdrawn.

A job reads a document when the listing shows a new ETag, and only if it matters here: a channel that a policy
follows, or the manifest of a version on this machine. A document that cannot be read or is not sound changes
nothing: the channel keeps its last good position, and no version counts as withdrawn.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from servesync.agent.documents import DocumentReader, NotReadYet
from servesync.domain import channel, manifest
from servesync.domain.versions import Model, Release, StoredObject, Version
from servesync.errors import Reason, ReleaseRefused, SyncError
from servesync.install import Position, Positions, Refusals, Unreadable, Workspace

NOT_FOLLOWED: Final = (
    "is not followed, since nobody can tell whether the store's position is older than the one seen last: "
    "compare it with other instances, then remove the record; the store's position counts from then on"
)


@dataclass(frozen=True, slots=True)
class Moved:
    """A channel has a new position; `was` is None if none was known."""

    model: Model
    name: str
    was: Version | None
    now: channel.Move


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """A version of this machine was withdrawn in the store."""

    model: Model
    version: Version
    text: str


DocumentEvent = Moved | Withdrawn


@dataclass
class StoreDocuments:
    """Follows the documents of one store. `durable`: positions and withdrawals may be recorded on disk."""

    workspace: Workspace
    documents: DocumentReader
    durable: bool = False
    events: list[DocumentEvent] = field(default_factory=list)
    """Moves and withdrawals since the caller last emptied it."""
    errors: dict[tuple[Model, str], SyncError] = field(default_factory=dict)
    """Why the position of a channel is not known for sure, as of the last listing."""
    _positions: dict[Model, dict[str, Position]] = field(default_factory=dict)
    _unreadable: dict[Model, Mapping[str, str]] = field(default_factory=dict)
    _unwritten: dict[tuple[Model, str], Position] = field(default_factory=dict)
    _refused: dict[tuple[Model, str], tuple[str, SyncError]] = field(default_factory=dict)
    _read_manifests: dict[tuple[Model, Version], str] = field(default_factory=dict)
    _withdrawn: dict[tuple[Model, Version], tuple[str, str]] = field(default_factory=dict)

    def positions(self, model: Model) -> Mapping[str, Version]:
        """Return the last good position of each channel of a model.

        Raises:
            OSError: the records cannot be read.
        """
        return {name: Version(found.version) for name, found in self._known(model).items()}

    def follow(self, model: Model, names: Iterable[str], listed: Mapping[str, StoredObject]) -> None:
        """Take over the positions of a model's channels from a listing.

        Raises:
            OSError: a position cannot be recorded. It counts until this process ends, and is written after
                the next listing. All other channels have been followed.
        """
        problems: list[OSError] = []
        for name in names:
            self.errors.pop((model, name), None)
            try:
                self._follow_channel(model, name, listed.get(name))
                self._record(model, name)
            except NotReadYet:  # until it has been read, the last position counts
                continue
            except SyncError as error:
                self.errors[model, name] = error
            except OSError as problem:
                problems.append(problem)
        if problems:
            raise problems[0]

    def _record(self, model: Model, name: str) -> None:
        fresh = self._unwritten.get((model, name))
        if fresh is not None:
            Positions(self.workspace, model).write(name, fresh)
            del self._unwritten[model, name]

    def unreadable(self, model: Model) -> Mapping[str, str]:
        """Return an error text for each channel whose recorded position cannot be read.

        Raises:
            OSError: the records cannot be read.
        """
        self._known(model)
        return self._unreadable[model]

    def _known(self, model: Model) -> dict[str, Position]:
        """Return the positions; the records are read again for as long as one cannot be read."""
        if model not in self._positions or self._unreadable[model]:
            found = Positions(self.workspace, model).read()
            read = {name: item for name, item in found.items() if isinstance(item, Position)}
            known = read | self._positions.get(model, {})
            self._unreadable[model] = {
                name: item.said(f"the channel {name} of {model} {NOT_FOLLOWED}")
                for name, item in found.items()
                if isinstance(item, Unreadable) and name not in known
            }
            self._positions[model] = known
        return self._positions[model]

    def _follow_channel(self, model: Model, name: str, item: StoredObject | None) -> None:
        known = self._known(model).get(name)
        if name in self._unreadable[model]:
            raise SyncError(Reason.RECORD_UNREADABLE, self._unreadable[model][name])
        if item is None:
            stays = f"; it stays at {known.version} with sequence {known.sequence}" if known else ""
            advice = channel.set_anew(known.sequence) if known else "set it with `servesync promote`"
            text = f"the store has no channel {name} of {model}{stays}; {advice}"
            raise SyncError(Reason.CHANNEL_MISSING, text)
        if known is not None and known.etag == item.etag:
            return
        etag, error = self._refused.get((model, name), ("", None))
        if error is not None and etag == item.etag:
            raise error
        try:
            self._take(model, name, item, known)
        except ReleaseRefused as refusal:
            self._refused[model, name] = (item.etag, refusal)
            raise

    def _take(self, model: Model, name: str, item: StoredObject, known: Position | None) -> None:
        seen = known.sequence if known else None
        if item.size > channel.MAX_BYTES:
            text = f"the channel {name} of {model} has {item.size} bytes, over {channel.MAX_BYTES}"
            raise ReleaseRefused(Reason.CHANNEL_INVALID, f"{text}; {channel.set_anew(seen)}")
        data = self._bytes_of(item, model)
        found = channel.parse_channel(data, model, name, seen)
        fresh = Position(
            version=found.now.version,
            sequence=found.now.sequence,
            etag=item.etag,
            sha256=hashlib.sha256(data).hexdigest(),
        )
        if known is not None and not _is_later(fresh, known):
            text = (
                f"the channel {name} of {model} says {found.now.version} with sequence {fresh.sequence}, "
                f"after {known.version} with sequence {known.sequence} was seen: an older copy was put back, "
                f"or two were written; {channel.set_anew(known.sequence)}"
            )
            raise ReleaseRefused(Reason.CHANNEL_WENT_BACK, text)
        if self.durable:
            self._unwritten[model, name] = fresh
        self._known(model)[name] = fresh
        if known is None or known.version != fresh.version:
            self.events.append(Moved(model, name, Version(known.version) if known else None, found.now))

    # -- withdrawals ----------------------------------------------------------------------------------

    def look_for_withdrawals(
        self, model: Model, releases: Iterable[Release], here: Iterable[Version], refusals: Refusals
    ) -> None:
        """Read the manifests of versions on this machine that have changed, and may be withdrawals.

        One that cannot be read, or recorded, keeps no other from being read.

        Raises:
            SyncError: one could not be read; it is read at the next listing.
            OSError: a withdrawal could not be recorded; it counts until this process ends.
        """
        on_machine, gone = set(here), self._withdrawn_before(model, refusals)
        errors: list[SyncError | OSError] = []
        for release in releases:
            if release.version in on_machine:
                try:
                    self._read_withdrawal(release, gone.get(release.version), refusals)
                except NotReadYet:
                    self._keep_withdrawn(release, gone)
                except (SyncError, OSError) as error:
                    errors.append(error)
        if errors:
            raise errors[0]

    def _read_withdrawal(self, release: Release, before: str | None, refusals: Refusals) -> None:
        """Read the document in a manifest's place, if it is new; `before`: see `_note_withdrawal`."""
        item, key = release.manifest, (release.model, release.version)
        if item is None or self._read_manifests.get(key) == release.offer:
            return
        if item.size > channel.MAX_BYTES and before is None:
            return
        try:
            data = self._bytes_of(item, release.model) if item.size <= manifest.MAX_MANIFEST_BYTES else b""
        except SyncError:
            if before is not None:  # until it can be read, nobody says otherwise
                self._withdrawn[key] = (release.offer, before)
            raise
        self._note_withdrawal(release, data, before, refusals)
        self._read_manifests[key] = release.offer

    def _keep_withdrawn(self, release: Release, gone: Mapping[Version, str]) -> None:
        """Let a version stay withdrawn until its manifest's new bytes have been read."""
        before = gone.get(release.version)
        if before is not None:
            self._withdrawn[release.model, release.version] = (release.offer, before)

    def _bytes_of(self, item: StoredObject, model: Model) -> bytes:
        """Return a document; raises `NotReadYet` until a job has read it."""
        found = self.documents.get(item, model)
        return found if isinstance(found, bytes) else b""

    def _withdrawn_before(self, model: Model, refusals: Refusals) -> dict[Version, str]:
        """Return what was withdrawn when its manifest was last read, and why; whatever is offered now."""
        seen = {version: text for (name, version), (_, text) in self._withdrawn.items() if name == model}
        return {**refusals.withdrawn({}), **seen}

    def _note_withdrawal(self, release: Release, data: bytes, before: str | None, refusals: Refusals) -> None:
        """Take over a manifest or withdrawal; `before`: why the version was withdrawn until now."""
        if channel.is_withdrawal(data):
            text = _text_of(release, data)
            if text is not None:
                self._take_withdrawal(release, text, refusals)
                return
        if before is None:
            return
        if not _is_manifest_of(release, data):  # nobody says that the version is good again
            self._take_withdrawal(release, before, refusals)
            return
        self._withdrawn.pop((release.model, release.version), None)
        if self.durable:
            refusals.forget(release.version)

    def _take_withdrawal(self, release: Release, text: str, refusals: Refusals) -> None:
        known = refusals.withdrawn({release.version: release})
        before = self._withdrawn_before(release.model, refusals)
        self._withdrawn[release.model, release.version] = (release.offer, text)
        if release.version not in known and release.version not in before:
            self.events.append(Withdrawn(release.model, release.version, text))
        if self.durable and release.version not in known:
            refusals.remember(
                release.version, release.offer, Reason.VERSION_WITHDRAWN, text, datetime.now(UTC)
            )

    def withdrawn(
        self, model: Model, offered: Mapping[Version, Release], refusals: Refusals
    ) -> frozenset[Version]:
        """Return the versions of a model that are known to be withdrawn, and not offered anew."""
        seen = {
            version
            for (name, version), (offer, _) in self._withdrawn.items()
            if name == model and (version not in offered or offered[version].offer == offer)
        }
        return frozenset(seen | refusals.withdrawn(offered).keys())


def _text_of(release: Release, data: bytes) -> str | None:
    """Return what a withdrawal says; None if it is not sound: nobody knows who says so."""
    try:
        return str(channel.withdrawn(channel.parse_withdrawal(data, release.model, release.version)))
    except ReleaseRefused:
        return None


def _is_manifest_of(release: Release, data: bytes) -> bool:
    if not release.objects:  # its archive is gone: there is nothing that it could prove
        return False
    try:
        found = manifest.parse(data)
        name, size = release.objects[0].key.rpartition("/")[2], release.stored_bytes
        manifest.check_identity(found, release.model, release.version, name, size)
    except ReleaseRefused:
        return False
    return True


def _is_later(fresh: Position, known: Position) -> bool:
    """Whether a position follows another; the same bytes once more are no news, but no fault either."""
    if fresh.sequence == known.sequence:
        return fresh.sha256 == known.sha256
    return fresh.sequence > known.sequence
