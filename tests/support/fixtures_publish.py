"""A publisher into a test's bucket, and looks at what it leaves there."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import servesync
from big_models import files_of
from fixtures_store import Bucket


@pytest.fixture
def model(real_models: Path) -> Path:
    """A sound SavedModel."""
    return real_models / "plain_module"


@pytest.fixture
def publish(bucket: Bucket, model: Path) -> Callable[..., Any]:
    """`servesync.publish` into the test's bucket."""

    def call(directory: Path = model, version: int = 1, **more: Any) -> Any:
        where = {"store": f"s3://{bucket.name}/prod", "endpoint_url": bucket.server.endpoint_url}
        return servesync.publish(directory, model="m", version=version, region="us-east-1", **where | more)

    return call


def keys(bucket: Bucket) -> list[str]:
    """Return the keys of all objects."""
    return [item["Key"] for item in bucket.client.list_objects_v2(Bucket=bucket.name).get("Contents", [])]


def body(bucket: Bucket, key: str) -> bytes:
    """Return an object's bytes."""
    return bucket.client.get_object(Bucket=bucket.name, Key=key)["Body"].read()


def heavy(model: Path, folder: Path, megabytes: int = 40) -> Path:
    """Copy a model and make it large, so that it is uploaded in parts."""
    for name, data in files_of(model).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (folder / "assets").mkdir(exist_ok=True)
    (folder / "assets/weights.bin").write_bytes(os.urandom(megabytes << 20))
    return folder


def uploads(bucket: Bucket) -> list[str]:
    """Return the keys of uploads that were begun and not ended."""
    found = bucket.client.list_multipart_uploads(Bucket=bucket.name).get("Uploads", [])
    return [upload["Key"] for upload in found]
