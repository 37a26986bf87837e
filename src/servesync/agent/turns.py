"""Who may bring a version now: the server loads one at a time, and rests in between if settings say so."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from servesync.plan.facts import Action, Facts, Install, ModelPlan, Prune, Restore
from servesync.plan.turns import loading
from servesync.plan.versions import Model


@dataclass
class Turns:
    """Remembers when the last load ended, and who waits for room. Clock values are monotonic seconds.

    A model that has retired a version before its successor came is next, for at most `patience_seconds`.
    """

    pause_seconds: float = 0.0
    patience_seconds: float = 600.0
    _busy: frozenset[Model] = field(init=False, default=frozenset())
    _ended_at: float | None = field(init=False, default=None)
    _next: dict[Model, float] = field(init=False, default_factory=dict)

    def look(self, seen: Iterable[tuple[Facts, ModelPlan]], now: float) -> None:
        """Take note of what the server is loading."""
        busy = loading(seen)
        if self._busy - busy:
            self._ended_at = now
        self._busy = busy
        self._next = {model: at for model, at in self._next.items() if now - at < self.patience_seconds}

    def is_due(self, facts: Facts, action: Action, now: float) -> bool:
        """Whether an action may be carried out now.

        One that makes the server load nothing is always due, and so is each while it does not answer: then it
        has nothing to be spared, and starts the sooner.
        """
        if facts.server.versions is None or not (_loads(facts, action) or retires(facts, action)):
            return True
        if (self._busy | self._next.keys()) - {facts.model}:
            return False
        return self._ended_at is None or now - self._ended_at >= self.pause_seconds

    def is_next(self, model: Model) -> bool:
        """Whether a model has made room for a version, and waits for it."""
        return model in self._next

    def retired(self, model: Model, now: float) -> None:
        """Note that a version has left before its successor has come."""
        self._next.setdefault(model, now)

    def tried(self, facts: Facts, *, brought: bool) -> None:
        """Note that a version has come to the shelf, or did not."""
        self._next.pop(facts.model, None)
        if brought and facts.server.versions is not None:
            self._busy |= {facts.model}


def retires(facts: Facts, action: Action) -> bool:
    """Whether an action takes a version away before its successor has come."""
    short = facts.memory
    return isinstance(action, Prune) and short is not None and action.version in short.retire


def _loads(facts: Facts, action: Action) -> bool:
    """Whether an action makes the server load a version; one that will be set aside does not."""
    if isinstance(action, Install) and facts.memory is not None:
        return False
    return isinstance(action, Install | Restore) and action.version not in facts.shelf
