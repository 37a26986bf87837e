"""The consoles on which the commands print."""

import sys
from typing import Any, Final

from rich.console import Console

PIPE_COLUMNS: Final = 2000
"""Wide enough that nothing is wrapped or cut for programs."""

STYLES: Final = {
    "serving": "green",
    "to_install": "cyan",
    "to_repair": "cyan",
    "waiting": "yellow",
    "to_prune": "magenta",
    "reserved": "blue",
    "held": "red",
    "foreign": "red",
    "missing": "red",
    "error": "red",
    "warning": "yellow",
}
"""The colours of a version's states and of the log's levels."""


def state_of(role: str) -> str:
    """Return the state of a version in its colour, in Rich's markup."""
    return f"[{STYLES[role]}]{role}[/]" if role in STYLES else role


def console(**options: Any) -> Console:  # noqa: ANN401 (they are Rich's)
    """Return a console on standard output: as wide as the terminal; of any width in a pipe."""
    if sys.stdout.isatty():
        return Console(**options)
    return Console(width=PIPE_COLUMNS, **options)
