"""Where the models lie, and how the agent reads them."""

import re
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from servesync import buckets
from servesync.settings.base import GIB, MIB, Section
from servesync.settings.places import (
    AbsolutePath,
    address_of,
    host_of,
    is_link_local,
    is_loopback,
    mirror_url,
    split_url,
)


class Store(Section):
    """Where the models lie, and how their keys name versions."""

    url: str
    endpoint_url: str | None = None
    allow_insecure_endpoint: bool = False
    addressing_style: Literal["auto", "path", "virtual"] = "auto"
    region: Annotated[str, Field(json_schema_extra={"pattern": "^[A-Za-z0-9-]{1,63}$"})] | None = None
    request_payer: Literal["requester"] | None = None
    expected_bucket_owner: Annotated[str, Field(pattern=r"^[0-9]{12}$")] | None = None
    key_pattern: str = "{model}/{version}"
    require_manifest: bool = False
    settle_seconds: Annotated[float, Field(ge=0, le=86_400)] = 60.0
    cache_dir: AbsolutePath | None = None
    cache_max_bytes: Annotated[int, Field(ge=64 * MIB, le=1 << 44)] = 16 * GIB

    @field_validator("url")
    @classmethod
    def _check_url(cls, value: str) -> str:
        if buckets.split_url(value) is None:
            raise ValueError(
                "must be s3://BUCKET or s3://BUCKET/PREFIX; BUCKET is 1 to 255 of A-Z a-z 0-9 . _ -, "
                "the ARN of an access point, or Ceph's TENANT:BUCKET"
            )
        if "//" in value.removeprefix("s3://"):
            raise ValueError("must have no empty folder (//) in the prefix")
        return value.rstrip("/")

    @field_validator("region")
    @classmethod
    def _check_region(cls, value: str | None) -> str | None:
        if value is not None and buckets.REGION.fullmatch(value) is None:
            raise ValueError(
                "must be 1 to 63 of A-Z a-z 0-9 -, not only digits, and without a - at either end"
            )
        return value

    @field_validator("key_pattern")
    @classmethod
    def _check_key_pattern(cls, value: str) -> str:
        literals = re.split(r"\{model\}|\{version\}", value)
        if "{model}" not in value or "{version}" not in value:
            raise ValueError("must hold {model} and {version}")
        if any(set(text) & set("{}*?\\") for text in literals) or value.startswith("/") or "//" in value:
            raise ValueError("must be a plain relative key besides {model} and {version}")
        if not all(literals[1:-1]):
            raise ValueError("needs something between two placeholders, such as /")
        return value

    @model_validator(mode="after")
    def _check_endpoint(self) -> Self:
        """Refuse endpoints that could leak credentials: clear text to another host, metadata services."""
        if self.endpoint_url is None:
            return self
        parts = split_url(self.endpoint_url, "endpoint_url")
        host = host_of(parts)
        if not host:
            raise ValueError("endpoint_url must be https://HOST[:PORT] (or http:// on loopback)")
        if is_link_local(host):
            raise ValueError("endpoint_url must not be a link-local address (metadata services live there)")
        if parts.scheme == "http" and not is_loopback(host) and not self.allow_insecure_endpoint:
            raise ValueError(
                "endpoint_url is http:// to another host: anybody on the way can read and change what is "
                "served; use https://, or set allow_insecure_endpoint: true"
            )
        return self

    @model_validator(mode="after")
    def _check_addressing(self) -> Self:
        """Refuse what botocore would quietly do in another way, or send to a host that is not there."""
        if self.endpoint_url is None and self.region is not None and self.region != self.region.lower():
            raise ValueError(f"region: Amazon's regions are lower case: {self.region.lower()}, if any")
        if buckets.is_tenants(self.bucket) and (not self.endpoint_url or self.addressing_style == "virtual"):
            raise ValueError(
                f"url: {self.bucket} is a bucket of a tenant, as Ceph has them: that needs endpoint_url, and "
                "addressing_style: auto or path"
            )
        if self.addressing_style != "virtual":
            return self
        if not buckets.fits_a_host(self.bucket):
            raise ValueError(
                f"addressing_style: virtual needs a bucket of 3 to 63 a-z 0-9 -, and {self.bucket} is none, "
                "so it cannot be part of a host's name: use path"
            )
        if address_of(urlsplit(self.endpoint_url or "").hostname or "") is not None:
            raise ValueError(
                "addressing_style: virtual puts the bucket before the endpoint's host, so endpoint_url needs "
                "the name of a host and not an address: use path"
            )
        return self

    @property
    def bucket(self) -> str:
        """The bucket's name, as the store's API takes it: also the ARN of an access point, or an alias."""
        return self._place[0]

    @property
    def prefix(self) -> str:
        """What every key of the store begins with: empty, or ending in `/`."""
        path = self._place[1]
        return f"{path}/" if path else ""

    @property
    def _place(self) -> tuple[str, str]:
        return buckets.split_url(self.url) or ("", "")


class Poll(Section):
    """How often the store is listed; the jitter keeps a fleet from asking all at once."""

    interval_seconds: Annotated[float, Field(ge=1, le=86_400)] = 10.0
    jitter_seconds: Annotated[float, Field(ge=0, le=3600)] = 2.0


class Limits(Section):
    """Bounds on what is accepted from the store; every one of them fails, none cuts."""

    max_archive_bytes: Annotated[int, Field(ge=1024, le=1 << 42)] = 16 * GIB
    max_unpacked_bytes: Annotated[int, Field(ge=1024, le=1 << 44)] = 64 * GIB
    max_members: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
    max_ratio: Annotated[int, Field(ge=1, le=100_000)] = 200
    disk_reserve_bytes: Annotated[int, Field(ge=0, le=1 << 42)] = GIB
    disk_reserve_inodes: Annotated[int, Field(ge=0, le=1 << 32)] = 1000


class Fetch(Section):
    """How bytes are read: `connections` parts of `part_bytes` at a time, never more than `memory_bytes`."""

    transfers: Annotated[int, Field(ge=1, le=16)] = 2
    connections: Annotated[int, Field(ge=1, le=64)] = 8
    part_bytes: Annotated[int, Field(ge=64 * 1024, le=256 * MIB)] = 6 * MIB
    memory_bytes: Annotated[int, Field(ge=MIB, le=4 * GIB)] = 48 * MIB
    max_bytes_per_second: Annotated[int, Field(ge=64 * 1024)] | None = None
    mirrors: Annotated[list[Annotated[str, Field(max_length=2000)]], Field(max_length=8)] = []  # noqa: RUF012 (pydantic copies it)

    @field_validator("mirrors")
    @classmethod
    def _check_mirrors(cls, value: list[str]) -> list[str]:
        return [mirror_url(url) for url in value]
