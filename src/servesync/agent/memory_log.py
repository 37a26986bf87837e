"""Says once what the budget for the server's memory is, and once a change what does not fit into it."""

from typing import Final

from servesync.agent.admission import MemoryView
from servesync.errors import Reason
from servesync.logs import Event, get_logger
from servesync.plan.memory import Shortage, Way
from servesync.plan.versions import Model, Version

MOST_NAMED: Final = 20


class MemoryLog:
    """Remembers what was said."""

    def __init__(self) -> None:
        self._budget: object = None
        self._short: dict[tuple[Model, Version], object] = {}

    def report(self, seen: MemoryView) -> None:
        """Write what is new."""
        budget = seen.budget.bytes if seen.budget else None
        if (budget, seen.source) != self._budget:
            self._budget = (budget, seen.source)
            because = seen.source if seen.budget else f"nothing is compared: {seen.source}"
            get_logger().info(Event.MEMORY_BUDGET, budget_bytes=budget, because=because)
        before, self._short = self._short, {}
        for model, short in seen.shortages:
            key = (model, short.version)
            self._short[key] = (short.way, short.missing_bytes)
            if before.get(key) != self._short[key]:
                _say(model, short)


def _say(model: Model, short: Shortage) -> None:
    log = get_logger()
    say = log.warning if short.way is Way.REFUSED else log.info
    say(
        Event.MEMORY_SHORT,
        model=model,
        version=short.version,
        reason=Reason.MEMORY_SHORT,
        because=short.text,
        way=short.way.value,
        version_bytes=short.version_bytes,
        needed_bytes=short.needed_bytes,
        budget_bytes=short.budget.bytes,
        missing_bytes=short.missing_bytes,
        loaded={f"{item.model} {item.version}": item.bytes for item in short.loaded[:MOST_NAMED]},
        retire=list(short.retire),
    )
