"""What was refused, and why: one durable record a version, valid for one identity of its release."""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from servesync.errors import Reason
from servesync.install import records
from servesync.install.records import Refusal
from servesync.plan.facts import Hold
from servesync.plan.versions import Release, Version


class Refusals:
    """The refused releases of one model."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def holds(self, offered: Mapping[Version, Release]) -> dict[Version, Hold]:
        """Return a hold for every offered release that was refused under the identity it still has."""
        found = records.read_all(self._folder, Refusal)
        return {
            version: Hold(_reason(refusal), f"{refusal.text} (refused {refusal.at})")
            for version, refusal in found.items()
            if version in offered and offered[version].identity == refusal.identity
        }

    def remember(self, version: Version, identity: str, reason: Reason, text: str, now: datetime) -> None:
        """Refuse a release until its identity changes, also after a restart."""
        refusal = Refusal(identity=identity, at=now.isoformat(timespec="seconds"), reason=reason, text=text)
        records.write(self._folder, version, refusal)

    def forget(self, version: Version) -> None:
        """Lift a refusal; fine if there is none."""
        records.drop(self._folder, version)


def _reason(refusal: Refusal) -> Reason:
    try:
        return Reason(refusal.reason)
    except ValueError:  # written by a newer servesync
        return Reason.INTERNAL_ERROR
