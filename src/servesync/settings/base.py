"""What all sections of the settings have in common, and the units of their defaults."""

from typing import Final

from pydantic import BaseModel, ConfigDict

MIB: Final = 1 << 20
GIB: Final = 1 << 30


class Section(BaseModel):
    """What every section has in common: frozen, strict, and no key that nobody reads."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
