"""Keeps the last status of every version (ServableStateMonitor), for ever."""

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
    """The answer of GetModelStatus for one version; only END ever has a code other than OK."""

    state: State
    error_code: Code = Code.OK
    error_message: str = ""


class Monitor:
    """The last status of each version since the process started."""

    def __init__(self) -> None:
        self._last: dict[str, dict[int, Status]] = {}

    def publish(self, model: str, version: int, status: Status) -> None:
        """Record a version's new status."""
        self._last.setdefault(model, {})[version] = status

    def statuses(self, model: str) -> dict[int, Status]:
        """Return the last status of each version of a model, highest version first."""
        return dict(sorted(self._last.get(model, {}).items(), reverse=True))

    def is_available(self, model: str, version: int) -> bool:
        """Whether requests can use the version."""
        status = self._last.get(model, {}).get(version)
        return status is not None and status.state is State.AVAILABLE

    def outcome(self, models: Collection[str]) -> dict[str, Status] | None:
        """Return the status of each model's highest resolved version; None while a model has none.

        Resolved means AVAILABLE or ended. A start, and a reload with new models, wait for this.
        """
        found: dict[str, Status] = {}
        for model in models:
            resolved = [status for status in self.statuses(model).values() if status.state in _RESOLVED]
            if not resolved:
                return None
            found[model] = resolved[0]
        return found
