"""A bucket with one archive, a proxy before it, and the agent's store behind the proxy."""

from collections.abc import Iterator

import pytest

from faulty_proxy import FaultyProxy
from fixtures_store import Bucket, new_bucket
from odd_store import BODY, ONCE, settings_of
from servesync.demo.seaweed import Seaweed
from servesync.settings import Fetch, Limits
from servesync.store import S3Store


@pytest.fixture(scope="module")
def module_bucket(seaweed: Seaweed) -> Bucket:
    """One bucket for all tests of this module."""
    return new_bucket(seaweed)


@pytest.fixture
def bucket(module_bucket: Bucket, credentials_set: None) -> Bucket:
    """A bucket that holds one archive."""
    module_bucket.empty()
    module_bucket.put("prod/m/1.tar", BODY)
    return module_bucket


@pytest.fixture
def proxy(bucket: Bucket) -> Iterator[FaultyProxy]:
    """A proxy before the bucket."""
    with FaultyProxy(bucket.server.port) as running:
        yield running


@pytest.fixture
def store(bucket: Bucket, proxy: FaultyProxy) -> Iterator[S3Store]:
    """The agent's store, behind the proxy."""
    made = S3Store(settings_of(bucket, proxy.endpoint_url), Fetch(), Limits(), ONCE)
    yield made
    made.close()
