"""Translates what boto3 raises into our errors, once, by a table; the cause is kept, secrets are not."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from typing import Final

import botocore.exceptions as foreign
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from servesync.errors import Reason, StoreError, TransferError
from servesync.redaction import redact
from servesync.store.credentials import CredentialsUnusable
from servesync.store.foreign import safe_wording
from servesync.store.oddities import oddity

_CODES_OF: Final = {
    Reason.STORE_DENIED: """
        AccessDenied AllAccessDisabled 403 Forbidden KMS.DisabledException
        KMS.KMSInvalidStateException KMS.NotFoundException
    """,
    Reason.STORE_CREDENTIALS: """
        InvalidAccessKeyId SignatureDoesNotMatch ExpiredToken ExpiredTokenException InvalidToken
        TokenRefreshRequired InvalidClientTokenId UnrecognizedClientException NotSignedUp
    """,
    Reason.STORE_NOT_FOUND: "NoSuchBucket",
    Reason.STORE_WRONG_REGION: """
        PermanentRedirect AuthorizationHeaderMalformed IllegalLocationConstraintException
        IllegalLocationConstraint 301
    """,
    Reason.STORE_BAD_ANSWER: "302 303 405 407 501 511 MethodNotAllowed NotImplemented",
    Reason.STORE_CLOCK_SKEW: "RequestTimeTooSkewed",
    Reason.STORE_UNREACHABLE: "RequestTimeout",
    Reason.STORE_THROTTLED: """
        SlowDown SlowDownRead Throttling ThrottlingException TooManyRequests RequestLimitExceeded
        429 503 ServiceUnavailable
    """,
    Reason.OBJECT_CHANGED: "PreconditionFailed 412 InvalidRange 416",
    Reason.OBJECT_GONE: "NoSuchKey NoSuchVersion 404",
    Reason.OBJECT_ARCHIVED: "InvalidObjectState",
}
"""The codes of S3 and of stores like it, and the HTTP statuses of answers without one."""

_CODES: Final = {code: reason for reason, codes in _CODES_OF.items() for code in codes.split()}
_TYPES: Final[tuple[tuple[type[Exception], Reason], ...]] = (
    (foreign.NoRegionError, Reason.STORE_WRONG_REGION),
    (foreign.InvalidRegionError, Reason.STORE_WRONG_REGION),
    (foreign.SSLError, Reason.STORE_TLS),
    (foreign.ResponseStreamingError, Reason.TRANSFER_BROKEN),
    (foreign.IncompleteReadError, Reason.TRANSFER_BROKEN),
    (ResponseParserError, Reason.STORE_BAD_ANSWER),
    (foreign.HTTPClientError, Reason.STORE_UNREACHABLE),
    (foreign.ConnectionError, Reason.STORE_UNREACHABLE),
)
_ADVICE: Final[Mapping[Reason, str]] = {
    Reason.STORE_DENIED: "the agent needs {permission}; check its policy, the bucket's, and the owner "
    "(and store.request_payer, if readers pay for this bucket)",
    Reason.STORE_CREDENTIALS: "check the agent's AWS credentials (environment, profile, role)",
    Reason.STORE_NOT_FOUND: "check the bucket in store.url",
    Reason.STORE_WRONG_REGION: "set store.region to the bucket's region",
    Reason.STORE_CLOCK_SKEW: "set this machine's clock (NTP)",
    Reason.STORE_THROTTLED: "the store asks for fewer requests; servesync tries again later",
    Reason.STORE_TLS: "check the store's certificate; AWS_CA_BUNDLE names an authority of your own",
    Reason.STORE_BAD_ANSWER: "something other than S3 answers; check store.endpoint_url and proxies",
    Reason.STORE_UNREACHABLE: "check store.endpoint_url and the network; servesync tries again later",
    Reason.OBJECT_CHANGED: "the object was replaced after the listing; the next poll sees the new one",
    Reason.OBJECT_GONE: "the object was removed after the listing",
    Reason.OBJECT_ARCHIVED: "the object lies in an archive class: restore it first",
    Reason.TRANSFER_BROKEN: "the connection ended early; servesync tries again",
    Reason.STORE_FAILED: "the store could not answer; servesync tries again later",
}
_AGAIN: Final = "run the command again"
_ADVICE_ON_WRITES: Final[Mapping[Reason, str]] = {
    Reason.STORE_DENIED: "the publisher needs {permission}; check its policy, the bucket's, and the owner",
    Reason.STORE_CREDENTIALS: "check the publisher's AWS credentials (environment, profile, role)",
    Reason.STORE_THROTTLED: f"the store asks for fewer requests; {_AGAIN} later",
    Reason.STORE_UNREACHABLE: f"check the endpoint and the network, and {_AGAIN}",
    Reason.STORE_FAILED: f"the store failed; {_AGAIN}",
    Reason.TRANSFER_BROKEN: f"the connection ended early; {_AGAIN}",
    Reason.OBJECT_GONE: f"the store does not have the object; {_AGAIN}",
    Reason.OBJECT_CHANGED: f"somebody else writes the object; {_AGAIN}",
}
"""The advice to a person who publishes, where nothing is tried again by itself."""
_OF_TRANSFER: Final = frozenset(
    {
        Reason.OBJECT_CHANGED,
        Reason.OBJECT_GONE,
        Reason.OBJECT_ARCHIVED,
        Reason.OBJECT_ENCRYPTED,
        Reason.TRANSFER_BROKEN,
    }
)
_NOT_ASCII_TEXT: Final = re.compile(r"[^\x20-\x7e]+")
MAX_DETAIL_CHARACTERS: Final = 300


class Operation(Enum):
    """The operations of S3, by botocore's names; only the publisher writes."""

    LIST = "ListObjectsV2"
    READ = "GetObject"
    WRITE = "PutObject"

    @property
    def permission(self) -> str:
        """The permission that a policy must give."""
        return {
            Operation.LIST: "s3:ListBucket",
            Operation.READ: "s3:GetObject (and kms:Decrypt, if encrypted)",
            Operation.WRITE: "s3:PutObject and s3:AbortMultipartUpload (and kms:GenerateDataKey)",
        }[self]


@contextmanager
def translated(doing: str, operation: Operation) -> Iterator[None]:
    """Raise our error for any error that boto3 raises inside; `doing` says in the text what failed.

    Raises:
        StoreError: the store refused, or did not answer.
        TransferError: one object is not what the listing said; never for a listing.
    """
    try:
        yield
    except CredentialsUnusable as error:
        detail = _on_one_line(str(error))[:MAX_DETAIL_CHARACTERS]  # we worded it, and it holds no secret
        raise _error(Reason.STORE_CREDENTIALS, doing, detail, operation, provider=error.provider) from None
    except ClientError as error:
        details = error.response.get("Error", {})
        code = _shown(str(details.get("Code", "")), 60)
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        said = _shown(str(details.get("Message", "")), MAX_DETAIL_CHARACTERS)
        detail = f"{code or status}: {said}"  # together, "ExpiredToken: " would hide what follows
        odd = oddity(code or str(status), said, operation.value)
        reason, advice = odd or (_reason(code, status, operation), "")
        raise _error(reason, doing, detail, advice or operation, code=code, status=status) from error
    except (BotoCoreError, ResponseParserError) as error:
        reason = next((ours for kind, ours in _TYPES if isinstance(error, kind)), Reason.STORE_FAILED)
        if operation is Operation.LIST and reason is Reason.TRANSFER_BROKEN:
            reason = Reason.STORE_UNREACHABLE
        raise _error(reason, doing, _shown(safe_wording(error), MAX_DETAIL_CHARACTERS), operation) from error


def _reason(code: str, status: int, operation: Operation) -> Reason:
    """Return the reason for an error in an answer."""
    reason = _CODES.get(code) or _CODES.get(str(status)) or Reason.STORE_FAILED
    if operation is Operation.LIST and reason is Reason.OBJECT_GONE:
        return Reason.STORE_NOT_FOUND
    if operation is Operation.LIST and reason in _OF_TRANSFER:
        return Reason.STORE_BAD_ANSWER
    return reason


def _error(
    reason: Reason, doing: str, detail: str, advised: Operation | str, **facts: str | int
) -> StoreError | TransferError:
    """Return our error, with the given advice or else the usual one for its reason and operation."""
    if isinstance(advised, Operation):
        on_writes = _ADVICE_ON_WRITES.get(reason) if advised is Operation.WRITE else None
        advised = (on_writes or _ADVICE.get(reason, "")).format(permission=advised.permission)
    kind = TransferError if reason in _OF_TRANSFER else StoreError
    return kind(reason, f"{doing}: {detail}", advised, **facts)


def _shown(text: str, characters: int) -> str:
    """Return foreign text on one line, in ASCII, without what looks like a secret, and not too long."""
    return _on_one_line(redact(text))[:characters].strip()


def _on_one_line(text: str) -> str:
    return _NOT_ASCII_TEXT.sub(" ", text)


def bad_answer(doing: str, what: str) -> StoreError:
    """Return the error for an answer that S3 would not give."""
    advice = _ADVICE[Reason.STORE_BAD_ANSWER]
    return StoreError(Reason.STORE_BAD_ANSWER, f"{doing}: {what}", advice)
