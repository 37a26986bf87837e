"""Checks of the URLs, hosts and paths that settings name."""

import ipaddress
import re
import socket
from pathlib import Path, PurePosixPath
from typing import Annotated, TypeAlias, TypeGuard
from urllib.parse import SplitResult, urlsplit, urlunsplit

from pydantic import BeforeValidator


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


def host_of(parts: SplitResult) -> str | None:
    """Return the host of a URL `http(s)://HOST[:PORT][/PATH]`; None for any other."""
    is_plain = parts.scheme in {"http", "https"} and not (parts.query or parts.fragment)
    return parts.hostname if is_plain and parts.port != 0 else None


def is_link_local(host: str) -> bool:
    """Whether a host is an address at which clouds have their metadata services, or none at all."""
    address = address_of(host)
    return address is not None and (address.is_link_local or address.is_unspecified)


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, and nobody listens on the way there."""
    address = address_of(host)
    return host == "localhost" or (address is not None and address.is_loopback)


def mirror_url(url: str) -> str:
    """Return the base URL of a mirror, without a slash at its end; it may hold credentials of its own.

    Raises:
        ValueError: it is none, or sends its credentials in clear text; the text does not show them.
    """
    parts = urlsplit(url)
    try:
        is_port = parts.port != 0
    except ValueError:
        is_port = False
    is_plain = url.isascii() and url.isprintable() and " " not in url and not parts.fragment
    if parts.scheme not in {"http", "https"} or not parts.hostname or not is_port or not is_plain:
        raise ValueError("must be https://HOST[:PORT][/PATH] or http://HOST[:PORT][/PATH]")
    if is_link_local(parts.hostname):
        raise ValueError("must not be a link-local address (metadata services live there)")
    if parts.scheme == "http" and (parts.username or parts.query) and not is_loopback(parts.hostname):
        raise ValueError("holds credentials, so it must be https://: anybody on the way could read them")
    return urlunsplit(parts._replace(path=parts.path.rstrip("/")))


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


AbsolutePath: TypeAlias = Annotated[Path, BeforeValidator(absolute_path)]
