"""What was refused, and why: one durable record a version, valid for one offer of its release.

A refusal by servesync's own proofs holds for one `judge` only: with other limits, another level of proof or
another servesync, the same release may pass. A refusal by the model server holds in any case.

A record that cannot be read refuses its number: nobody knows what it kept away. One that is damaged is
written anew (`replace_damaged`), as a refusal of what the store offers now, by the present settings.
"""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from datetime import datetime
from pathlib import Path
from typing import Final

from servesync.domain.versions import Release, Version
from servesync.errors import Reason
from servesync.install import records
from servesync.install.records import Found, Refusal
from servesync.planning.facts import Hold

WAY_OUT: Final = "`servesync retry` lets it be fetched again"
OF_THE_SERVER: Final = frozenset({Reason.SERVER_REFUSED, Reason.SERVER_LOAD_TIMEOUT, Reason.SMOKE_FAILED})


class Refusals:
    """The refused releases of one model. Records are read once; a new object is made for each snapshot."""

    def __init__(self, folder: Path, judge: str) -> None:
        self._folder = folder
        self._judge = judge
        self._found: Found[Refusal] | None = None

    def holds(self, offered: Mapping[Version, Release], foreign: AbstractSet[Version]) -> dict[Version, Hold]:
        """Return a hold for every offered release that was refused and has not changed since.

        `foreign`: the numbers on the shelf that are not ours; a release that was refused because of one is
        free again when it is gone.
        """
        found = self._read()
        holds = {
            version: Hold(Reason.RECORD_UNREADABLE, text)
            for version, text in _said_of(found).items()
            if version in offered
        }
        return holds | {
            version: Hold(_reason(refusal), f"{refusal.text} (refused {refusal.at:%Y-%m-%dT%H:%M:%S%z})")
            for version, refusal in found.known.items()
            if version in offered
            and self._still_holds(refusal, offered[version])
            and (refusal.reason != Reason.VERSION_FOREIGN or version in foreign)
        }

    def _read(self) -> Found[Refusal]:
        if self._found is None:
            self._found = records.read_all(self._folder, Refusal)
        return self._found

    def unreadable(self) -> dict[Version, str]:
        """Return what to say of records that are there and cannot be read.

        Raises:
            OSError: the directory cannot be read.
        """
        return _said_of(self._read())

    def replace_damaged(self, offered: Mapping[Version, Release], now: datetime) -> None:
        """Write damaged records anew, as refusals of what is offered now; a changed release ends them.

        A record of a newer servesync, and one that may be readable later, stays as it is.

        Raises:
            OSError: the disk refused.
        """
        for version, item in self._read().unreadable.items():
            if item.is_lost and not item.is_newer and version in offered:
                text = (
                    f"the record of why version {version} was refused could not be read ({item.why}); it is "
                    f"fetched again when the store offers something else; {WAY_OUT} at once"
                )
                self.remember(version, offered[version].offer, Reason.RECORD_UNREADABLE, text, now)

    def _still_holds(self, refusal: Refusal, release: Release) -> bool:
        if refusal.reason in OF_THE_SERVER:  # it judged the bytes, whoever brought them
            return refusal.identity == release.identity
        if refusal.reason == Reason.VERSION_WITHDRAWN:
            return refusal.identity == release.offer
        return refusal.identity == release.offer and refusal.judge == self._judge

    def withdrawn(self, offered: Mapping[Version, Release]) -> dict[Version, str]:
        """Return why versions are withdrawn, as far as the store does not offer something else by now."""
        return {
            version: refusal.text
            for version, refusal in self._read().known.items()
            if refusal.reason == Reason.VERSION_WITHDRAWN
            and (version not in offered or offered[version].offer == refusal.identity)
        }

    def remember(self, version: Version, identity: str, reason: Reason, text: str, now: datetime) -> None:
        """Refuse a release until it changes, also after a restart.

        `identity`: its `offer`; for a refusal by the server the identity of the bytes.
        """
        refusal = Refusal(identity=identity, at=now, reason=reason, text=text, judge=self._judge)
        self._found = None
        records.write(self._folder, version, refusal)

    def lift(self, version: Version) -> str:
        """Forget what was refused under a number, and return why it was; empty if nothing was.

        Raises:
            OSError: the record cannot be removed; a directory with something in it is in its place.
        """
        found = self._read()
        known = found.known.get(version)
        why = f"{known.reason}: {known.text}" if known else ""
        if version in found.unreadable:
            why = f"{Reason.RECORD_UNREADABLE}: {self.unreadable()[version]}"
        self.forget(version)
        return why

    def forget(self, version: Version) -> None:
        """Lift a refusal; fine if there is none."""
        self._found = None
        records.drop(self._folder, version)


def _said_of(found: Found[Refusal]) -> dict[Version, str]:
    return {
        version: item.said(
            f"version {version} was refused for a reason that is not known any more, and is not fetched; "
            f"{WAY_OUT}"
        )
        for version, item in found.unreadable.items()
    }


def _reason(refusal: Refusal) -> Reason:
    try:
        return Reason(refusal.reason)
    except ValueError:  # written by a newer servesync
        return Reason.INTERNAL_ERROR
