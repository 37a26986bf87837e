"""The token that lets others than this machine ask for a poll, as it stands in a file."""

from pathlib import Path
from typing import Final

from servesync.errors import Reason, SettingsError
from servesync.files import read_regular

MOST_BYTES: Final = 4096
LEAST_CHARACTERS: Final = 16


def read_token(path: Path) -> bytes:
    """Return the token in the file, without the white space around it.

    Raises:
        SettingsError: the file cannot be read, or holds no token that could be used.
    """
    try:
        found = read_regular(path, MOST_BYTES)
    except OSError as error:
        raise _unusable(error.strerror or str(error)) from error
    if len(found) > MOST_BYTES:
        raise _unusable(f"it is larger than {MOST_BYTES} bytes")
    token = found.strip()
    if len(token) < LEAST_CHARACTERS:
        raise _unusable(f"it holds fewer than {LEAST_CHARACTERS} characters")
    return token


def _unusable(because: str) -> SettingsError:
    return SettingsError(Reason.SETTINGS_INVALID, f"the agent cannot use admin.token_file: {because}")
