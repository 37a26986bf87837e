"""Checks of the URLs, hosts and paths that settings name."""

import ipaddress
import re
import socket
from pathlib import Path, PurePosixPath
from typing import TypeGuard
from urllib.parse import SplitResult, urlsplit


def split_url(url: str, key: str) -> SplitResult:
    """Take the URL of a key apart.

    Raises:
        ValueError: it holds a user or a password, or no port after the colon; the text does not show them.
    """
    if "@" in url:
        raise ValueError(f"{key} must not hold a user or a password: credentials are never settings")
    parts = urlsplit(url)
    try:
        _ = parts.port
    except ValueError:
        raise ValueError(f"{key}: what follows the colon after the host is no port (0 to 65535)") from None
    return parts


def address_of(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the address that `host` is, also in the short and decimal forms that resolvers accept."""
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        try:
            return ipaddress.IPv4Address(socket.inet_aton(host))
        except OSError:
            return None
    mapped = getattr(found, "ipv4_mapped", None)
    return mapped or found


def is_path(value: object) -> TypeGuard[str | Path]:
    """Tell whether a value is an absolute path that the system takes and a line of a log can hold."""
    return (
        isinstance(value, str | Path)
        and PurePosixPath(value).is_absolute()
        and not re.search(r"[\x00-\x1f\x7f\ud800-\udfff]", str(value))
    )


def absolute_path(value: object) -> Path:
    """Accept an absolute, plain path: what it means must not depend on where the agent was started."""
    if not is_path(value) or ".." in PurePosixPath(value).parts or str(PurePosixPath(value)) in {"/", "//"}:
        raise ValueError("must be an absolute path below /, without '..', '~' and control characters")
    return Path(value)
