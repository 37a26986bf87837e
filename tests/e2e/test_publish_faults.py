"""Publishing to stores and beside others that misbehave: it ends well, or says what to do."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent_box import AgentBox
from big_models import LONG_ONLY, files_of, small_archive
from faulty_proxy import Answer, Exchange, FaultyProxy, s3_error, says
from fixtures_publish import body, heavy, keys, uploads
from fixtures_store import Bucket
from servesync.errors import Reason, ReleaseRefused, StoreError, TransferError
from servesync.publishing import Request, manifest_of_object, store_at

ARCHIVE, MANIFEST = "prod/m/1.tar.zst", "prod/m/1.manifest.json"


@pytest.fixture
def large(model: Path, tmp_path: Path) -> Path:
    """A model that goes up in two parts."""
    return heavy(model, tmp_path / "large", megabytes=20)


@pytest.fixture
def folders(model: Path, large: Path) -> dict[str, Path]:
    """Both kinds."""
    return {"small": model, "large": large, "manifest": model}


@pytest.fixture
def proxy(bucket: Bucket) -> Iterator[FaultyProxy]:
    """What stands between the publisher and its store."""
    with FaultyProxy(bucket.server.port) as proxy:
        yield proxy


@pytest.fixture
def behind(publish: Callable[..., Any], proxy: FaultyProxy) -> Callable[..., Any]:
    """`servesync.publish` through the proxy."""

    def call(directory: Path) -> Any:
        return publish(directory, endpoint_url=proxy.endpoint_url)

    return call


def is_archive_put(exchange: Exchange) -> bool:
    """Match the archive in one request."""
    return exchange.method == "PUT" and exchange.path.endswith("tar.zst")


def is_manifest_put(exchange: Exchange) -> bool:
    """Match the manifest."""
    return exchange.method == "PUT" and exchange.path.endswith("manifest.json")


def is_complete(exchange: Exchange) -> bool:
    """Match what makes the parts one object."""
    return exchange.method == "POST" and "uploadId=" in exchange.path


def is_write(exchange: Exchange) -> bool:
    """Match all that writes."""
    return exchange.method in {"PUT", "POST", "DELETE"}


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b"", marks=LONG_ONLY, id="nothing"),
        pytest.param(b"<html><body>Welcome</body></html>", marks=LONG_ONLY, id="page"),
        pytest.param(
            b"<?xml version='1.0'?><CompleteMultipartUploadResult></CompleteMultipartUploadResult>",
            id="no etag",
        ),
    ],
)
def test_an_ok_that_is_none(
    text: bytes, behind: Callable[..., Any], proxy: FaultyProxy, bucket: Bucket, large: Path
) -> None:
    """`CompleteMultipartUpload` answers 200 and does nothing: a manifest never comes without its archive."""
    proxy.matches, proxy.fault = is_complete, says(200, text)

    with pytest.raises(StoreError, match="run the command again"):
        behind(large)

    assert keys(bucket) == uploads(bucket) == []
    proxy.fault = None
    assert behind(large).outcome == "published"
    assert keys(bucket) == [MANIFEST, ARCHIVE]


def test_a_store_that_says_taken_and_shows_nothing(
    behind: Callable[..., Any], proxy: FaultyProxy, bucket: Bucket, model: Path
) -> None:
    """That is no success."""
    proxy.matches, proxy.fault = is_archive_put, s3_error(412, "PreconditionFailed")

    with pytest.raises(StoreError, match="run the command again") as caught:
        behind(model)

    assert caught.value.reason is Reason.STORE_FAILED
    assert keys(bucket) == []


@pytest.mark.parametrize("kind", ["small", "large", pytest.param("manifest", marks=LONG_ONLY)])
def test_a_conflict_with_the_same_content(
    kind: str,
    behind: Callable[..., Any],
    publish: Callable[..., Any],
    proxy: FaultyProxy,
    bucket: Bucket,
    folders: dict[str, Path],
) -> None:
    """Somebody else was writing at that moment; with the same content that is as good."""
    folder = folders[kind]

    def fault(exchange: Exchange) -> None:
        publish(folder)
        s3_error(409, "ConditionalRequestConflict")(exchange)

    proxy.matches = {"small": is_archive_put, "large": is_complete, "manifest": is_manifest_put}[kind]
    proxy.times, proxy.fault = 1, fault

    assert behind(folder).outcome == "already there"
    assert uploads(bucket) == []


def test_another_publisher_was_faster(
    behind: Callable[..., Any], publish: Callable[..., Any], proxy: FaultyProxy, bucket: Bucket, large: Path
) -> None:
    """Having succeeded it tidies up, and ends this upload: with the same content that is no failure."""

    def fault(exchange: Exchange) -> None:
        publish(large)
        assert uploads(bucket) == []
        exchange.answer(exchange.forward())

    proxy.matches, proxy.times, proxy.fault = (lambda exchange: "partNumber=2" in exchange.path), 1, fault

    assert behind(large).outcome == "already there"
    assert uploads(bucket) == []
    assert keys(bucket) == [MANIFEST, ARCHIVE]


def test_another_publisher_has_only_its_archive_yet(
    behind: Callable[..., Any], publish: Callable[..., Any], proxy: FaultyProxy, bucket: Bucket, model: Path
) -> None:
    """Of the same content: this one adds the manifest, and does not take itself for disturbed."""

    def fault(exchange: Exchange) -> None:
        publish(model)
        bucket.delete(MANIFEST)
        exchange.answer(exchange.forward())

    proxy.matches, proxy.times, proxy.fault = is_archive_put, 1, fault

    assert behind(model).outcome == "published"
    assert keys(bucket) == [MANIFEST, ARCHIVE]


def test_a_conflict_with_nothing(
    behind: Callable[..., Any], proxy: FaultyProxy, bucket: Bucket, model: Path
) -> None:
    """Whoever was writing has not finished: nobody knows yet, and that is what is said."""
    proxy.matches, proxy.fault = is_archive_put, s3_error(409, "ConditionalRequestConflict")

    with pytest.raises(StoreError, match="run the command again"):
        behind(model)

    assert keys(bucket) == []


@pytest.mark.parametrize("kind", ["small", "large"])
@pytest.mark.parametrize(
    "said",
    [(400, "InvalidArgument"), pytest.param((501, "NotImplemented"), marks=LONG_ONLY)],
)
def test_a_store_that_knows_no_checksums(
    said: tuple[int, str],
    kind: str,
    behind: Callable[..., Any],
    proxy: FaultyProxy,
    folders: dict[str, Path],
    box: AgentBox,
) -> None:
    """It says so in one way or another, and gets none; the manifest has better ones."""

    def fault(exchange: Exchange) -> None:
        if any("checksum" in name.lower() for name in exchange.headers):
            s3_error(*said, "Unsupported header")(exchange)
        else:
            exchange.answer(exchange.forward())

    proxy.matches, proxy.fault = is_write, fault

    done = behind(folders[kind])

    assert done.outcome == "published"
    assert done.notes == ()  # the conditions were kept
    assert box.call("sync").returncode == 0


@pytest.mark.parametrize("step", [is_archive_put, pytest.param(is_manifest_put, marks=LONG_ONLY)])
def test_a_store_that_ignores_conditions_and_two_publishers(
    step: Callable[[Exchange], bool],
    behind: Callable[..., Any],
    publish: Callable[..., Any],
    proxy: FaultyProxy,
    bucket: Bucket,
    real_models: Path,
) -> None:
    """Who looks last sees that somebody else was there: a mixture is never called a success."""
    publish(real_models / "keras_export")
    others = {key: body(bucket, key) for key in keys(bucket)}
    for key in others:
        bucket.delete(key)

    def fault(exchange: Exchange) -> None:
        """The other one wrote all or most just before; then our object replaces what is there."""
        for key, data in others.items():
            if key == ARCHIVE or step is is_archive_put:
                bucket.put(key, data)
        key = ARCHIVE if is_archive_put(exchange) else MANIFEST
        stored = bucket.client.put_object(Bucket=bucket.name, Key=key, Body=exchange.body)
        exchange.answer(Answer(200, {"etag": stored["ETag"]}, b""))

    proxy.matches, proxy.times, proxy.fault = step, 1, fault

    with pytest.raises(ReleaseRefused, match="under a new"):
        behind(real_models / "plain_module")


def test_what_a_killed_publisher_left_is_removed(publish: Callable[..., Any], bucket: Bucket) -> None:
    """By the next one that succeeds, and only for its own key."""
    for key in (ARCHIVE, "prod/m/11.tar.zst", f"{ARCHIVE}.other", ARCHIVE):
        begun = bucket.client.create_multipart_upload(Bucket=bucket.name, Key=key)
        part: Any = {"PartNumber": 1, "UploadId": begun["UploadId"], "Body": b"x"}
        bucket.client.upload_part(Bucket=bucket.name, Key=key, **part)

    publish(dry_run=True)
    assert len(uploads(bucket)) == 4
    publish()
    assert uploads(bucket) == ["prod/m/1.tar.zst.other", "prod/m/11.tar.zst"]


def test_leftovers_that_may_not_be_listed(
    behind: Callable[..., Any], proxy: FaultyProxy, model: Path
) -> None:
    """They are a lifecycle rule's then, and the publication is a success."""
    proxy.matches = lambda exchange: exchange.method == "GET" and "uploads" in exchange.path
    proxy.fault = s3_error(403, "AccessDenied")

    done = behind(model)

    assert (done.outcome, done.notes) == ("published", ())


def test_an_upload_that_somebody_ended(
    behind: Callable[..., Any], proxy: FaultyProxy, bucket: Bucket, large: Path
) -> None:
    """A lifecycle rule, or a publisher that was faster; this one says what to do."""

    def fault(exchange: Exchange) -> None:
        for upload in bucket.client.list_multipart_uploads(Bucket=bucket.name).get("Uploads", []):
            bucket.client.abort_multipart_upload(
                Bucket=bucket.name, Key=upload["Key"], UploadId=upload["UploadId"]
            )
        exchange.answer(exchange.forward())

    proxy.matches, proxy.fault = is_complete, fault

    with pytest.raises(StoreError, match="run the command again"):
        behind(large)

    proxy.fault = None
    assert behind(large).outcome == "published"


def test_an_agent_that_polls_between_all_steps(
    behind: Callable[..., Any], proxy: FaultyProxy, large: Path, box: AgentBox
) -> None:
    """It takes nothing but the finished release, and refuses nothing that it would have to forget later."""
    seen = []

    def fault(exchange: Exchange) -> None:
        answer = exchange.forward()
        if "partNumber" not in exchange.path:
            run = box.call("sync")
            seen.append((exchange.method, run.returncode, box.numbers()))
        exchange.answer(answer)

    proxy.matches, proxy.fault = is_write, fault

    behind(large)

    assert seen == [("POST", 3, []), ("POST", 3, []), ("PUT", 0, ["1"])]
    assert box.call("sync").returncode == 0


@LONG_ONLY
def test_a_manifest_that_changes_after_the_fact(
    publish: Callable[..., Any], bucket: Bucket, box: AgentBox
) -> None:
    """A version that is installed stays, one that was refused gets its chance when its manifest is right."""
    publish()
    good = body(bucket, MANIFEST)
    bucket.put(MANIFEST, b"")
    assert '"reason": "manifest_invalid"' in box.call("sync").stdout
    bucket.delete(MANIFEST)
    assert '"reason": "release_incomplete"' in box.call("sync").stdout
    bucket.put(MANIFEST, b"{}")
    assert '"reason": "manifest_invalid"' in box.call("sync").stdout
    assert box.numbers() == []

    bucket.put(MANIFEST, good)
    assert box.call("sync").returncode == 0
    assert box.numbers() == ["1"]

    for data in (b"", b"{}"):
        bucket.put(MANIFEST, data)
        assert box.call("sync").returncode == 0
        assert box.numbers() == ["1"]
    bucket.delete(MANIFEST)
    assert box.call("sync").returncode == 0
    assert box.numbers() == ["1"]


def test_an_archive_that_is_replaced_while_its_manifest_is_made(
    proxy: FaultyProxy, bucket: Bucket, model: Path
) -> None:
    """No manifest is written that would make agents refuse the new one."""
    archive = small_archive(files_of(model), 1)
    bucket.put("prod/m/1.tar.gz", archive)
    store = store_at(url=f"s3://{bucket.name}/prod", endpoint_url=proxy.endpoint_url, region="us-east-1")

    def fault(exchange: Exchange) -> None:
        answer = exchange.forward()
        bucket.put("prod/m/1.tar.gz", archive + bytes(512))
        exchange.answer(answer)

    proxy.matches, proxy.fault = (lambda exchange: "Range" in exchange.headers), fault

    with pytest.raises(TransferError):
        manifest_of_object(store, Request("m", 1))

    assert keys(bucket) == ["prod/m/1.tar.gz"]
