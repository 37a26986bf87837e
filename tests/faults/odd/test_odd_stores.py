"""Stores that are S3 in all but a few things: their refusals are explained, and pages are no bytes."""

import io
import tarfile
from dataclasses import replace

import pytest

from faulty_proxy import Answer, Exchange, Fault, FaultyProxy, edit_body, listings, s3_error
from fixtures_store import Bucket
from odd_store import BODY, ONCE, failure, first_object, only, settings_of
from servesync.domain.versions import StoredObject
from servesync.errors import Reason, TransferError
from servesync.settings import Fetch, Limits
from servesync.store import ObjectAttributes, S3Store, S3Writer

# -- refusals of one's own ---------------------------------------------------------------------------------

CODES = [
    (403, "SecondLevelDomainForbidden", Reason.STORE_BAD_ANSWER, "store.addressing_style: virtual"),
    (403, "PathStyleDomainForbidden", Reason.STORE_BAD_ANSWER, "store.addressing_style: virtual"),
    (403, "VirtualHostDomainRequired", Reason.STORE_BAD_ANSWER, "store.addressing_style: virtual"),
    (400, "UserProjectMissing", Reason.STORE_DENIED, "Requester Pays"),
    (403, "AccessDenied", Reason.STORE_DENIED, "store.request_payer"),
]


@pytest.mark.parametrize(("status", "code", "reason", "advice"), CODES)
def test_a_code_of_another_store_is_explained(
    status: int, code: str, reason: Reason, advice: str, proxy: FaultyProxy, store: S3Store
) -> None:
    """And not just taken for a lack of permission; a listing as well as a read."""
    item = first_object(store)
    proxy.fault = s3_error(status, code)

    for ask in (
        lambda: store.list(only),
        lambda: store.read(item, 0, 1, memoryview(bytearray(1)), lambda: False),
    ):
        error = failure(ask)
        assert error.reason is reason
        assert advice in str(error)
        assert code in str(error)


@pytest.mark.parametrize("place", ["path", "host"])
def test_a_bucket_in_the_endpoint_is_told(
    place: str, bucket: Bucket, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As consoles show it; the bucket is then looked for inside of itself."""
    endpoint = f"{proxy.endpoint_url}/{bucket.name}"
    if place == "host":
        proxy.fault = s3_error(404, "NoSuchKey")
        monkeypatch.setenv("http_proxy", proxy.endpoint_url)
        endpoint = f"http://{bucket.name}.store.example"
    settings = settings_of(bucket, proxy.endpoint_url).model_copy(update={"endpoint_url": endpoint})

    error = failure(lambda: S3Store(settings, Fetch(), Limits(), ONCE).list(only))

    assert f"store.endpoint_url holds the bucket's name ({bucket.name})" in str(error)
    assert ("is it http://store.example?" if place == "host" else f"is it {proxy.endpoint_url}?") in str(
        error
    )


# -- HEAD, whose errors say nothing ------------------------------------------------------------------------

SSE_C = (
    "The object was stored using a form of Server Side Encryption. The correct parameters must be provided "
    "to retrieve the object."
)
HEADS = {
    "SSE-C": (400, s3_error(400, "InvalidRequest", SSE_C), Reason.OBJECT_ENCRYPTED, "SSE-C"),
    "clock": (403, s3_error(403, "RequestTimeTooSkewed"), Reason.STORE_CLOCK_SKEW, "clock"),
    "signature": (403, s3_error(403, "SignatureDoesNotMatch"), Reason.STORE_CREDENTIALS, "credentials"),
    "expired": (400, s3_error(400, "ExpiredToken"), Reason.STORE_CREDENTIALS, "ExpiredToken"),
    "archived": (403, s3_error(403, "InvalidObjectState"), Reason.OBJECT_ARCHIVED, "restore"),
    "denied": (403, s3_error(403, "AccessDenied"), Reason.STORE_DENIED, "s3:GetObject"),
    "only HEAD": (403, None, Reason.STORE_DENIED, "HEAD is refused"),
    "no HEAD": (405, None, Reason.STORE_BAD_ANSWER, "HEAD is refused"),
}


def with_head(status: int, get: Fault | None) -> Fault:
    """Refuse HEAD without a word, and do something else to the other requests."""

    def fault(exchange: Exchange) -> None:
        if exchange.method == "HEAD":
            exchange.answer(Answer(status, {}, b""))
        elif get is None or exchange.is_listing or exchange.method != "GET":
            exchange.answer(exchange.forward())
        else:
            get(exchange)

    return fault


@pytest.mark.parametrize(("status", "get", "reason", "word"), HEADS.values(), ids=HEADS.keys())
def test_why_a_head_is_refused_is_asked_for(
    status: int, get: Fault | None, reason: Reason, word: str, proxy: FaultyProxy, store: S3Store
) -> None:
    """By one read of one byte; without it every refusal would be a matter of permissions."""
    item = first_object(store)
    proxy.fault, proxy.requests = with_head(status, get), 0

    error = failure(lambda: store.describe(item))

    assert error.reason is reason
    assert word in str(error)
    assert proxy.requests == 2


def test_an_empty_object_is_no_reason(bucket: Bucket, proxy: FaultyProxy, store: S3Store) -> None:
    """It has no first byte, which is not what was asked."""
    bucket.put("prod/m/1.tar", b"")
    item = first_object(store)
    proxy.fault = with_head(400, s3_error(416, "InvalidRange"))

    assert failure(lambda: store.describe(item)).reason is Reason.STORE_FAILED


@pytest.mark.parametrize("status", [404, 412])
def test_a_head_that_says_enough_is_no_second_request(
    status: int, proxy: FaultyProxy, store: S3Store
) -> None:
    """Gone is gone, and changed is changed."""
    item = first_object(store)
    proxy.fault, proxy.requests = with_head(status, s3_error(403, "AccessDenied")), 0

    assert isinstance(failure(lambda: store.describe(item)), TransferError)
    assert proxy.requests == 1


def test_a_publisher_is_told_why_it_may_not_look(bucket: Bucket, proxy: FaultyProxy) -> None:
    """At a store that knows no conditions it has to; the clock is wrong, and no permission missing."""
    refuse_head = with_head(403, s3_error(403, "RequestTimeTooSkewed"))

    def fault(exchange: Exchange) -> None:
        if exchange.method == "PUT":
            s3_error(501, "NotImplemented")(exchange)
        else:
            refuse_head(exchange)

    proxy.fault = fault
    with S3Writer(settings_of(bucket, proxy.endpoint_url)) as writer:
        error = failure(lambda: writer.put_new("prod/m/9.tar", b"x", ObjectAttributes("application/x-tar")))

    assert error.reason is Reason.STORE_CLOCK_SKEW


# -- bytes that are not the object's -----------------------------------------------------------------------


def read(store: S3Store, item: StoredObject, offset: int = 0) -> bytes:
    """Read an object from an offset on."""
    buffer = bytearray(item.size - offset)
    store.read(item, offset, len(buffer), memoryview(buffer), lambda: False)
    return bytes(buffer)


def test_an_object_that_the_store_unpacks_is_named(proxy: FaultyProxy, store: S3Store) -> None:
    """Google's store does so with what has Content-Encoding: gzip, and sends all of it instead of a range."""
    item = first_object(store)
    headers = {
        "etag": item.etag,
        "x-goog-stored-content-encoding": "gzip",
        "warning": "214 UploadServer gunzipped",
    }

    def unpacked(exchange: Exchange) -> None:
        exchange.answer(Answer(200, headers, b"the content"))

    proxy.fault = unpacked

    error = failure(lambda: read(store, item))

    assert error.reason is Reason.STORE_BAD_ANSWER
    assert "stored with Content-Encoding: 'gzip'" in str(error)
    assert "clear-content-encoding" in str(error)


def test_an_object_that_is_sent_as_it_is_stored_is_read(proxy: FaultyProxy, store: S3Store) -> None:
    """With Cache-Control: no-transform it comes as any other."""
    item = first_object(store)

    def as_it_is(exchange: Exchange) -> None:
        answer = exchange.forward()
        answer.headers |= {"content-encoding": "gzip", "x-goog-stored-content-encoding": "gzip"}
        exchange.answer(answer)

    proxy.fault = as_it_is

    assert read(store, item) == BODY


HTML = b"<!DOCTYPE html><html><body>Our proxy is busy</body></html>"
PAGES = {
    "HTML": (HTML, "text/html"),
    "HTML of no type": (b"\n<html>", ""),
    "XML": (b'<?xml version="1.0"?><Error><Code>InternalError</Code></Error>', "application/xml"),
    "JSON": (b'{"error": "busy"}', "application/json"),
}


def as_a_range(start: bytes, content_type: str) -> Fault:
    """Answer a read with a page that has status, range, ETag and length of the bytes that were asked for."""

    def fault(exchange: Exchange) -> None:
        answer = exchange.forward()
        answer.body = start.ljust(len(answer.body))[: len(answer.body)]
        answer.headers |= {"content-type": content_type}
        exchange.answer(answer)

    return fault


def reads(exchange: Exchange) -> bool:
    """Match reads of objects, and nothing else."""
    return exchange.method == "GET" and not listings(exchange)


@pytest.mark.parametrize(("start", "content_type"), PAGES.values(), ids=PAGES.keys())
@pytest.mark.parametrize("key", ["prod/m/1.tar", "prod/m/1/saved_model.pb"])
def test_a_page_in_place_of_bytes_is_the_transfers_fault(
    key: str, start: bytes, content_type: str, bucket: Bucket, proxy: FaultyProxy, store: S3Store
) -> None:
    """It is tried again, and the release is none the worse for it."""
    bucket.empty()
    bucket.put(key, BODY)
    item = first_object(store)
    proxy.fault, proxy.matches, proxy.times = as_a_range(start, content_type), reads, 1

    error = failure(lambda: read(store, item))

    assert isinstance(error, TransferError)
    assert error.reason is Reason.TRANSFER_BROKEN
    assert "servesync tries again" in str(error)
    assert read(store, item) == BODY


def test_a_page_in_the_middle_is_known_by_its_type(proxy: FaultyProxy, store: S3Store) -> None:
    """There bytes of an archive may look like anything, but the store does not call them a page."""
    item = first_object(store)
    proxy.fault, proxy.matches = as_a_range(*PAGES["HTML"]), reads
    assert isinstance(failure(lambda: read(store, item, 1000)), TransferError)

    proxy.fault = as_a_range(PAGES["HTML"][0], "application/x-tar")
    assert read(store, item, 1000).startswith(HTML)


@pytest.mark.parametrize("first", [b"<\xd5\x91", b"{\xd5\x91", b"\n<\xd5\x91"])
def test_a_middle_may_begin_with_any_byte(first: bytes, proxy: FaultyProxy, store: S3Store) -> None:
    """An object that was uploaded as XML: of compressed bytes one range in 140 begins with such a sign."""
    item = first_object(store)
    proxy.fault, proxy.matches = as_a_range(first, "application/xml"), reads

    assert read(store, item, 1000).startswith(first)


@pytest.mark.parametrize("magic", [b"ustar\x0000", bytes(8)], ids=["ustar", "V7"])
def test_an_archive_may_begin_as_a_page_does(
    magic: bytes, bucket: Bucket, proxy: FaultyProxy, store: S3Store
) -> None:
    """A tar begins with the name of its first member; its ETag is that of an upload in parts."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("{notes}"))
    archive = packed.getvalue()[:257] + magic + packed.getvalue()[265:]
    bucket.put("prod/m/1.tar", archive)
    item = replace(first_object(store), etag='"0123-2"')

    def in_parts(exchange: Exchange) -> None:
        headers = {"etag": item.etag, "content-range": f"bytes 0-{item.size - 1}/{item.size}"}
        exchange.answer(Answer(206, headers, archive))

    proxy.fault = in_parts

    assert read(store, item) == archive


@pytest.mark.parametrize("key", ["prod/m/1.tar", "prod/m/1/saved_model.pb", "prod/m/1.manifest.json"])
def test_an_object_that_is_a_page_is_read(key: str, bucket: Bucket, store: S3Store) -> None:
    """Its ETag is the MD5 of these very bytes: then the release is to blame, which is found out later."""
    bucket.empty()
    bucket.put("prod/m/1/saved_model.pb" if key.endswith("json") else key, HTML)
    bucket.put(key, HTML)
    size, etag = len(HTML), bucket.client.head_object(Bucket=bucket.name, Key=key)["ETag"]
    path = "saved_model.pb" if key.endswith("pb") else ""

    assert read(store, StoredObject(key, size, etag, path)) == HTML


def test_an_asset_may_be_a_page(bucket: Bucket, proxy: FaultyProxy, store: S3Store) -> None:
    """Nobody can tell whether it should be another, as an ETag need not be an MD5."""
    bucket.put("prod/m/1/assets/help.html", HTML)
    proxy.fault, proxy.matches = edit_body(b"busy", b"idle"), reads
    item = StoredObject(
        "prod/m/1/assets/help.html",
        len(HTML),
        bucket.client.head_object(Bucket=bucket.name, Key="prod/m/1/assets/help.html")["ETag"],
        "assets/help.html",
    )

    assert read(store, item) == HTML.replace(b"busy", b"idle")
