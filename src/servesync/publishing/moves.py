"""Moves channels, and withdraws versions: each write replaces only the small document that was read.

A store that does not know conditional writes ignores the condition. So each document is read again after the
write, and whoever lost a race gets an error. servesync replaces no other objects than channels and manifests.
"""

import getpass
import socket
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace

from servesync.domain import channel
from servesync.domain.channel import Channel
from servesync.domain.versions import Model, Version, parse_model, parse_version
from servesync.errors import Reason, ReleaseRefused, SettingsError
from servesync.publishing.model_releases import ChannelMove, ModelReleases, MoveDone, WithdrawDone
from servesync.settings import Fetch, Store
from servesync.store import S3Store, S3Writer

SHOWN = 10


def default_who() -> str:
    """Return the caller as this machine knows it: user@host."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # the user has no name, as in some containers
        user = "unknown"
    return f"{user}@{socket.gethostname()}"[:128]


def promote(
    store: Store, names: tuple[str, str, str], who: str, why: str, after: int | None = None
) -> MoveDone:
    """Move a channel to a version; `names`: model, version and channel, as they were given.

    `after`: a sequence that instances have seen, for a channel whose object was lost, damaged or restored.
    The move gets a later sequence, and replaces an object that cannot be read.

    Raises:
        SettingsError: a name or a number is not valid.
        ReleaseRefused: no instance would install the version, or the channel's object cannot be read.
        StoreError: `CHANNEL_MOVED_MEANWHILE`: somebody else was faster; or the store did not answer.
    """
    model, version, name = _model(names[0]), _version(names[1]), _channel(names[2])
    with _opened(store, model) as releases:
        note = releases.check_offered(version)
        return replace(releases.move(name, ChannelMove(version, "promote", who, why), after), note=note)


def rollback(store: Store, names: tuple[str, str], to: str | None, who: str, why: str) -> MoveDone:
    """Move a channel back to the version before, or to the version `to`. Raises as `promote` does."""
    model, name = _model(names[0]), _channel(names[1])
    with _opened(store, model) as releases:
        current = releases.channel(name)
        if current is None:
            text = f"{store.url} has no channel {name} of {model}: nothing to go back from"
            raise ReleaseRefused(Reason.CHANNEL_MISSING, text)
        version = channel.before(current) if to is None else _version(to)
        if version is None:
            text = (
                f"the channel {name} of {model} is at {current.now.version}, and its version before is not "
                "known: name one with --to"
            )
            raise ReleaseRefused(Reason.CHANNEL_INVALID, text)
        try:
            note = releases.check_offered(version)
        except ReleaseRefused as error:
            if to is not None:
                raise
            text = f"{model} {version}, where it was before: {error}; {_elsewhere(current, version)}"
            raise ReleaseRefused(error.reason, text) from error
        return replace(releases.move(name, ChannelMove(version, "rollback", who, why)), note=note)


def _elsewhere(current: Channel, version: Version) -> str:
    seen = dict.fromkeys(move.version for move in current.past)
    others = [str(number) for number in seen if number not in (version, current.now.version)][:SHOWN]
    been = f" (it has also been at {', '.join(others)})" if others else ""
    return f"name another version with --to{been}"


def channels(store: Store, model_name: str) -> Mapping[str, Channel | ReleaseRefused]:
    """Return every channel of a model by name; for one that cannot be read, the error.

    Raises:
        SettingsError: the model's name is not valid.
        StoreError, TransferError: the store did not answer.
    """
    model = _model(model_name)
    with _opened(store, model) as releases:
        return releases.channels()


def withdraw(
    store: Store, names: tuple[str, str], who: str, reason: str, *, removed: bool = False
) -> WithdrawDone:
    """Replace a version's manifest by a withdrawal; the archive stays, so that it can be examined.

    `removed`: withdraw a version that the store has lost, since instances may still have it.

    Raises:
        SettingsError: a name or the number is not valid, or there is no reason.
        ReleaseRefused: the store has no such version.
        StoreError: `CHANNEL_MOVED_MEANWHILE`: the manifest was changed meanwhile; or the store is silent.
    """
    model, version = _model(names[0]), _version(names[1])
    with _opened(store, model) as releases:
        return releases.withdraw(version, who, reason, removed=removed)


@contextmanager
def _opened(store: Store, model: Model) -> Iterator[ModelReleases]:
    with closing(S3Store(store, Fetch())) as reader, S3Writer(store) as writer:
        yield ModelReleases(store, model, reader, writer)


def _model(name: str) -> Model:
    model = parse_model(name)
    if model is None:
        text = f"{name!a} is no model's name: 1 to 100 of A-Z a-z 0-9 . _ -, not starting with a dot"
        raise SettingsError(Reason.SETTINGS_INVALID, text)
    return model


def _version(number: str) -> Version:
    version = parse_version(number)
    if version is None:
        raise SettingsError(Reason.SETTINGS_INVALID, f"{number!a} is no version: a number, 0 or more")
    return version


def _channel(name: str) -> str:
    if not channel.is_name(name):
        text = f"{name!a} is no channel's name: 1 to 63 of A-Z a-z 0-9 . _ -, not starting with a dot"
        raise SettingsError(Reason.SETTINGS_INVALID, text)
    return name
