"""Writers whose answers are lost, or misleading: they know their own objects again, and never guess."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent_box import AgentBox
from big_models import files_of, small_archive
from faulty_proxy import Exchange, FaultyProxy, an_error_inside, lose_the_answer, s3_error
from fixtures_publish import body, heavy, keys, uploads
from fixtures_store import Bucket
from servesync.domain import channel, manifest
from servesync.domain.versions import Model, Version
from servesync.errors import Reason, StoreError, SyncError
from servesync.publishing import MoveDone, Request, manifest_of_object, promote, rollback, store_at, withdraw
from servesync.settings import Store

M = Model("m")
CHANNEL = "prod/m/channels/stable.json"


@pytest.fixture
def proxy(bucket: Bucket) -> Iterator[FaultyProxy]:
    """A proxy in front of the store, without a fault yet."""
    with FaultyProxy(bucket.server.port) as proxy:
        yield proxy


@pytest.fixture
def store(bucket: Bucket, proxy: FaultyProxy) -> Store:
    """The store behind the proxy."""
    return store_at(url=f"s3://{bucket.name}/prod", endpoint_url=proxy.endpoint_url, region="us-east-1")


def at(method: str, mark: str) -> Callable[[Exchange], bool]:
    """Match a method and a part of the path."""
    return lambda exchange: exchange.method == method and mark in exchange.path


STEPS = {
    "small archive": ("PUT", "1.tar.zst"),
    "create": ("POST", "uploads"),
    "part": ("PUT", "partNumber=2"),
    "complete": ("POST", "uploadId="),
    "manifest": ("PUT", "manifest.json"),
}


@pytest.mark.parametrize("step", STEPS)
def test_a_lost_answer_is_no_failure(
    step: str,
    publish: Callable[..., Any],
    bucket: Bucket,
    proxy: FaultyProxy,
    model: Path,
    box: AgentBox,
) -> None:
    """The store did it, the connection broke: the publisher finds its own object and goes on."""
    folder = model if step == "small archive" else heavy(model, box.folder / "large", megabytes=20)
    proxy.fault, proxy.times, proxy.matches = lose_the_answer, 1, at(*STEPS[step])

    assert publish(folder, endpoint_url=proxy.endpoint_url).outcome == "published"

    assert proxy.times == 0
    assert keys(bucket) == ["prod/m/1.manifest.json", "prod/m/1.tar.zst"]
    assert box.call("sync").returncode == 0


@pytest.mark.parametrize("step", ["complete", "manifest"])
def test_no_answer_at_all_is_looked_up(
    step: str, publish: Callable[..., Any], proxy: FaultyProxy, model: Path, tmp_path: Path
) -> None:
    """Every repetition of the request is lost, too; a look at the object tells."""
    folder = heavy(model, tmp_path / "large", megabytes=20)
    proxy.fault, proxy.matches = lose_the_answer, at(*STEPS[step])

    assert publish(folder, endpoint_url=proxy.endpoint_url).outcome == "published"


@pytest.mark.parametrize("found", ["NoSuchUpload", "another"])
def test_an_upload_that_is_no_more(
    found: str,
    publish: Callable[..., Any],
    bucket: Bucket,
    proxy: FaultyProxy,
    model: Path,
    tmp_path: Path,
) -> None:
    """Amazon's answer to a repeated completion; or, at that moment, somebody else's object is there."""
    folder = heavy(model, tmp_path / "large", megabytes=20)

    def fault(exchange: Exchange) -> None:
        if found == "another":
            bucket.put("prod/m/1.tar.zst", b"of somebody else")
        else:
            exchange.forward()
        s3_error(404, "NoSuchUpload")(exchange)

    proxy.fault, proxy.times, proxy.matches = fault, 1, at(*STEPS["complete"])
    if found == "another":
        with pytest.raises(SyncError):
            publish(folder, endpoint_url=proxy.endpoint_url)
        assert keys(bucket) == ["prod/m/1.tar.zst"]
    else:
        assert publish(folder, endpoint_url=proxy.endpoint_url).outcome == "published"


def test_an_error_inside_of_a_success(
    publish: Callable[..., Any], bucket: Bucket, proxy: FaultyProxy, model: Path, tmp_path: Path
) -> None:
    """Completing answers 200 before it is done: what comes then counts."""
    folder = heavy(model, tmp_path / "large", megabytes=20)
    proxy.fault, proxy.matches = an_error_inside, at(*STEPS["complete"])

    with pytest.raises(StoreError, match="InternalError"):
        publish(folder, endpoint_url=proxy.endpoint_url)
    assert keys(bucket) == uploads(bucket) == []

    proxy.times = 1
    assert publish(folder, endpoint_url=proxy.endpoint_url).outcome == "published"


def test_a_move_whose_answer_is_lost(bucket: Bucket, proxy: FaultyProxy, store: Store) -> None:
    """A new channel, a moved one and a withdrawal: whoever wrote it is not told that somebody else did."""
    for version in (1, 2):
        bucket.put(f"prod/m/{version}.tar.gz", b"x")
    proxy.fault, proxy.matches = lose_the_answer, at("PUT", "")
    moves: list[Callable[[], MoveDone]] = [
        lambda: promote(store, ("m", "1", "stable"), "me", ""),
        lambda: promote(store, ("m", "2", "stable"), "me", ""),
        lambda: rollback(store, ("m", "stable"), None, "me", ""),
    ]
    for move in moves:
        proxy.times = 1
        assert move().changed
        assert proxy.times == 0
    now = channel.parse_channel(body(bucket, CHANNEL), M, "stable").now
    assert (now.version, now.sequence) == (1, 3)

    proxy.times = 1
    assert withdraw(store, ("m", "2"), "me", "wrong data").fresh
    channel.parse_withdrawal(body(bucket, "prod/m/2.manifest.json"), M, Version(2))


def test_a_move_without_any_answer(bucket: Bucket, proxy: FaultyProxy, store: Store) -> None:
    """All repetitions are lost: what stands in the store tells."""
    for version in (1, 2):
        bucket.put(f"prod/m/{version}.tar.gz", b"x")
        promote(store, ("m", str(version), "stable"), "me", "")
    proxy.fault, proxy.matches = lose_the_answer, at("PUT", "")

    assert promote(store, ("m", "1", "stable"), "me", "").changed
    proxy.fault = s3_error(500, "InternalError")
    with pytest.raises(StoreError) as caught:
        promote(store, ("m", "2", "stable"), "me", "")

    assert caught.value.reason is Reason.STORE_FAILED
    assert channel.parse_channel(body(bucket, CHANNEL), M, "stable").now.version == 1


def test_a_manifest_for_an_object_whose_answer_is_lost(
    bucket: Bucket, proxy: FaultyProxy, model: Path
) -> None:
    """`servesync manifest` does not take its own manifest for somebody else's."""
    bucket.put("prod/m/1.tar.gz", small_archive(files_of(model), 1))
    proxy.fault, proxy.times, proxy.matches = lose_the_answer, 1, at("PUT", "manifest.json")
    where = store_at(url=f"s3://{bucket.name}/prod", endpoint_url=proxy.endpoint_url, region="us-east-1")

    assert manifest_of_object(where, Request("m", 1)).outcome == "published"
    manifest.parse(body(bucket, "prod/m/1.manifest.json"))
