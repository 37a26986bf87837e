"""Decides what is loaded and unloaded, one action a tick (AspiredVersionsManager); pure: no clock, no I/O.

The rules are those of the availability-preserving policy, which the real server always uses.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class State(StrEnum):
    """The states of ModelVersionStatus."""

    START = "START"
    LOADING = "LOADING"
    AVAILABLE = "AVAILABLE"
    UNLOADING = "UNLOADING"
    END = "END"


@dataclass
class Harness:
    """One version that the manager knows."""

    path: str
    state: State = State.START
    wanted: bool = True
    failed: bool = False
    cancelled: bool = False


@dataclass(frozen=True)
class Load:
    """Start loading a version."""

    model: str
    version: int
    path: str


@dataclass(frozen=True)
class Unload:
    """Unload a version."""

    model: str
    version: int


@dataclass(frozen=True)
class Status:
    """What GetModelStatus says of one version."""

    state: State
    error_code: str = "OK"
    error_message: str = ""


@dataclass
class Manager:
    """What is managed, what was asked for and not yet taken up, and all that was ever said."""

    managed: dict[str, dict[int, Harness]] = field(default_factory=dict)
    pending: dict[str, Mapping[int, str]] = field(default_factory=dict)
    history: dict[str, dict[int, Status]] = field(default_factory=dict)

    def aspire(self, model: str, wanted: Mapping[int, str]) -> None:
        """Ask for exactly these versions (number -> path); a newer request replaces one not yet taken up."""
        self.pending[model] = dict(wanted)

    def tick(self) -> Load | Unload | None:
        """Take up requests and return the one thing to do now."""
        self._flush()
        for model in list(self.pending):
            self._take_up(model)
        actions = [action for model in self.managed if (action := self._decide(model)) is not None]
        if not actions:
            return None
        chosen = next((action for action in actions if isinstance(action, Unload)), actions[0])
        new = State.UNLOADING if isinstance(chosen, Unload) else State.LOADING
        self._set(chosen.model, chosen.version, Status(new))
        return chosen

    def _flush(self) -> None:
        """Forget what nobody wants and what holds no memory."""
        for harnesses in self.managed.values():
            for version, harness in list(harnesses.items()):
                if not harness.wanted and harness.state in {State.START, State.END}:
                    del harnesses[version]

    def _take_up(self, model: str) -> None:
        """Apply a request, unless it names a version that is on its way out: then it waits."""
        request = self.pending[model]
        harnesses = self.managed.setdefault(model, {})
        if any(not harnesses[version].wanted for version in request if version in harnesses):
            return
        del self.pending[model]
        for version, harness in harnesses.items():
            if version not in request:
                harness.wanted = False
                harness.cancelled = True
        for version, path in request.items():
            if version not in harnesses:
                harnesses[version] = Harness(path)
                self._set(model, version, Status(State.START))

    def _decide(self, model: str) -> Load | Unload | None:
        harnesses = self.managed[model]
        ready = {version for version, harness in harnesses.items() if harness.state is State.AVAILABLE}
        wanted = {version for version, harness in harnesses.items() if harness.wanted}
        leaving = ready - wanted
        if leaving and (not wanted or wanted & ready or len(leaving) > 1):
            return Unload(model, min(leaving))
        new = [version for version in wanted if harnesses[version].state is State.START]
        return Load(model, max(new), harnesses[max(new)].path) if new else None

    def loaded(self, model: str, version: int) -> None:
        """Note that a load went well."""
        self._set(model, version, Status(State.AVAILABLE))

    def failed(self, model: str, version: int, code: str, message: str) -> None:
        """Note that a load failed for good; the version is not tried again while it stays wanted."""
        self.managed[model][version].failed = True
        self._set(model, version, Status(State.END, code, message))

    def unloaded(self, model: str, version: int) -> None:
        """Note that a version is gone from memory."""
        self._set(model, version, Status(State.END))

    def is_cancelled(self, model: str, version: int) -> bool:
        """Whether a failing load is not to be tried again."""
        return self.managed[model][version].cancelled

    def _set(self, model: str, version: int, status: Status) -> None:
        self.managed[model][version].state = status.state
        self.history.setdefault(model, {})[version] = status

    def statuses(self, model: str) -> dict[int, Status]:
        """Return all that was ever seen of a model, highest version first; nothing is forgotten."""
        return dict(sorted(self.history.get(model, {}).items(), reverse=True))

    def available(self, model: str) -> list[int]:
        """Return the versions that serve, lowest first."""
        return sorted(
            version for version, status in self.statuses(model).items() if status.state is State.AVAILABLE
        )

    def startup(self, models: list[str]) -> bool | None:
        """Return whether the start has succeeded (True) or failed (False); None: not decided yet.

        It is decided once every model has a version that is AVAILABLE or has ended, and fails if for any
        model the highest such version has ended.
        """
        for model in models:
            resolved = [
                s.state for s in self.statuses(model).values() if s.state in {State.AVAILABLE, State.END}
            ]
            if not resolved:
                return None
        firsts = [
            next(s.state for s in self.statuses(model).values() if s.state in {State.AVAILABLE, State.END})
            for model in models
        ]
        return all(state is State.AVAILABLE for state in firsts)
