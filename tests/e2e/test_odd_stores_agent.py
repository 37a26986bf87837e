"""The agent, the publisher and the doctor at stores that are S3 in all but a few things."""

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from agent_box import AgentBox, digests, digests_on_disk
from big_models import files_of, small_archive
from faulty_proxy import Answer, Exchange, FaultyProxy, listings, s3_error
from fixtures_store import Bucket


@pytest.fixture
def proxy(bucket: Bucket) -> Iterator[FaultyProxy]:
    """A proxy in front of the store, without a fault yet."""
    with FaultyProxy(bucket.server.port) as proxy:
        yield proxy


@pytest.fixture
def distant(box: AgentBox, proxy: FaultyProxy) -> AgentBox:
    """An agent that reaches its store through the proxy."""
    box.overrides = {"store": {"endpoint_url": proxy.endpoint_url}}
    return box


def whoever_asks_pays(exchange: Exchange) -> None:
    """Refuse whatever does not say so, as Amazon does for a bucket with Requester Pays."""
    if exchange.headers.get("x-amz-request-payer") == "requester":
        exchange.answer(exchange.forward())
    else:
        s3_error(403, "AccessDenied", "Access Denied")(exchange)


def test_a_bucket_whose_readers_pay(
    bucket: Bucket, proxy: FaultyProxy, model: Path, distant: AgentBox
) -> None:
    """Publisher and agent are refused, and told the setting; with it both work."""
    proxy.fault = whoever_asks_pays
    where = [
        "--store",
        f"s3://{bucket.name}/prod",
        "--region",
        "us-east-1",
        "--endpoint-url",
        proxy.endpoint_url,
    ]
    line = [
        sys.executable,
        "-m",
        "servesync",
        "publish",
        str(model),
        "--model",
        "m",
        "--version",
        "1",
        *where,
    ]

    refused = subprocess.run(line, capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert "store.request_payer" in refused.stderr
    published = subprocess.run(
        [*line, "--request-payer", "requester"], capture_output=True, text=True, check=False
    )
    assert published.returncode == 0, published.stderr

    assert "store.request_payer" in distant.plan()["store_error"]["text"]
    told = distant.call("doctor").stdout
    assert "Requester Pays" in told
    assert "set store.request_payer: requester" in told
    distant.overrides["store"]["request_payer"] = "requester"
    assert distant.call("sync").returncode == 0
    assert digests_on_disk(distant.shelf / "1") == digests(files_of(model))


def test_an_entry_without_a_size_stops_one_version(
    bucket: Bucket, proxy: FaultyProxy, model: Path, distant: AgentBox
) -> None:
    """The others come, and the log says which one does not, and why."""
    tree = files_of(model)
    for number in (1, 2):
        bucket.put(f"prod/m/{number}.tar.gz", small_archive(tree, number))
    bucket.put("prod/README.md")

    def fault(exchange: Exchange) -> None:
        answer = exchange.forward()
        for key in (b"prod/README.md", b"prod/m/2.tar.gz"):
            answer.body = re.sub(
                rb"<Key>" + re.escape(key) + rb"</Key>((?:(?!</Contents>).)*?)<Size>[0-9]+</Size>",
                rb"<Key>" + key + rb"</Key>\1",
                answer.body,
            )
        exchange.answer(answer)

    proxy.fault, proxy.matches = fault, listings

    assert distant.call("sync").returncode == 0
    assert distant.numbers() == ["1"]
    refused = distant.plan()["models"]["m"]["versions"]["2"]
    assert "without a size or an ETag" in refused["why"]


def test_a_page_in_place_of_an_archive_refuses_nothing(
    bucket: Bucket, proxy: FaultyProxy, model: Path, distant: AgentBox
) -> None:
    """A proxy sends it for a while, as a part of the right length; then the version comes as it is."""
    bucket.put("prod/m/1.tar.gz", small_archive(files_of(model), 1))

    def page(exchange: Exchange) -> None:
        answer = exchange.forward()
        answer.body = b"<html><body>busy</body></html>".ljust(len(answer.body))
        exchange.answer(answer)

    proxy.fault = page
    proxy.matches = lambda exchange: exchange.method == "GET" and not listings(exchange)

    with distant.running():
        distant.until(lambda: "page came in its place" in distant.log.read_text())
        assert distant.events("version_refused") == []
        proxy.fault = None
        distant.until(lambda: distant.numbers() == ["1"])

    assert digests_on_disk(distant.shelf / "1") == digests(files_of(model))


def test_a_listing_without_end_does_not_hold_up_a_stop(
    bucket: Bucket, proxy: FaultyProxy, distant: AgentBox
) -> None:
    """SIGTERM is heard between two pages."""
    numbers = count()

    def endless(exchange: Exchange) -> None:
        number = next(numbers)
        text = (
            f"<ListBucketResult><Name>{bucket.name}</Name><Prefix>prod/</Prefix><KeyCount>1</KeyCount>"
            f"<IsTruncated>true</IsTruncated><NextContinuationToken>t{number}</NextContinuationToken>"
            f"<Contents><Key>prod/{number}</Key><Size>1</Size><ETag>e</ETag></Contents></ListBucketResult>"
        )
        exchange.answer(Answer(200, {}, text.encode()))

    proxy.fault = endless

    with distant.running() as process:
        distant.until(lambda: proxy.requests > 10)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        requests = proxy.requests

    assert proxy.requests == requests
    assert distant.events("agent_stopped")
