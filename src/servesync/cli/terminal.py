"""What the commands print on."""

import sys
from typing import Any, Final

from rich.console import Console

PIPE_COLUMNS: Final = 2000
"""Wide enough that nothing is wrapped or cut where programs read."""


def console(**options: Any) -> Console:  # noqa: ANN401 (they are Rich's)
    """Return a console on standard output: as wide as the terminal; of any width in a pipe."""
    if sys.stdout.isatty():
        return Console(**options)
    return Console(width=PIPE_COLUMNS, **options)
