"""Checks files that the environment or a profile names: opening a pipe could block for ever."""

import os
from pathlib import Path
from typing import Final

from servesync.errors import Reason, StoreError
from servesync.files import NotRegular, open_regular

_AUTHORITIES: Final = ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE")


def check_authorities(path: str | None) -> None:
    """Make sure that the file of certificate authorities, if it is named and exists, is a regular file.

    Raises:
        StoreError: `STORE_TLS`: the file is a pipe, a device or the like.
    """
    what = not_regular(path) if path and not Path(path).is_dir() else ""
    if what:
        name = next((name for name in _AUTHORITIES if os.environ.get(name)), "ca_bundle")
        advice = "name a file (PEM) with the authorities' certificates"
        raise StoreError(Reason.STORE_TLS, f"{name} names {path!a}: {what}: {advice}")


def not_regular(path: str) -> str:
    """Return what a path leads to instead of a regular file; empty if it is a regular file, or missing."""
    try:
        open_regular(Path(path).expanduser()).close()
    except NotRegular as error:
        return error.strerror or "it is no regular file"
    except OSError:
        pass  # the error comes when it is opened
    return ""
