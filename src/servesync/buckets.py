"""How `store.url` names a bucket, and where its name ends and the prefix begins.

What counts as a name is what botocore takes (`validate_bucket_name`), and besides Ceph's `TENANT:BUCKET`.
"""

import re
from typing import Final

_PLAIN: Final = r"(?!\.{1,2}(?:/|$))[A-Za-z0-9._-]{1,255}"
_ACCESS_POINT: Final = (
    r"arn:aws[a-z-]*:s3(?:-object-lambda)?:[a-z0-9-]*:[0-9]{12}:accesspoint[/:][A-Za-z0-9.-]{1,63}"
)
_OUTPOST: Final = (
    r"arn:aws[a-z-]*:s3-outposts:[a-z0-9-]+:[0-9]{12}:outpost[/:][A-Za-z0-9-]{1,63}"
    r"[/:]accesspoint[/:][A-Za-z0-9-]{1,63}"
)
_TENANTS: Final = rf"(?!.*@)[A-Za-z0-9_-]{{0,255}}:{_PLAIN}"
"""With an `@` further on it would be a user and a password, as other tools take them."""
_URL: Final = re.compile(
    rf"s3://(?P<bucket>{_ACCESS_POINT}|{_OUTPOST}|{_TENANTS}|{_PLAIN})(?:/(?P<prefix>[^?#\\\x00-\x1f]*))?",
    re.ASCII,
)
_IN_A_HOST: Final = re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]", re.ASCII)
_ALIASES: Final = ("-s3alias", "--ol-s3", "--op-s3")
REGION: Final = re.compile(r"(?![0-9]+$)(?!-)[A-Za-z0-9-]{1,63}(?<!-)", re.ASCII)
"""What botocore takes for a region's name: a label of a host's name. Ceph's zone groups have capitals."""


def split_url(url: str) -> tuple[str, str] | None:
    """Return bucket and prefix (without a `/` at its ends) of an `s3://` URL; None if it is no such URL."""
    found = _URL.fullmatch(url)
    return None if found is None else (found["bucket"], (found["prefix"] or "").rstrip("/"))


def is_arn(bucket: str) -> bool:
    """Tell whether a bucket is named by the ARN of an access point, which has a host of its own."""
    return bucket.startswith("arn:")


def is_tenants(bucket: str) -> bool:
    """Tell whether a bucket is named as Ceph names those of a tenant."""
    return ":" in bucket and not is_arn(bucket)


def fits_a_host(bucket: str) -> bool:
    """Tell whether a bucket's name can be the first label of a host's name, below a wildcard certificate."""
    return is_arn(bucket) or _IN_A_HOST.fullmatch(bucket) is not None


def is_listed_as(bucket: str, name: object) -> bool:
    """Tell whether a listing of the bucket may call itself `name`; an access point's may have another."""
    if is_arn(bucket) or bucket.endswith(_ALIASES):
        return isinstance(name, str) and name != ""
    return name in {bucket, bucket.rpartition(":")[2]}
