"""Decides when to report a held newest version: at once, or later while its upload may go on."""

from typing import Final

from servesync.admin import HeldVersion
from servesync.domain.versions import Model, Version
from servesync.errors import Reason
from servesync.planning.facts import Hold

INCOMPLETE_SECONDS: Final = 900.0
"""How long an incomplete release may still be under upload."""
MOST_CHARACTERS: Final = 1000


class HeldWatch:
    """Remembers for how long the newest version of each model has been incomplete; used by one thread."""

    def __init__(self) -> None:
        self._since: dict[Model, tuple[Version, float]] = {}

    def observe(self, model: Model, found: tuple[Version, Hold] | None, now: float) -> HeldVersion | None:
        """Return what to report of `held_newest(...)`; call it in each cycle for each model.

        `now`: seconds of a clock that never goes back.
        """
        if found is None or found[1].reason is not Reason.RELEASE_INCOMPLETE:
            self._since.pop(model, None)
            return None if found is None else _held_version(*found)
        version, hold = found
        known = self._since.get(model)
        if known is None or known[0] != version:
            known = self._since[model] = version, now
        return _held_version(version, hold) if now - known[1] >= INCOMPLETE_SECONDS else None

    def keep(self, models: frozenset[Model]) -> None:
        """Forget all models but these."""
        self._since = {model: known for model, known in self._since.items() if model in models}


def _held_version(version: Version, hold: Hold) -> HeldVersion:
    return HeldVersion(hold.reason, hold.text[:MOST_CHARACTERS], version)
