"""Listings of stores that are S3 in all but a few things: odd entries, no end, and an older version."""

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count

import pytest

from big_models import first_of
from faulty_proxy import Exchange, Fault, FaultyProxy, s3_error, says
from fixtures_store import Bucket
from odd_store import ONCE, M, failure, first_object, only, settings_of
from servesync.errors import Reason, ReleaseRefused, Stopped, StoreError
from servesync.settings import Fetch, Limits
from servesync.store import S3Store

# -- entries without what they need ------------------------------------------------------------------------


def spoil(key: str, pattern: bytes, by: bytes) -> Fault:
    """Change one entry of a listing."""

    def fault(exchange: Exchange) -> None:
        answer = exchange.forward()
        entry = rb"<Contents>(?:(?!</Contents>).)*?<Key>" + re.escape(key).encode() + rb"</Key>.*?</Contents>"
        found = re.search(entry, answer.body, re.DOTALL)
        assert found is not None
        changed = re.sub(pattern, by, found[0])
        assert changed != found[0]
        answer.body = answer.body.replace(found[0], changed)
        exchange.answer(answer)

    return fault


MISSING = {
    "no size": (rb"<Size>.*?</Size>", b""),
    "an empty size": (rb"<Size>.*?</Size>", b"<Size/>"),
    "a size that is none": (rb"<Size>", b"<Size>many"),
    "a negative size": (rb"<Size>", b"<Size>-"),
    "no ETag": (rb"<ETag>.*?</ETag>", b""),
    "an empty ETag": (rb"<ETag>.*?</ETag>", b"<ETag></ETag>"),
}


@pytest.mark.parametrize("missing", MISSING)
@pytest.mark.parametrize("key", ["README.md", *first_of("other/1.tar", "m/latest.txt", "channels.json")])
def test_what_belongs_to_no_wanted_release_needs_nothing(
    key: str, missing: str, bucket: Bucket, proxy: FaultyProxy, store: S3Store
) -> None:
    """Somebody's readme stops nobody."""
    bucket.put(f"prod/{key}")
    ignored = store.list(only).ignored_keys
    proxy.fault = spoil(f"prod/{key}", *MISSING[missing])

    listing = store.list(only)

    assert [release.version for release in listing.releases[M]] == [1]
    assert listing.problems == {}
    assert listing.ignored_keys == ignored


@pytest.mark.parametrize("missing", MISSING)
@pytest.mark.parametrize(
    "key", first_of("m/2.tar", "m/2.manifest.json", "m/2/saved_model.pb", "m/2/assets/words")
)
def test_what_belongs_to_a_release_is_its_own_problem(
    key: str, missing: str, bucket: Bucket, proxy: FaultyProxy, store: S3Store
) -> None:
    """The version is refused, with the key and what to do; the others are offered."""
    bucket.put(f"prod/{key}")
    proxy.fault = spoil(f"prod/{key}", *MISSING[missing])

    listing = store.list(only)

    assert [release.version for release in listing.releases[M]] == [1]
    ((where, problem),) = listing.problems.items()
    assert where == (M, 2)
    assert isinstance(problem, ReleaseRefused)
    assert problem.reason is Reason.RELEASE_INCOMPLETE
    assert key in str(problem)
    assert "upload it again" in str(problem)


def test_a_folder_marker_without_a_size_is_one(bucket: Bucket, proxy: FaultyProxy, store: S3Store) -> None:
    """It ends in a slash, and nobody reads it."""
    bucket.put("prod/m/2/saved_model.pb")

    def fault(exchange: Exchange) -> None:
        answer = exchange.forward()
        marker = b"<Contents><Key>prod/m/2/variables/</Key></Contents></ListBucketResult>"
        answer.body = answer.body.replace(b"</ListBucketResult>", marker)
        exchange.answer(answer)

    proxy.fault = fault

    assert [release.version for release in store.list(only).releases[M]] == [1, 2]


@pytest.mark.parametrize("by", [b"<LastModified/>", b"<LastModified>then</LastModified>", b""])
def test_a_time_that_is_none_is_not_needed(by: bytes, proxy: FaultyProxy, store: S3Store) -> None:
    """It only tells how long a version took to arrive."""
    proxy.fault = spoil("prod/m/1.tar", rb"<LastModified>.*?</LastModified>", by)

    assert first_object(store).modified_at is None


@pytest.mark.parametrize(
    "time", ["2026-11-29T10:00:00.000Z", "2026-11-29T11:00:00+01:00", "Sun, 29 Nov 2026 10:00:00 GMT"]
)
def test_a_time_may_have_any_usual_form(time: str, proxy: FaultyProxy, store: S3Store) -> None:
    """Stores write it in their own ways."""
    by = f"<LastModified>{time}</LastModified>".encode()
    proxy.fault = spoil("prod/m/1.tar", rb"<LastModified>.*?</LastModified>", by)

    assert first_object(store).modified_at == datetime(2026, 11, 29, 10, tzinfo=UTC).timestamp()


# -- listings that do not end ------------------------------------------------------------------------------


def page(bucket: Bucket, more: str) -> Fault:
    """Answer a listing with a page of one's own, in one piece."""
    text = f"<ListBucketResult><Name>{bucket.name}</Name><Prefix>prod/</Prefix>{more}</ListBucketResult>"
    return says(200, text.encode())


def endless(bucket: Bucket, contents: str = "") -> Fault:
    """Say on every page that there is one more; `{n}` in the contents is its number."""
    numbers = count()

    def fault(exchange: Exchange) -> None:
        number = next(numbers)
        token = f"<NextContinuationToken>t{number}</NextContinuationToken>"
        more = f"<KeyCount>0</KeyCount><IsTruncated>true</IsTruncated>{token}{contents.format(n=number)}"
        page(bucket, more)(exchange)

    return fault


CONTENTS = "<Contents><Key>prod/{n}</Key><Size>1</Size><ETag>e</ETag></Contents>"


@pytest.mark.parametrize(
    ("contents", "advice"),
    [("", "something other than S3"), (CONTENTS, "keys so far: nothing was changed: the store is too slow")],
    ids=["empty pages", "new keys"],
)
def test_a_listing_that_does_not_end_has_a_deadline(
    contents: str, advice: str, bucket: Bucket, proxy: FaultyProxy
) -> None:
    """For all of its pages together, each of which is quick."""
    proxy.fault = endless(bucket, contents)
    settings = settings_of(bucket, proxy.endpoint_url)
    store = S3Store(settings, Fetch(), Limits(), replace(ONCE, listing_seconds=0.3))

    error = failure(lambda: store.list(only))

    assert error.reason is Reason.STORE_BAD_ANSWER
    assert "does not end after 0.3 seconds" in str(error)
    assert advice in str(error)


def test_pages_without_a_key_are_not_asked_for_for_ever(
    bucket: Bucket, proxy: FaultyProxy, store: S3Store
) -> None:
    """Some in a row are a store that passes by removed keys; a hundred are not."""
    proxy.fault = endless(bucket)

    error = failure(lambda: store.list(only))

    assert "100 pages without a key" in str(error)
    assert proxy.requests == 100


def test_a_stop_is_looked_for_at_every_page(bucket: Bucket, proxy: FaultyProxy, store: S3Store) -> None:
    """No further page is asked for."""
    proxy.fault = endless(bucket, CONTENTS)

    with pytest.raises(Stopped):
        store.list(only, should_stop=lambda: proxy.requests >= 3)

    assert proxy.requests == 3


V1 = "<Marker></Marker><MaxKeys>1000</MaxKeys><IsTruncated>{more}</IsTruncated>"
V1_KEY = "<Contents><Key>prod/m/1.tar</Key><Size>1</Size><ETag>e</ETag></Contents>"


def test_version_1_of_a_listing_is_enough_for_one_page(
    bucket: Bucket, proxy: FaultyProxy, store: S3Store
) -> None:
    """It says all that is needed."""
    proxy.fault = page(bucket, V1.format(more="false") + V1_KEY)

    assert len(store.list(only).releases[M]) == 1


V1_ONLY: dict[str, Callable[[Bucket], Fault]] = {
    "ignores list-type": lambda bucket: page(bucket, V1.format(more="true") + V1_KEY),
    "no such operation": lambda _: s3_error(501, "NotImplemented"),
    "no such method": lambda _: s3_error(405, "MethodNotAllowed"),
    "no such parameter": lambda _: s3_error(400, "InvalidArgument", "unsupported parameter list-type"),
}


@pytest.mark.parametrize("make", V1_ONLY.values(), ids=V1_ONLY.keys())
def test_a_store_that_knows_only_version_1_is_named(
    make: Callable[[Bucket], Fault], bucket: Bucket, proxy: FaultyProxy, store: S3Store
) -> None:
    """Whether it answers in it, or refuses the other."""
    proxy.fault = make(bucket)

    error = failure(lambda: store.list(only))

    assert error.reason is Reason.STORE_BAD_ANSWER
    assert "version 1 of ListObjects" in str(error)
    assert "list-type=2" in str(error)


def test_the_first_page_is_always_asked_for(bucket: Bucket, proxy: FaultyProxy) -> None:
    """However short the time for all of them is."""
    settings = settings_of(bucket, proxy.endpoint_url)
    store = S3Store(settings, Fetch(), Limits(), replace(ONCE, listing_seconds=0))

    assert len(store.list(only).releases[M]) == 1
    proxy.fault = endless(bucket)
    assert isinstance(failure(lambda: store.list(only)), StoreError)
