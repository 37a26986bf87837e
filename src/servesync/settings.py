"""The settings of one agent: one YAML file, checked once, frozen, with the unit in every name."""

import datetime as dt
import ipaddress
import re
import socket
from collections import Counter
from keyword import iskeyword
from pathlib import Path, PurePosixPath
from typing import Annotated, Final, Literal, Self, TypeAlias, TypeGuard
from urllib.parse import SplitResult, urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    GetPydanticSchema,
    field_validator,
    model_validator,
)
from pydantic_core import core_schema

from servesync import buckets
from servesync.domain.versions import MAX_VERSION, parse_model

MIB = 1 << 20
GIB = 1 << 30
_TIME = "(?:[01][0-9]|2[0-3]):[0-5][0-9]"

Level: TypeAlias = Literal["structure", "checksum", "load"]
Dtype: TypeAlias = Literal[
    "float32", "float64", "int32", "uint8", "int16", "int8", "string", "complex64", "int64", "bool", "qint8",
    "quint8", "qint32", "bfloat16", "qint16", "quint16", "uint16", "complex128", "float16", "resource",
    "variant", "uint32", "uint64", "float8_e5m2", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e4m3b11fnuz",
    "float8_e5m2fnuz", "int4", "uint4", "int2", "uint2", "float4_e2m1fn", "unknown",
]  # fmt: skip
"""TensorFlow's names in the order of DataType (types.proto), from 1; `unknown` is a newer one."""


class Section(BaseModel):
    """What every section has in common: frozen, strict, and no key that nobody reads."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


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
        parts = _split(self.endpoint_url, "endpoint_url")
        plain = not (parts.query or parts.fragment)
        if parts.scheme not in {"http", "https"} or not parts.hostname or not plain or parts.port == 0:
            raise ValueError("endpoint_url must be https://HOST[:PORT] (or http:// on loopback)")
        address = _address(parts.hostname)
        if address is not None and (address.is_link_local or address.is_unspecified):
            raise ValueError("endpoint_url must not be a link-local address (metadata services live there)")
        loopback = parts.hostname == "localhost" or (address is not None and address.is_loopback)
        if parts.scheme == "http" and not loopback and not self.allow_insecure_endpoint:
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
        if _address(urlsplit(self.endpoint_url or "").hostname or "") is not None:
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


def _split(url: str, key: str) -> SplitResult:
    """Take the URL of a key apart.

    Raises:
        ValueError: it holds a user or a password, or no port after the colon; the text does not show them.
    """
    if "@" in url:
        raise ValueError(f"{key} must not hold a user or a password: credentials are never settings")
    parts = urlsplit(url)
    try:
        _ = parts.port
    except ValueError:
        raise ValueError(f"{key}: what follows the colon after the host is no port (0 to 65535)") from None
    return parts


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the address that `host` is, also in the short and decimal forms that resolvers accept."""
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        try:
            return ipaddress.IPv4Address(socket.inet_aton(host))
        except OSError:
            return None
    mapped = getattr(found, "ipv4_mapped", None)
    return mapped or found


def _is_path(value: object) -> TypeGuard[str | Path]:
    """Tell whether a value is an absolute path that the system takes and a line of a log can hold."""
    return (
        isinstance(value, str | Path)
        and PurePosixPath(value).is_absolute()
        and not re.search(r"[\x00-\x1f\x7f\ud800-\udfff]", str(value))
    )


def _absolute(value: object) -> Path:
    """Accept an absolute, plain path: what it means must not depend on where the agent was started."""
    if not _is_path(value) or ".." in PurePosixPath(value).parts or str(PurePosixPath(value)) in {"/", "//"}:
        raise ValueError("must be an absolute path below /, without '..', '~' and control characters")
    return Path(value)


class Serving(Section):
    """The model server beside this agent, and the directory that it scans."""

    models_dir: Path
    server_models_dir: Path | None = None
    rest_url: str | None = "http://127.0.0.1:8501"
    version_policy: Literal["all", "latest"] = "all"
    load_timeout_seconds: Annotated[float, Field(ge=1, le=86_400)] = 600.0
    scan_interval_seconds: Annotated[float, Field(gt=0, le=3600)] = 1.0
    config_file: Path | None = None
    adopt_config: bool = False
    config_poll_seconds: Annotated[float, Field(ge=1, le=3600)] = 30.0
    allow_version_labels_for_unavailable_models: bool = False
    pause_between_loads_seconds: Annotated[float, Field(ge=0, le=3600)] = 0.0

    @field_validator("models_dir", mode="before")
    @classmethod
    def _check_models_dir(cls, value: object) -> Path:
        return _absolute(value)

    @field_validator("config_file", "server_models_dir", mode="before")
    @classmethod
    def _check_optional_path(cls, value: object) -> Path | None:
        return None if value is None else _absolute(value)

    def base_path(self, model: str) -> Path:
        """Return where the server finds the shelf of a model: by the server's path, not by the agent's."""
        return (self.server_models_dir or self.models_dir) / model

    @model_validator(mode="after")
    def _check_where_config_file_is(self) -> Self:
        """Refuse a place where the server takes the file for a version, or cannot read it."""
        if self.config_file and self.models_dir in self.config_file.parent.parents:
            raise ValueError("config_file must not lie in a folder below models_dir; beside these is fine")
        return self

    @field_validator("rest_url")
    @classmethod
    def _check_rest_url(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = _split(value, "rest_url")
        plain = not (parts.query or parts.fragment)
        if parts.scheme not in {"http", "https"} or not parts.hostname or not plain or parts.port == 0:
            raise ValueError("must be http://HOST:PORT of the server's REST interface, or null")
        address = _address(parts.hostname)
        if address is not None and (address.is_link_local or address.is_unspecified):
            raise ValueError("must not be a link-local address (metadata services live there)")
        return value.rstrip("/")


ChannelName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,62}$")]


class Versions(Section):
    """Which versions of a model are served: exactly one of the keys."""

    latest: Annotated[int, Field(ge=1, le=1000)] | None = None
    pin: Annotated[list[Annotated[int, Field(ge=0, le=MAX_VERSION)]], Field(min_length=1)] | None = None
    all: Literal[True] | None = None
    channel: Annotated[list[ChannelName], Field(min_length=1, max_length=10)] | None = None

    @field_validator("channel", mode="before")
    @classmethod
    def _one_or_more(cls, value: object) -> object:
        """Accept one name for a list of one."""
        return [value] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if sum(value is not None for value in (self.latest, self.pin, self.all, self.channel)) != 1:
            raise ValueError("needs exactly one of latest: N, pin: [N, ...], channel: NAME, all: true")
        return self


class TensorSpec(Section):
    """What is known of one input or output of a signature; `null` stands for what is not fixed."""

    dtype: Dtype
    shape: Annotated[list[Annotated[int, Field(ge=0)] | None], Field(max_length=254)] | None = None
    encoding: Literal["dense", "sparse", "composite"] = "dense"


class Signature(Section):
    """What one signature takes and gives, by name."""

    inputs: dict[str, TensorSpec]
    outputs: dict[str, TensorSpec]


def _as_served_or_declared(value: object, declared: core_schema.ValidatorFunctionWrapHandler) -> object:
    """Keep the two words that are no table, so that a mistake in a table is named by its place alone."""
    return value if value in (None, "as_served") else declared(value)


def _json_schema_of_wish(
    declared: core_schema.CoreSchema, handler: GetJsonSchemaHandler
) -> dict[str, object]:
    """Describe the table and the two words that are none."""
    return {"anyOf": [{"type": "null"}, {"const": "as_served"}, handler(declared)]}


SignatureWish = Annotated[
    Literal["as_served"] | dict[str, Signature] | None,
    GetPydanticSchema(
        lambda _, handler: core_schema.no_info_wrap_validator_function(
            _as_served_or_declared, handler(dict[str, Signature])
        ),
        _json_schema_of_wish,
    ),
]


LabelName = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,100}$")]


class LabelTarget(Section):
    """Where a label points: to a version (a number alone says the same), or where a channel points."""

    version: Annotated[int, Field(ge=0, le=MAX_VERSION)] | None = None
    channel: LabelName | None = None

    @model_validator(mode="before")
    @classmethod
    def _read_number(cls, value: object) -> object:
        return {"version": value} if isinstance(value, int) and not isinstance(value, bool) else value

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if (self.version is None) == (self.channel is None):
            raise ValueError("needs a version's number or channel: NAME")
        return self


EVERY_MODEL: Final = "*"
"""The name of settings for every model of the store that has none of its own."""


class ModelSettings(Section):
    """One model to keep on the shelf, the signatures that each version must have, and its labels."""

    name: Annotated[str, Field(description="1 to 100 of A-Z a-z 0-9 . _ - and no dot first.")]
    versions: Versions = Versions(latest=1)
    required: bool = True
    signatures: SignatureWish = None
    labels: dict[LabelName, LabelTarget] | None = None

    @property
    def channels(self) -> tuple[str, ...]:
        """The channels whose position matters for this model: those of its policy and of its labels."""
        named = [target.channel for target in (self.labels or {}).values() if target.channel is not None]
        return tuple(dict.fromkeys([*(self.versions.channel or ()), *named]))

    @field_validator("name")
    @classmethod
    def _check_name(cls, value: str) -> str:
        if value != EVERY_MODEL and parse_model(value) is None:
            raise ValueError(
                'must be 1 to 100 of A-Z a-z 0-9 . _ - and not start with a dot, or "*" for every other model'
            )
        return value

    @model_validator(mode="after")
    def _check_pin(self) -> Self:
        if self.name == EVERY_MODEL and self.versions.pin is not None:
            raise ValueError('versions: pin needs a model of its own, not "*"')
        return self


class Poll(Section):
    """How often the store is listed; the jitter keeps a fleet from asking all at once."""

    interval_seconds: Annotated[float, Field(ge=1, le=86_400)] = 10.0
    jitter_seconds: Annotated[float, Field(ge=0, le=3600)] = 2.0


def _module_name(value: str) -> str:
    parts = value.split(".")
    if not all(part.isascii() and part.isidentifier() and not iskeyword(part) for part in parts):
        raise ValueError("must be a Python module as import takes it: tensorflow_text, not tensorflow-text")
    return value


ModuleName = Annotated[str, Field(max_length=200), AfterValidator(_module_name)]


class LoadLimits(Section):
    """The process that loads a version on trial: what it imports before, and what it may use.

    Reaching a limit refuses the version.
    """

    wall_seconds: Annotated[float, Field(ge=1, le=86_400)] = 300.0
    cpu_seconds: Annotated[int, Field(ge=1, le=864_000)] = 600
    address_space_bytes: Annotated[int, Field(ge=4 * GIB, le=1 << 46)] = 64 * GIB
    memory_bytes: Annotated[int, Field(ge=64 * MIB, le=1 << 44)] | None = None
    file_size_bytes: Annotated[int, Field(ge=0, le=1 << 40)] = 0
    threads: Annotated[int, Field(ge=16, le=100_000)] = 2048
    libraries: Annotated[list[ModuleName], Field(max_length=20)] = []


class Verify(Section):
    """How much is proven before a version is installed."""

    level: Level = "checksum"
    unsafe_ops: Literal["warn", "refuse", "allow"] = "warn"
    load: LoadLimits = LoadLimits()


class Memory(Section):
    """How much the server may hold, and what happens when a new version does not fit beside the old ones."""

    budget_bytes: Annotated[int, Field(ge=1, le=1 << 50)] | None = None
    limit_bytes: Annotated[int, Field(ge=1, le=1 << 50)] | None = None
    factor: Annotated[float, Field(ge=1, le=20)] = 1.2
    when_short: Literal["refuse", "retire_first"] = "refuse"
    headroom_bytes: Annotated[int, Field(ge=0, le=1 << 44)] = 256 * MIB
    cgroup: Path | None = None

    @field_validator("cgroup", mode="before")
    @classmethod
    def _check_cgroup(cls, value: object) -> Path | None:
        if value is None:
            return None
        if not _is_path(value):
            raise ValueError("must be the absolute path of a cgroup's directory, or null")
        return Path(value)


class Reserve(Section):
    """How many versions of each model stay unpacked beside the shelf, for an instant rollback."""

    keep: Annotated[int, Field(ge=0, le=1000)] = 1


class Scrub(Section):
    """How often versions on the shelf are read again from the disk, how fast, and at which time of day."""

    interval_hours: Annotated[float, Field(ge=0.001, le=8784)] | None = 168.0
    max_bytes_per_second: Annotated[int, Field(ge=MIB)] = 50 * MIB
    between_utc: str | None = None

    @field_validator("between_utc")
    @classmethod
    def _check_between(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(f"{_TIME}-{_TIME}", value, re.ASCII):
            raise ValueError("must be HH:MM-HH:MM (UTC), or null for any time")
        return value

    def is_time(self, now: dt.time) -> bool:
        """Tell whether versions may be read at this time of day; `22:00-04:00` goes over midnight."""
        if self.between_utc is None:
            return True
        begin, end = map(dt.time.fromisoformat, self.between_utc.split("-"))
        return begin <= now < end if begin <= end else now >= begin or now < end


class Prices(Section):
    """What the estimate of the store's cost reckons with, in US dollars: by default Amazon's list prices."""

    list_usd_per_1000: Annotated[float, Field(ge=0, le=1000)] = 0.005
    read_usd_per_1000: Annotated[float, Field(ge=0, le=1000)] = 0.0004
    transfer_usd_per_gb: Annotated[float, Field(ge=0, le=1000)] = 0.0


class Admin(Section):
    """Where the agent answers probes, metrics and people; `port` null: nowhere, 0: on a free port."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535)] | None = 9494
    token_file: Path | None = None
    allowed_hosts: Annotated[list[str], Field(max_length=100)] = []
    stuck_after_seconds: Annotated[float, Field(ge=60, le=86_400)] = 600.0
    prices: Prices = Prices()

    @field_validator("host")
    @classmethod
    def _check_host(cls, value: str) -> str:
        try:
            return str(ipaddress.ip_address(value))
        except ValueError:
            raise ValueError(
                "must be an address: 127.0.0.1, 0.0.0.0, ::1, ::, or one of this machine's"
            ) from None

    @field_validator("token_file", mode="before")
    @classmethod
    def _check_token_file(cls, value: object) -> Path | None:
        if value is None:
            return None
        if not _is_path(value):
            raise ValueError("must be an absolute path, or null")
        return Path(value)

    @field_validator("allowed_hosts")
    @classmethod
    def _check_allowed_hosts(cls, value: list[str]) -> list[str]:
        for name in value:
            if not re.fullmatch(r"[A-Za-z0-9._-]{1,253}", name):
                raise ValueError("must be names of hosts, without ports and without wildcards")
        return value


class Log(Section):
    """What is written to standard output."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["json", "console"] = "json"


class Settings(Section):
    """All settings of one agent."""

    store: Store
    serving: Serving
    models: Annotated[list[ModelSettings], Field(min_length=1, max_length=1000)]
    poll: Poll = Poll()
    verify: Verify = Verify()
    limits: Limits = Limits()
    fetch: Fetch = Fetch()
    memory: Memory = Memory()
    reserve: Reserve = Reserve()
    scrub: Scrub = Scrub()
    admin: Admin = Admin()
    log: Log = Log()

    @model_validator(mode="after")
    def _check_names_differ(self) -> Self:
        twice = [name for name, count in Counter(model.name for model in self.models).items() if count > 1]
        if twice:
            raise ValueError(f"models: named more than once: {', '.join(twice)}")
        return self

    @model_validator(mode="after")
    def _check_labels(self) -> Self:
        """Refuse labels that nobody would write, could move safely, or that would end the server's start."""
        named = [model.name for model in self.models if model.labels]
        needs = {
            "serving.config_file": self.serving.config_file,
            "serving.rest_url": self.serving.rest_url,
            "serving.allow_version_labels_for_unavailable_models: true (and the flag of that name for the "
            "server, which exits at every start with labels in its file otherwise)": (
                self.serving.allow_version_labels_for_unavailable_models
            ),
        }
        missing = [name for name, value in needs.items() if not value]
        if named and missing:
            raise ValueError(f"models: labels (of {', '.join(named)}) need {'; '.join(missing)}")
        return self
