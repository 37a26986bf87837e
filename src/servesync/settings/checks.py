"""How the agent checks a version: before it installs it, and while it is on the shelf."""

import datetime as dt
import re
from keyword import iskeyword
from typing import Annotated, Final, Literal, TypeAlias

from pydantic import AfterValidator, Field, field_validator

from servesync.settings.base import GIB, MIB, Section

Level: TypeAlias = Literal["structure", "checksum", "load"]


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
    libraries: Annotated[list[ModuleName], Field(max_length=20)] = []  # noqa: RUF012 (pydantic copies it)


class Verify(Section):
    """How much is proven before a version is installed."""

    level: Level = "checksum"
    unsafe_ops: Literal["warn", "refuse", "allow"] = "warn"
    load: LoadLimits = LoadLimits()


_TIME: Final = "(?:[01][0-9]|2[0-3]):[0-5][0-9]"


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
