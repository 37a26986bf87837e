"""Explains errors of stores that differ from S3 in a few things: what they mean, and what to do."""

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from servesync.errors import Reason, StoreError, SyncError
from servesync.settings import Store

_BUCKET_IN_THE_HOST: Final = frozenset(
    {"SecondLevelDomainForbidden", "PathStyleDomainForbidden", "VirtualHostDomainRequired"}
)
"""Sent by Alibaba's OSS, Tencent's COS and Huawei's OBS."""
_NO_SUCH_OPERATION: Final = frozenset({"NotImplemented", "MethodNotAllowed", "405", "501"})
_VIRTUAL: Final = (
    "this store wants the bucket's name in the host's: set store.addressing_style: virtual (without settings "
    "--addressing-style virtual)"
)
_NO_V2: Final = (
    "the store may know only version 1 of ListObjects, but servesync needs version 2 (list-type=2): take a "
    "newer release of it; or something other than S3 answers: check store.endpoint_url and proxies"
)
_PROJECT_PAYS: Final = (
    "readers pay for this bucket, and Google wants the name of a project, which servesync cannot give: turn "
    "Requester Pays off for the bucket, or copy the models to another"
)
_CUSTOMER_KEY: Final = (
    "it is encrypted with a key that only the uploader has (SSE-C), so no agent can read it: upload it again "
    "encrypted by the store (SSE-S3 or SSE-KMS), or not"
)
_UNPACKED: Final = (
    "remove that from its metadata (gcloud storage objects update --clear-content-encoding), "
    "or upload it without"
)
_ALL: Final = (_UNPACKED, _VIRTUAL, _NO_V2, _PROJECT_PAYS, _CUSTOMER_KEY)
_SSE_C: Final = re.compile(r"(?!.*KMS).*(?:server.side.encryption|customer.provided|sse-?c\b)", re.IGNORECASE)
_MAYBE_MISPLACED: Final = frozenset(
    {
        Reason.STORE_NOT_FOUND,
        Reason.STORE_BAD_ANSWER,
        Reason.STORE_DENIED,
        Reason.STORE_CREDENTIALS,
        Reason.STORE_FAILED,
        Reason.STORE_TLS,
        Reason.STORE_UNREACHABLE,
    }
)


def oddity(code: str, said: str, asked: str) -> tuple[Reason, str] | None:
    """Return an error's reason, and what to do; None if it means the same as at Amazon.

    `code`: its name, or the HTTP status if it has none. `said`: the store's text. `asked`: the operation, by
    S3's name.
    """
    lists = asked == "ListObjectsV2"
    if code in _BUCKET_IN_THE_HOST:
        return Reason.STORE_BAD_ANSWER, _VIRTUAL
    if code == "UserProjectMissing":
        return Reason.STORE_DENIED, _PROJECT_PAYS
    if lists and (code in _NO_SUCH_OPERATION or "list-type" in said):
        return Reason.STORE_BAD_ANSWER, _NO_V2
    if asked == "GetObject" and code in {"InvalidRequest", "InvalidArgument"} and _SSE_C.match(said):
        return Reason.OBJECT_ENCRYPTED, _CUSTOMER_KEY
    return None


def misplaced_bucket(store: Store, reason: Reason) -> str:
    """Return advice if the endpoint's host or path holds the bucket's name; empty if it does not."""
    parts = urlsplit(store.endpoint_url or "")
    first, last = (parts.hostname or "").partition(".")[0], parts.path.rstrip("/").rpartition("/")[2]
    if reason not in _MAYBE_MISPLACED or store.bucket.lower() not in {first, last.lower()}:
        return ""
    if last.lower() == store.bucket.lower():
        place = parts.netloc + parts.path.rstrip("/").rpartition("/")[0]
    else:
        place = parts.netloc.partition(".")[2] + parts.path
    return (
        f"store.endpoint_url holds the bucket's name ({store.bucket}), which servesync adds by itself: is it "
        f"{parts.scheme}://{place}?"
    )


def odd_advice(error: SyncError) -> str:
    """Return the advice of an error if this module gave it; else nothing."""
    return error.advice if error.advice in _ALL else ""


def check_as_stored(doing: str, headers: Mapping[str, str]) -> None:
    """Make sure that the store sends an object as it is stored; `headers` in lower case.

    Google's store decompresses objects with `Content-Encoding: gzip` as it sends them, and ignores ranges.

    Raises:
        StoreError: `STORE_BAD_ANSWER`: the store decompresses the object.
    """
    stored = headers.get("x-goog-stored-content-encoding", "identity")
    if stored not in {"identity", headers.get("content-encoding")}:
        text = f"it is stored with Content-Encoding: {stored!a:.20}, and the store decompresses it on sending"
        raise StoreError(Reason.STORE_BAD_ANSWER, f"{doing}: {text}", _UNPACKED)
