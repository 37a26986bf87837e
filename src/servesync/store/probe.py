"""Sends single requests to the store, and reports details of their answers, to find out what is wrong."""

import email.utils
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Self

from botocore.exceptions import ClientError

from servesync.errors import StoreError, TransferError
from servesync.settings import Fetch, Store
from servesync.store.bounds import Bounds
from servesync.store.client import Clients, bucket_of, connect
from servesync.store.errors_s3 import Operation, translated
from servesync.store.oddities import check_as_stored

PROBE_BOUNDS: Final = Bounds(connect_seconds=5.0, read_seconds=10.0, answer_seconds=20.0, list_attempts=1)


@dataclass(frozen=True, slots=True)
class Answer:
    """What the answer to one request said.

    `code`: the error's name in S3. `region`: the bucket's, if the store names it. `skew_seconds`: how far the
    store's clock is ahead of ours. `keys`: the first keys of a listing. `is_version_1`: the listing is an
    answer of ListObjects before version 2.
    """

    error: StoreError | TransferError | None = None
    code: str = ""
    region: str = ""
    skew_seconds: float | None = None
    keys: tuple[str, ...] = ()
    is_version_1: bool = False


class Probe:
    """Asks one bucket, one request at a time, each in bounded time and without repeating it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._clients: Clients | None = None

    def __enter__(self) -> Self:
        """Return the probe, whose connections are closed on leaving."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close all connections."""
        if self._clients is not None:
            self._clients.http.close()
            self._clients = None

    def list_some(
        self, prefix: str, *, for_owner: bool = True, pays: bool = False, at_most: int = 1
    ) -> Answer:
        """Ask for the first keys below `prefix`.

        `for_owner`: only if the bucket belongs to the expected owner. `pays`: we pay for the request, even if
        the settings do not say so.
        """
        more = ({} if for_owner else {"expected_bucket_owner": None}) | (
            {"request_payer": "requester"} if pays else {}
        )
        store = self._store.model_copy(update=more)
        return self._ask(
            Operation.LIST,
            lambda clients: clients.listing.list_objects_v2(
                Prefix=prefix, MaxKeys=at_most, **bucket_of(store)
            ),
        )

    def read_one(self, key: str) -> Answer:
        """Ask for the first byte of an object."""

        def call(clients: Clients) -> Mapping[str, Any]:
            answer = clients.reading.get_object(Key=key, Range="bytes=0-0", **bucket_of(self._store))
            answer["Body"].close()
            check_as_stored(_DOING[Operation.READ], answer["ResponseMetadata"]["HTTPHeaders"])
            return answer

        return self._ask(Operation.READ, call)

    def _ask(self, operation: Operation, call: Callable[[Clients], Any]) -> Answer:
        started = time.time()
        try:
            with translated(_DOING[operation], operation):
                if self._clients is None:
                    self._clients = connect(self._store, Fetch(), PROBE_BOUNDS)
                answer: Mapping[str, Any] = call(self._clients)
        except (StoreError, TransferError) as error:
            said = error.__cause__.response if isinstance(error.__cause__, ClientError) else {}
            return _answer(said, (started + time.time()) / 2, error)
        return _answer(answer, (started + time.time()) / 2, None)


_DOING: Final = {Operation.LIST: "listing", Operation.READ: "reading an object"}


def _answer(said: Mapping[str, Any], now: float, error: StoreError | TransferError | None) -> Answer:
    headers = said.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    details = said.get("Error", {})
    return Answer(
        error,
        code=str(details.get("Code", "")),
        region=str(headers.get("x-amz-bucket-region") or details.get("Region", "")),
        skew_seconds=_skew(str(headers.get("date", "")), now),
        keys=tuple(str(item.get("Key", "")) for item in said.get("Contents", ())),
        is_version_1="IsTruncated" in said and "KeyCount" not in said,
    )


def _skew(date: str, now: float) -> float | None:
    with suppress(ValueError, TypeError, OverflowError):
        return email.utils.parsedate_to_datetime(date).timestamp() - now
    return None
