"""How long ago something was, in the words of people."""

from datetime import datetime
from typing import Final

_UNITS: Final = (("d", 86_400), ("h", 3600), ("min", 60))


def age(at: str, now: str) -> str:
    """Return the time from `at` to `now` (both ISO 8601), in the largest unit that gives two at least."""
    seconds = int((datetime.fromisoformat(now) - datetime.fromisoformat(at)).total_seconds())
    for unit, length in _UNITS:
        if seconds >= 2 * length:
            return f"{seconds // length} {unit}"
    return f"{max(0, seconds)} s"
