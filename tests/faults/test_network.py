"""Faults below S3, and through the whole agent: what is on the shelf stays, and nothing else is left."""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import faulty_proxy as faults
from agent_box import AgentBox, digests, digests_on_disk
from big_models import LONG, files_of, small_archive
from faulty_proxy import Exchange, Fault, FaultyProxy, reads
from fixtures_store import Bucket
from servesync.domain.versions import Model, StoredObject
from servesync.errors import Reason, StoreError, SyncError, TransferError
from servesync.fetch import Retries, stream
from servesync.settings import Fetch, Limits, Store
from servesync.store import Bounds, S3Store

KIB = 1024
SHORT = Bounds(connect_seconds=1, read_seconds=1, answer_bytes=64 * KIB, answer_seconds=2, list_attempts=1)
SMALL = Fetch(connections=2, part_bytes=64 * KIB, memory_bytes=1024 * KIB)
AT_ONCE = Retries(attempts=3, first_pause_seconds=0.001, longest_pause_seconds=0.002)
NOT_EXISTING_PORT = 9
CANARY = "CANARYTOKEN"

# -- answers that are not even good HTTP: the proxy answers by itself ---------------------------------------

BODY = bytes(range(100))
ITEM = StoredObject("prod/m/1.tar", len(BODY), '"e"')
HEAD = b'HTTP/1.1 206 Partial Content\r\nETag: "e"\r\nContent-Range: bytes 0-99/100\r\n'
WITH_LENGTH = HEAD + b"Content-Length: 100\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.fixture
def canary_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials that must show up nowhere."""
    for name in [name for name in os.environ if name.startswith("AWS_") or name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIACANARY0000000000")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary-secret")
    monkeypatch.setenv("AWS_SESSION_TOKEN", CANARY)


@pytest.fixture
def alone(canary_credentials: None) -> Iterator[FaultyProxy]:
    """A proxy with nothing behind it: every answer is a fault."""
    with FaultyProxy(NOT_EXISTING_PORT) as proxy:
        yield proxy


def store_at(endpoint_url: str, bucket: str = "models") -> S3Store:
    """Return the agent's store at an endpoint."""
    settings = Store(
        url=f"s3://{bucket}/prod", endpoint_url=endpoint_url, region="us-east-1", allow_insecure_endpoint=True
    )
    return S3Store(settings, SMALL, Limits(), SHORT)


def everything(_: Model) -> bool:
    """Want every model."""
    return True


def never() -> bool:
    """Do not stop."""
    return False


def read(store: S3Store, item: StoredObject = ITEM) -> bytes:
    """Read one object with one request."""
    buffer = bytearray(item.size)
    store.read(item, 0, item.size, memoryview(buffer), never)
    return bytes(buffer)


def fetch(store: S3Store, *items: StoredObject) -> bytes:
    """Fetch objects as the agent does."""
    with stream(items, store.read, SMALL, never, AT_ONCE) as parts:
        return b"".join(bytes(piece) for _, piece in parts)


GOOD = {
    "a length": WITH_LENGTH + b"\r\n" + BODY,
    "chunks": CHUNKED + b"32\r\n" + BODY[:50] + b"\r\n32\r\n" + BODY[50:] + b"\r\n0\r\n\r\n",
    "neither": HEAD + b"\r\n" + BODY,
    "dates and numbers that are none, and that nobody needs": (
        WITH_LENGTH + b"Last-Modified: then\r\nExpires: never\r\nx-amz-mp-parts-count: few\r\n\r\n" + BODY
    ),
}


@pytest.mark.parametrize("answer", GOOD.values(), ids=GOOD.keys())
def test_unusual_answers_that_are_right(alone: FaultyProxy, answer: bytes) -> None:
    """The object is all there, however its end is told; the cases below differ from these in one thing."""
    alone.fault = faults.sends(answer)

    assert read(store_at(alone.endpoint_url)) == BODY


BAD = {
    "an SSH server": (b"SSH-2.0-OpenSSH_9.9\r\n", Reason.STORE_UNREACHABLE),
    "nothing, and an end": (b"", Reason.STORE_UNREACHABLE),
    "half a header": (WITH_LENGTH[:60], Reason.STORE_BAD_ANSWER),
    "too many headers": (HEAD + b"X-Y: z\r\n" * 300 + b"\r\n", Reason.STORE_UNREACHABLE),
    "a header without end": (HEAD + b"X: " + b"y" * 70_000 + b"\r\n\r\n", Reason.STORE_UNREACHABLE),
    "two lengths": (HEAD + b"Content-Length: 100, 99\r\n\r\n" + BODY, Reason.STORE_UNREACHABLE),
    "a length that is none": (HEAD + b"Content-Length: all\r\n\r\n" + BODY, Reason.STORE_BAD_ANSWER),
    "a negative length": (HEAD + b"Content-Length: -1\r\n\r\n" + BODY, Reason.STORE_BAD_ANSWER),
    "a chunk cut short": (CHUNKED + b"64\r\n" + BODY[:50], Reason.TRANSFER_BROKEN),
    "no last chunk": (CHUNKED + b"64\r\n" + BODY + b"\r\n", Reason.TRANSFER_BROKEN),
    "a last chunk too early": (CHUNKED + b"32\r\n" + BODY[:50] + b"\r\n0\r\n\r\n", Reason.TRANSFER_BROKEN),
    "a chunk without a size": (CHUNKED + b"zz\r\n" + BODY + b"\r\n0\r\n\r\n", Reason.TRANSFER_BROKEN),
    "a chunk too long": (CHUNKED + b"65\r\n" + BODY + b"!\r\n0\r\n\r\n", Reason.STORE_BAD_ANSWER),
    "206 without a body": (HEAD + b"Content-Length: 0\r\n\r\n", Reason.STORE_BAD_ANSWER),
    "200 without a body": (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", Reason.STORE_BAD_ANSWER),
    "204": (b"HTTP/1.1 204 No Content\r\n\r\n", Reason.STORE_BAD_ANSWER),
    "206 of several ranges": (
        b'HTTP/1.1 206 Partial Content\r\nETag: "e"\r\nContent-Length: 100\r\n'
        b"Content-Type: multipart/byteranges; boundary=b\r\n\r\n" + BODY,
        Reason.STORE_BAD_ANSWER,
    ),
    "206 of another size": (
        WITH_LENGTH.replace(b"/100", b"/101") + b"\r\n" + BODY,
        Reason.OBJECT_CHANGED,
    ),
    "206 of an unknown size": (WITH_LENGTH.replace(b"/100", b"/*") + b"\r\n" + BODY, Reason.STORE_BAD_ANSWER),
    "206 without an ETag": (WITH_LENGTH.replace(b"ETag", b"Tag") + b"\r\n" + BODY, Reason.OBJECT_CHANGED),
    "206 of another ETag": (WITH_LENGTH.replace(b'"e"', b'"f"') + b"\r\n" + BODY, Reason.OBJECT_CHANGED),
}


@pytest.mark.parametrize(("answer", "reason"), BAD.values(), ids=BAD.keys())
def test_bad_answers_to_a_read(alone: FaultyProxy, answer: bytes, reason: Reason) -> None:
    """Each has its reason, is one request, names the object, and shows no secret."""
    alone.fault = faults.sends(answer)

    with pytest.raises((StoreError, TransferError)) as caught:
        read(store_at(alone.endpoint_url))

    assert caught.value.reason is reason
    assert alone.requests == 1
    assert "prod/m/1.tar" in str(caught.value)
    assert "canary" not in str(caught.value).lower()


PAGES = {
    "a portal in XHTML": faults.says(200, faults.PORTAL_XHTML, "text/html"),
    "an error that says 200": faults.says(200, b"<Error><Code>InternalError</Code></Error>"),
}


@pytest.mark.parametrize("fault", PAGES.values(), ids=PAGES.keys())
@pytest.mark.parametrize("asked", ["list", "read"])
def test_a_page_is_neither_a_listing_nor_an_object(alone: FaultyProxy, fault: Fault, asked: str) -> None:
    """Well-formed XML and a 200 are not enough."""
    alone.fault = fault
    store = store_at(alone.endpoint_url)

    with pytest.raises(StoreError) as caught:
        store.list(everything) if asked == "list" else read(store)

    assert caught.value.reason is Reason.STORE_BAD_ANSWER


REDIRECTS = {
    "301": (faults.redirect_to_region(301, "PermanentRedirect", "eu-west-1"), Reason.STORE_WRONG_REGION),
    "301 that does not say where": (faults.s3_error(301, "PermanentRedirect"), Reason.STORE_WRONG_REGION),
    "400": (
        faults.redirect_to_region(400, "AuthorizationHeaderMalformed", "eu-west-1"),
        Reason.STORE_WRONG_REGION,
    ),
    "302 of a portal": (faults.says(302, b"", "text/html"), Reason.STORE_BAD_ANSWER),
    "307": (faults.redirect_to_region(307, "TemporaryRedirect", "eu-west-1"), Reason.STORE_FAILED),
}


@pytest.mark.parametrize(("fault", "reason"), REDIRECTS.values(), ids=REDIRECTS.keys())
@pytest.mark.parametrize("asked", ["list", "read"])
def test_nobody_sends_the_agent_elsewhere(
    alone: FaultyProxy, fault: Fault, reason: Reason, asked: str
) -> None:
    """A redirect is an error with the store's own code in it; the other host is not asked."""
    alone.fault = fault
    store = store_at(alone.endpoint_url)

    with pytest.raises(StoreError, match=r"Redirect|AuthorizationHeaderMalformed|302") as caught:
        store.list(everything) if asked == "list" else read(store)

    assert caught.value.reason is reason
    assert 1 <= alone.requests <= 2  # once more in the region that it was told


@pytest.mark.parametrize("asked", ["list", "read"])
def test_a_redirect_that_names_no_region_costs_one_request(alone: FaultyProxy, asked: str) -> None:
    """A portal redirects whatever is asked, so there is nothing more to ask it."""
    alone.fault = faults.says(302, b"", "text/html")
    store = store_at(alone.endpoint_url)

    with pytest.raises(StoreError):
        store.list(everything) if asked == "list" else read(store)

    assert alone.requests == 1


def test_a_region_of_the_environment_that_is_none(
    canary_credentials: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The settings name no region, and AWS_DEFAULT_REGION holds a typing error."""
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us east 1")

    with pytest.raises(StoreError, match=r"us east 1.*store\.region") as caught:
        S3Store(Store(url="s3://models/prod"), SMALL, Limits(), SHORT).list(everything)

    assert caught.value.reason is Reason.STORE_WRONG_REGION


@pytest.mark.parametrize("code", ["ExpiredToken", "InvalidToken", "TokenRefreshRequired"])
def test_the_code_of_an_error_is_shown_and_the_token_is_not(alone: FaultyProxy, code: str) -> None:
    """What looks like the name of a secret hides what follows it, but not why the store refused."""
    alone.fault = faults.s3_error(400, code, f"the token: {CANARY} is refused")

    with pytest.raises(StoreError, match=code) as caught:
        store_at(alone.endpoint_url).list(everything)

    assert caught.value.reason is Reason.STORE_CREDENTIALS
    assert CANARY not in str(caught.value)


def test_the_password_of_a_proxy_is_not_shown(
    canary_credentials: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proxy of the environment does not answer: the text names its host only."""
    monkeypatch.setenv("HTTP_PROXY", f"http://{CANARY}:canary-password@127.0.0.1:{NOT_EXISTING_PORT}")

    with pytest.raises(StoreError) as caught:
        store_at("http://store.invalid").list(everything)

    assert caught.value.reason is Reason.STORE_UNREACHABLE
    assert "canary" not in str(caught.value).lower()


@pytest.mark.parametrize("name", ["a length that is none", "206 of another ETag", "an SSH server"])
def test_bad_heads_leave_no_descriptor_behind(alone: FaultyProxy, name: str) -> None:
    """An answer that is refused before its body gives its connection back, fifty times."""
    alone.fault = faults.sends(BAD[name][0])
    store = store_at(alone.endpoint_url)

    def fail() -> int:
        with pytest.raises(SyncError):
            fetch(store, ITEM)
        return len(list(Path("/proc/self/fd").iterdir()))

    first = fail()
    assert max(fail() for _ in range(50)) <= first + 2 * SMALL.connections


# -- one release under way, on a real store -----------------------------------------------------------------

PARTS = 8


@pytest.fixture
def proxy(bucket: Bucket) -> Iterator[FaultyProxy]:
    """A proxy before the real store."""
    with FaultyProxy(bucket.server.port) as running:
        yield running


def listed(bucket: Bucket, proxy: FaultyProxy, body: bytes) -> tuple[S3Store, StoredObject]:
    """Put an object of several parts; return the store, and the object as it is listed."""
    bucket.put("prod/m/1.tar", body)
    store = store_at(proxy.endpoint_url, bucket.name)
    ((release,),) = store.list(everything).releases.values()
    return store, release.objects[0]


def of_parts(*numbers: int) -> Any:
    """Match reads of these parts only."""
    starts = tuple(f"bytes={number * SMALL.part_bytes}-" for number in numbers)
    return lambda exchange: exchange.headers.get("Range", "").startswith(starts)


def test_one_bad_range_costs_only_its_own_repeats(bucket: Bucket, proxy: FaultyProxy) -> None:
    """Two parts are cut off twice each: every byte is right in the end, and no other part is read again."""
    body = os.urandom(PARTS * SMALL.part_bytes)
    store, item = listed(bucket, proxy, body)
    seen: dict[str, int] = {}

    def twice(exchange: Exchange) -> None:
        wanted = exchange.headers["Range"]
        seen[wanted] = seen.get(wanted, 0) + 1
        if seen[wanted] <= 2:
            faults.reset_in_the_middle(exchange)
        else:
            exchange.answer(exchange.forward())

    proxy.fault, proxy.matches, proxy.requests = twice, of_parts(3, 6), 0

    assert fetch(store, item) == body
    assert proxy.requests == PARTS + 4


def test_one_range_that_never_comes_ends_the_release(bucket: Bucket, proxy: FaultyProxy) -> None:
    """All other parts are fine; the reason is the transfer's, and repeats end."""
    store, item = listed(bucket, proxy, os.urandom(PARTS * SMALL.part_bytes))
    proxy.fault, proxy.matches, proxy.requests = faults.reset_in_the_middle, of_parts(2), 0

    with pytest.raises(TransferError) as caught:
        fetch(store, item)

    assert caught.value.reason is Reason.TRANSFER_BROKEN
    assert proxy.requests <= PARTS + AT_ONCE.attempts


def test_an_object_removed_under_way_is_gone(bucket: Bucket, proxy: FaultyProxy) -> None:
    """After some parts the store says 404: no repeat, since none can help."""
    store, item = listed(bucket, proxy, os.urandom(PARTS * SMALL.part_bytes))

    def remove_first(exchange: Exchange) -> None:
        bucket.delete(item.key)
        exchange.answer(exchange.forward())

    proxy.fault, proxy.matches, proxy.requests = remove_first, of_parts(4), 0

    with pytest.raises(TransferError) as caught:
        fetch(store, item)

    assert caught.value.reason is Reason.OBJECT_GONE
    assert proxy.requests <= PARTS


def test_parts_of_two_objects_never_meet(bucket: Bucket, proxy: FaultyProxy) -> None:
    """A store that ignores If-Match, and an object of the same size that comes between two of its parts."""
    old, new = bytes(PARTS * SMALL.part_bytes), b"\1" * (PARTS * SMALL.part_bytes)
    store, item = listed(bucket, proxy, old)
    unconditional = faults.a_store_without("IfMatch", bucket.client, bucket.name, item.key)
    got = bytearray()

    def replace_before_the_fifth(exchange: Exchange) -> None:
        if of_parts(4)(exchange):
            bucket.put(item.key, new)
        unconditional(exchange)

    def fetch_into_got() -> None:
        with stream([item], store.read, one_by_one, never, AT_ONCE) as parts:
            for _, piece in parts:
                got.extend(piece)

    one_by_one = SMALL.model_copy(update={"connections": 1})
    proxy.fault, proxy.matches = replace_before_the_fifth, reads

    with pytest.raises(TransferError) as caught:
        fetch_into_got()

    assert caught.value.reason is Reason.OBJECT_CHANGED
    assert len(got) <= 4 * SMALL.part_bytes
    assert got == old[: len(got)]


# -- the whole agent ----------------------------------------------------------------------------------------


@pytest.fixture
def tree(real_models: Path) -> Mapping[str, bytes]:
    """A model of several parts."""
    return files_of(real_models / "plain_module") | {"assets/weights.bin": os.urandom(PARTS * 64 * KIB)}


@pytest.fixture
def behind(box: AgentBox, proxy: FaultyProxy, bucket: Bucket, tree: Mapping[str, bytes]) -> AgentBox:
    """An agent behind the proxy that has brought version 1; version 2 has been published since."""
    box.endpoint_url = proxy.endpoint_url
    box.overrides = {"fetch": {"connections": 4, "part_bytes": 64 * KIB}, "log": {"level": "debug"}}
    bucket.put("prod/m/1.tar.gz", small_archive(dict(tree), 1))
    assert box.call("sync").returncode == 0
    bucket.put("prod/m/2.tar.gz", small_archive(dict(tree), 2))
    proxy.requests = 0
    return box


def failures_in(output: str) -> list[dict[str, Any]]:
    """Return the lines of a log that say that an action failed."""
    lines = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == "action_failed"]


SAYS = f"token={CANARY} https://user:{CANARY}@proxy"
NOT_IN_PLACE = 3
TIMEOUT_SECONDS = 25
SHORTEST_PAUSE_SECONDS = 5
WHOLE_AGENT = {
    "reset": (faults.reset_in_the_middle, Reason.TRANSFER_BROKEN, 5, NOT_IN_PLACE),
    "portal": (faults.says(200, faults.PORTAL, "text/html"), Reason.STORE_BAD_ANSWER, 1, NOT_IN_PLACE),
    "denied": (faults.s3_error(403, "AccessDenied", SAYS), Reason.STORE_DENIED, 1, 0),
    "gone": (faults.s3_error(404, "NoSuchKey", SAYS), Reason.OBJECT_GONE, 1, NOT_IN_PLACE),
}


@pytest.mark.parametrize(
    ("fault", "reason", "attempts", "code"), WHOLE_AGENT.values(), ids=WHOLE_AGENT.keys()
)
def test_a_version_that_cannot_be_read(  # noqa: PLR0917 (each is a fixture or a parameter)
    behind: AgentBox,
    proxy: FaultyProxy,
    tree: Mapping[str, bytes],
    fault: Fault,
    reason: Reason,
    attempts: int,
    code: int,
) -> None:
    """`sync` says why and ends; version 1 is untouched, nothing is left over, and later version 2 comes.

    What may pass is tried again, after a pause, until the timeout. What lasts is passed over: its exit code
    says that the model has a version to serve, which it has.
    """
    proxy.fault, proxy.matches = fault, reads
    before = digests_on_disk(behind.shelf)

    done = behind.call("sync", "--timeout", str(TIMEOUT_SECONDS))

    shown = done.stdout + done.stderr
    assert done.returncode == code, shown
    tries = len(failures_in(shown))
    assert {line["reason"] for line in failures_in(shown)} == {reason.value}
    most_tries = 1 if code == 0 else TIMEOUT_SECONDS // SHORTEST_PAUSE_SECONDS
    assert tries <= most_tries
    assert behind.numbers() == ["1"]
    assert digests_on_disk(behind.shelf) == before
    assert behind.leftovers() == []
    assert FaultyProxy.times - proxy.times <= 4 * attempts * most_tries, "reads of objects"
    for path in behind.workspace.rglob("*"):
        shown += path.read_text(errors="replace") if path.is_file() else path.name
    for secret in (CANARY, behind.secret_key, "Signature="):
        assert secret not in shown

    proxy.fault = None
    assert behind.call("sync").returncode == 0
    assert digests_on_disk(behind.shelf / "2") == digests(tree)


RUNNING = {"portal": (faults.says(200, faults.PORTAL, "text/html"), 1)}
if LONG:
    RUNNING["reset"] = (faults.reset_in_the_middle, 5)
    RUNNING["busy"] = (faults.s3_error(503, "SlowDown"), 5)


@pytest.mark.parametrize(("fault", "attempts"), RUNNING.values(), ids=RUNNING.keys())
def test_a_running_agent_neither_storms_nor_leaks(
    behind: AgentBox,
    bucket: Bucket,
    proxy: FaultyProxy,
    tree: Mapping[str, bytes],
    fault: Fault,
    attempts: int,
) -> None:
    """Listings work and reads do not: few requests, growing pauses, a constant number of descriptors."""
    asked: list[str] = []

    def note(exchange: Exchange) -> None:
        asked.append(exchange.headers["Range"])
        fault(exchange)

    proxy.fault, proxy.matches = note, reads
    with behind.running() as process:

        def handles_after(failures: int) -> int:
            behind.until(lambda: len(behind.events("action_failed")) >= failures, f"{failures} failures")
            return len(list(Path(f"/proc/{process.pid}/fd").iterdir()))

        first = handles_after(1)
        assert handles_after(2) <= first + 4
        assert len(asked) <= 2 * 4 * attempts
        assert behind.numbers() == ["1"]
        assert behind.leftovers() == []

        proxy.fault = None
        better = {**tree, "assets/more.txt": b"more"}
        bucket.put("prod/m/2.tar.gz", small_archive(better, 2))  # another identity: its pause is its own
        behind.until(lambda: behind.numbers() == ["2"], "version 2, without a restart")
    assert digests_on_disk(behind.shelf / "2") == digests(better)
