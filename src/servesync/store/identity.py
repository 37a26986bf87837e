"""Finds out who the agent is at AWS: where its credentials come from, and STS's name for their owner."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import botocore.session
from botocore.config import Config
from botocore.utils import get_environ_proxies

from servesync.errors import StoreError, TransferError
from servesync.settings import Store
from servesync.store.credentials import CONFIGURATION, CredentialsUnusable, obtain, obtain_if_any, usable
from servesync.store.errors_s3 import Operation, translated

SHOWN_OF_KEY: Final = 4
SECONDS: Final = 10
AWS_S3: Final = "https://s3.amazonaws.com"


@dataclass(frozen=True, slots=True)
class Signing:
    """Where the credentials come from (botocore's name for it), and the end of the access key's id."""

    source: str
    key_ends_in: str
    is_temporary: bool


@dataclass(frozen=True, slots=True)
class Caller:
    """The owner of the credentials, as STS names it."""

    account: str
    arn: str


def signs_with(store: Store) -> Signing | None:
    """Return which credentials sign requests to the store now; None if there are no credentials anywhere.

    Raises:
        StoreError: `STORE_CREDENTIALS`: there are some, but they cannot be read.
    """
    with translated("reading the credentials", Operation.LIST):
        credentials = obtain_if_any(_session(store), SECONDS)
    if credentials is None:
        return None
    return Signing(credentials.provider, credentials.access_key[-SHOWN_OF_KEY:], bool(credentials.token))


def _session(store: Store) -> botocore.session.Session:
    core = botocore.session.get_session()
    if store.region is not None:
        core.set_config_variable("region", store.region)
    return core


def is_aws(store: Store) -> bool:
    """Tell whether the store is Amazon's, or something that comes with an STS of its own."""
    host = urlsplit(store.endpoint_url or AWS_S3).hostname or ""
    of_amazon = host.endswith((".amazonaws.com", ".amazonaws.com.cn"))
    return of_amazon or "AWS_ENDPOINT_URL_STS" in os.environ


def caller(store: Store) -> Caller:
    """Ask STS whose credentials these are; that needs no permission.

    Raises:
        StoreError: STS refused the credentials, or did not answer.
    """
    make: Any = Config  # its stubs do not know all of these
    config: Config = make(
        connect_timeout=SECONDS, read_timeout=SECONDS, retries={"mode": "standard", "total_max_attempts": 1}
    )
    try:
        with translated("asking STS who signs the requests", Operation.LIST):
            core = _session(store)
            obtain(core, SECONDS)
            region = core.get_config_variable("region") or "us-east-1"
            sts: Any = core.create_client("sts", region_name=region, config=config)
            identity = sts.get_caller_identity()
    except TransferError as error:
        raise StoreError(error.reason, error.what, error.advice) from error
    return Caller(str(identity.get("Account", "")), str(identity.get("Arn", "")))


def proxy_of(store: Store) -> str | None:
    """Return the proxy for requests to the store, without its password; None if there is none."""
    url = store.endpoint_url or AWS_S3
    proxy = get_environ_proxies(url).get(urlsplit(url).scheme)
    if not proxy:
        return None
    scheme = proxy.partition("://")[0]
    place = proxy.rpartition("@")[2].rpartition("://")[2].partition("/")[0]
    return f"{scheme if scheme.isalnum() and scheme != proxy else 'http'}://{place}"


def authority() -> tuple[str, Path] | None:
    """Return the file of certificate authorities that replaces the usual ones, and the setting that names it.

    A profile that cannot be read names none: the check of the credentials says what is wrong with it.
    """
    for name in ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"):
        if os.environ.get(name):
            return name, Path(os.environ[name])
    try:
        with usable(CONFIGURATION):
            bundle = botocore.session.get_session().get_config_variable("ca_bundle")
    except CredentialsUnusable:
        return None
    return ("ca_bundle in the AWS profile", Path(str(bundle))) if bundle else None
