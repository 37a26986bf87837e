"""Looks at files that the environment or a profile names: whoever opens a pipe waits for it for ever."""

import os
from pathlib import Path
from typing import Final

import botocore.session

from servesync.errors import Reason, StoreError
from servesync.files import NotRegular, open_regular

_AUTHORITIES: Final = ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE")
_TOKEN: Final = "AWS_WEB_IDENTITY_TOKEN_FILE"  # noqa: S105 (a variable's name)


def check_authorities(core: botocore.session.Session) -> None:
    """Make sure that the authorities' file is a regular one, if it is there.

    Raises:
        StoreError: `STORE_TLS`: it is a pipe, a device or the like.
        BotoCoreError: the profile cannot be used.
    """
    name = next((name for name in _AUTHORITIES if os.environ.get(name)), "ca_bundle")
    path = core.get_config_variable("ca_bundle") or os.environ.get("REQUESTS_CA_BUNDLE")
    if path and not Path(path).is_dir():
        _check(Reason.STORE_TLS, name, path, "name a file (PEM) with the authorities' certificates")


def check_role_token(core: botocore.session.Session) -> None:
    """Make sure that the file with the token of a role is a regular one, if it is there.

    Raises:
        StoreError: `STORE_CREDENTIALS`: it is a pipe, a device or the like.
        BotoCoreError: the profile cannot be used.
    """
    path = core.get_scoped_config().get("web_identity_token_file") or os.environ.get(_TOKEN)
    if path:
        _check(Reason.STORE_CREDENTIALS, _TOKEN, path, "name the file that holds the token of the role")


def _check(reason: Reason, name: str, path: str, advice: str) -> None:
    try:
        open_regular(Path(path).expanduser()).close()
    except NotRegular as error:
        text = f"{name} names {path!a}: {error.strerror}: {advice}"
        raise StoreError(reason, text) from error
    except OSError:
        return  # whoever opens it says so
