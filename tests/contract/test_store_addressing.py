"""How requests name the bucket, and that each says who pays: seen at the store's end of the connection."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from faulty_proxy import Answer, Exchange, FaultyProxy
from fixtures_store import Bucket
from servesync.domain.versions import Model, StoredObject
from servesync.settings import Fetch, Limits, Store
from servesync.store import Bounds, ObjectAttributes, Probe, S3Store, S3Writer

NOT_EXISTING_PORT = 9
ONCE = Bounds(list_attempts=1)
LISTING = """<?xml version="1.0" encoding="UTF-8"?>
<ListBucketResult><Name>{name}</Name><Prefix>prod/</Prefix><KeyCount>1</KeyCount><MaxKeys>1000</MaxKeys>
<IsTruncated>false</IsTruncated><Contents><Key>prod/m/1.tar</Key><Size>1</Size><ETag>"e"</ETag></Contents>
</ListBucketResult>"""


class Seen:
    """Answers each listing, and keeps the host and the path that were asked for."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.asked: list[str] = []

    def __call__(self, exchange: Exchange) -> None:
        """Answer."""
        parts = urlsplit(exchange.path)
        self.asked.append(f"{parts.netloc}{parts.path}")
        exchange.answer(Answer(200, {}, LISTING.format(name=self._name).encode()))


@pytest.fixture
def internet(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    """A web proxy that gets every request, whatever host it is for."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret")
    with FaultyProxy(NOT_EXISTING_PORT) as proxy:
        monkeypatch.setenv("http_proxy", proxy.endpoint_url)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        yield proxy


ADDRESSED = [
    ("acme", "auto", "acme", "store.example/acme"),
    ("acme", "path", "acme", "store.example/acme"),
    ("acme", "virtual", "acme", "acme.store.example/"),
    ("Acme_Models", "auto", "Acme_Models", "store.example/Acme_Models"),
    ("research:models", "auto", "models", "store.example/research%3Amodels"),
    ("models-a1b2-s3alias", "auto", "acme", "store.example/models-a1b2-s3alias"),
    (
        "arn:aws:s3:eu-central-1:123456789012:accesspoint/models",
        "auto",
        "acme",
        "models-123456789012.store.example/",
    ),
]


@pytest.mark.parametrize(("bucket", "style", "name", "asked"), ADDRESSED)
def test_where_the_bucket_stands(
    bucket: str, style: Any, name: str, asked: str, internet: FaultyProxy
) -> None:
    """In the path at stores of one's own, in the host's name where the settings ask for it."""
    seen = Seen(name)
    internet.fault = seen
    settings = Store(
        url=f"s3://{bucket}/prod",
        endpoint_url="http://store.example",
        allow_insecure_endpoint=True,
        addressing_style=style,
        region="RegionOne",
    )

    listing = S3Store(settings, Fetch(), Limits(), ONCE).list(lambda _: True)

    assert seen.asked == [asked]
    assert list(listing.releases) == [Model("m")]


def test_every_request_says_who_pays(bucket: Bucket) -> None:
    """Agent, publisher and doctor; a bucket with Requester Pays refuses any that does not."""
    silent: list[str] = []
    every: set[str] = set()

    def fault(exchange: Exchange) -> None:
        every.add(f"{exchange.method} {'list' if exchange.is_listing else urlsplit(exchange.path).query[:7]}")
        if exchange.headers.get("x-amz-request-payer") != "requester":
            silent.append(f"{exchange.method} {exchange.path}")
        exchange.answer(exchange.forward())

    with FaultyProxy(bucket.server.port, fault=fault) as proxy:
        settings = Store(
            url=f"s3://{bucket.name}/prod",
            endpoint_url=proxy.endpoint_url,
            region="us-east-1",
            request_payer="requester",
        )
        attributes = ObjectAttributes("application/octet-stream")
        with S3Writer(settings, part_bytes=5 << 20) as writer:
            writer.put_new("prod/m/1.tar", b"x", attributes)
            with writer.upload_new("prod/m/2.tar", attributes) as write:
                write(bytes(6 << 20))
            assert writer.is_ours("prod/m/1.tar")
            writer.remove_leftovers("prod/m/1.tar")
        store = S3Store(settings, Fetch(), Limits(), ONCE)
        first: StoredObject = store.list(lambda _: True).releases[Model("m")][0].objects[0]
        store.describe(first)
        store.read(first, 0, 1, memoryview(bytearray(1)), lambda: False)
        store.close()
        with Probe(settings) as probe:
            assert probe.list_some("prod/").error is None
            assert probe.read_one("prod/m/1.tar").error is None

    assert silent == []
    assert {"GET list", "HEAD ", "PUT ", "POST uploads", "POST uploadI"} <= every
