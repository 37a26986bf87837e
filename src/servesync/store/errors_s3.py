"""Translates what boto3 raises into our errors, once, by a table; the cause is kept, secrets are not."""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

import botocore.exceptions as foreign
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from servesync.errors import Reason, StoreError, SyncError, TransferError

_CODES: Final[Mapping[str, Reason]] = {
    "AccessDenied": Reason.STORE_DENIED,
    "AllAccessDisabled": Reason.STORE_DENIED,
    "403": Reason.STORE_DENIED,
    "Forbidden": Reason.STORE_DENIED,
    "InvalidAccessKeyId": Reason.STORE_CREDENTIALS,
    "SignatureDoesNotMatch": Reason.STORE_CREDENTIALS,
    "ExpiredToken": Reason.STORE_CREDENTIALS,
    "ExpiredTokenException": Reason.STORE_CREDENTIALS,
    "InvalidToken": Reason.STORE_CREDENTIALS,
    "TokenRefreshRequired": Reason.STORE_CREDENTIALS,
    "NoSuchBucket": Reason.STORE_NOT_FOUND,
    "PermanentRedirect": Reason.STORE_WRONG_REGION,
    "AuthorizationHeaderMalformed": Reason.STORE_WRONG_REGION,
    "IllegalLocationConstraintException": Reason.STORE_WRONG_REGION,
    "301": Reason.STORE_WRONG_REGION,
    "RequestTimeTooSkewed": Reason.STORE_CLOCK_SKEW,
    "SlowDown": Reason.STORE_THROTTLED,
    "Throttling": Reason.STORE_THROTTLED,
    "ThrottlingException": Reason.STORE_THROTTLED,
    "TooManyRequests": Reason.STORE_THROTTLED,
    "RequestLimitExceeded": Reason.STORE_THROTTLED,
    "429": Reason.STORE_THROTTLED,
    "503": Reason.STORE_THROTTLED,
    "ServiceUnavailable": Reason.STORE_THROTTLED,
    "PreconditionFailed": Reason.OBJECT_CHANGED,
    "412": Reason.OBJECT_CHANGED,
    "InvalidRange": Reason.OBJECT_CHANGED,
    "416": Reason.OBJECT_CHANGED,
    "NoSuchKey": Reason.OBJECT_GONE,
    "NoSuchVersion": Reason.OBJECT_GONE,
    "404": Reason.OBJECT_GONE,
    "InvalidObjectState": Reason.OBJECT_ARCHIVED,
}
_TYPES: Final[tuple[tuple[type[Exception], Reason], ...]] = (
    (foreign.NoCredentialsError, Reason.STORE_CREDENTIALS),
    (foreign.PartialCredentialsError, Reason.STORE_CREDENTIALS),
    (foreign.CredentialRetrievalError, Reason.STORE_CREDENTIALS),
    (foreign.TokenRetrievalError, Reason.STORE_CREDENTIALS),
    (foreign.ProfileNotFound, Reason.STORE_CREDENTIALS),
    (foreign.NoRegionError, Reason.STORE_WRONG_REGION),
    (foreign.SSLError, Reason.STORE_TLS),
    (foreign.ResponseStreamingError, Reason.TRANSFER_BROKEN),
    (foreign.IncompleteReadError, Reason.TRANSFER_BROKEN),
    (ResponseParserError, Reason.STORE_BAD_ANSWER),
    (foreign.HTTPClientError, Reason.STORE_UNREACHABLE),
    (foreign.ConnectionError, Reason.STORE_UNREACHABLE),
)
_ADVICE: Final[Mapping[Reason, str]] = {
    Reason.STORE_DENIED: "the agent needs {permission}; check its policy, the bucket's, and the owner",
    Reason.STORE_CREDENTIALS: "check the agent's AWS credentials (environment, profile, role)",
    Reason.STORE_NOT_FOUND: "check the bucket in store.url",
    Reason.STORE_WRONG_REGION: "set store.region to the bucket's region",
    Reason.STORE_CLOCK_SKEW: "set this machine's clock (NTP)",
    Reason.STORE_THROTTLED: "the store asks for fewer requests; tried again later",
    Reason.STORE_TLS: "check the store's certificate; AWS_CA_BUNDLE names an authority of your own",
    Reason.STORE_BAD_ANSWER: "something other than S3 answers; check store.endpoint_url and proxies",
    Reason.STORE_UNREACHABLE: "check store.endpoint_url and the network; tried again later",
    Reason.OBJECT_CHANGED: "it was replaced after the listing; the next poll sees the new one",
    Reason.OBJECT_GONE: "it was removed after the listing",
    Reason.OBJECT_ARCHIVED: "it lies in an archive class: restore it first",
    Reason.TRANSFER_BROKEN: "the connection ended early; tried again",
    Reason.STORE_FAILED: "the store could not answer; tried again later",
}
_OF_TRANSFER: Final = frozenset(
    {Reason.OBJECT_CHANGED, Reason.OBJECT_GONE, Reason.OBJECT_ARCHIVED, Reason.TRANSFER_BROKEN}
)
_SECRETS: Final = re.compile(
    r"(?i)(AKIA|ASIA)[A-Z0-9]{12,}|(signature|token|credential|authorization|password|secret)[^\s,;)]*[=:]\s*\S+"
)
MAX_DETAIL_CHARACTERS: Final = 300


@contextmanager
def translated(
    doing: str, permission: str, on_store_error: Callable[[StoreError], None] = lambda _: None
) -> Iterator[None]:
    """Raise our error for whatever boto3 raises inside, naming what was being done.

    `on_store_error` sees a StoreError before it is raised.

    Raises:
        StoreError: the store refused, or did not answer.
        TransferError: one object is not what the listing said.
    """
    try:
        yield
    except ClientError as error:
        details = error.response.get("Error", {})
        code = str(details.get("Code", ""))
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        reason = _CODES.get(code) or _CODES.get(str(status)) or Reason.STORE_FAILED
        detail = f"{code or status}: {details.get('Message', '')}"
        ours = _error(reason, doing, detail, permission, code=code, status=status)
        if isinstance(ours, StoreError):
            on_store_error(ours)
        raise ours from error
    except (BotoCoreError, ResponseParserError) as error:
        reason = next((ours for kind, ours in _TYPES if isinstance(error, kind)), Reason.STORE_FAILED)
        ours = _error(reason, doing, str(error), permission)
        if isinstance(ours, StoreError):
            on_store_error(ours)
        raise ours from error


def _error(reason: Reason, doing: str, detail: str, permission: str, **facts: str | int) -> SyncError:
    clean = _SECRETS.sub("[hidden]", " ".join(detail.split()))[:MAX_DETAIL_CHARACTERS]
    advice = _ADVICE[reason].format(permission=permission)
    kind = TransferError if reason in _OF_TRANSFER else StoreError
    return kind(reason, f"{doing}: {clean}: {advice}", **facts)


def bad_answer(doing: str, what: str) -> StoreError:
    """Return the error for an answer that S3 would not give."""
    return StoreError(Reason.STORE_BAD_ANSWER, f"{doing}: {what}: {_ADVICE[Reason.STORE_BAD_ANSWER]}")
