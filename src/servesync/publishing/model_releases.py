"""The releases and channels of one model in a store: moves its channels, and withdraws its versions."""

import hashlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal, NamedTuple

from pydantic import ValidationError

from servesync.domain import canonical_json, channel, manifest
from servesync.domain.channel import Channel, Entry, Withdrawal
from servesync.domain.versions import Layout, Model, Release, StoredObject, Version
from servesync.errors import Reason, ReleaseRefused, SettingsError, StoreError, SyncError, TransferError
from servesync.fetch import read_whole
from servesync.publishing.installable import check_installable, sound_withdrawal
from servesync.publishing.request import stem_of, to_complete
from servesync.settings import Fetch, Store
from servesync.store import (
    MANIFEST_ENDING,
    AlreadyThere,
    Changed,
    Listing,
    ObjectAttributes,
    S3Store,
    S3Writer,
    manifest_key_at,
)

JSON: Final = "application/json"
SHOWN: Final = 10
READS: Final = 5


class ChannelMove(NamedTuple):
    """The move of a channel that the caller wants: the version, the kind of move, who moves it, and why."""

    version: Version
    kind: Literal["promote", "rollback"]
    who: str
    why: str


@dataclass(frozen=True, slots=True)
class MoveDone:
    """The version of a channel before the move (None: new, or unreadable), and the channel afterwards.

    `changed`: something was written. `note`: advice for the caller, or empty.
    """

    was: Version | None
    now: Channel
    changed: bool
    note: str = ""


@dataclass(frozen=True, slots=True)
class WithdrawDone:
    """The withdrawal that the store has now; `fresh`: this call has written it."""

    key: str
    withdrawal: Withdrawal
    fresh: bool


class ModelReleases:
    """The releases and channels of one model, as the last listing shows them."""

    def __init__(self, store: Store, model: Model, reader: S3Store, writer: S3Writer) -> None:
        self._store = store
        self._model = model
        self._reader = reader
        self._writer = writer
        self._list_again()

    def _list_again(self) -> None:
        self._listing: Listing = self._reader.list(lambda name: name == self._model)

    def _read(self, item: StoredObject, most: int) -> bytes:
        if item.size > most:
            text = f"{item.key!a} has {item.size} bytes, over {most}: it cannot be what its name says"
            raise ReleaseRefused(Reason.CHANNEL_INVALID, text)
        try:
            return read_whole(item, self._reader.read, Fetch(), lambda: False)
        except TransferError as error:
            if error.reason in {Reason.OBJECT_CHANGED, Reason.OBJECT_GONE}:
                raise self._lost(item.key) from error
            raise

    def _release(self, version: Version) -> Release | None:
        releases = self._listing.releases.get(self._model, ())
        return next((release for release in releases if release.version == version), None)

    def _orphaned(self, version: Version) -> Release | None:
        """Return the release that has a manifest, or a withdrawal, but no archive."""
        orphaned = self._listing.orphaned.get(self._model, ())
        return next((release for release in orphaned if release.version == version), None)

    def check_offered(self, version: Version) -> str:
        """Make sure that the store offers a version; return a note if it has no manifest, else nothing.

        Raises:
            ReleaseRefused: the store does not offer it, or instances would refuse it; the text says why.
        """
        release = self._release(version)
        if release is not None:
            check_installable(release, self._store, self._reader, self._read)
            return "" if release.manifest is not None else self._unproven(release)
        orphaned = self._orphaned(version)
        if orphaned is not None and orphaned.manifest is not None:
            data = self._read(orphaned.manifest, manifest.MAX_MANIFEST_BYTES)
            channel.check_not_withdrawn(data, self._model, version)
        problem = self._listing.problems.get((self._model, version))
        offered = sorted(found.version for found in self._listing.releases.get(self._model, ()))
        there = f"it has {', '.join(map(str, offered[-SHOWN:]))}" if offered else "it has none"
        why = str(problem) if problem else there
        text = f"{self._store.url} does not offer {self._model} {version}: {why}"
        raise ReleaseRefused(Reason.RELEASE_INCOMPLETE, text)

    def _unproven(self, release: Release) -> str:
        text = (
            f"{release.version} has no manifest: only an instance that downloads it can tell if it is sound"
        )
        if release.layout is Layout.DIRECTORY:
            return text
        return f"{text}; {to_complete(self._store, release.objects[0].key)} proves it"

    def channel(self, name: str) -> Channel | None:
        """Return a channel; None if there is none."""
        listed = self._listing.channels.get(self._model, {}).get(name)
        if listed is None:
            return None
        return channel.parse_channel(self._read(listed, channel.MAX_BYTES), self._model, name)

    def channels(self) -> dict[str, Channel | ReleaseRefused]:
        """Return all channels by name; for one that cannot be read, the error."""
        by_name: dict[str, Channel | ReleaseRefused] = {}
        for name, listed in sorted(self._listing.channels.get(self._model, {}).items()):
            try:
                data = self._read(listed, channel.MAX_BYTES)
                by_name[name] = channel.parse_channel(data, self._model, name)
            except ReleaseRefused as error:
                by_name[name] = error
        return by_name

    def move(self, name: str, asked: ChannelMove, after: int | None = None) -> MoveDone:
        """Move a channel to a version; the move gets the next sequence, at least the one after `after`.

        With `after`, a channel that cannot be read is replaced. A channel that is at the version already is
        written again unless its sequence is later than `after`.
        """
        old = self._channel_to_move(name, replace=after is not None)
        was = None if old is None else Version(old.now.version)
        if old is not None and was == asked.version and old.now.sequence > (after or 0):
            return MoveDone(was, old, changed=False)
        try:
            entry = Entry(asked.version, asked.kind, _now(), asked.who, asked.why)
            now = channel.moved(old, self._model, name, entry, after or 0)
        except ValidationError as error:
            raise SettingsError(Reason.SETTINGS_INVALID, canonical_json.error_location(error)) from error
        key = self._store.prefix + channel.key_of(self._model, name)
        listed = self._listing.channels.get(self._model, {}).get(name)
        self._write(key, channel.dump(now), listed, lambda: self._went_through(name, now))
        return MoveDone(was, now, changed=True)

    def _channel_to_move(self, name: str, *, replace: bool) -> Channel | None:
        try:
            return self.channel(name)
        except ReleaseRefused:
            if not replace:
                raise
            return None

    def _went_through(self, name: str, now: Channel) -> bool:
        """Return whether the channel has the move now, or in its history if somebody has moved it since."""
        for attempt in range(READS):
            self._list_again()
            try:
                channel_now = self.channel(name)
            except StoreError:
                if attempt == READS - 1:
                    raise
                continue
            return channel_now is not None and now.now in (channel_now.now, *channel_now.past)
        return False

    def withdraw(self, version: Version, who: str, reason: str, *, removed: bool) -> WithdrawDone:
        """Replace a manifest, or an invalid withdrawal, by a withdrawal."""
        release = self._release(version) or self._orphaned(version)
        if release is None:
            self._check_removed(version, removed=removed)
        old_document = release.manifest if release else None
        old = self._read(old_document, manifest.MAX_MANIFEST_BYTES) if old_document else None
        if old_document is not None and old is not None:
            withdrawal = sound_withdrawal(old, self._model, version)
            if withdrawal is not None:
                return WithdrawDone(old_document.key, withdrawal, fresh=False)
        try:
            fresh = Withdrawal(
                model=self._model,
                version=version,
                time=_now(),
                who=who,
                reason=reason,
                manifest_sha256=hashlib.sha256(old).hexdigest() if old is not None else None,
            )
        except ValidationError as error:
            raise SettingsError(Reason.SETTINGS_INVALID, canonical_json.error_location(error)) from error
        key = old_document.key if old_document else self._key_for(release, version)
        self._write(key, channel.dump(fresh), old_document, lambda: self._is_withdrawn(version))
        return WithdrawDone(key, fresh, fresh=True)

    def _check_removed(self, version: Version, *, removed: bool) -> None:
        """Make sure that the store has nothing of a version, and that the caller said so with `removed`."""
        problem = self._listing.problems.get((self._model, version))
        if removed and problem is None:
            return
        why = f": {problem}" if problem else ""
        advice = "" if problem else "; if instances have it still, say so with --removed"
        text = (
            f"{self._store.url} has no release {self._model} {version}, so nothing was withdrawn{why}{advice}"
        )
        raise ReleaseRefused(Reason.RELEASE_INCOMPLETE, text)

    def _key_for(self, release: Release | None, version: Version) -> str:
        if release is not None:
            return manifest_key_at(release)
        return stem_of(self._store, self._model, version) + MANIFEST_ENDING

    def _is_withdrawn(self, version: Version) -> bool:
        self._list_again()
        again = self._release(version) or self._orphaned(version)
        if again is None or again.manifest is None or again.manifest.size > channel.MAX_BYTES:
            return False
        data = self._read(again.manifest, channel.MAX_BYTES)
        return sound_withdrawal(data, self._model, version) is not None

    def _write(self, key: str, data: bytes, old: StoredObject | None, stands: Callable[[], bool]) -> None:
        """Write `data` under `key` in place of `old`, or as a new object; then call `stands` to verify it.

        The answer to a write can be lost although the store has written. The repeated request is then refused
        because of our own object. So after every error but a clear refusal, `stands` decides.
        """
        try:
            self._put(key, data, old)
        except (AlreadyThere, Changed) as error:
            if not stands():
                raise self._lost(key) from error
        except SyncError as error:
            if not _after(error, stands):
                raise
        else:
            if not stands():
                raise self._lost(key)

    def _put(self, key: str, data: bytes, old: StoredObject | None) -> None:
        if old is None:
            self._writer.put_new(key, data, ObjectAttributes(JSON))
        else:
            self._writer.replace(key, data, old.etag, ObjectAttributes(JSON))

    def _lost(self, key: str) -> StoreError:
        text = f"somebody else wrote {key!a} meanwhile: check it (`servesync channels`), and run this again"
        return StoreError(Reason.CHANNEL_MOVED_MEANWHILE, text)


def _after(error: SyncError, stands: Callable[[], bool]) -> bool:
    """Return whether the write is in the store although the request ended with `error`."""
    if error.reason not in {Reason.STORE_UNREACHABLE, Reason.STORE_FAILED, Reason.TRANSFER_BROKEN}:
        return False
    with suppress(SyncError):
        return stands()
    return False


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
