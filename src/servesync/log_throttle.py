"""Thins out messages that say the same again and again."""

from typing import Final

MOST_REMEMBERED: Final = 1000


class LogThrottle:
    """Thins out identical messages: the 1st, 2nd, 4th, 8th ... is written, with the count."""

    def __init__(self) -> None:
        self._counts: dict[object, int] = {}

    def count(self, what: object) -> int | None:
        """Count `what`; return the count if it should be written now, else None."""
        number = self._counts.pop(what, 0) + 1
        self._counts[what] = number  # moved to the end: the oldest is forgotten first
        if len(self._counts) > MOST_REMEMBERED:
            del self._counts[next(iter(self._counts))]
        return number if number & (number - 1) == 0 else None

    def over(self, what: object) -> bool:
        """Forget `what`; return whether it had happened."""
        return self._counts.pop(what, None) is not None

    def over_with(self, *beginning: object) -> None:
        """Forget everything that is a tuple with this beginning."""
        size = len(beginning)
        for what in [what for what in self._counts if isinstance(what, tuple) and what[:size] == beginning]:
            del self._counts[what]
