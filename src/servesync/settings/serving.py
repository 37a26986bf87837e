"""The model server beside the agent: its directory, its memory, and what stays on disk for it."""

import re
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import Field, field_validator, model_validator

from servesync.settings.base import MIB, Section
from servesync.settings.places import AbsolutePath, host_of, is_link_local, is_path, split_url

_GRPC_TARGET: Final = re.compile(r"unix:/.{1,200}|(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]{1,253}):[0-9]{1,5}")


class Serving(Section):
    """The model server beside this agent, and the directory that it scans."""

    models_dir: AbsolutePath
    server_models_dir: AbsolutePath | None = None
    rest_url: str | None = "http://127.0.0.1:8501"
    grpc_target: str | None = None
    version_policy: Literal["all", "latest"] = "all"
    smoke: Literal["auto", "golden", "off"] = "auto"
    smoke_timeout_seconds: Annotated[float, Field(ge=0.1, le=3600)] = 30.0
    load_timeout_seconds: Annotated[float, Field(ge=1, le=86_400)] = 600.0
    scan_interval_seconds: Annotated[float, Field(gt=0, le=3600)] = 1.0
    config_file: AbsolutePath | None = None
    adopt_config: bool = False
    config_poll_seconds: Annotated[float, Field(ge=1, le=3600)] = 30.0
    allow_version_labels_for_unavailable_models: bool = False
    pause_between_loads_seconds: Annotated[float, Field(ge=0, le=3600)] = 0.0

    def base_path(self, model: str) -> Path:
        """Return where the server finds the shelf of a model: by the server's path, not by the agent's."""
        return (self.server_models_dir or self.models_dir) / model

    @model_validator(mode="after")
    def _check_where_config_file_is(self) -> Self:
        """Refuse a place where the server takes the file for a version, or cannot read it."""
        if self.config_file and self.models_dir in self.config_file.parent.parents:
            raise ValueError("config_file must not lie in a folder below models_dir; beside these is fine")
        return self

    @field_validator("grpc_target")
    @classmethod
    def _check_grpc_target(cls, value: str | None) -> str | None:
        if value is None or _GRPC_TARGET.fullmatch(value):
            return value
        raise ValueError("must be HOST:PORT or unix:/PATH of the server's gRPC interface, or null")

    @property
    def interfaces(self) -> tuple[str | None, str | None]:
        """Where the server can be asked."""
        return self.rest_url, self.grpc_target

    @field_validator("rest_url")
    @classmethod
    def _check_rest_url(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = split_url(value, "rest_url")
        host = host_of(parts)
        if not host:
            raise ValueError("must be http://HOST:PORT of the server's REST interface, or null")
        if is_link_local(host):
            raise ValueError("must not be a link-local address (metadata services live there)")
        return value.rstrip("/")


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
        if not is_path(value):
            raise ValueError("must be the absolute path of a cgroup's directory, or null")
        return Path(value)


class Reserve(Section):
    """How many versions of each model stay unpacked beside the shelf, for an instant rollback."""

    keep: Annotated[int, Field(ge=0, le=1000)] = 1
