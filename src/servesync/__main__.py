"""The entry point: command line in, exit code out."""

import sys

from servesync.cli import run_command_line


def main() -> None:
    """Run the command line of this process and end it with the command's exit code."""
    sys.exit(run_command_line(sys.argv[1:]))


if __name__ == "__main__":
    main()
