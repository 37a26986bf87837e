"""The store against a real S3 server: what it lists, what it reads, and what it refuses."""

from itertools import pairwise

import pytest

from big_models import LONG
from fixtures_store import Bucket
from servesync.domain.versions import Layout, Model, StoredObject
from servesync.errors import Reason, StoreError, TransferError
from servesync.settings import Fetch, Store
from servesync.store import S3Store

M = Model("m")


def store_of(bucket: Bucket, **more: object) -> S3Store:
    """Return the agent's store for a bucket and the prefix `prod`."""
    settings = {
        "url": f"s3://{bucket.name}/prod",
        "endpoint_url": bucket.server.endpoint_url,
        "region": "us-east-1",
        **more,
    }
    return S3Store(Store.model_validate(settings), Fetch())


def everything(_: Model) -> bool:
    """Want every model."""
    return True


def test_archives_and_directories_are_found(bucket: Bucket) -> None:
    """Both layouts give releases, leading zeros are dropped, and what is neither is counted."""
    bucket.put("prod/m/0000001.tar.gz", b"one")
    bucket.put("prod/m/2.tar.zst", b"two")
    bucket.put("prod/m/3/saved_model.pb", b"graph")
    bucket.put("prod/m/3/assets/empty.txt", b"")
    bucket.put("prod/m/README.md", b"?")
    bucket.put("prod/m/latest.tar.gz", b"?")

    listing = store_of(bucket).list(everything)

    found = {release.version: release for release in listing.releases[M]}
    assert {version: release.layout for version, release in found.items()} == {
        1: Layout.ARCHIVE,
        2: Layout.ARCHIVE,
        3: Layout.DIRECTORY,
    }
    assert [item.path for item in found[3].objects] == ["assets/empty.txt", "saved_model.pb"]  # type: ignore[index]
    assert listing.ignored_keys == 2
    assert listing.requests == 1


def test_a_sibling_prefix_is_another_model(bucket: Bucket) -> None:
    """`m` never sees `m2/`, and the prefix `prod` never sees `prod2/`."""
    bucket.put("prod/m/1.tar.gz")
    bucket.put("prod/m2/7.tar.gz")
    bucket.put("prod2/m/9.tar.gz")

    listing = store_of(bucket).list(lambda model: model == M)

    assert [release.version for release in listing.releases[M]] == [1]
    assert list(listing.releases) == [M]


def test_an_empty_store_is_a_listing(bucket: Bucket) -> None:
    """No key is a valid answer, and costs one request."""
    listing = store_of(bucket).list(everything)

    assert listing.releases == {}
    assert listing.requests == 1


def test_one_request_for_each_thousand_keys(bucket: Bucket) -> None:
    """2,500 keys of many models together are three requests; 1,001 are two."""
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415

    count, requests = (2500, 3) if LONG else (1001, 2)
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda n: bucket.put(f"prod/model{n % 50}/{n}.tar.gz"), range(count)))

    listing = store_of(bucket).list(everything)

    assert listing.requests == requests
    assert sum(len(releases) for releases in listing.releases.values()) == count


def test_two_claims_for_one_version_are_ambiguous(bucket: Bucket) -> None:
    """1.tar.gz and 0000001.tar.gz are the same version: neither is taken, and the problem says why."""
    bucket.put("prod/m/1.tar.gz")
    bucket.put("prod/m/0000001.tar.gz")
    bucket.put("prod/m/2.tar.gz")
    bucket.put("prod/m/2/saved_model.pb")

    listing = store_of(bucket).list(everything)

    assert listing.releases == {}
    assert {1, 2} == {version for _, version in listing.problems}
    assert {problem.reason for problem in listing.problems.values()} == {Reason.RELEASE_AMBIGUOUS}


def test_a_directory_without_its_graph_is_incomplete(bucket: Bucket) -> None:
    """Uploads in any order: without saved_model.pb there is no release."""
    bucket.put("prod/m/4/variables/variables.index")

    listing = store_of(bucket).list(everything)

    assert [problem.reason for problem in listing.problems.values()] == [Reason.RELEASE_INCOMPLETE]


def test_a_change_gives_another_identity(bucket: Bucket) -> None:
    """Other bytes under the same key are another release."""
    store = store_of(bucket)
    identities = []
    for body in (b"one", b"two", b"one"):
        bucket.put("prod/m/1.tar.gz", body)
        identities.append(store.list(everything).releases[M][0].identity)

    assert all(old != new for old, new in pairwise(identities))
    assert identities[0] == identities[2]


def only_object(store: S3Store) -> StoredObject:
    """Return the one object of the one release."""
    return store.list(everything).releases[M][0].objects[0]


def test_a_range_is_read_exactly(bucket: Bucket) -> None:
    """The buffer holds the bytes of the range, no more and no fewer."""
    body = bytes(range(256)) * 1000
    bucket.put("prod/m/1.tar.gz", body)
    store = store_of(bucket)
    buffer = bytearray(5000)

    store.read(only_object(store), 1234, 5000, memoryview(buffer), lambda: False)

    assert bytes(buffer) == body[1234:6234]


def test_a_replaced_object_is_never_read(bucket: Bucket) -> None:
    """Between listing and read another object came: no byte of it is taken."""
    bucket.put("prod/m/1.tar.gz", b"old" * 100)
    store = store_of(bucket)
    listed = only_object(store)
    bucket.put("prod/m/1.tar.gz", b"new" * 100)

    with pytest.raises(TransferError) as caught:
        store.read(listed, 0, 300, memoryview(bytearray(300)), lambda: False)

    assert caught.value.reason is Reason.OBJECT_CHANGED


def test_a_removed_object_is_gone(bucket: Bucket) -> None:
    """Between listing and read it was removed."""
    bucket.put("prod/m/1.tar.gz", b"old")
    store = store_of(bucket)
    listed = only_object(store)
    bucket.delete("prod/m/1.tar.gz")

    with pytest.raises(TransferError) as caught:
        store.read(listed, 0, 3, memoryview(bytearray(3)), lambda: False)

    assert caught.value.reason is Reason.OBJECT_GONE


def test_a_missing_bucket_is_named(bucket: Bucket) -> None:
    """The error says which bucket, and where to look."""
    store = store_of(bucket, url="s3://no-such-bucket-here/prod")

    with pytest.raises(StoreError, match=r"no-such-bucket-here.*store\.url") as caught:
        store.list(everything)

    assert caught.value.reason is Reason.STORE_NOT_FOUND


def test_wrong_credentials_are_told_apart_without_showing_them(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong key is a matter of credentials or permission; no secret is in the text."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIACANARY0000000000")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary-secret")

    with pytest.raises(StoreError) as caught:
        store_of(bucket).list(everything)

    assert caught.value.reason in {Reason.STORE_CREDENTIALS, Reason.STORE_DENIED}
    assert "canary" not in str(caught.value).lower()


def test_nobody_there(bucket: Bucket) -> None:
    """A closed port is unreachable, within bounded time."""
    with pytest.raises(StoreError) as caught:
        store_of(bucket, endpoint_url="http://127.0.0.1:9").list(everything)

    assert caught.value.reason is Reason.STORE_UNREACHABLE


def test_rotated_credentials_are_read_again(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a refusal the next call looks for credentials anew."""
    bucket.put("prod/m/1.tar.gz")
    right = bucket.server.secret_key
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    store = store_of(bucket)
    with pytest.raises(StoreError):
        store.list(everything)

    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", right)

    assert M in store.list(everything).releases
