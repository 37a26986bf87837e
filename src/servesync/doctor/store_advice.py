"""What to do about an answer of the store: by its code where S3 has one, else by what went wrong."""

import os
from typing import Final

from servesync.errors import Reason, StoreError, TransferError
from servesync.settings import Store
from servesync.store import Operation, misplaced_bucket, odd_advice

_BY_CODE: Final = {
    "ExpiredToken": "the session has expired: log in again (aws sso login), or give the agent a role, which "
    "renews itself",
    "InvalidAccessKeyId": "this store does not know the access key: is it a key of another account, or of "
    "another store than {where}?",
    "SignatureDoesNotMatch": "the secret key does not belong to the access key (cut off, or with a space?); "
    "or a proxy on the way changes requests",
    "InvalidToken": "the session token does not belong to this access key: set all three AWS variables anew, "
    "or unset AWS_SESSION_TOKEN",
}
_BY_CODE_ALSO: Final = {
    "ExpiredTokenException": "ExpiredToken",
    "TokenRefreshRequired": "ExpiredToken",
    "InvalidClientTokenId": "InvalidAccessKeyId",
    "UnrecognizedClientException": "InvalidAccessKeyId",
}
_BY_REASON: Final = {
    Reason.STORE_CREDENTIALS: "check the credentials in the environment in which the agent runs",
    Reason.STORE_NOT_FOUND: "there is no bucket {bucket} at {where}: correct store.url, or make the bucket",
    Reason.STORE_WRONG_REGION: "set store.region to the region in which the bucket is",
    Reason.STORE_CLOCK_SKEW: "set this machine's clock (NTP); S3 refuses requests that are 15 minutes off",
    Reason.STORE_THROTTLED: "the store wants fewer requests: raise poll.interval_seconds, or ask its owner",
    Reason.STORE_BAD_ANSWER: "this is no S3: does store.endpoint_url ({where}) name the S3 interface and not "
    "a console, and does no proxy answer instead?",
    Reason.STORE_UNREACHABLE: "nothing answers at {where}: check store.endpoint_url, DNS, routes, firewall, "
    "and the proxy variables",
}
_BY_PROVIDER: Final = {
    "the AWS configuration": "correct the file, or the variable that is wrong (AWS_CONFIG_FILE, "
    "AWS_SHARED_CREDENTIALS_FILE and AWS_PROFILE say which are read)",
    "assume-role": "check role_arn and source_profile of the profile, and whom the role trusts",
    "container-role": "AWS_CONTAINER_CREDENTIALS_FULL_URI must name the server of this pod or task, and "
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE a mounted file that holds one line without an end",
    "custom-process": "run the profile's credential_process by hand as the agent's user: it must print one "
    "JSON object and end within seconds",
}
"""By botocore's names of those who give credentials."""
_BY_TEXT: Final = (
    ("wrong_version_number", "the endpoint speaks clear text there: http://, or the port of its TLS"),
    ("wrong version number", "the endpoint speaks clear text there: http://, or the port of its TLS"),
    ("record layer failure", "the endpoint speaks clear text there: http://, or the port of its TLS"),
    ("has expired", "the certificate has expired: renew it at the store"),
    ("doesn't match", "the certificate is for another name: use that name in store.endpoint_url"),
    ("mismatch", "the certificate is for another name: use that name in store.endpoint_url"),
    ("not valid for", "the certificate is for another name: use that name in store.endpoint_url"),
    ("self-signed", "nobody vouches for the certificate: set AWS_CA_BUNDLE to your authority's file (PEM)"),
    ("self signed", "nobody vouches for the certificate: set AWS_CA_BUNDLE to your authority's file (PEM)"),
    ("local issuer", "its authority is not known here: set AWS_CA_BUNDLE to your authority's file (PEM)"),
)
_TLS: Final = "check the store's certificate; AWS_CA_BUNDLE names the file of an authority of your own"


def advice_for(error: StoreError | TransferError, code: str, operation: Operation, store: Store) -> str:
    """Return what the reader can do about `error`, met while doing `operation`."""
    usual = odd_advice(error) or _usual(error, code, operation, store)
    hint = misplaced_bucket(store, error.reason) if operation is Operation.LIST else ""
    return f"{hint} If not: {usual}" if hint else usual


def _usual(error: StoreError | TransferError, code: str, operation: Operation, store: Store) -> str:
    said = error.what
    where = store.endpoint_url or "Amazon S3"
    match error.reason:
        case Reason.STORE_TLS:
            return next((advice for sign, advice in _BY_TEXT if sign in said.lower()), _TLS)
        case Reason.STORE_DENIED:
            return _permission(said, operation, store)
        case _ if "sso" in said.lower():
            return _BY_CODE["ExpiredToken"]
        case Reason.STORE_CREDENTIALS if "web-identity" in said:
            return "mount the role's token: AWS_WEB_IDENTITY_TOKEN_FILE must name a file that can be read"
        case Reason.STORE_CREDENTIALS if "profile" in said.lower() and "not be found" in said:
            return _profile()
        case Reason.STORE_CREDENTIALS if error.facts.get("provider") in _BY_PROVIDER:
            return _BY_PROVIDER[str(error.facts["provider"])]
    name = code or next((name for name in (*_BY_CODE, *_BY_CODE_ALSO) if f"({name})" in said), "")
    advice = _BY_CODE.get(_BY_CODE_ALSO.get(name, name)) or _in_text(said)
    advice = advice or _BY_REASON.get(error.reason, "look at the store's own log, then try again")
    return advice.format(where=where, bucket=store.bucket)


def _in_text(said: str) -> str | None:
    names = {name: name for name in _BY_CODE} | _BY_CODE_ALSO
    return next((_BY_CODE[ours] for name, ours in names.items() if f"{name}:" in said), None)


def _profile() -> str:
    name = "AWS_PROFILE" if "AWS_PROFILE" in os.environ else "AWS_DEFAULT_PROFILE"
    file = os.environ.get("AWS_CONFIG_FILE", "~/.aws/config")
    return f"{name} names a profile that is not in {file} of the agent's user: correct it or unset it"


def _permission(said: str, operation: Operation, store: Store) -> str:
    if "kms:" in said.lower():
        return "the objects are encrypted: allow kms:Decrypt on their key to the agent's role"
    is_access_point = store.bucket.startswith("arn:")
    bucket = store.bucket if is_access_point else f"arn:aws:s3:::{store.bucket}"
    if operation is Operation.READ:
        objects = f"{bucket}/object" if is_access_point else bucket
        return f"allow s3:GetObject on {objects}/{store.prefix}* to the agent's role"
    condition = f" (with a condition on s3:prefix, it must admit {store.prefix}*)" if store.prefix else ""
    return f"allow s3:ListBucket on {bucket}, the bucket itself and not its objects{condition}"
