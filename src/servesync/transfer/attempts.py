"""Decides when a version whose transfer failed may be tried again; callers pass in every clock value.

Most failures pass: their pauses double, and are forgotten at a restart. What the way from the store may have
damaged is read again a few times, with pauses that grow from 10 s to more than half an hour. That is kept in
one small record a version, so that a restart neither forgets nor repeats the pauses.
"""

import contextlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Annotated, Final, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from servesync import disk
from servesync.domain.versions import Model, Version
from servesync.errors import Reason, SyncError
from servesync.install import Workspace, records
from servesync.planning.facts import Hold

FIRST_PAUSE_SECONDS: Final = 5.0
LONGEST_PAUSE_SECONDS: Final = 300.0
MOST_REMEMBERED: Final = 1000
MOST_PASSING: Final = 5

EVERYWHERE: Final = ("store_", "disk_")
LASTING: Final = frozenset(
    {
        Reason.OBJECT_ARCHIVED,
        Reason.OBJECT_ENCRYPTED,
        Reason.STORE_DENIED,
        Reason.DISK_UNSUPPORTED,
        Reason.DISK_READ_ONLY,
        Reason.DISK_PERMISSION,
        Reason.DISK_NOT_A_DIRECTORY,
        Reason.DISK_OTHER_FILESYSTEM,
        Reason.DISK_FAILED,
    }
)
"""Only somebody else's work ends these, so the next good version is due at once."""

TRANSIT_RETRIES: Final = 4
TRANSIT_FIRST_SECONDS: Final = 10.0
TRANSIT_FACTOR: Final = 6.0
TRANSIT_LONGEST_SECONDS: Final = 3600.0
TRANSIT_PASSING: Final = 2
"""After the third damaged reading, about a minute after the first, the next good version is due."""

NONE: Final[records.Found["Damaged"]] = records.Found({}, {})

Key = tuple[Model, Version]


def may_pass(reason: Reason) -> bool:
    """Whether a failure for this reason may end by itself, however often it has occurred."""
    return reason.startswith(EVERYWHERE) and reason not in LASTING


@dataclass(slots=True)
class _Failure:
    identity: str
    count: int
    not_before: float
    reason: Reason
    text: str


class Damaged(BaseModel):
    """The record of a release that was read `count` times and found damaged each time, perhaps in transit.

    `offer`: the release's; another offer starts anew. `pause_seconds`: from `last_at` to the next try.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    schema_version: Literal[1] = 1
    offer: str
    count: Annotated[int, Field(ge=1)]
    first_at: AwareDatetime
    last_at: AwareDatetime
    pause_seconds: Annotated[float, Field(ge=0, le=TRANSIT_LONGEST_SECONDS)]
    reason: str
    text: str


@dataclass(frozen=True, slots=True)
class _Transit:
    """A record, and the end of its pause by the monotonic clock. `is_stored`: it lies on the disk, too."""

    record: Damaged
    not_before: float
    is_stored: bool


class Attempts:
    """Failures of one agent, and the pauses that they ask for. Used by the deciding thread only.

    A failure of the store or of the disk would hit the model's other versions just as well: they pause, too,
    for a moment. What has failed five times counts as passing no longer: the next good version is due then.

    `workspace`: where releases that may have been damaged in transit are recorded; None: only in memory.
    Nothing here changes the disk but `in_transit`, `succeeded`, `forget`, and `tidy`.
    """

    def __init__(self, workspace: Workspace | None = None) -> None:
        self._workspace = workspace
        self._failures: dict[Key, _Failure] = {}
        self._everywhere: dict[Model, _Failure] = {}
        self._transit: dict[Key, _Transit] = {}

    def failed(self, key: Key, identity: str, error: SyncError, now: float) -> float:
        """Note a failure; return the pause in seconds before the next attempt."""
        old = self._failures.get(key)
        count = old.count + 1 if old and old.identity == identity else 1
        pause = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(count - 1, 10))
        self._failures.pop(key, None)
        self._failures[key] = _Failure(identity, count, now + pause, error.reason, str(error))
        if len(self._failures) > MOST_REMEMBERED:
            del self._failures[next(iter(self._failures))]
        if error.reason.startswith(EVERYWHERE):
            until = now + FIRST_PAUSE_SECONDS
            self._everywhere[key[0]] = _Failure("", count, until, error.reason, str(error))
        return pause

    def count(self, key: Key, identity: str) -> int:
        """Return how often these bytes have failed so far."""
        old = self._failures.get(key)
        return old.count if old and old.identity == identity else 0

    def paused(self, now: float) -> list[tuple[Key, str]]:
        """Return what has failed a moment ago, each with the identity under which it failed."""
        return [(key, item.identity) for key, item in self._failures.items() if now < item.not_before]

    def end_pauses(self) -> None:
        """End all pauses; the counts of failures stay."""
        for failure in (*self._failures.values(), *self._everywhere.values()):
            failure.not_before = 0.0
        for key, transit in self._transit.items():
            self._transit[key] = replace(transit, not_before=0.0)

    def succeeded(self, key: Key) -> None:
        """Forget the failures of a version, because it is installed or put aside."""
        self.forget(key)

    def forget(self, key: Key) -> None:
        """Forget the failures of a version, also on the disk; what the disk keeps harms nobody."""
        self._failures.pop(key, None)
        self._transit.pop(key, None)
        if self._workspace is not None:
            with contextlib.suppress(OSError):
                records.drop(self._workspace.attempts(key[0]), key[1])

    def holds(
        self, model: Model, identities: Mapping[Version, str], now: float, now_wall: float | None = None
    ) -> dict[Version, Hold]:
        """Return a hold for every offered version whose pause is not over.

        `identities`: the offer of every version that the store has. `now_wall`: seconds since 1970; without
        it records on the disk are not read.
        """
        holds = {}
        everywhere = self._everywhere.get(model)
        if everywhere is not None and now < everywhere.not_before:
            text = f"{everywhere.text} (met with another version; tried again soon)"
            holds = dict.fromkeys(identities, Hold(everywhere.reason, text, passing=True))
        for (name, version), failure in self._failures.items():
            if name == model and identities.get(version) == failure.identity and now < failure.not_before:
                text = f"{failure.text} (tried {failure.count} times, tried again soon)"
                passing = failure.count < MOST_PASSING and failure.reason not in LASTING
                holds[version] = Hold(failure.reason, text, passing)
        if now_wall is not None:
            self._take_in(model, now, now_wall)
            holds |= self._transit_holds(model, identities, now, now_wall)
        return holds

    def next_due(self, now: float) -> float | None:
        """Return the seconds until the first pause is over; None if none is under way."""
        ends = [failure.not_before for failure in (*self._failures.values(), *self._everywhere.values())]
        ends += [transit.not_before for transit in self._transit.values()]
        return min((end - now for end in ends if end > now), default=None)

    # -- releases that may have been damaged in transit ----------------------------------------------

    def in_transit(
        self, key: Key, offer: str, error: SyncError, now_monotonic: float, now_wall: float
    ) -> float | None:
        """Note that a release was read and found damaged; return the pause in seconds before the next try.

        None: it has had all its tries. Nothing is changed then: refuse it with `refusal_text`, and when the
        refusal is recorded, call `forget`. Where the disk takes no record, a restart forgets the try.
        """
        self._take_in(key[0], now_monotonic, now_wall)
        old = self._known(key, offer)
        count = old.count + 1 if old else 1
        if count > TRANSIT_RETRIES:
            return None
        pause = min(TRANSIT_LONGEST_SECONDS, TRANSIT_FIRST_SECONDS * TRANSIT_FACTOR ** (count - 1))
        at = datetime.fromtimestamp(now_wall, UTC)
        record = Damaged(
            offer=offer,
            count=count,
            first_at=old.first_at if old else at,
            last_at=at,
            pause_seconds=pause,
            reason=error.reason,
            text=str(error),
        )
        self._transit.pop(key, None)
        self._transit[key] = _Transit(record, now_monotonic + pause, is_stored=self._store(key, record))
        if len(self._transit) > MOST_REMEMBERED:
            del self._transit[next(iter(self._transit))]
        return pause

    def refusal_text(self, key: Key, offer: str, error: SyncError, now_wall: float) -> str:
        """Return why a release is refused that has had all its tries, `error` being what the last one met."""
        old = self._known(key, offer)
        if old is None:
            return str(error)
        minutes = max(1, round((now_wall - old.first_at.timestamp()) / 60))
        return (
            f"read {old.count + 1} times over {minutes} minutes, each time damaged, so it is the release "
            f"and not the way from the store: {error}"
        )

    def tidy(self, model: Model, identities: Mapping[Version, str]) -> None:
        """Drop the records of releases that a complete listing does not offer any more, or offers otherwise.

        Raises:
            OSError: the records cannot be read or removed; nothing depends on it.
        """
        if self._workspace is None:
            return
        found = records.read_all(self._workspace.attempts(model), Damaged)
        gone = {version for version, item in found.known.items() if identities.get(version) != item.offer}
        for version in gone | (found.unreadable.keys() - identities.keys()):
            self.forget((model, version))

    def _known(self, key: Key, offer: str) -> Damaged | None:
        found = self._transit.get(key)
        return found.record if found and found.record.offer == offer else None

    def _transit_holds(
        self, model: Model, identities: Mapping[Version, str], now: float, now_wall: float
    ) -> dict[Version, Hold]:
        return {
            version: _hold(transit, now_wall + transit.not_before - now)
            for (name, version), transit in self._transit.items()
            if name == model and identities.get(version) == transit.record.offer and now < transit.not_before
        }

    def _store(self, key: Key, record: Damaged) -> bool:
        """Write a record; return whether it is on the disk."""
        if self._workspace is None:
            return False
        folder = self._workspace.attempts(key[0])
        try:
            disk.make_dir(folder.parent, 0o700)
            records.write(folder, key[1], record)
        except OSError:
            return False
        return True

    def _take_in(self, model: Model, now: float, now_wall: float) -> None:
        """Follow the records on the disk: an earlier run wrote them, and `servesync retry` removes them.

        A record that cannot be read counts as none, and the next failure overwrites it.
        """
        if self._workspace is None:
            return
        folder = self._workspace.attempts(model)
        try:
            found = records.read_all(folder, Damaged) if os.path.lexists(folder) else NONE
        except OSError:
            return
        for version, record in found.known.items():
            mine = self._transit.get((model, version))
            if mine is None or (mine.is_stored and mine.record != record):
                left = _seconds_left(record, now_wall)
                self._transit[model, version] = _Transit(record, now + left, is_stored=True)
        for key in _lifted(self._transit, model, found.known.keys() | found.unreadable.keys()):
            del self._transit[key]


def lift(workspace: Workspace, model: Model, version: Version) -> str:
    """Let a version be read again at once that waits because it came damaged; return why it waits, or "".

    The agent at work sees that its record is gone.

    Raises:
        OSError: the record cannot be removed.
    """
    folder = workspace.attempts(model)
    found = records.read_all(folder, Damaged)
    if version not in found.known and version not in found.unreadable:
        return ""
    records.drop(folder, version)
    record = found.known.get(version)
    return f"{record.reason}: {record.text}" if record else f"{found.unreadable[version].why}"


def _lifted(transit: Mapping[Key, _Transit], model: Model, on_disk: Iterable[Version]) -> list[Key]:
    """Return the records that were on the disk and have been removed."""
    there = frozenset(on_disk)
    return [
        key for key, item in transit.items() if key[0] == model and item.is_stored and key[1] not in there
    ]


def _seconds_left(record: Damaged, now_wall: float) -> float:
    """Return what is left of a pause; a clock that was set back makes it no longer, it ends it."""
    passed = now_wall - record.last_at.timestamp()
    return 0.0 if passed < 0 else max(0.0, record.pause_seconds - passed)


def _hold(transit: _Transit, due_wall: float) -> Hold:
    record = transit.record
    times = "once" if record.count == 1 else f"{record.count} times"
    text = (
        f"{record.text} (read {times}, and damaged each time; something on the way from the store may be to "
        f"blame, so it is read again at {datetime.fromtimestamp(due_wall, UTC):%Y-%m-%dT%H:%M:%S%z}; "
        f"`servesync retry` reads it at once)"
    )
    return Hold(_reason(record.reason), text, passing=record.count <= TRANSIT_PASSING)


def _reason(name: str) -> Reason:
    try:
        return Reason(name)
    except ValueError:  # written by a newer servesync
        return Reason.INTERNAL_ERROR
