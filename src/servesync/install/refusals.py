"""What was refused, and why: one durable record a version, valid for one offer of its release.

A refusal by servesync's own proofs also holds for one judge only: other limits, another level or another
release of servesync may come to another verdict. One by the model server holds for whoever asks.
"""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from datetime import datetime
from pathlib import Path
from typing import Final

from servesync.errors import Reason
from servesync.install import records
from servesync.install.records import Refusal
from servesync.plan.facts import Hold
from servesync.plan.versions import Release, Version

OF_THE_SERVER: Final = frozenset({Reason.SERVER_REFUSED, Reason.SERVER_LOAD_TIMEOUT})


class Refusals:
    """The refused releases of one model."""

    def __init__(self, folder: Path, judge: str) -> None:
        self._folder = folder
        self._judge = judge

    def holds(self, offered: Mapping[Version, Release], foreign: AbstractSet[Version]) -> dict[Version, Hold]:
        """Return a hold for every offered release that was refused and has not changed since.

        `foreign`: the numbers on the shelf that are not ours; a release that was refused because of one is
        free again when it is gone.
        """
        found = records.read_all(self._folder, Refusal)
        return {
            version: Hold(_reason(refusal), f"{refusal.text} (refused {refusal.at:%Y-%m-%dT%H:%M:%S%z})")
            for version, refusal in found.items()
            if version in offered
            and self._still_holds(refusal, offered[version])
            and (refusal.reason != Reason.VERSION_FOREIGN or version in foreign)
        }

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
            for version, refusal in records.read_all(self._folder, Refusal).items()
            if refusal.reason == Reason.VERSION_WITHDRAWN
            and (version not in offered or offered[version].offer == refusal.identity)
        }

    def remember(self, version: Version, identity: str, reason: Reason, text: str, now: datetime) -> None:
        """Refuse a release until it changes, also after a restart.

        `identity`: its `offer`; for a refusal by the server the identity of the bytes.
        """
        refusal = Refusal(identity=identity, at=now, reason=reason, text=text, judge=self._judge)
        records.write(self._folder, version, refusal)

    def lift(self, version: Version) -> Refusal | None:
        """Forget what was refused under a number, and return it; None if nothing was."""
        found = records.read_all(self._folder, Refusal).get(version)
        self.forget(version)
        return found

    def forget(self, version: Version) -> None:
        """Lift a refusal; fine if there is none."""
        records.drop(self._folder, version)


def _reason(refusal: Refusal) -> Reason:
    try:
        return Reason(refusal.reason)
    except ValueError:  # written by a newer servesync
        return Reason.INTERNAL_ERROR
