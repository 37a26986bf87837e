"""Moves channels, and withdraws versions: small documents, each written only in the place of what was read.

A store that does not know conditional writes ignores the condition, so what was written is read again, and
whoever lost a race is told. Channels and withdrawals are the only objects that servesync ever replaces.
"""

import getpass
import hashlib
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from pydantic import ValidationError

from servesync import channel, manifest, sealed
from servesync.channel import Channel, Entry, Withdrawal
from servesync.errors import Reason, ReleaseRefused, SettingsError, StoreError, SyncError, TransferError
from servesync.fetch import read_whole
from servesync.plan.versions import Model, Release, StoredObject, Version, parse_model, parse_version
from servesync.settings import Fetch, Limits, Store
from servesync.store import (
    About,
    AlreadyThere,
    Changed,
    Listing,
    S3Store,
    S3Writer,
    manifest_key_at,
)

JSON: str = "application/json"
SHOWN = 10
LOOKS = 5


@dataclass(frozen=True, slots=True)
class MoveDone:
    """Where a channel stood before (None: it is new), and where it stands now."""

    was: Version | None
    now: Channel

    @property
    def changed(self) -> bool:
        """Whether anything was written."""
        return self.was != self.now.now.version


@dataclass(frozen=True, slots=True)
class WithdrawDone:
    """The withdrawal that stands in the store now; `fresh`: it was written just now."""

    key: str
    withdrawal: Withdrawal
    fresh: bool


def default_who() -> str:
    """Return who calls, as far as this machine knows: user@host."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = "unknown"
    return f"{user}@{socket.gethostname()}"[:128]


def promote(store: Store, names: tuple[str, str, str], who: str, why: str) -> MoveDone:
    """Bring a channel to a version; `names`: model, version and channel, as they were given.

    Raises:
        SettingsError: a name that none can have.
        ReleaseRefused: the store does not offer the version, or the channel's object is none.
        StoreError: `CHANNEL_MOVED_MEANWHILE`: somebody else was faster; or the store did not answer.
    """
    model, version, name = _model(names[0]), _version(names[1]), _channel(names[2])
    with _opened(store, model) as desk:
        desk.check_offered(version)
        return desk.move(name, version, "promote", who, why)


def rollback(store: Store, names: tuple[str, str], to: str | None, who: str, why: str) -> MoveDone:
    """Bring a channel back to where it stood before, or to the version `to`. Raises as `promote` does."""
    model, name = _model(names[0]), _channel(names[1])
    with _opened(store, model) as desk:
        found = desk.channel(name)
        if found is None:
            text = f"{store.url} has no channel {name} of {model}: nothing to go back from"
            raise ReleaseRefused(Reason.CHANNEL_MISSING, text)
        version = channel.before(found) if to is None else _version(to)
        if version is None:
            text = (
                f"the channel {name} of {model} is at {found.now.version}, and nothing is known of before: "
                "say where it is to go, with --to"
            )
            raise ReleaseRefused(Reason.CHANNEL_INVALID, text)
        desk.check_offered(version)
        return desk.move(name, version, "rollback", who, why)


def channels(store: Store, model_name: str) -> Mapping[str, Channel | ReleaseRefused]:
    """Return every channel of a model, or what is wrong with it.

    Raises:
        SettingsError: a name that none can have.
        StoreError, TransferError: the store did not answer.
    """
    model = _model(model_name)
    with _opened(store, model) as desk:
        return desk.channels()


def withdraw(store: Store, names: tuple[str, str], who: str, reason: str) -> WithdrawDone:
    """Put a withdrawal in the place of a version's manifest; its archive stays, for whoever must look at it.

    Raises:
        SettingsError: a name that none can have, or no reason.
        ReleaseRefused: the store has no such version.
        StoreError: `CHANNEL_MOVED_MEANWHILE`: the manifest was changed meanwhile; or the store is silent.
    """
    model, version = _model(names[0]), _version(names[1])
    with _opened(store, model) as desk:
        return desk.withdraw(version, who, reason)


@contextmanager
def _opened(store: Store, model: Model) -> Iterator["_Desk"]:
    reader = S3Store(store, Fetch(), Limits())
    try:
        with S3Writer(store) as writer:
            yield _Desk(store, model, reader, writer)
    finally:
        reader.close()


class _Desk:
    """One model of one store, listed once."""

    def __init__(self, store: Store, model: Model, reader: S3Store, writer: S3Writer) -> None:
        self._store = store
        self._model = model
        self._reader = reader
        self._writer = writer
        self._look_again()

    def _look_again(self) -> None:
        self._listing: Listing = self._reader.list(lambda name: name == self._model)

    def _read(self, item: StoredObject, most: int) -> bytes:
        if item.size > most:
            text = f"{item.key!a} has {item.size} bytes, over {most}: it is not what its name says"
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

    def check_offered(self, version: Version) -> None:
        """Make sure that instances can get a version."""
        problem = self._listing.problems.get((self._model, version))
        release = self._release(version)
        if release is None:
            offered = sorted(found.version for found in self._listing.releases.get(self._model, ()))
            there = f"it has {', '.join(map(str, offered[-SHOWN:]))}" if offered else "it has none"
            why = str(problem) if problem else there
            text = f"{self._store.url} does not offer {self._model} {version}: {why}"
            raise ReleaseRefused(Reason.RELEASE_INCOMPLETE, text)
        if release.manifest is not None:
            data = self._read(release.manifest, manifest.MAX_MANIFEST_BYTES)
            if channel.is_withdrawal(data):
                raise channel.withdrawn(channel.parse_withdrawal(data, self._model, version))

    def channel(self, name: str) -> Channel | None:
        """Return a channel; None if there is none."""
        item = self._listing.channels.get(self._model, {}).get(name)
        if item is None:
            return None
        return channel.parse_channel(self._read(item, channel.MAX_BYTES), self._model, name)

    def channels(self) -> dict[str, Channel | ReleaseRefused]:
        """Return all channels, or what is wrong with them."""
        found: dict[str, Channel | ReleaseRefused] = {}
        for name, item in sorted(self._listing.channels.get(self._model, {}).items()):
            try:
                data = self._read(item, channel.MAX_BYTES)
                found[name] = channel.parse_channel(data, self._model, name)
            except ReleaseRefused as error:
                found[name] = error
        return found

    def move(
        self, name: str, version: Version, kind: Literal["promote", "rollback"], who: str, why: str
    ) -> MoveDone:
        """Bring a channel to a version that is offered."""
        old = self.channel(name)
        was = None if old is None else Version(old.now.version)
        if old is not None and was == version:
            return MoveDone(was, old)
        try:
            now = channel.moved(old, self._model, name, Entry(version, kind, _now(), who, why))
        except ValidationError as error:
            raise SettingsError(Reason.SETTINGS_INVALID, sealed.place(error)) from error
        key = self._store.prefix + channel.key_of(self._model, name)
        item = self._listing.channels.get(self._model, {}).get(name)
        self._write(key, channel.dump(now), item, lambda: self._went_through(name, now))
        return MoveDone(was, now)

    def _went_through(self, name: str, now: Channel) -> bool:
        """Whether a channel is, or has been, where it was moved to; others may be moving it on meanwhile."""
        for attempt in range(LOOKS):
            self._look_again()
            try:
                found = self.channel(name)
            except StoreError:
                if attempt == LOOKS - 1:
                    raise
                continue
            return found is not None and now.now in (found.now, *found.past)
        return False

    def withdraw(self, version: Version, who: str, reason: str) -> WithdrawDone:
        """Put a withdrawal in the place of a manifest."""
        release = self._release(version)
        if release is None:
            problem = self._listing.problems.get((self._model, version))
            why = f": {problem}" if problem else ""
            text = f"{self._store.url} has no release {self._model} {version}, so nothing was withdrawn{why}"
            raise ReleaseRefused(Reason.RELEASE_INCOMPLETE, text)
        old = None
        if release.manifest is not None:
            old = self._read(release.manifest, manifest.MAX_MANIFEST_BYTES)
            if channel.is_withdrawal(old):
                found = channel.parse_withdrawal(old, self._model, version)
                return WithdrawDone(release.manifest.key, found, fresh=False)
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
            raise SettingsError(Reason.SETTINGS_INVALID, sealed.place(error)) from error
        key = release.manifest.key if release.manifest else manifest_key_at(release)
        self._write(key, channel.dump(fresh), release.manifest, lambda: self._is_withdrawn(version))
        return WithdrawDone(key, fresh, fresh=True)

    def _is_withdrawn(self, version: Version) -> bool:
        self._look_again()
        again = self._release(version)
        if again is None or again.manifest is None or again.manifest.size > channel.MAX_BYTES:
            return False
        data = self._read(again.manifest, channel.MAX_BYTES)
        if not channel.is_withdrawal(data):
            return False
        channel.parse_withdrawal(data, self._model, version)
        return True

    def _write(self, key: str, data: bytes, old: StoredObject | None, stands: Callable[[], bool]) -> None:
        """Write in the place of `old` (None: of nothing); what counts is whether it `stands` afterwards.

        An answer can be lost though the store has written: then the same request, repeated, is told that
        somebody else was faster, and that was itself.
        """
        try:
            if old is None:
                self._writer.put_new(key, data, About(JSON))
            else:
                self._writer.replace(key, data, old.etag, About(JSON))
        except (AlreadyThere, Changed) as error:
            if not stands():
                raise self._lost(key) from error
        except SyncError as error:
            if not _after(error, stands):
                raise
        else:
            if not stands():
                raise self._lost(key)

    def _lost(self, key: str) -> StoreError:
        text = f"somebody else wrote {key!a} meanwhile: look at it (`servesync channels`), and run this again"
        return StoreError(Reason.CHANNEL_MOVED_MEANWHILE, text)


def _after(error: SyncError, stands: Callable[[], bool]) -> bool:
    """Tell whether what was written stands, though the store did not say so."""
    if error.reason not in {Reason.STORE_UNREACHABLE, Reason.STORE_FAILED, Reason.TRANSFER_BROKEN}:
        return False
    with suppress(SyncError):
        return stands()
    return False


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _model(name: str) -> Model:
    found = parse_model(name)
    if found is None:
        text = f"{name!a} is no model's name: 1 to 100 of A-Z a-z 0-9 . _ -, not starting with a dot"
        raise SettingsError(Reason.SETTINGS_INVALID, text)
    return found


def _version(number: str) -> Version:
    found = parse_version(number)
    if found is None:
        raise SettingsError(Reason.SETTINGS_INVALID, f"{number!a} is no version: a number, 0 or more")
    return found


def _channel(name: str) -> str:
    if not channel.is_name(name):
        text = f"{name!a} is no channel's name: 1 to 63 of A-Z a-z 0-9 . _ -, not starting with a dot"
        raise SettingsError(Reason.SETTINGS_INVALID, text)
    return name
