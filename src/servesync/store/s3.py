"""Reads S3: lists with one request for each 1,000 keys, reads ranges bound to one identity."""

import re
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from servesync.domain.versions import Model, StoredObject
from servesync.errors import Reason, Stopped, StoreError, TransferError
from servesync.settings import Fetch, Limits, Store
from servesync.store.body import fill
from servesync.store.bounds import Bounds
from servesync.store.checksums import checksum_of
from servesync.store.client import Clients, bucket_of, connect
from servesync.store.counting import OnRequest, nobody_counts
from servesync.store.errors_s3 import Operation, bad_answer, translated
from servesync.store.heads import head_object
from servesync.store.keys import KeyPattern
from servesync.store.listing import Listing, ListingBuilder, modified_at
from servesync.store.oddities import check_as_stored, misplaced_bucket
from servesync.store.pages import pages
from servesync.store.port import ObjectFacts
from servesync.store.substitutes import check_no_page

MANIFEST_TO_COME: Final = "servesync-manifest"
"""The metadata key that marks an archive whose manifest is uploaded after it."""
_RANGE: Final = re.compile(r"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19})", re.ASCII)
_T = TypeVar("_T")


class S3Store:
    """One bucket and prefix of an S3-compatible store. Reads may run in several threads at once."""

    def __init__(
        self,
        store: Store,
        fetch: Fetch,
        limits: Limits | None = None,
        bounds: Bounds | None = None,
        on_request: OnRequest = nobody_counts,
    ) -> None:
        self._store = store
        self._fetch = fetch
        self._limits = limits or Limits()
        self._bounds = bounds or Bounds()
        self._on_request = on_request
        self._pattern = KeyPattern(store.key_pattern)
        self._bucket = bucket_of(store)
        self._clients: Clients | None = None
        self._lock = threading.Lock()

    # -- listing --------------------------------------------------------------------------------------

    def list(
        self,
        wants: Callable[[Model], bool],
        see: Callable[[str, int], None] = lambda _key, _size: None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> Listing:
        """Return the releases of wanted models below the prefix.

        `see` is called with every key, without the prefix, and its size in bytes (0 if the store tells none).

        Raises:
            StoreError: there was no complete listing; the part that was read is discarded.
            Stopped: `should_stop`, called before each page of 1,000 keys, returned True.
        """

        def call(clients: Clients) -> Listing:
            builder = ListingBuilder(self._pattern, self._store.prefix, wants, self._limits.max_members)
            requests = 0
            for page in pages(clients.listing, self._store, self._bounds, should_stop):
                requests += 1
                for item in page.get("Contents", ()):
                    self._take(builder, item, see)
            return builder.finish(requests)

        try:
            return self._ask(f"listing {self._store.url}", Operation.LIST, call)
        except StoreError as error:
            hint = misplaced_bucket(self._store, error.reason)
            if not hint:
                raise
            advice = f"{error.advice}; {hint}" if error.advice else hint
            raise StoreError(error.reason, error.what, advice, **error.facts) from error

    def _take(
        self, builder: ListingBuilder, item: Mapping[str, Any], see: Callable[[str, int], None]
    ) -> None:
        doing = f"listing {self._store.url}"
        key, size = item.get("Key"), item.get("Size")
        if not key:
            raise bad_answer(doing, "an entry has no key")
        if not key.startswith(self._store.prefix):
            raise bad_answer(doing, f"the key {key!a:.80} is not below the prefix")
        if not builder.add(key, size, item.get("ETag"), modified_at(item.get("LastModified"))):
            raise bad_answer(doing, f"the key {key!a:.80} is listed twice")
        see(key.removeprefix(self._store.prefix), size or 0)

    # -- reading --------------------------------------------------------------------------------------

    def read(
        self,
        item: StoredObject,
        offset: int,
        length: int,
        buffer: memoryview,
        should_stop: Callable[[], bool],
    ) -> None:
        """Fill `buffer` with `length` bytes from `offset` on, of exactly the object that was listed.

        This sends one request; whether to repeat it is the caller's decision.

        Raises:
            TransferError: the object was replaced or removed, or not all of its bytes arrived.
            StoreError: the store refused or did not answer, or ignored the range.
            Stopped: `should_stop` returned True. In all three cases the buffer's content is undefined.
        """
        if should_stop():
            raise Stopped

        def call(clients: Clients) -> None:
            self._read(clients, item, offset, buffer[:length], should_stop)

        self._ask(f"reading {item.key!a:.200}", Operation.READ, call)

    def describe(self, item: StoredObject) -> ObjectFacts:
        """Return what the store knows of an object that was listed; this sends one request.

        Raises:
            TransferError: the object was replaced or removed.
            StoreError: the store refused or did not answer.
        """
        doing = f"reading the metadata of {item.key!a:.200}"

        def call(clients: Clients) -> Mapping[str, Any]:
            asked = self._bucket | {"Key": item.key, "IfMatch": item.etag, "ChecksumMode": "ENABLED"}
            return head_object(clients.listing, asked)

        answer = self._ask(doing, Operation.READ, call)
        if not answer.get("ETag"):
            raise bad_answer(doing, "no ETag")
        if answer.get("ETag", "").strip('"') != item.etag.strip('"'):
            text = f"{doing}: it was replaced after the listing; the next poll sees the new one"
            raise TransferError(Reason.OBJECT_CHANGED, text)
        # some stores return the names of metadata capitalized like HTTP headers: Servesync-Manifest
        names = {name.lower() for name in answer.get("Metadata", {})}
        return ObjectFacts(checksum_of(answer), MANIFEST_TO_COME in names)

    def _read(
        self,
        clients: Clients,
        item: StoredObject,
        offset: int,
        buffer: memoryview,
        should_stop: Callable[[], bool],
    ) -> None:
        doing = f"reading {item.key!a:.200}"
        last = offset + len(buffer) - 1
        answer: Mapping[str, Any] = clients.reading.get_object(
            **self._bucket, Key=item.key, Range=f"bytes={offset}-{last}", IfMatch=item.etag
        )
        with answer["Body"] as body:  # its context is the raw response: no extra copy
            _check_head(doing, answer, item, (offset, last))
            fill(doing, body, buffer, self._bounds, should_stop)
        check_no_page(doing, item, offset, buffer, answer.get("ContentType", ""))

    def close(self) -> None:
        """Close all connections; a later call opens new ones."""
        with self._lock:
            clients, self._clients = self._clients, None
        if clients is not None:
            clients.http.close()

    # -- the clients ----------------------------------------------------------------------------------

    def _ask(self, doing: str, operation: Operation, call: Callable[[Clients], _T]) -> _T:
        """Return the result of `call`; repeat it once if the credentials were refused and new ones exist."""
        used: Clients | None = None
        try:
            with translated(doing, operation):
                used = self._connected()
                return call(used)
        except StoreError as error:
            if error.reason is not Reason.STORE_CREDENTIALS or used is None:
                raise
            with translated(doing, operation):
                renewed = self._connected(used)
            if renewed.credentials == used.credentials:
                raise
        with translated(doing, operation):
            return call(renewed)

    def _connected(self, refused: Clients | None = None) -> Clients:
        """Return clients whose credentials are newer than those of `refused`: files may be rotated."""
        with self._lock:
            if self._clients is None or self._clients is refused:
                self._clients = None
                self._clients = connect(self._store, self._fetch, self._bounds, self._on_request)
            return self._clients


def _check_head(doing: str, answer: Mapping[str, Any], item: StoredObject, wanted: tuple[int, int]) -> None:
    """Make sure that the answer is the requested range of the object that was listed."""
    status = answer["ResponseMetadata"]["HTTPStatusCode"]
    found = _RANGE.fullmatch(answer.get("ContentRange", ""))
    check_as_stored(doing, answer["ResponseMetadata"]["HTTPHeaders"])
    if status != 206 or found is None:  # noqa: PLR2004 (Partial Content)
        raise bad_answer(doing, f"HTTP {status} without the requested range")
    if answer.get("ETag", "").strip('"') != item.etag.strip('"') or int(found[3]) != item.size:
        text = f"{doing}: it was replaced after the listing; the next poll sees the new one"
        raise TransferError(Reason.OBJECT_CHANGED, text)
    if (int(found[1]), int(found[2])) != wanted:
        raise bad_answer(doing, f"requested bytes {wanted[0]}-{wanted[1]}, got {found[0]}")
    length = wanted[1] - wanted[0] + 1
    if answer.get("ContentLength", length) != length:  # a proxy that compresses shows here
        raise bad_answer(doing, f"a body of {answer['ContentLength']} bytes for a range of {length}")
