"""What the doctor says: findings with stable ids, each ok, a warning or a failure, each with what to do."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from servesync.errors import SyncError, internal_error


class Level(StrEnum):
    """How much a finding matters: nothing to do, worth a look, or the agent cannot do its work."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


class Check(StrEnum):
    """What was examined; scripts may rely on these ids, and `docs/doctor.md` has one row for each."""

    SETTINGS_FILE = "settings.file"
    SETTINGS_CLEAR_TEXT = "settings.clear_text"
    SETTINGS_FETCH = "settings.fetch"
    SETTINGS_LIMITS = "settings.limits"
    SETTINGS_POLICY = "settings.policy"
    SETTINGS_POLL = "settings.poll"
    SETTINGS_SERVER_URL = "settings.server_url"
    SETTINGS_SETTLE = "settings.settle"
    SETTINGS_TENSORFLOW = "settings.tensorflow"
    SETTINGS_TOKEN = "settings.token"  # noqa: S105 (the id of a check)

    ENVIRONMENT_AWS = "environment.aws"
    ENVIRONMENT_AUTHORITY = "environment.authority"
    ENVIRONMENT_ENDPOINT = "environment.endpoint"
    ENVIRONMENT_PROXY = "environment.proxy"
    ENVIRONMENT_SERVICE = "environment.service"

    STORE_CREDENTIALS = "store.credentials"
    STORE_IDENTITY = "store.identity"
    STORE_LIST = "store.list"
    STORE_MIRROR = "store.mirror"
    STORE_READ = "store.read"
    STORE_CLOCK = "store.clock"
    STORE_OWNER = "store.owner"
    STORE_REGION = "store.region"
    STORE_TLS = "store.tls"

    LAYOUT_CHANNEL = "layout.channel"
    LAYOUT_KEYS = "layout.keys"
    LAYOUT_MODEL = "layout.model"
    LAYOUT_OTHERS = "layout.others"
    LAYOUT_PREFIX = "layout.prefix"
    LAYOUT_RELEASE = "layout.release"
    LAYOUT_UNPROVEN = "layout.unproven"

    DISK_MODELS_DIR = "disk.models_dir"
    DISK_CACHE = "disk.cache"
    DISK_FILESYSTEM = "disk.filesystem"
    DISK_INODES = "disk.inodes"
    DISK_OWNER = "disk.owner"
    DISK_READABLE = "disk.readable"
    DISK_RENAME = "disk.rename"
    DISK_SHELF = "disk.shelf"
    DISK_SPACE = "disk.space"
    DISK_SYNC = "disk.sync"
    DISK_WRITE = "disk.write"

    LOCK_HOLDER = "lock.holder"

    SERVER_ANSWER = "server.answer"
    SERVER_BASE_PATH = "server.base_path"
    SERVER_FLAGS = "server.flags"
    SERVER_MEMORY = "server.memory"
    SERVER_MODEL = "server.model"
    SERVER_POLICY = "server.policy"
    SERVER_VERSION = "server.version"

    DOCTOR_ITSELF = "doctor.itself"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor's report. `advice` says what to do, and is empty only if nothing is.

    `subject` is what it is about where a check has several findings: a model, a version, a key.
    """

    check: Check
    level: Level
    text: str
    advice: str = ""
    subject: str = ""


def ok(check: Check, text: str, subject: str = "") -> Finding:
    """Return the finding that all is well."""
    return Finding(check, Level.OK, text, "", subject)


def warn(check: Check, text: str, advice: str, subject: str = "") -> Finding:
    """Return the finding that something is worth a look; the agent works nevertheless."""
    return Finding(check, Level.WARN, text, advice, subject)


def fail(check: Check, text: str, advice: str, subject: str = "") -> Finding:
    """Return the finding that something keeps the agent from its work, or the server from serving."""
    return Finding(check, Level.FAIL, text, advice, subject)


def isolate(area: str, examine: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """Yield the findings of `examine`; an error becomes a finding, so that the other areas still run."""
    try:
        yield from examine()
    except SyncError as error:
        yield fail(Check.DOCTOR_ITSELF, f"{error.reason.value}: {error}", f"see {area} above", area)
    except Exception as error:  # noqa: BLE001 (a bug in one area must not hide the others)
        advice = "the other areas were examined all the same"
        yield fail(Check.DOCTOR_ITSELF, str(internal_error(error)), advice, area)
