"""Reads one listing page by page, and makes sure that it is whole, of this bucket, and within bounds."""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote_plus

from servesync import buckets
from servesync.errors import Reason, Stopped, StoreError
from servesync.settings import Store
from servesync.store.bounds import Bounds
from servesync.store.client import bucket_of
from servesync.store.errors_s3 import bad_answer

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

MAX_PAGES: Final = 10_000
MAX_EMPTY_PAGES: Final = 100
"""The most empty pages in a row: a store may have to skip many removed keys, but not for ever."""


def pages(
    client: "S3Client", store: Store, bounds: Bounds, should_stop: Callable[[], bool]
) -> Iterator[Mapping[str, Any]]:
    """Yield the pages of one listing; the keys may have any order, as not every store sorts them.

    Raises:
        StoreError: an answer is no listing of this bucket and prefix, or the listing does not end within
            `bounds.listing_seconds` or `MAX_PAGES`, or has `MAX_EMPTY_PAGES` without a key in a row.
        Stopped: `should_stop`, called before each page, returned True.
    """
    doing = f"listing {store.url}"
    deadline = time.monotonic() + bounds.listing_seconds
    tokens: set[str] = set()
    continued: dict[str, Any] = {}
    empty = keys = 0
    for count in range(MAX_PAGES):
        if should_stop():
            raise Stopped
        if count and time.monotonic() > deadline:
            raise _endless(doing, f"{bounds.listing_seconds:g} seconds and {count} pages", keys)
        page = _page(client, store, doing, continued)
        yield page
        token = _next(doing, page)
        if token is None:
            return
        keys += len(page.get("Contents", ()))
        empty = 0 if page.get("Contents") else empty + 1
        if empty >= MAX_EMPTY_PAGES:
            raise _endless(doing, f"{empty} pages without a key", 0)
        if token in tokens:
            raise bad_answer(doing, "the listing says that it goes on, but not where")
        tokens.add(token)
        continued = {"ContinuationToken": token}
    raise _endless(doing, f"{MAX_PAGES} pages", keys)


def _page(client: "S3Client", store: Store, doing: str, continued: Mapping[str, Any]) -> Mapping[str, Any]:
    ours = store.prefix
    try:
        page: Mapping[str, Any] = client.list_objects_v2(Prefix=ours, **bucket_of(store), **continued)
    except ValueError as error:  # botocore's parser met a number that is none
        raise bad_answer(doing, "the answer is no listing") from error
    if not buckets.is_listed_as(store.bucket, page.get("Name")) or not isinstance(
        page.get("IsTruncated"), bool
    ):
        raise bad_answer(doing, "the answer is no listing of this bucket")
    # Some stores send the prefix as it is though botocore asks for it encoded, and decodes it.
    if page.get("Prefix", ours) not in {ours, unquote_plus(ours)}:
        raise bad_answer(doing, "the answer is the listing of another prefix")
    return page


def _next(doing: str, page: Mapping[str, Any]) -> str | None:
    """Return the token of the next page; None on the last page."""
    token: str | None = page.get("NextContinuationToken")
    if not page["IsTruncated"]:
        if token:
            raise bad_answer(doing, "the listing says that it ends, but has a token for a next page")
        return None
    if token:
        return token
    if "KeyCount" not in page:
        text = (
            "the store answers in version 1 of ListObjects, which has no continuation token, and servesync "
            "needs version 2 (list-type=2) to list more than one page; a newer release of the store may "
            "know it, and a key prefix in store.url with fewer keys needs one page"
        )
        raise bad_answer(doing, text)
    raise bad_answer(doing, "the listing says that it goes on, but not where")


def _endless(doing: str, after: str, keys: int) -> StoreError:
    what = f"the listing does not end after {after}"
    if not keys:
        return bad_answer(doing, what)
    advice = (
        "nothing was changed: the store is too slow for so many keys, or its listing has no end: put the "
        "models below a prefix of their own, and that into store.url"
    )
    return StoreError(Reason.STORE_BAD_ANSWER, f"{doing}: {what} with {keys} keys so far: {advice}")
