"""Which versions have left the shelf and are still in the server's memory, as far as is known."""

from dataclasses import dataclass, field
from typing import Final

from servesync.domain.versions import Model, Version
from servesync.planning.facts import Facts, ServerState

IN_MEMORY: Final = frozenset(
    {ServerState.START, ServerState.LOADING, ServerState.AVAILABLE, ServerState.UNLOADING}
)
SILENT_SECONDS: Final = 30.0
"""How long the last answer of a server that fell silent counts: one that has died unloads nothing more."""
UNASKED_SECONDS: Final = 5.0
"""How long a version counts that left the shelf of a server that cannot be asked."""

_NOTHING: Final[frozenset[Version]] = frozenset()


@dataclass
class Unloading:
    """Remembers the last answer for each model; without a server to ask, the last shelf."""

    _last: dict[Model, tuple[frozenset[Version], float]] = field(default_factory=dict)
    _shelf: dict[Model, frozenset[Version]] = field(default_factory=dict)

    def of(self, facts: Facts, now: float) -> frozenset[Version]:
        """Return the versions of one model that are in memory and not on the shelf; `now` is monotonic."""
        model, shelf, server = facts.model, frozenset(facts.shelf), facts.server
        if server.versions is not None:
            found = frozenset(v for v, served in server.versions.items() if served.state in IN_MEMORY) - shelf
            self._last[model] = (found, now)
            return found
        found, at = self._last.get(model, (_NOTHING, now))
        if now - at >= (SILENT_SECONDS if server.asked else UNASKED_SECONDS):
            found = _NOTHING
        gone = self._shelf.get(model, _NOTHING) - shelf
        if gone and not server.asked:
            found |= gone
            self._last[model] = (found, now)
        self._shelf[model] = shelf
        return found - shelf

    def forget(self, model: Model) -> None:
        """Forget a model that the settings no longer name."""
        self._last.pop(model, None)
        self._shelf.pop(model, None)
