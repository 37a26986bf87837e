"""Makes botocore clients with the whole credential chain and a bound on every wait and every answer.

botocore reads the body of a listing or of an error without any bound on bytes or on the whole time. Its
`before-send` event lets us send the request ourselves, and hand it an answer that has been read within
our bounds; the caller reads only the body of an object.
"""

import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import botocore.session
import urllib3.exceptions
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.config import Config
from botocore.exceptions import ConnectionClosedError, ReadTimeoutError
from botocore.handlers import validate_bucket_name
from botocore.parsers import ResponseParserError
from botocore.utils import get_environ_proxies, parse_timestamp

from servesync import buckets
from servesync.deadline import Deadline, TookTooLong
from servesync.redaction import remember_login
from servesync.settings import Fetch, Store
from servesync.store.bounds import Bounds
from servesync.store.connections import Connections
from servesync.store.counting import OnRequest, counted, nobody_counts
from servesync.store.credentials import CONFIGURATION, SignsWith, obtain, usable
from servesync.store.descriptions import loader
from servesync.store.named_files import check_authorities

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client
    from urllib3.response import HTTPResponse

BLOCK_BYTES: Final = 256 * 1024
MOST_DIGITS: Final = 19
"""The most digits of an object's length: Python refuses to parse numbers of thousands of digits."""
NO_DELAY: Final = (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
NEEDED_HEADERS: Final = frozenset(
    {
        "content-encoding",
        "content-length",
        "content-range",
        "content-type",
        "etag",
        "x-goog-stored-content-encoding",
    }
)
_SUSPECT: Final = re.compile(
    rb"<(Size|LastModified)\s*/>|<Size>(?![0-9]{1,19}</Size>)[^<]*</Size>|<LastModified>"
    rb"(?![0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]{5,20}Z</LastModified>)(?P<time>[^<]*)</LastModified>"
)
"""In a listing, sizes that are no numbers, and times that may be none."""
KEEP_ALIVE: Final = (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


@dataclass(frozen=True, slots=True)
class Clients:
    """Two clients of one session: one repeats failed requests itself, the other leaves that to the caller."""

    listing: "S3Client"
    reading: "S3Client"
    http: Connections
    credentials: SignsWith


def connect(store: Store, fetch: Fetch, bounds: Bounds, on_request: OnRequest = nobody_counts) -> Clients:
    """Return clients with credentials that were read just now.

    Raises:
        CredentialsUnusable: there are no credentials, or the environment or the profile cannot be used.
        NoRegionError, InvalidRegionError: no region is set, or it is not a region's name.
        StoreError: the file of certificate authorities is a pipe, a device or the like.
    """
    core = botocore.session.get_session()
    core.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=_timestamp)
    with usable(CONFIGURATION):
        core.register_component("data_loader", loader(core.get_config_variable("data_path")))
        if store.region is not None:
            core.set_config_variable("region", store.region)
        authority = core.get_config_variable("ca_bundle") or os.environ.get("REQUESTS_CA_BUNDLE")
        proxies = get_environ_proxies(store.endpoint_url or "https://s3.amazonaws.com")
    check_authorities(authority)
    for proxy in proxies.values():
        remember_login(proxy)
    credentials = obtain(core, bounds.read_seconds)  # the region must be set: a role is assumed there
    http = Connections(
        verify=authority or True,
        proxies=proxies,
        timeout=(bounds.connect_seconds, bounds.read_seconds),
        max_pool_connections=fetch.connections + 2,
        socket_options=[NO_DELAY, KEEP_ALIVE],
    )

    def client(attempts: int) -> "S3Client":
        made: Any = core.create_client("s3", endpoint_url=store.endpoint_url, config=_config(store, attempts))
        handler: Any = _sender(http, bounds, on_request)
        made.meta.events.register("before-send.s3", handler)
        if buckets.is_tenants(store.bucket):  # Ceph's names, which the settings have checked
            made.meta.events.unregister("before-parameter-build.s3", validate_bucket_name)
        return made  # type: ignore[no-any-return]

    with usable(CONFIGURATION):
        return Clients(client(bounds.list_attempts), client(1), http, credentials)


def bucket_of(store: Store) -> dict[str, Any]:
    """Return the arguments with which boto3 names the bucket, its owner, and who pays."""
    owner, payer = store.expected_bucket_owner, store.request_payer
    found: dict[str, Any] = {"Bucket": store.bucket}
    return (
        found | ({"ExpectedBucketOwner": owner} if owner else {}) | ({"RequestPayer": payer} if payer else {})
    )


def _timestamp(text: str) -> datetime:
    """Parse an object's time: botocore's own parser takes half of the time of a large listing."""
    try:
        return datetime.fromisoformat(text)
    except (ValueError, TypeError):
        return parse_timestamp(text)


def _only_times(suspect: re.Match[bytes]) -> bytes:
    """Return a time as it is, and nothing if it is no time: botocore would refuse the whole page."""
    try:
        _timestamp((suspect["time"] or b"").decode())
    except (ValueError, OverflowError, RuntimeError):
        return b""
    return suspect[0]


def _config(store: Store, attempts: int) -> Config:
    make: Any = Config  # its stubs do not know all of these
    config: Config = make(
        retries={"mode": "standard", "total_max_attempts": attempts},
        s3={"addressing_style": _addressing_style(store)},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        ignore_configured_endpoint_urls=True,  # the settings say where the store is, not AWS_ENDPOINT_URL
        user_agent_extra="servesync",
    )
    return config


def _addressing_style(store: Store) -> str:
    """Return the setting or, without one, `path` for all stores but Amazon's."""
    wanted = store.addressing_style
    return "path" if wanted == "auto" and store.endpoint_url else wanted


def _sender(http: Connections, bounds: Bounds, on_request: OnRequest) -> Callable[..., AWSResponse]:
    """Return the handler of `before-send` that sends a request, and reads every answer but an object."""
    deadline = Deadline(bounds.answer_seconds, "servesync-lists")

    def send(request: AWSPreparedRequest, event_name: str, **_: object) -> AWSResponse:
        if event_name.endswith(".HeadBucket"):  # botocore's own request: see `_no_bucket`
            return _no_bucket(request)
        request.stream_output = True
        is_listing = event_name.endswith(".ListObjectsV2")  # reads are watched by the stream that they feed
        with counted(on_request, event_name) as answered:
            answer = _within(deadline, http, request) if is_listing else http.send(request)
            answered(answer.status_code)
        if event_name.endswith(".GetObject") and answer.status_code < 300:  # noqa: PLR2004 (success)
            return _with_needed_headers(answer)
        try:
            body = _read_answer(answer.raw, bounds)
        except urllib3.exceptions.ReadTimeoutError as error:
            raise ReadTimeoutError(endpoint_url=request.url, error=error) from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise ConnectionClosedError(endpoint_url=request.url, error=error) from error
        finally:
            answer.raw.close()
        if event_name.endswith(".ListObjectsV2") and answer.status_code < 300:  # noqa: PLR2004 (success)
            _check_is_listing(body)
            body = _SUSPECT.sub(_only_times, body)
        headers: Any = answer.headers
        return AWSResponse(request.url, answer.status_code, headers, _Body(body))

    return send


def _within(deadline: Deadline, http: Connections, request: AWSPreparedRequest) -> AWSResponse:
    """Send a request; the whole head of its answer must arrive in time, however slowly it drips."""
    try:
        return deadline.call(lambda: http.send(request), lambda late: late.raw.close())
    except TookTooLong as error:
        raise ReadTimeoutError(endpoint_url=request.url, error=error) from error


def _no_bucket(request: AWSPreparedRequest) -> AWSResponse:
    """Return the answer to botocore's own HeadBucket, without a request.

    If a read is redirected without a region's name, as by a captive portal, botocore asks for the region with
    HeadBucket. If that is redirected, it asks again, until the stack ends. S3 itself names the region.
    """
    headers: Any = {}
    return AWSResponse(request.url, 404, headers, _Body(b""))


def _with_needed_headers(answer: AWSResponse) -> AWSResponse:
    """Return the answer to a read with only the headers that we use.

    botocore parses every date and number in the others, and leaks the connection if one cannot be parsed.

    Raises:
        ResponseParserError: the length is no number; the connection is closed.
    """
    headers: Any = {name: value for name, value in answer.headers.items() if name.lower() in NEEDED_HEADERS}
    length = answer.headers.get("content-length", "0")
    if not (length.isascii() and length.isdecimal() and len(length) <= MOST_DIGITS):
        answer.raw.close()
        raise ResponseParserError(f"a Content-Length of {length!a:.40}")
    return AWSResponse(answer.url, answer.status_code, headers, answer.raw)


class _Body(NamedTuple):
    """A body that has been read, in the form that botocore expects."""

    content: bytes

    def stream(self) -> Iterator[bytes]:
        yield self.content


def _read_answer(raw: "HTTPResponse", bounds: Bounds) -> bytes:
    """Return the whole body of an answer that is no object.

    Raises:
        ResponseParserError: the body is larger than `bounds` allow, or takes longer.
        HTTPError: (urllib3's) the connection broke.
    """
    body = bytearray()
    deadline = time.monotonic() + bounds.answer_seconds
    while block := raw.read1(BLOCK_BYTES, decode_content=False):
        body += block
        if len(body) > bounds.answer_bytes:
            raise ResponseParserError(f"the answer is larger than {bounds.answer_bytes} bytes")
        if raw.length_remaining != 0 and time.monotonic() > deadline:
            raise ResponseParserError(f"the answer did not end within {bounds.answer_seconds} seconds")
    if raw.length_remaining:
        raise urllib3.exceptions.ProtocolError(f"{raw.length_remaining} bytes are missing")
    return bytes(body)


def _check_is_listing(body: bytes) -> None:
    """Refuse an answer that is no listing; botocore would take it for an error of the store (500).

    Raises:
        ResponseParserError: the body is no listing, or not a whole one.
    """
    if b"ListBucketResult" not in body[:1024] or not body.rstrip().endswith(b"ListBucketResult>"):
        raise ResponseParserError("the answer is no listing, or not a whole one")
