"""What libraries say by Python's `logging`: warnings only, one line each, without secrets."""

import logging
import sys
from contextlib import suppress
from typing import Final

from servesync.redaction import redact

_QUIET: Final = ("botocore", "boto3", "urllib3", "s3transfer", "httpx", "httpcore", "apscheduler")


def library_warnings_to_stderr() -> None:
    """Write what libraries warn of to standard error, a line each: for commands that keep no log."""
    handle_library_warnings(_ToStandardError())


def handle_library_warnings(handler: logging.Handler) -> None:
    """Let `handler` alone have what libraries warn of."""
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)


class _ToStandardError(logging.Handler):
    """Writes a library's message as one line."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write `record`, without its traceback."""
        text = " ".join(redact(record.getMessage()).split())
        with suppress(OSError, ValueError):  # a closed pipe, a closed stream
            sys.stderr.write(f"servesync: {record.name} says: {text}\n")
