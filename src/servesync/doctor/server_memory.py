"""Does the agent compare a new version with the room in the server's memory?"""

from collections.abc import Iterator
from typing import Final

from servesync.doctor.findings import Check, Finding, fail, ok, warn
from servesync.serving import ServerFootprint, find_budget
from servesync.settings import Memory

_SET_IT: Final = (
    "set memory.limit_bytes to the server's memory limit: that of its container or its unit (in Kubernetes "
    "SERVESYNC_MEMORY__LIMIT_BYTES by resourceFieldRef; docs/memory.md)"
)


def examine_memory(memory: Memory, rest_url: str | None) -> Iterator[Finding]:
    """Yield whether the agent compares anything, and whether the figure is plausible."""
    footprint = ServerFootprint(rest_url, memory.cgroup)
    budget, source = find_budget(memory, footprint.limit)
    if budget is None:
        text = f"nothing asks whether the server's memory has room for a new version: {source}"
        yield warn(Check.SERVER_MEMORY, text, _SET_IT)
        return
    if budget.bytes == 0:
        text = f"the budget of the server's memory leaves nothing for models: {source}"
        yield fail(Check.SERVER_MEMORY, text, "raise the limit, or lower memory.headroom_bytes")
        return
    own, name = memory.budget_bytes or memory.limit_bytes, "budget" if memory.budget_bytes else "limit"
    seen = footprint.limit()
    if own is not None and seen.bytes is not None and own > seen.bytes:
        text = f"memory.{name}_bytes is {own}, and {seen.source} is lower: {seen.bytes}"
        yield warn(Check.SERVER_MEMORY, text, f"set memory.{name}_bytes to null: the limit is visible here")
        return
    yield ok(Check.SERVER_MEMORY, f"all loaded versions together may hold {budget.bytes} bytes: {source}")
