"""What may stand in `store.url` and `store.region`, and how that goes with the addressing of buckets."""

from typing import Any

import pytest

from servesync.errors import SettingsError
from servesync.publishing import store_at
from servesync.settings import Store

ELSEWHERE = {"endpoint_url": "https://store.example"}
POINT = "arn:aws:s3:eu-central-1:123456789012:accesspoint"


@pytest.mark.parametrize(
    ("url", "bucket", "prefix"),
    [
        ("s3://acme", "acme", ""),
        ("s3://acme/prod/", "acme", "prod/"),
        ("s3://Acme_Models.2019/prod", "Acme_Models.2019", "prod/"),
        ("s3://x", "x", ""),
        (f"s3://{'a' * 255}/p", "a" * 255, "p/"),
        ("s3://models-a1b2c3-s3alias/prod", "models-a1b2c3-s3alias", "prod/"),
        (f"s3://{POINT}/models", f"{POINT}/models", ""),
        (f"s3://{POINT}/models/prod/eu", f"{POINT}/models", "prod/eu/"),
        (f"s3://{POINT}:models/prod", f"{POINT}:models", "prod/"),
        (
            "s3://arn:aws-cn:s3::123456789012:accesspoint/m0123456789ab.mrap/p",
            "arn:aws-cn:s3::123456789012:accesspoint/m0123456789ab.mrap",
            "p/",
        ),
        (
            "s3://arn:aws:s3-outposts:us-west-2:123456789012:outpost/op-01/accesspoint/m/p",
            "arn:aws:s3-outposts:us-west-2:123456789012:outpost/op-01/accesspoint/m",
            "p/",
        ),
    ],
)
def test_names_that_botocore_takes(url: str, bucket: str, prefix: str) -> None:
    """Old buckets, Google's, access points and their aliases; the rest of the URL is the prefix."""
    store = Store(url=url)

    assert (store.bucket, store.prefix) == (bucket, prefix)


def test_a_bucket_of_a_tenant() -> None:
    """As Ceph names it; an empty tenant is the one without a name."""
    assert store_at(url="s3://research:models/prod", **ELSEWHERE).bucket == "research:models"
    assert store_at(url="s3://:models/prod", **ELSEWHERE).prefix == "prod/"


@pytest.mark.parametrize("region", ["us-east-1", "US", "RegionOne", "auto", "eu-1-special"])
def test_regions_of_other_stores(region: str) -> None:
    """Ceph's zone groups and OpenStack's regions have capitals."""
    assert store_at(url="s3://acme", region=region, **ELSEWHERE).region == region


REFUSED: list[tuple[dict[str, Any], list[str]]] = [
    ({"url": "https://acme"}, ["url", "s3://BUCKET/PREFIX"]),
    ({"url": "s3://acme models/prod"}, ["url", "A-Z a-z 0-9 . _ -", "TENANT:BUCKET"]),
    ({"url": "s3://../prod"}, ["url"]),
    ({"url": "s3://./prod"}, ["url"]),
    ({"url": "s3://" + "a" * 256}, ["url", "1 to 255"]),
    ({"url": "s3://arn:aws:s3:::acme/prod"}, ["url", "ARN of an access point"]),
    ({"url": "s3://tenant:acme/prod"}, ["endpoint_url", "Ceph"]),
    ({"url": "s3://a:b", "addressing_style": "virtual", **ELSEWHERE}, ["addressing_style", "path"]),
    (
        {"url": "s3://a_b", "addressing_style": "virtual", **ELSEWHERE},
        ["a_b", "3 to 63 a-z 0-9 -", "use path"],
    ),
    ({"url": "s3://a.bc", "addressing_style": "virtual", **ELSEWHERE}, ["a.bc", "3 to 63 a-z 0-9 -"]),
    (
        {"url": "s3://acme", "addressing_style": "virtual", "endpoint_url": "https://10.1.2.3:9000"},
        ["name of a host", "use path"],
    ),
    ({"url": "s3://acme", "addressing_style": "dns"}, ["addressing_style", "'virtual'"]),
    ({"url": "s3://acme", "region": "US"}, ["lower case: us"]),
    ({"url": "s3://acme", "region": "eu_west_1", **ELSEWHERE}, ["region", "1 to 63 of A-Z a-z 0-9 -"]),
    ({"url": "s3://acme", "region": "-a", **ELSEWHERE}, ["region", "either end"]),
    ({"url": "s3://acme", "region": "123", **ELSEWHERE}, ["region", "not only digits"]),
    ({"url": "s3://acme", "request_payer": "me"}, ["request_payer", "'requester'"]),
]


@pytest.mark.parametrize(("fields", "words"), REFUSED)
def test_what_cannot_work_is_refused_with_the_rule(fields: dict[str, Any], words: list[str]) -> None:
    """Before the first request, as botocore would quietly do something else, or show a regular expression."""
    with pytest.raises(SettingsError) as caught:
        store_at(**fields)

    assert [word for word in words if word not in str(caught.value)] == []
