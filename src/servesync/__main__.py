"""The entry point: command line in, exit code out."""

import os
import sys
from typing import Final

from servesync import signals

HIGHEST_STANDARD_STREAM: Final = 2


def main() -> None:
    """Run the command line of this process and end it with the command's exit code."""
    _open_missing_streams()
    if sys.argv[1:2] == ["run"]:
        signals.block()
    from servesync.cli import run_command_line  # noqa: PLC0415 (takes a while, and signals may come)

    sys.exit(run_command_line(sys.argv[1:]))


def _open_missing_streams() -> None:
    """Give a process that was started without standard streams (`>&-`) ones that go nowhere.

    Otherwise the next file that is opened would become its standard output.
    """
    while (handle := os.open(os.devnull, os.O_RDWR)) <= HIGHEST_STANDARD_STREAM:
        pass
    os.close(handle)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)


if __name__ == "__main__":
    main()
