"""What was last said of every version (ServableStateMonitor): nothing is ever forgotten."""

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

from servesync.demo.standin.codes import Code


class State(StrEnum):
    """The states of ModelVersionStatus."""

    START = "START"
    LOADING = "LOADING"
    AVAILABLE = "AVAILABLE"
    UNLOADING = "UNLOADING"
    END = "END"


_RESOLVED = frozenset({State.AVAILABLE, State.END})


@dataclass(frozen=True)
class Status:
    """What GetModelStatus says of one version; only END ever has a code other than OK."""

    state: State
    error_code: Code = Code.OK
    error_message: str = ""


class Monitor:
    """The last status of each version since the process started."""

    def __init__(self) -> None:
        self._last: dict[str, dict[int, Status]] = {}

    def publish(self, model: str, version: int, status: Status) -> None:
        """Take note of an event."""
        self._last.setdefault(model, {})[version] = status

    def statuses(self, model: str) -> dict[int, Status]:
        """Return all that was ever seen of a model, highest version first."""
        return dict(sorted(self._last.get(model, {}).items(), reverse=True))

    def is_available(self, model: str, version: int) -> bool:
        """Whether requests for the version work."""
        status = self._last.get(model, {}).get(version)
        return status is not None and status.state is State.AVAILABLE

    def outcome(self, models: Collection[str]) -> dict[str, Status] | None:
        """Return for each model how its highest resolved version came out; None while a model has none.

        Resolved is what is AVAILABLE or has ended. A start, and a reload with new models, waits for this.
        """
        found: dict[str, Status] = {}
        for model in models:
            resolved = [status for status in self.statuses(model).values() if status.state in _RESOLVED]
            if not resolved:
                return None
            found[model] = resolved[0]
        return found
