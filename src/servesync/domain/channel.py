"""A channel: a name such as `stable` for the version that instances are to serve, kept in the store.

A document in the form of `canonical_json` under `<model>/channels/<name>.json`. Every move adds one to
`sequence`, by which an instance tells a later position from an earlier one, whatever clocks say. A withdrawal
is another such document: it stands where the manifest of a version was, or would be.
"""

import re
from itertools import pairwise
from typing import Annotated, Final, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from servesync.domain import canonical_json
from servesync.domain.canonical_json import NotCanonical, Sha256, Strict, Time
from servesync.domain.versions import MAX_VERSION, Model, Version, parse_model
from servesync.errors import Reason, ReleaseRefused, readable

MAX_BYTES: Final = 64 << 10
MOST_PAST: Final = 50
CHANNEL_SCHEMA: Final = "servesync.channel/1"
WITHDRAWAL_SCHEMA: Final = "servesync.withdrawal/1"
FOLDER: Final = "channels"

_NAME: Final = re.compile(r"(?!\.)[A-Za-z0-9._-]{1,63}", re.ASCII)
_TEXT: Final = r"^[^\x00-\x1f\x7f]*$"

Number = Annotated[int, Field(ge=0, le=MAX_VERSION)]
Who = Annotated[str, Field(max_length=128, pattern=_TEXT)]
Why = Annotated[str, Field(max_length=512, pattern=_TEXT)]


class Move(Strict):
    """One position that a channel was brought to: when (UTC), by whom, and why."""

    version: Number
    sequence: Annotated[int, Field(ge=1, le=MAX_VERSION)]
    kind: Literal["promote", "rollback"]
    time: Time
    who: Who
    why: Why


class Channel(Strict):
    """Where a channel stands, and where it stood before, the latest first."""

    schema_version: Annotated[Literal["servesync.channel/1"], Field(alias="schema")] = CHANNEL_SCHEMA
    model: str
    channel: str
    now: Move
    past: Annotated[tuple[Move, ...], Field(max_length=MOST_PAST)] = ()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if parse_model(self.model) is None or not is_name(self.channel):
            raise ValueError("model or channel has a name that none can have")
        numbers = [self.now.sequence, *(move.sequence for move in self.past)]
        if any(later <= earlier for later, earlier in pairwise(numbers)):
            raise ValueError("the sequence does not fall from the latest position to the earliest")
        return self


class Withdrawal(Strict):
    """A version that no instance is to serve any more; `manifest_sha256`: of the manifest it replaces."""

    schema_version: Annotated[Literal["servesync.withdrawal/1"], Field(alias="schema")] = WITHDRAWAL_SCHEMA
    model: str
    version: Number
    time: Time
    who: Who
    reason: Why
    manifest_sha256: Sha256 | None = None


class Entry(NamedTuple):
    """What a channel is asked to take up: the position, when (UTC, to the second), by whom, and why."""

    version: Version
    kind: Literal["promote", "rollback"]
    time: str
    who: str
    why: str


def is_name(name: str) -> bool:
    """Whether a channel may be called so: 1 to 63 of A-Z a-z 0-9 . _ -, not starting with a dot."""
    return _NAME.fullmatch(name) is not None


def key_of(model: Model, name: str) -> str:
    """Return the key of a channel, below the store's prefix."""
    return f"{model}/{FOLDER}/{name}.json"


def parse_key(key: str) -> tuple[Model, str] | None:
    """Return model and channel that a key below the store's prefix names; None if it names none."""
    model, _, rest = key.partition(f"/{FOLDER}/")
    name = rest.removesuffix(".json")
    found = parse_model(model)
    return (found, name) if found is not None and rest.endswith(".json") and is_name(name) else None


def moved(old: Channel | None, model: Model, name: str, entry: Entry, after: int = 0) -> Channel:
    """Return a channel brought to a new position; its earliest ones are forgotten after `MOST_PAST`.

    Its sequence is the next one, or the one after `after`, if that is higher.
    """
    sequence = max(after, 0 if old is None else old.now.sequence) + 1
    now = Move(sequence=sequence, **entry._asdict())
    past = () if old is None else (old.now, *old.past)
    return Channel(model=model, channel=name, now=now, past=past[:MOST_PAST])


def before(channel: Channel) -> Version | None:
    """Return the version that a rollback goes to; None if none is known.

    A rollback after a rollback goes further back, and not to what was just rolled back from.
    """
    past = list(channel.past)
    if channel.now.kind == "rollback":
        same = [index for index, move in enumerate(past) if move.version == channel.now.version]
        past = past[same[0] + 1 :] if same else []
    return next((Version(move.version) for move in past if move.version != channel.now.version), None)


def parse_channel(data: bytes, model: Model, name: str, seen: int | None = None) -> Channel:
    """Return the channel in `data`, which stands under the key of `name`; `seen`: as `set_anew` takes it.

    Raises:
        ReleaseRefused: `CHANNEL_INVALID`: it is not one, or another one.
    """
    try:
        found = canonical_json.parse(Channel, data, MAX_BYTES, CHANNEL_SCHEMA)
    except NotCanonical as error:
        text = f"the channel {name} of {model} is not valid: {error}; {set_anew(seen)}"
        raise ReleaseRefused(Reason.CHANNEL_INVALID, text) from error
    if (found.model, found.channel) != (model, name):
        held = f"the channel {found.channel} of {found.model}"
        text = f"the channel {name} of {model} holds {held}; {set_anew(seen)}"
        raise ReleaseRefused(Reason.CHANNEL_INVALID, text)
    return found


def set_anew(seen: int | None = None) -> str:
    """Return what to do about a channel that came to harm; `seen`: the sequence that an instance knows."""
    if seen is None:
        return "set it with `servesync promote --after N`, N being the sequence that instances have seen"
    return f"set it with `servesync promote --after {seen}`"


def is_withdrawal(data: bytes) -> bool:
    """Whether a document that stands where a manifest does says that it is a withdrawal."""
    try:
        canonical_json.load(data, MAX_BYTES, WITHDRAWAL_SCHEMA)
    except NotCanonical:
        return False
    return True


def parse_withdrawal(data: bytes, model: Model, version: Version) -> Withdrawal:
    """Return the withdrawal of a version.

    Raises:
        ReleaseRefused: `MANIFEST_INVALID`: it is not one, or that of another version.
    """
    try:
        found = canonical_json.parse(Withdrawal, data, MAX_BYTES, WITHDRAWAL_SCHEMA)
    except NotCanonical as error:
        text = f"the withdrawal of {model} {version} is not valid: {error}; withdraw it again"
        raise ReleaseRefused(Reason.MANIFEST_INVALID, text) from error
    if (found.model, found.version) != (model, version):
        text = (
            f"what stands in place of the manifest of {model} {version} withdraws {found.model} "
            f"{found.version}: publish under a new number"
        )
        raise ReleaseRefused(Reason.MANIFEST_INVALID, text)
    return found


def check_not_withdrawn(data: bytes, model: Model, version: Version) -> None:
    """Make sure that the document in the place of a manifest is no withdrawal.

    Raises:
        ReleaseRefused: `VERSION_WITHDRAWN`; or `MANIFEST_INVALID`, for a withdrawal that is not valid.
    """
    if is_withdrawal(data):
        raise withdrawn(parse_withdrawal(data, model, version))


def withdrawn(found: Withdrawal) -> ReleaseRefused:
    """Return the refusal of a version that was withdrawn."""
    text = f"withdrawn on {found.time} by {readable(found.who)}: {readable(found.reason)}"
    return ReleaseRefused(Reason.VERSION_WITHDRAWN, text)


def dump(document: Channel | Withdrawal) -> bytes:
    """Return the canonical JSON of the document, which the parsers above accept."""
    return canonical_json.dump(document)
