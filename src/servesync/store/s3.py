"""The only door to S3: lists with one request for each 1,000 keys, reads ranges bound to one identity."""

import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

import boto3
import urllib3.exceptions
from botocore.config import Config

from servesync.errors import Reason, Stopped, StoreError, TransferError
from servesync.plan.versions import Model, StoredObject
from servesync.settings import Fetch, Limits, Store
from servesync.store.errors_s3 import bad_answer, translated
from servesync.store.keys import KeyPattern
from servesync.store.listing import Grouping, Listing

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client
    from urllib3.response import HTTPResponse

CONNECT_SECONDS: Final = 5
READ_SECONDS: Final = 20
ATTEMPTS: Final = 4
MAX_PAGES: Final = 10_000
BLOCK_BYTES: Final = 256 * 1024
FLOOR_BYTES_PER_SECOND: Final = 16 * 1024
FLOOR_AFTER_SECONDS: Final = 15.0
_RANGE: Final = re.compile(r"bytes (\d+)-(\d+)/(\d+)", re.ASCII)


class S3Store:
    """One bucket and prefix of an S3-compatible store. Reads may run in several threads at once.

    `floor_after_seconds`: a read that has been slower than 16 KiB/s for so long is broken off; a server
    that drips bytes would otherwise never run into a time-out.
    """

    def __init__(
        self,
        store: Store,
        fetch: Fetch,
        limits: Limits | None = None,
        *,
        floor_after_seconds: float = FLOOR_AFTER_SECONDS,
    ) -> None:
        self._store = store
        self._limits = limits or Limits()
        self._connections = fetch.connections
        self._floor_after_seconds = floor_after_seconds
        self._pattern = KeyPattern(store.key_pattern)
        self._client: S3Client | None = None
        self._lock = threading.Lock()

    def list(self, wants: Callable[[Model], bool]) -> Listing:
        """Return all that lies below the prefix for wanted models.

        Raises:
            StoreError: there was no complete listing; what was read of it counts for nothing.
        """
        doing = f"listing {self._store.url}"
        grouping = Grouping(self._pattern, self._store.prefix, wants, self._limits.max_members)
        requests = 0
        with self._translated(doing, "s3:ListBucket"):
            for page in self._pages(doing):
                requests += 1
                for item in page.get("Contents", ()):
                    key = item["Key"]
                    if not key.startswith(self._store.prefix):
                        raise bad_answer(doing, f"the key {key!a} is not below the prefix")
                    grouping.add(key, item["Size"], item["ETag"])
        return grouping.finish(requests)

    def _pages(self, doing: str) -> Iterator[Mapping[str, Any]]:
        token = ""
        for _ in range(MAX_PAGES):
            continued = {"ContinuationToken": token} if token else {}
            arguments: dict[str, Any] = {
                "Bucket": self._store.bucket,
                "Prefix": self._store.prefix,
                **self._owner,
                **continued,
            }
            page: Mapping[str, Any] = self._s3().list_objects_v2(**arguments)
            if page.get("Name") != self._store.bucket or not isinstance(page.get("IsTruncated"), bool):
                raise bad_answer(doing, "the answer is no listing of this bucket")
            if any(not {"Key", "Size", "ETag"} <= item.keys() for item in page.get("Contents", ())):
                raise bad_answer(doing, "the listing has keys without size or ETag")
            yield page
            if not page["IsTruncated"]:
                return
            following = page.get("NextContinuationToken")
            if not following or following == token:
                raise bad_answer(doing, "the listing says that it goes on, but not where")
            token = following
        raise bad_answer(doing, f"the listing does not end after {MAX_PAGES} pages")

    def read(
        self,
        item: StoredObject,
        offset: int,
        length: int,
        buffer: memoryview,
        should_stop: Callable[[], bool],
    ) -> None:
        """Fill `buffer` with `length` bytes from `offset` on, of exactly the object that was listed.

        Raises:
            TransferError: the object is another one now, or gone, or its bytes did not all come.
            StoreError: the store refused or did not answer, or ignored the range.
            Stopped: `should_stop` said so. The buffer's content counts for nothing in all three cases.
        """
        doing = f"reading {item.key!a}"
        last = offset + length - 1
        with self._translated(doing, "s3:GetObject"):
            answer: Mapping[str, Any] = self._s3().get_object(
                Bucket=self._store.bucket,
                Key=item.key,
                Range=f"bytes={offset}-{last}",
                IfMatch=item.etag,
                **self._owner,
            )
            with answer["Body"] as body:  # entered, it is the connection's own response: no extra copy
                self._check_head(doing, answer, item, (offset, last))
                self._fill(doing, body, buffer[:length], should_stop)

    def _check_head(
        self, doing: str, answer: Mapping[str, Any], item: StoredObject, wanted: tuple[int, int]
    ) -> None:
        """Make sure that the answer is the range that was asked for, of the object that was listed."""
        status = answer["ResponseMetadata"]["HTTPStatusCode"]
        found = _RANGE.fullmatch(answer.get("ContentRange", ""))
        if status != 206 or found is None:  # noqa: PLR2004 (Partial Content)
            raise bad_answer(doing, f"HTTP {status} without the range that was asked for")
        if answer.get("ETag") != item.etag or int(found[3]) != item.size:
            text = f"{doing}: it was replaced after the listing; the next poll sees the new one"
            raise TransferError(Reason.OBJECT_CHANGED, text)
        if (int(found[1]), int(found[2])) != wanted:
            raise bad_answer(doing, f"asked for bytes {wanted[0]}-{wanted[1]}, got {found[0]!a}")

    def _fill(
        self,
        doing: str,
        raw: "HTTPResponse",
        buffer: memoryview,
        should_stop: Callable[[], bool],
    ) -> None:
        """Read exactly `len(buffer)` bytes, in blocks, watching the speed."""
        done = 0
        started = time.monotonic()
        while done < len(buffer):
            if should_stop():
                raise Stopped
            try:
                block = raw.read(min(BLOCK_BYTES, len(buffer) - done), decode_content=False)
            except (urllib3.exceptions.HTTPError, OSError) as error:
                raise self._broken(doing, f"{type(error).__name__} after {done} bytes") from error
            if not block:
                raise self._broken(doing, f"ended after {done} of {len(buffer)} bytes")
            buffer[done : done + len(block)] = block
            done += len(block)
            self._check_speed(doing, done, time.monotonic() - started)
        if raw.read(1, decode_content=False):
            raise bad_answer(doing, "more bytes than were asked for")

    def _check_speed(self, doing: str, done: int, seconds: float) -> None:
        if seconds > self._floor_after_seconds and done < FLOOR_BYTES_PER_SECOND * seconds:
            text = f"{doing}: {done} bytes in {seconds:.0f} s is too slow to ever end; tried again"
            raise TransferError(Reason.TRANSFER_TOO_SLOW, text)

    @staticmethod
    def _broken(doing: str, what: str) -> TransferError:
        return TransferError(Reason.TRANSFER_BROKEN, f"{doing}: the transfer broke: {what}; tried again")

    # -- the client -----------------------------------------------------------------------------------

    @property
    def _owner(self) -> dict[str, Any]:
        owner = self._store.expected_bucket_owner
        return {"ExpectedBucketOwner": owner} if owner else {}

    def _translated(self, doing: str, permission: str) -> Any:  # noqa: ANN401 (a context manager)
        return translated(doing, permission, self._on_error)

    def _on_error(self, error: StoreError) -> None:
        """Read credentials anew at the next call: their files may have been rotated."""
        if error.reason is Reason.STORE_CREDENTIALS:
            with self._lock:
                self._client = None

    def _s3(self) -> "S3Client":
        with self._lock:
            if self._client is None:
                self._client = self._connect()
            return self._client

    def _connect(self) -> "S3Client":
        """Make a client with the whole credential chain of boto3, and bounds on every wait."""
        addressing: Any = {"addressing_style": "path" if self._store.endpoint_url else "auto"}
        config = Config(
            connect_timeout=CONNECT_SECONDS,
            read_timeout=READ_SECONDS,
            retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
            max_pool_connections=self._connections + 2,
            s3=addressing,
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            user_agent_extra="servesync",
        )
        session = boto3.session.Session(region_name=self._store.region)
        return session.client("s3", endpoint_url=self._store.endpoint_url, config=config)
