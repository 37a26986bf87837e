"""Where the agent answers, and what it writes."""

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator

from servesync.settings.base import Section
from servesync.settings.places import is_path


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
    allowed_hosts: Annotated[list[str], Field(max_length=100)] = []  # noqa: RUF012 (pydantic copies it)
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
        if not is_path(value):
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
