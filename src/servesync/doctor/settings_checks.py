"""Do the settings make sense together? Each is within its bounds; that does not mean that they fit."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from servesync.admin.token import read_token
from servesync.doctor.findings import Check, Finding, fail, ok, warn
from servesync.errors import SettingsError
from servesync.fetch.parts import part_bytes
from servesync.settings import GIB, Admin, Fetch, Limits, Serving, Settings, Store
from servesync.verify import require_tensorflow

FREQUENT_SECONDS: Final = 5
LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
GRPC_PORT: Final = 8500
SWEPT: Final = (Path("/tmp"), Path("/var/tmp"), Path("/dev/shm"))  # noqa: S108 (they are what is warned of)


def examine_settings(settings: Settings) -> Iterator[Finding]:
    """Yield settings that must be a mistake, or that do less than they seem to."""
    yield from _fetch(settings.fetch)
    yield from _limits(settings.limits, settings.fetch)
    yield from _poll(settings)
    yield from _clear_text(settings.store, settings.serving)
    yield from _server_url(settings.serving)
    yield from _policy(settings)
    yield from _swept(settings.serving.models_dir)
    yield from _tensorflow(settings)
    yield from _token(settings.admin)


def _token(admin: Admin) -> Iterator[Finding]:
    if admin.token_file is None:
        return
    try:
        read_token(admin.token_file)
    except SettingsError as error:
        advice = "mount or correct the file: until then nobody elsewhere can ask for a poll (POST /sync)"
        yield fail(Check.SETTINGS_TOKEN, f"{error} ({admin.token_file})", advice)
    else:
        yield ok(Check.SETTINGS_TOKEN, f"{admin.token_file} holds a token")


def _fetch(fetch: Fetch) -> Iterator[Finding]:
    size = part_bytes(fetch)
    parts = fetch.memory_bytes // size
    if fetch.part_bytes > fetch.memory_bytes:
        text = f"fetch.part_bytes ({fetch.part_bytes}) is more than fetch.memory_bytes ({fetch.memory_bytes})"
        advice = f"parts have {size} bytes instead: raise fetch.memory_bytes"
        yield warn(Check.SETTINGS_FETCH, text, advice)
    elif parts < fetch.connections:
        text = (
            f"fetch.memory_bytes has room for {parts} parts, fetch.connections asks for {fetch.connections}"
        )
        wanted = fetch.connections * fetch.part_bytes
        advice = f"only {parts} are read at a time: raise fetch.memory_bytes to {wanted}"
        yield warn(Check.SETTINGS_FETCH, text, advice)
    else:
        yield ok(Check.SETTINGS_FETCH, f"up to {min(parts, fetch.connections)} parts are read at a time")


def _limits(limits: Limits, fetch: Fetch) -> Iterator[Finding]:
    if limits.max_unpacked_bytes < limits.max_archive_bytes:
        text = "limits.max_unpacked_bytes is less than limits.max_archive_bytes"
        advice = "an archive is seldom larger than its content: raise limits.max_unpacked_bytes"
        yield warn(Check.SETTINGS_LIMITS, text, advice)
    if fetch.max_bytes_per_second is not None:
        hours = GIB / fetch.max_bytes_per_second / 3600
        if hours > 1:
            text = f"at fetch.max_bytes_per_second 1 GiB takes {hours:.1f} hours"
            yield warn(Check.SETTINGS_FETCH, text, "raise it, or leave it out")


def _poll(settings: Settings) -> Iterator[Finding]:
    poll, settle = settings.poll, settings.store.settle_seconds
    if poll.interval_seconds < FREQUENT_SECONDS:
        day = 86_400 / poll.interval_seconds
        text = f"the store is listed every {poll.interval_seconds:g} s: at least {day:,.0f} requests a day"
        yield warn(Check.SETTINGS_POLL, text, "every instance pays for that: 10 s or more is usual")
    if poll.jitter_seconds > poll.interval_seconds / 2:
        text = f"poll.jitter_seconds ({poll.jitter_seconds:g}) is more than half of poll.interval_seconds"
        yield warn(Check.SETTINGS_POLL, text, "only half of the interval is used: lower it")
    if settle == 0 and not settings.store.require_manifest:
        text = "store.settle_seconds is 0: a directory counts as complete while it is being uploaded"
        yield warn(Check.SETTINGS_SETTLE, text, "set it to more than the longest pause in an upload (60)")
    elif 0 < settle < poll.interval_seconds:
        text = f"store.settle_seconds ({settle:g}) is less than poll.interval_seconds"
        advice = "two listings that show the same must lie settle_seconds apart: it takes a whole interval"
        yield warn(Check.SETTINGS_SETTLE, text, advice)


def _clear_text(store: Store, serving: Serving) -> Iterator[Finding]:
    parts = urlsplit(store.endpoint_url or "")
    if parts.scheme == "http" and parts.hostname not in LOOPBACK:
        text = f"the store is asked in clear text at {parts.hostname}"
        advice = "anybody on the way can read and change models without a manifest: use https://"
        yield warn(Check.SETTINGS_CLEAR_TEXT, text, advice, "store.endpoint_url")
    parts = urlsplit(serving.rest_url or "")
    if parts.scheme == "http" and parts.hostname not in LOOPBACK:
        text = f"the model server is asked in clear text at {parts.hostname}, which is another host"
        advice = "servesync belongs beside its server: one agent for each server, on its loopback"
        yield warn(Check.SETTINGS_CLEAR_TEXT, text, advice, "serving.rest_url")


def _server_url(serving: Serving) -> Iterator[Finding]:
    if serving.rest_url is None:
        text = "serving.rest_url is null: no server is asked"
        advice = "a version that the server refuses is then never noticed: set it where there is a server"
        yield warn(Check.SETTINGS_SERVER_URL, text, advice)
        return
    parts = urlsplit(serving.rest_url)
    if parts.path not in {"", "/"}:
        text = f"serving.rest_url has a path ({parts.path})"
        advice = "servesync adds /v1/models/NAME itself: give only http://HOST:PORT"
        yield fail(Check.SETTINGS_SERVER_URL, text, advice)
    elif parts.port == GRPC_PORT:
        text = "serving.rest_url has port 8500, which is usually gRPC"
        yield warn(Check.SETTINGS_SERVER_URL, text, "the REST interface is --rest_api_port, usually 8501")


def _policy(settings: Settings) -> Iterator[Finding]:
    if settings.serving.version_policy == "all":
        return
    for model in settings.models:
        if model.versions.latest != 1:
            text = "it may have several versions, but serving.version_policy: latest serves one by default"
            advice = (
                "tell the server model_version_policy { all {} } in its models.config, and set "
                "serving.version_policy: all"
            )
            yield warn(Check.SETTINGS_POLICY, text, advice, model.name)


def _swept(models_dir: Path) -> Iterator[Finding]:
    within = next((place for place in SWEPT if models_dir.is_relative_to(place)), None)
    if within is not None:
        text = f"serving.models_dir lies in {within}, which is swept now and then, or lost at a restart"
        yield warn(Check.DISK_MODELS_DIR, text, "take a directory that is the server's and the agent's alone")


def _tensorflow(settings: Settings) -> Iterator[Finding]:
    if settings.verify.level != "load":
        return
    try:
        require_tensorflow(settings.verify.load.libraries)
    except SettingsError as error:
        yield fail(Check.SETTINGS_TENSORFLOW, error.what, error.advice)
    else:
        named = ", ".join(["TensorFlow", *settings.verify.load.libraries])
        yield ok(Check.SETTINGS_TENSORFLOW, f"installed for verify.level: load: {named}")
