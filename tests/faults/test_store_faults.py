"""What can go wrong between agent and store: each fault has its reason, and no wrong byte is ever taken."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

import faulty_proxy as faults
from faulty_proxy import Fault, FaultyProxy, listings, reads
from fixtures_store import Bucket, new_bucket
from servesync.demo.seaweed import Seaweed
from servesync.domain.versions import Model, StoredObject
from servesync.errors import Reason, Stopped, StoreError, SyncError, TransferError
from servesync.fetch import Retries, stream
from servesync.settings import Fetch, Limits, Store
from servesync.store import Bounds, S3Store

KIB = 1024
BODY = bytes(range(256)) * 3 * KIB  # 768 KiB
PARTS = 12
SMALL = Fetch(connections=4, part_bytes=64 * KIB, memory_bytes=1024 * KIB)
SHORT = Bounds(
    connect_seconds=1,
    read_seconds=1,
    floor_after_seconds=0.6,
    answer_bytes=1024 * KIB,
    answer_seconds=2,
    list_attempts=1,
)
ONE_BY_ONE = Fetch(connections=1, part_bytes=512 * KIB, memory_bytes=1024 * KIB)
AT_ONCE = Retries(attempts=4, first_pause_seconds=0.001, longest_pause_seconds=0.002)


@pytest.fixture(scope="module")
def module_bucket(seaweed: Seaweed) -> Bucket:
    """One bucket for all tests of this module: to make one for each takes most of their time."""
    return new_bucket(seaweed)


@pytest.fixture
def bucket(module_bucket: Bucket, credentials_set: None) -> Bucket:
    """A bucket that holds one archive."""
    module_bucket.empty()
    module_bucket.put("prod/m/1.tar", BODY)
    return module_bucket


@pytest.fixture
def proxy(bucket: Bucket) -> Iterator[FaultyProxy]:
    """A proxy before the bucket."""
    with FaultyProxy(bucket.server.port) as running:
        yield running


def store_at(proxy: FaultyProxy, bucket: Bucket, bounds: Bounds = SHORT) -> S3Store:
    """Return the agent's store, behind the proxy."""
    url = f"s3://{bucket.name}/prod"
    settings = Store(url=url, endpoint_url=proxy.endpoint_url, region="us-east-1")
    return S3Store(settings, SMALL, Limits(), bounds)


def everything(_: Model) -> bool:
    """Want every model."""
    return True


def never() -> bool:
    """Do not stop."""
    return False


def objects_of(store: S3Store) -> tuple[StoredObject, ...]:
    """Return the objects of the one release."""
    ((release,),) = store.list(everything).releases.values()
    return release.objects


def fetch_all(store: S3Store, objects: tuple[StoredObject, ...], retries: Retries = AT_ONCE) -> bytes:
    """Fetch the release as the agent does."""
    with stream(objects, store.read, SMALL, never, retries) as parts:
        return b"".join(bytes(piece) for _, piece in parts)


PASSING = {
    "reset": faults.reset_in_the_middle,
    "truncated": faults.cut_short,
    "truncated without a length": faults.cut_short_without_length,
    "black hole": faults.black_hole,
    "black hole in the middle": faults.black_hole_in_the_middle,
    "slow drip": faults.drip,
    "503": faults.s3_error(503, "SlowDown"),
    "503 by a proxy": faults.says(503, b"<html>busy</html>", "text/html"),
    "429": faults.s3_error(429, "TooManyRequests"),
    "500": faults.s3_error(500, "InternalError"),
    "502": faults.says(502, b"", "text/html"),
    "504": faults.says(504, b"", "text/html"),
}


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING.keys())
def test_what_passes_is_overcome(bucket: Bucket, proxy: FaultyProxy, fault: Fault) -> None:
    """Three parts fail, are asked for again, and every byte is right in the end."""
    store = store_at(proxy, bucket)
    objects = objects_of(store)
    proxy.fault, proxy.matches, proxy.times = fault, reads, 3

    assert fetch_all(store, objects) == BODY
    assert proxy.times == 0
    assert proxy.requests >= 1 + PARTS + 3


LASTING = {
    "reset": (faults.reset_in_the_middle, Reason.TRANSFER_BROKEN),
    "truncated": (faults.cut_short, Reason.TRANSFER_BROKEN),
    "truncated without a length": (faults.cut_short_without_length, Reason.TRANSFER_BROKEN),
    "black hole": (faults.black_hole, Reason.STORE_UNREACHABLE),
    "black hole in the middle": (faults.black_hole_in_the_middle, Reason.TRANSFER_BROKEN),
    "slow drip": (faults.drip, Reason.TRANSFER_TOO_SLOW),
    "endless": (faults.endless, Reason.STORE_BAD_ANSWER),
    "one byte too many": (faults.one_byte_too_many, Reason.STORE_BAD_ANSWER),
    "endless error": (faults.endless_error, Reason.STORE_BAD_ANSWER),
    "503": (faults.s3_error(503, "SlowDown"), Reason.STORE_THROTTLED),
    "429": (faults.s3_error(429, "TooManyRequests"), Reason.STORE_THROTTLED),
    "500": (faults.s3_error(500, "InternalError"), Reason.STORE_FAILED),
    "captive portal": (faults.says(200, faults.PORTAL, "text/html"), Reason.STORE_BAD_ANSWER),
    "redirect to a portal": (faults.says(302, b"", "text/html"), Reason.STORE_BAD_ANSWER),
    "a proxy that strips Range": (faults.without_request_header("range"), Reason.STORE_CREDENTIALS),
    "a proxy that strips If-Match": (faults.without_request_header("if-match"), Reason.STORE_CREDENTIALS),
    "other range": (faults.other_range, Reason.STORE_BAD_ANSWER),
    "gzip": (faults.gzip_the_body, Reason.STORE_BAD_ANSWER),
    "denied": (faults.s3_error(403, "AccessDenied"), Reason.STORE_DENIED),
    "key disabled": (faults.s3_error(400, "KMS.DisabledException"), Reason.STORE_DENIED),
    "expired": (faults.s3_error(400, "ExpiredToken"), Reason.STORE_CREDENTIALS),
    "gone": (faults.s3_error(404, "NoSuchKey"), Reason.OBJECT_GONE),
    "no bucket": (faults.s3_error(404, "NoSuchBucket"), Reason.STORE_NOT_FOUND),
    "changed": (faults.s3_error(412, "PreconditionFailed"), Reason.OBJECT_CHANGED),
    "shorter now": (faults.s3_error(416, "InvalidRange"), Reason.OBJECT_CHANGED),
    "archived": (faults.s3_error(403, "InvalidObjectState"), Reason.OBJECT_ARCHIVED),
    "clock": (faults.s3_error(403, "RequestTimeTooSkewed"), Reason.STORE_CLOCK_SKEW),
    "region": (faults.s3_error(400, "AuthorizationHeaderMalformed"), Reason.STORE_WRONG_REGION),
}
AGAIN = {
    Reason.TRANSFER_BROKEN,
    Reason.TRANSFER_TOO_SLOW,
    Reason.STORE_UNREACHABLE,
    Reason.STORE_THROTTLED,
    Reason.STORE_FAILED,
}


@pytest.mark.parametrize(("fault", "reason"), LASTING.values(), ids=LASTING.keys())
def test_what_lasts_has_its_reason(bucket: Bucket, proxy: FaultyProxy, fault: Fault, reason: Reason) -> None:
    """No piece is handed on, and the number of requests stays bounded."""
    store = store_at(proxy, bucket)
    objects = objects_of(store)
    proxy.fault, proxy.matches = fault, reads

    with (
        pytest.raises((StoreError, TransferError)) as caught,
        stream(objects, store.read, SMALL, never, AT_ONCE) as parts,
    ):
        next(parts)

    assert caught.value.reason is reason
    attempts = AT_ONCE.attempts if reason in AGAIN else 1
    assert proxy.requests <= 1 + SMALL.connections * attempts
    assert "m/1.tar" in str(caught.value)


def test_a_replaced_object_is_never_mixed(bucket: Bucket, proxy: FaultyProxy) -> None:
    """The object is replaced between two parts: the stream ends, having handed on only old bytes."""
    body = BODY * 6
    bucket.put("prod/m/1.tar", body)
    store = store_at(proxy, bucket)
    objects = objects_of(store)
    got = bytearray()

    def read_while_it_is_replaced() -> None:
        with stream(objects, store.read, ONE_BY_ONE, never, AT_ONCE) as parts:
            for _, piece in parts:
                got.extend(piece)
                bucket.put("prod/m/1.tar", bytes(len(body)))

    with pytest.raises(TransferError) as caught:
        read_while_it_is_replaced()

    assert caught.value.reason is Reason.OBJECT_CHANGED
    assert 0 < len(got) < len(body)
    assert got == body[: len(got)]


def test_a_replaced_object_is_told_even_if_the_store_ignores_the_condition(
    bucket: Bucket, proxy: FaultyProxy
) -> None:
    """If-Match means nothing to it: the ETag of every answer is compared anyway."""
    store = store_at(proxy, bucket)
    objects = objects_of(store)
    bucket.put("prod/m/1.tar", bytes(len(BODY)))
    proxy.fault = faults.a_store_without("IfMatch", bucket.client, bucket.name, "prod/m/1.tar")

    with pytest.raises(TransferError) as caught:
        fetch_all(store, objects)

    assert caught.value.reason is Reason.OBJECT_CHANGED


def test_a_store_that_ignores_ranges_is_refused(bucket: Bucket, proxy: FaultyProxy) -> None:
    """200 with the whole object is not the part that was asked for."""
    store = store_at(proxy, bucket)
    objects = objects_of(store)
    proxy.fault = faults.a_store_without("Range", bucket.client, bucket.name, "prod/m/1.tar")

    with pytest.raises(StoreError, match="HTTP 200") as caught:
        fetch_all(store, objects)

    assert caught.value.reason is Reason.STORE_BAD_ANSWER


BAD_LISTINGS = {
    "a head that never ends": (faults.drip_the_head, Reason.STORE_UNREACHABLE),
    "captive portal": (faults.says(200, faults.PORTAL, "text/html"), Reason.STORE_BAD_ANSWER),
    "captive portal in XHTML": (faults.says(200, faults.PORTAL_XHTML, "text/html"), Reason.STORE_BAD_ANSWER),
    "empty": (faults.says(200, b""), Reason.STORE_BAD_ANSWER),
    "redirect": (faults.says(302, b"", "text/html"), Reason.STORE_BAD_ANSWER),
    "truncated": (faults.cut_short, Reason.STORE_UNREACHABLE),
    "truncated without a length": (faults.cut_short_without_length, Reason.STORE_BAD_ANSWER),
    "reset": (faults.reset_in_the_middle, Reason.STORE_UNREACHABLE),
    "black hole": (faults.black_hole, Reason.STORE_UNREACHABLE),
    "black hole in the middle": (faults.black_hole_in_the_middle, Reason.STORE_UNREACHABLE),
    "slow drip": (faults.drip, Reason.STORE_BAD_ANSWER),
    "endless": (faults.endless, Reason.STORE_BAD_ANSWER),
    "gzip": (faults.gzip_the_body, Reason.STORE_BAD_ANSWER),
    "no IsTruncated": (
        faults.edit_body(b"<IsTruncated>false</IsTruncated>", b""),
        Reason.STORE_BAD_ANSWER,
    ),
    "goes on, but not where": (
        faults.edit_body(b"<IsTruncated>false<", b"<IsTruncated>true<"),
        Reason.STORE_BAD_ANSWER,
    ),
    "goes on where it was": (
        faults.edit_body(
            b"<IsTruncated>false</IsTruncated>",
            b"<IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>",
        ),
        Reason.STORE_BAD_ANSWER,
    ),
    "ends, and goes on": (
        faults.edit_body(
            b"<IsTruncated>false</IsTruncated>",
            b"<IsTruncated>false</IsTruncated><NextContinuationToken>t</NextContinuationToken>",
        ),
        Reason.STORE_BAD_ANSWER,
    ),
    "other bucket": (faults.edit_body(b"<Name>", b"<Name>other-"), Reason.STORE_BAD_ANSWER),
    "other prefix": (faults.edit_body(b"<Prefix>prod", b"<Prefix>test"), Reason.STORE_BAD_ANSWER),
    "foreign key": (faults.edit_body(b"<Key>prod", b"<Key>test"), Reason.STORE_BAD_ANSWER),
    "404 of somebody else": (faults.says(404, b"<html/>", "text/html"), Reason.STORE_NOT_FOUND),
    "no bucket": (faults.s3_error(404, "NoSuchBucket"), Reason.STORE_NOT_FOUND),
    "412": (faults.s3_error(412, "PreconditionFailed"), Reason.STORE_BAD_ANSWER),
    "503": (faults.s3_error(503, "SlowDown"), Reason.STORE_THROTTLED),
    "500": (faults.s3_error(500, "InternalError"), Reason.STORE_FAILED),
    "no such operation": (faults.s3_error(501, "NotImplemented"), Reason.STORE_BAD_ANSWER),
    "denied": (faults.s3_error(403, "AccessDenied"), Reason.STORE_DENIED),
    "clock": (faults.s3_error(403, "RequestTimeTooSkewed"), Reason.STORE_CLOCK_SKEW),
    "expired": (faults.s3_error(400, "ExpiredToken"), Reason.STORE_CREDENTIALS),
}


@pytest.mark.parametrize(("fault", "reason"), BAD_LISTINGS.values(), ids=BAD_LISTINGS.keys())
def test_what_is_no_listing_is_never_an_empty_one(
    bucket: Bucket, proxy: FaultyProxy, fault: Fault, reason: Reason
) -> None:
    """Whatever else answers, it is a StoreError with a reason, and the next listing is right again."""
    store = store_at(proxy, bucket)
    proxy.fault = fault

    with pytest.raises(StoreError) as caught:
        store.list(everything)

    assert caught.value.reason is reason
    assert f"s3://{bucket.name}/prod" in str(caught.value)
    proxy.fault = None
    assert len(objects_of(store)) == 1


def test_a_key_that_comes_twice_is_a_bad_listing(bucket: Bucket, proxy: FaultyProxy) -> None:
    """Two pages that overlap do not describe a store."""
    bucket.put("prod/m/2.tar", BODY)
    proxy.fault = faults.edit_body(b"<Key>prod/m/2.tar", b"<Key>prod/m/1.tar")

    with pytest.raises(StoreError, match="twice") as caught:
        store_at(proxy, bucket).list(everything)

    assert caught.value.reason is Reason.STORE_BAD_ANSWER


def test_a_listing_is_asked_for_again_within_bounds(bucket: Bucket, proxy: FaultyProxy) -> None:
    """One failure passes unseen; failures that last cost the attempts that the bounds allow."""
    store = store_at(proxy, bucket, replace(SHORT, list_attempts=2))
    proxy.fault, proxy.times = faults.s3_error(503, "SlowDown"), 1
    assert len(objects_of(store)) == 1
    assert proxy.requests == 2

    proxy.times = 1_000_000
    with pytest.raises(StoreError):
        store.list(everything)
    assert proxy.requests == 4


@pytest.mark.parametrize(
    ("matches", "permission"), [(listings, "s3:ListBucket"), (reads, "s3:GetObject")], ids=["list", "get"]
)
def test_a_refusal_names_the_permission(
    bucket: Bucket, proxy: FaultyProxy, matches: object, permission: str
) -> None:
    """The operator reads what to allow."""
    proxy.fault = faults.s3_error(403, "AccessDenied")
    proxy.matches = matches  # type: ignore[assignment]
    store = store_at(proxy, bucket)

    with pytest.raises(StoreError, match=permission) as caught:
        fetch_all(store, objects_of(store))

    assert caught.value.reason is Reason.STORE_DENIED


def test_foreign_text_is_shown_harmlessly(bucket: Bucket, proxy: FaultyProxy) -> None:
    """What a store says is shortened, cannot steer a terminal, and does not carry a secret into a log."""
    said = "&#x9b;2J token=CANARYTOKEN AKIACANARYCANARY00 https://user:canary-pw@proxy " + "x" * 5000
    proxy.fault = faults.s3_error(403, "AccessDenied", said)

    with pytest.raises(StoreError) as caught:
        store_at(proxy, bucket).list(everything)

    text = f"{caught.value} {caught.value.facts}"
    assert text.isascii()
    assert text.isprintable()
    assert "canary" not in text.lower()
    assert len(text) < 800


@pytest.fixture
def credentials(bucket: Bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """Write the file from which the agent has its credentials, with something more in it."""
    file = tmp_path / "credentials"
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))

    def write(more: str) -> None:
        keys = (
            f"aws_access_key_id={bucket.server.access_key}\naws_secret_access_key={bucket.server.secret_key}"
        )
        file.write_text(f"[default]\n{keys}\n{more}\n")

    return write


def test_credentials_that_expire_under_way_are_renewed(
    bucket: Bucket, proxy: FaultyProxy, credentials: Callable[[str], None]
) -> None:
    """The first part is read with a token that then expires; the file has new ones; no part is lost."""
    credentials("")
    objects = objects_of(store_at(proxy, bucket))
    refused: list[bool] = []

    def token_holds_once(exchange: faults.Exchange) -> None:
        if "X-Amz-Security-Token" not in exchange.headers:
            exchange.answer(exchange.forward())
        elif refused:
            credentials("")
            faults.s3_error(400, "ExpiredToken")(exchange)
        else:
            refused.append(True)
            wanted = exchange.headers["Range"]
            part = bucket.client.get_object(Bucket=bucket.name, Key=objects[0].key, Range=wanted)
            headers = {"etag": part["ETag"], "content-range": part["ContentRange"]}
            exchange.answer(faults.Answer(206, headers, part["Body"].read()))

    proxy.fault = token_holds_once
    credentials("aws_session_token=old")
    store = store_at(proxy, bucket)

    with stream(objects, store.read, ONE_BY_ONE, never, AT_ONCE) as parts:
        assert b"".join(bytes(piece) for _, piece in parts) == BODY
    assert refused


def test_credentials_that_stay_wrong_are_not_tried_again(bucket: Bucket, proxy: FaultyProxy) -> None:
    """Without new ones there is nothing to try: one request, one error."""
    proxy.fault = faults.s3_error(403, "InvalidAccessKeyId")
    store = store_at(proxy, bucket)

    with pytest.raises(StoreError):
        store.list(everything)

    assert proxy.requests == 1


@pytest.mark.timeout(60)
def test_a_stop_does_not_wait_for_a_store_that_hangs(bucket: Bucket, proxy: FaultyProxy) -> None:
    """Every connection hangs, for longer than this test may take; the consumer is told all the same."""
    store = store_at(proxy, bucket, replace(SHORT, read_seconds=3600))
    objects = objects_of(store)
    stop = threading.Event()

    def hang(exchange: faults.Exchange) -> None:
        stop.set()
        faults.black_hole(exchange)

    proxy.fault = hang

    with pytest.raises(Stopped), stream(objects, store.read, SMALL, stop.is_set, AT_ONCE) as parts:
        next(parts)


@pytest.mark.timeout(60)
def test_an_attempt_that_never_ends_is_given_up(bucket: Bucket, proxy: FaultyProxy) -> None:
    """Whatever the store's own bounds miss, the stream ends."""
    store = store_at(proxy, bucket, replace(SHORT, read_seconds=3600))
    objects = objects_of(store)
    proxy.fault = faults.black_hole

    with pytest.raises(TransferError) as caught:
        fetch_all(store, objects, replace(AT_ONCE, silent_seconds=0.3, slowest_bytes_per_second=1 << 30))

    assert caught.value.reason is Reason.TRANSFER_TOO_SLOW


@contextmanager
def nothing_left_behind() -> Iterator[None]:
    """Check that as many threads and descriptors are there as before."""

    def held() -> tuple[list[str], int]:
        ours = [thread.name for thread in threading.enumerate() if thread.name.startswith("fetch-")]
        return ours, len(list(Path("/proc/self/fd").iterdir()))

    threads, handles = held()
    yield
    now_threads, now_handles = held()
    assert now_threads == threads
    assert now_handles <= handles + 2 * SMALL.connections + 4  # connections that are kept for the next time


@pytest.mark.parametrize(
    "fault",
    [faults.reset_in_the_middle, faults.cut_short, faults.says(200, faults.PORTAL), faults.endless],
    ids=["reset", "truncated", "portal", "endless"],
)
def test_fifty_failures_leave_nothing_behind(bucket: Bucket, proxy: FaultyProxy, fault: Fault) -> None:
    """No thread and no connection is left of a stream that failed."""
    store = store_at(proxy, bucket)
    objects = objects_of(store)
    proxy.fault = fault

    with nothing_left_behind():
        for _ in range(50):
            with pytest.raises(SyncError):
                fetch_all(store, objects, Retries(attempts=1))
