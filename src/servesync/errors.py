"""Every error of servesync: sorted by who must act, each with a stable reason and its facts.

A reason never changes its text, and `docs/reasons.md` has a heading for each, so alerts may rely on it. Steps
raise the classes below; the agent decides what follows.
"""

from enum import StrEnum
from typing import Final, TypeAlias

from servesync.redaction import safe_text, traceback_of

MOST_LINES_OF_TRACEBACK: Final = 12
Fact: TypeAlias = str | int | float | bool | list[str] | None


class Reason(StrEnum):
    """Why something was not done; the one list of `docs/reasons.md`."""

    SETTINGS_INVALID = "settings_invalid"

    STORE_UNREACHABLE = "store_unreachable"
    STORE_DENIED = "store_denied"
    STORE_CREDENTIALS = "store_credentials"
    STORE_NOT_FOUND = "store_not_found"
    STORE_WRONG_REGION = "store_wrong_region"
    STORE_CLOCK_SKEW = "store_clock_skew"
    STORE_THROTTLED = "store_throttled"
    STORE_TLS = "store_tls"
    STORE_BAD_ANSWER = "store_bad_answer"
    STORE_FAILED = "store_failed"

    OBJECT_CHANGED = "object_changed"
    OBJECT_GONE = "object_gone"
    OBJECT_ARCHIVED = "object_archived"
    OBJECT_ENCRYPTED = "object_encrypted"
    TRANSFER_BROKEN = "transfer_broken"
    TRANSFER_DIFFERS = "transfer_differs"
    TRANSFER_TOO_SLOW = "transfer_too_slow"

    RELEASE_AMBIGUOUS = "release_ambiguous"
    RELEASE_INCOMPLETE = "release_incomplete"
    RELEASE_TOO_BIG = "release_too_big"
    MANIFEST_INVALID = "manifest_invalid"
    MANIFEST_MISMATCH = "manifest_mismatch"
    CONTENT_DIFFERS = "content_differs"
    VERSION_WITHDRAWN = "version_withdrawn"
    CHANNEL_INVALID = "channel_invalid"
    CHANNEL_WENT_BACK = "channel_went_back"
    CHANNEL_MISSING = "channel_missing"
    CHANNEL_MOVED_MEANWHILE = "channel_moved_meanwhile"
    RELEASE_UNPROVEN = "release_unproven"
    PACK_REFUSED = "pack_refused"
    RELEASE_EXISTS = "release_exists"
    PART_DIFFERS = "part_differs"
    OBJECT_CHECKSUM = "object_checksum"

    ARCHIVE_FORMAT = "archive_format"
    ARCHIVE_TRUNCATED = "archive_truncated"
    ARCHIVE_CORRUPT = "archive_corrupt"
    ARCHIVE_UNCHECKSUMMED = "archive_unchecksummed"
    ARCHIVE_TRAILING_DATA = "archive_trailing_data"
    ARCHIVE_EMPTY = "archive_empty"
    ARCHIVE_LINK = "archive_link"
    ARCHIVE_SPECIAL_FILE = "archive_special_file"
    ARCHIVE_SPARSE = "archive_sparse"
    ARCHIVE_HEADER = "archive_header"
    ARCHIVE_PATH = "archive_path"
    ARCHIVE_DUPLICATE = "archive_duplicate"
    ARCHIVE_LAYOUT = "archive_layout"
    ARCHIVE_VERSION = "archive_version"
    ARCHIVE_TOO_BIG = "archive_too_big"
    ARCHIVE_TOO_MANY_MEMBERS = "archive_too_many_members"
    ARCHIVE_RATIO = "archive_ratio"
    ARCHIVE_WINDOW = "archive_window"

    SAVED_MODEL_MISSING = "saved_model_missing"
    SAVED_MODEL_CORRUPT = "saved_model_corrupt"
    SAVED_MODEL_NO_SERVE_TAG = "saved_model_no_serve_tag"
    VARIABLES_MISSING = "variables_missing"
    VARIABLES_INDEX_CORRUPT = "variables_index_corrupt"
    VARIABLES_SHARD_MISSING = "variables_shard_missing"
    VARIABLES_SHARD_SIZE = "variables_shard_size"
    ASSET_MISSING = "asset_missing"
    ASSET_INVALID = "asset_invalid"
    TENSOR_CHECKSUM = "tensor_checksum"
    UNSAFE_OPERATIONS = "unsafe_operations"
    WARMUP_INVALID = "warmup_invalid"

    SIGNATURE_DIFFERS = "signature_differs"
    GOLDEN_INVALID = "golden_invalid"
    GOLDEN_FAILED = "golden_failed"
    GOLDEN_DIFFERS = "golden_differs"
    LOAD_FAILED = "load_failed"
    LOAD_OPERATION_UNKNOWN = "load_operation_unknown"
    LOAD_LIMIT = "load_limit"
    LOAD_CRASHED = "load_crashed"
    LOAD_UNAVAILABLE = "load_unavailable"

    DISK_FULL = "disk_full"
    DISK_INODES = "disk_inodes"
    DISK_READ_ONLY = "disk_read_only"
    DISK_PERMISSION = "disk_permission"
    DISK_OTHER_FILESYSTEM = "disk_other_filesystem"
    DISK_NOT_A_DIRECTORY = "disk_not_a_directory"
    DISK_UNSUPPORTED = "disk_unsupported"
    DISK_FAILED = "disk_failed"
    SHELF_REMOVED = "shelf_removed"

    LOCK_HELD = "lock_held"
    VERSION_THERE = "version_there"
    VERSION_FOREIGN = "version_foreign"
    VERSION_DAMAGED = "version_damaged"
    RECORD_UNREADABLE = "record_unreadable"

    CONFIG_FILE_FOREIGN = "config_file_foreign"
    CONFIG_FILE_FAILED = "config_file_failed"

    SERVER_UNREACHABLE = "server_unreachable"
    SERVER_BAD_ANSWER = "server_bad_answer"
    SERVER_REFUSED = "server_refused"
    SERVER_LOAD_TIMEOUT = "server_load_timeout"
    SMOKE_FAILED = "smoke_failed"
    MEMORY_SHORT = "memory_short"

    ADMIN_UNAVAILABLE = "admin_unavailable"
    THREADS_EXHAUSTED = "threads_exhausted"
    STOPPED = "stopped"
    INTERNAL_ERROR = "internal_error"


class SyncError(Exception):
    """What happened (`what`), what to do about it (`advice`, if any), why (`reason`), and facts for the log.

    `str(error)` is both texts on one line. `in_transit`: what was read may have been damaged on its way from
    the store, so reading it again may help.
    """

    in_transit: bool = False

    def __init__(self, reason: Reason, what: str, advice: str = "", /, **facts: Fact) -> None:
        super().__init__(f"{what}: {advice}" if advice else what)
        self.reason = reason
        self.what = what
        self.advice = advice
        self.facts = facts


class SettingsError(SyncError):
    """The operator must change the settings or the command line (exit code 2)."""


class StoreError(SyncError):
    """The store did not answer, or not with what was asked; nothing local was changed."""


class TransferError(SyncError):
    """An object could not be read to its end as the listing described it."""


class ReleaseRefused(SyncError):
    """The release itself is bad: it is not fetched again until its identity changes."""


class CheckFailed(SyncError):
    """This machine could not check the release, which may be good."""


class DiskError(SyncError):
    """The machine's disk refused; the publisher can do nothing about it."""


class LockHeld(SyncError):
    """Another agent owns the models directory (exit code 4)."""


class ServerError(SyncError):
    """The model server did not answer, or not with a status; says nothing about a version."""


class ServerDown(ServerError):
    """Nothing listens where the model server should be: it is starting, or not running."""


class NoRequests(ServerError):
    """The model server's interface takes no requests to versions."""


class ConfigFileError(SyncError):
    """`serving.config_file` was not written; its old content is unchanged."""


class Stopped(SyncError):
    """Somebody asked for a stop; unfinished work left nothing behind that the agent would use."""

    def __init__(self) -> None:
        super().__init__(Reason.STOPPED, "stopped on request")


def readable(text: str) -> str:
    """Return text of whatever origin on one line, with all that a terminal would obey or hide escaped."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


def internal_error(error: BaseException, doing: str = "") -> SyncError:
    """Return an unexpected error as one for the log, with the last lines of its traceback.

    Both leave out what libraries say, which may quote a secret.
    """
    text = f"a bug in servesync{doing and f' while {doing}'}, please report it: {safe_text(error)}"
    return SyncError(Reason.INTERNAL_ERROR, text, traceback=traceback_of(error)[-MOST_LINES_OF_TRACEBACK:])
