"""What the tests of odd stores have in common: the settings, the objects, and the error."""

from collections.abc import Callable

import pytest

from fixtures_store import Bucket
from servesync.domain.versions import Model, StoredObject
from servesync.errors import SyncError
from servesync.settings import Store
from servesync.store import Bounds, S3Store

ONCE = Bounds(connect_seconds=2, read_seconds=5, answer_seconds=10, list_attempts=1)
BODY = bytes(range(256)) * 8
M = Model("m")


def settings_of(bucket: Bucket, endpoint_url: str) -> Store:
    """Return the settings of a store at an endpoint."""
    return Store(url=f"s3://{bucket.name}/prod", endpoint_url=endpoint_url, region="us-east-1")


def only(model: Model) -> bool:
    """Want model `m`."""
    return model == M


def first_object(store: S3Store) -> StoredObject:
    """Return the archive of version 1."""
    return store.list(only).releases[M][0].objects[0]


def failure(ask: Callable[[], object]) -> SyncError:
    """Return the error with which the store is asked."""
    with pytest.raises(SyncError) as caught:
        ask()
    return caught.value
