"""Records the last position of each channel on the disk, so that no restart forgets a sequence."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from servesync import disk
from servesync.domain.versions import MAX_VERSION, Model
from servesync.install import records
from servesync.install.records import Unreadable
from servesync.install.workspace import Workspace

MAX_RECORD_BYTES = 64 << 10


class Position(BaseModel):
    """The last good position of a channel; `etag` and `sha256` are those of the object that said so."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    schema_version: Literal[1] = 1
    version: Annotated[int, Field(ge=0, le=MAX_VERSION)]
    sequence: Annotated[int, Field(ge=1, le=MAX_VERSION)]
    etag: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Positions:
    """The positions of one model's channels."""

    workspace: Workspace
    model: Model

    @property
    def _folder(self) -> Path:
        return self.workspace.root / "channels" / self.model

    def read(self) -> Mapping[str, Position | Unreadable]:
        """Return every position by the channel's name, or why the record of it cannot be read.

        Raises:
            OSError: the directory cannot be read.
        """
        found: dict[str, Position | Unreadable] = {}
        for entry in disk.entries(self._folder):
            if entry.name.endswith(".json"):
                position = records.read(self._folder / entry.name, Position, MAX_RECORD_BYTES)
                if position is not None:
                    found[entry.name.removesuffix(".json")] = position
        return found

    def write(self, name: str, position: Position) -> None:
        """Store a position durably, replacing the older one atomically."""
        disk.make_dir(self.workspace.root / "channels", 0o700)
        disk.make_dir(self._folder, 0o700)
        disk.write_file(self._folder / f"{name}.json", position.model_dump_json().encode())
