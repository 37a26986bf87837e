"""Bodies behind TLS: they are read record by record into the buffer, with the same bounds and reasons."""

import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import faulty_proxy as faults
from certificates import certificate
from faulty_proxy import Exchange, Fault, FaultyProxy, reads
from fixtures_store import Bucket
from servesync.domain.versions import StoredObject
from servesync.errors import Reason, Stopped, StoreError, TransferError
from servesync.settings import Fetch, Limits, Store
from servesync.store import Bounds, S3Store

KIB = 1024
BODY = bytes(range(256)) * 4 * 801
"""Of no whole number of TLS records."""
SHORT = Bounds(connect_seconds=1, read_seconds=1, floor_after_seconds=0.6, answer_seconds=2, list_attempts=1)


@pytest.fixture
def proxy(bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    """A TLS endpoint, which the agent believes, before a bucket with one archive."""
    file = certificate(tmp_path, "127.0.0.1")
    monkeypatch.setenv("AWS_CA_BUNDLE", str(file))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    bucket.put("prod/m/1.tar", BODY)
    with FaultyProxy(bucket.server.port, context) as running:
        yield running


@pytest.fixture
def store(bucket: Bucket, proxy: FaultyProxy) -> Iterator[S3Store]:
    """The agent's store behind TLS."""
    store = store_at(proxy, bucket, SHORT)
    yield store
    store.close()


def store_at(proxy: FaultyProxy, bucket: Bucket, bounds: Bounds) -> S3Store:
    """Return the agent's store at the endpoint."""
    settings = Store(url=f"s3://{bucket.name}/prod", endpoint_url=proxy.endpoint_url, region="us-east-1")
    return S3Store(settings, Fetch(), Limits(), bounds)


def archive(store: S3Store) -> StoredObject:
    """Return the one archive."""
    ((release,),) = store.list(lambda _: True).releases.values()
    return release.objects[0]


def read(store: S3Store, item: StoredObject, offset: int, length: int, stop: threading.Event) -> bytes:
    """Read one range into a buffer of just its size."""
    buffer = bytearray(length)
    store.read(item, offset, length, memoryview(buffer), stop.is_set)
    return bytes(buffer)


@pytest.mark.parametrize(
    ("offset", "length"),
    [(0, len(BODY)), (0, 1), (len(BODY) - 1, 1), (5, 16 * KIB), (16 * KIB - 1, 2), (77, 300 * KIB + 1)],
)
def test_every_range_is_read_exactly(store: S3Store, offset: int, length: int) -> None:
    """Whatever part of a record it begins or ends in."""
    assert read(store, archive(store), offset, length, threading.Event()) == BODY[offset:][:length]


def test_one_connection_serves_one_read_after_the_other(store: S3Store, proxy: FaultyProxy) -> None:
    """What has read a whole body leaves the connection as the next request needs it: no new handshake."""
    item, ports = archive(store), set[int]()

    def note(exchange: Exchange) -> None:
        ports.add(exchange._handler.client_address[1])
        exchange.answer(exchange.forward())

    proxy.fault, proxy.matches = note, reads

    for offset in range(0, 640 * KIB, 64 * KIB):
        assert read(store, item, offset, 64 * KIB, threading.Event()) == BODY[offset:][: 64 * KIB]

    assert proxy.requests == 1 + 10
    assert len(ports) == 1


def in_chunks(exchange: Exchange) -> None:
    """Send the body in chunks of no even size, and no length."""
    answer = exchange.forward()
    cuts = range(0, len(answer.body), 37 * KIB + 1)
    pieces = [answer.body[start : start + 37 * KIB + 1] for start in cuts]
    answer.headers["transfer-encoding"] = "chunked"
    answer.headers.pop("content-length", None)
    exchange._handler.send_response_only(answer.status)
    for name, value in answer.headers.items():
        exchange._handler.send_header(name, value)
    exchange._handler.end_headers()
    exchange.send(b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n")


def until_the_end(exchange: Exchange) -> None:
    """Send the body without a length; the end of the connection is its end."""
    answer = exchange.forward()
    exchange.head(answer, length=None)
    exchange.send(answer.body)
    exchange.close()


@pytest.mark.parametrize("fault", [in_chunks, until_the_end])
def test_a_body_may_tell_its_end_in_another_way(store: S3Store, proxy: FaultyProxy, fault: Fault) -> None:
    """Chunks, or the end of the connection."""
    item = archive(store)
    proxy.fault = fault

    assert read(store, item, 3, 500 * KIB, threading.Event()) == BODY[3:][: 500 * KIB]


BAD = {
    "reset": (faults.reset_in_the_middle, Reason.TRANSFER_BROKEN),
    "truncated": (faults.cut_short, Reason.TRANSFER_BROKEN),
    "truncated without a length": (faults.cut_short_without_length, Reason.TRANSFER_BROKEN),
    "black hole in the middle": (faults.black_hole_in_the_middle, Reason.TRANSFER_BROKEN),
    "slow drip": (faults.drip, Reason.TRANSFER_TOO_SLOW),
    "endless": (faults.endless, Reason.STORE_BAD_ANSWER),
    "one byte too many": (faults.one_byte_too_many, Reason.STORE_BAD_ANSWER),
    "other range": (faults.other_range, Reason.STORE_BAD_ANSWER),
    "gzip": (faults.gzip_the_body, Reason.STORE_BAD_ANSWER),
}


@pytest.mark.parametrize(("fault", "reason"), BAD.values(), ids=BAD.keys())
def test_a_bad_body_has_its_reason(store: S3Store, proxy: FaultyProxy, fault: Fault, reason: Reason) -> None:
    """As without TLS; the next read has a connection that works."""
    item = archive(store)
    proxy.fault, proxy.matches, proxy.times = fault, reads, 1

    with pytest.raises((StoreError, TransferError)) as caught:
        read(store, item, 1, 200 * KIB, threading.Event())

    assert caught.value.reason is reason
    assert "m/1.tar" in str(caught.value)
    assert read(store, item, 1, 200 * KIB, threading.Event()) == BODY[1:][: 200 * KIB]


@pytest.mark.timeout(60)
def test_a_stop_is_heeded_while_a_body_drips(bucket: Bucket, proxy: FaultyProxy) -> None:
    """The read itself ends, though no byte is late enough for a time-out, and its buffer is never full."""
    store = store_at(proxy, bucket, replace(SHORT, floor_after_seconds=3600))
    item, stop, looks = archive(store), threading.Event(), list[bool]()

    def should_stop() -> bool:
        looks.append(stop.is_set())
        return looks[-1]

    def drip(exchange: Exchange) -> None:
        answer = exchange.forward()
        exchange.head(answer)
        for position in range(len(answer.body)):
            exchange.send(answer.body[position : position + 1])
            if len(looks) > 4:
                stop.set()
            if exchange.stopping:
                return
            time.sleep(0.02)

    proxy.fault = drip

    with pytest.raises(Stopped):
        store.read(item, 0, 600 * KIB, memoryview(bytearray(600 * KIB)), should_stop)
    assert looks[:4] == [False] * 4, "it looks while it reads"
