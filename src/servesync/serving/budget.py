"""How much all loaded versions together may hold: by the settings, or by a limit that can be seen."""

from collections.abc import Callable

from servesync.planning.memory import Budget
from servesync.serving.footprint import Limit
from servesync.settings import Memory


def find_budget(settings: Memory, find_limit: Callable[[], Limit]) -> tuple[Budget | None, str]:
    """Return the budget in bytes and where it comes from; or None, and why nothing is compared."""
    if settings.budget_bytes is not None:
        return Budget(settings.budget_bytes, "memory.budget_bytes"), "memory.budget_bytes"
    if settings.limit_bytes is not None:
        limit = Limit(settings.limit_bytes, "memory.limit_bytes")
    else:
        limit = find_limit()
    if limit.bytes is None:
        return None, limit.source
    source = f"{limit.source}, {limit.bytes} bytes, less memory.headroom_bytes, {settings.headroom_bytes}"
    return Budget(max(0, limit.bytes - settings.headroom_bytes), source), source
