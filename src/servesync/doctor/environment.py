"""What the environment adds to the settings: AWS variables, proxies, authorities. No secret is told."""

import ipaddress
import os
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from servesync.doctor.findings import Check, Finding, fail, ok, warn
from servesync.files import open_regular
from servesync.settings import Store
from servesync.settings_file import service_variables
from servesync.store import authority, proxy_of

_TOLD: Final = (
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_ROLE_ARN",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_EC2_METADATA_DISABLED",
)
_ONLY_NAMED: Final = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)
_FILES: Final = ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_WEB_IDENTITY_TOKEN_FILE")
_ENDPOINTS: Final = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3")
_PROFILES: Final = ("AWS_PROFILE", "AWS_DEFAULT_PROFILE")


def examine_environment(store: Store, environment: Mapping[str, str]) -> Iterator[Finding]:
    """Yield what the environment sets, and which of it must be a mistake."""
    yield _aws(environment)
    yield from _files(environment)
    yield from _half_a_key(environment)
    yield from _endpoints(store, environment)
    yield from _proxy(store)
    yield from _authority()
    yield from _services(environment)


def _aws(environment: Mapping[str, str]) -> Finding:
    shown = [f"{name}={environment[name]}" for name in _TOLD if environment.get(name)]
    named = [f"{name} is set" for name in _ONLY_NAMED if environment.get(name)]
    found = ", ".join(shown + named)
    profile = next((name for name in _PROFILES if environment.get(name)), None)
    if profile and environment.get("AWS_ACCESS_KEY_ID"):
        advice = f"the keys in the environment win over {profile}: unset one of the two"
        return warn(Check.ENVIRONMENT_AWS, found, advice)
    return ok(Check.ENVIRONMENT_AWS, found or "no AWS variable is set")


def _files(environment: Mapping[str, str]) -> Iterator[Finding]:
    for name in _FILES:
        path = environment.get(name)
        trouble = _unreadable(Path(path).expanduser()) if path else None
        if trouble:
            text = f"{name} names {path!a}, which cannot be read (uid {os.getuid()}): {trouble}"
            yield fail(Check.ENVIRONMENT_AWS, text, "mount or correct the file, or unset the variable", name)


def _unreadable(path: Path) -> str | None:
    """Return why a file cannot be read; None if it can. A pipe is not waited for."""
    try:
        open_regular(path).close()
    except OSError as error:
        return error.strerror or str(error)
    return None


def _half_a_key(environment: Mapping[str, str]) -> Iterator[Finding]:
    halves = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    there = [name for name in halves if environment.get(name)]
    if len(there) == 1:
        (missing,) = set(halves) - set(there)
        yield fail(Check.ENVIRONMENT_AWS, f"{there[0]} is set, {missing} is not", "set both or none", missing)
    for name in (*halves, "AWS_SESSION_TOKEN"):
        value = environment.get(name, "")
        if value != value.strip():
            text = f"{name} begins or ends with white space"
            advice = "remove the white space (a line feed at the end of a file?)"
            yield fail(Check.ENVIRONMENT_AWS, text, advice, name)


def _endpoints(store: Store, environment: Mapping[str, str]) -> Iterator[Finding]:
    for name in _ENDPOINTS:
        if environment.get(name) and environment[name].rstrip("/") != (store.endpoint_url or "").rstrip("/"):
            text = f"{name} is set, and servesync does not follow it"
            where = "Amazon S3" if store.endpoint_url is None else store.endpoint_url
            advice = f"the store is {where}; if that is wrong, set store.endpoint_url"
            yield warn(Check.ENVIRONMENT_ENDPOINT, text, advice, name)


def _proxy(store: Store) -> Iterator[Finding]:
    proxy = proxy_of(store)
    if proxy is None:
        return
    host = urlsplit(store.endpoint_url or "").hostname or ""
    text = f"the store is asked through the proxy {proxy}"
    if _is_near(host):
        advice = f"{host} is near: add it to NO_PROXY, unless the proxy is meant to stand in between"
        yield warn(Check.ENVIRONMENT_PROXY, text, advice)
    else:
        yield ok(Check.ENVIRONMENT_PROXY, text)


def _is_near(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return host == "localhost" or (bool(host) and "." not in host)


def _authority() -> Iterator[Finding]:
    found = authority()
    if found is None:
        return
    name, path = found
    advice = f"{name} must name a file (PEM) with the authorities' certificates, or be unset"
    if not path.is_dir():
        try:
            open_regular(path).close()
            ssl.create_default_context(cafile=str(path))
        except (OSError, ssl.SSLError) as error:
            text = f"{name} names {str(path)!a}: {getattr(error, 'strerror', None) or 'not PEM'}"
            yield fail(Check.ENVIRONMENT_AUTHORITY, text, advice)
            return
    yield ok(Check.ENVIRONMENT_AUTHORITY, f"{name} names {path}, which counts instead of the usual ones")


def _services(environment: Mapping[str, str]) -> Iterator[Finding]:
    names = service_variables(environment)
    if names:
        text = f"skipped, for Kubernetes made them of a Service: {', '.join(names)}"
        advice = "set enableServiceLinks: false in the pod, or give the Service another name"
        yield warn(Check.ENVIRONMENT_SERVICE, text, advice)
