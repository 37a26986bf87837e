"""A disk that refuses, runs full, or is the last thing that an agent sees.

Functions of `servesync.disk` are replaced for as long as this is entered. The disk below stays a real one.
"""

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from servesync import disk
from sim.jobs import ProcessEnded

EFFECTS: Final = (
    "make_dir",
    "make_new_dir",
    "rename_noreplace",
    "exchange",
    "sync_file",
    "sync_dir",
    "sync_tree",
    "write_file",
    "_replace",
    "remove_unfinished",
    "remove_file",
    "remove_tree",
    "empty_dir",
)
"""Every function that changes something, or makes it durable."""

OF_PARTS: Final = frozenset({"sync_tree", "remove_unfinished", "empty_dir"})
"""Those that are made of others, and fail as those do."""

WRITES: Final = ("make_dir", "make_new_dir", "write_file")
"""Those that need space."""

PLENTY: Final = 1 << 40


@dataclass
class DiskFaults:
    """What the disk does. `free_bytes`, `free_inodes`: what it says that is left."""

    free_bytes: int = PLENTY
    free_inodes: int | None = None
    dies_at: int | None = None
    """Before which effect from now on the process ends; counts down."""

    is_gone: bool = False
    """Nothing is done any more: the process has ended."""

    refused: dict[str, int] = field(default_factory=dict)
    """The error number with which a function fails, by its name."""

    effects: list[str] = field(default_factory=list)
    """The names of what was done."""

    _real: dict[str, Callable[..., Any]] = field(default_factory=dict)

    def __enter__(self) -> Self:
        """Take the place of the disk's functions."""
        for name in (*EFFECTS, "free_bytes", "free_inodes"):
            self._real[name] = getattr(disk, name)
        for name in EFFECTS:
            setattr(disk, name, self._replacement(name))
        for name, function in (("free_bytes", self._free_bytes), ("free_inodes", self._free_inodes)):
            setattr(disk, name, function)
        return self

    def __exit__(self, *_: object) -> None:
        """Put the disk's functions back."""
        for name, function in self._real.items():
            setattr(disk, name, function)
        self._real.clear()

    def fail(self, number: int, *names: str) -> None:
        """Let these functions fail from now on; all that write or change, if none is named."""
        self.refused.update(dict.fromkeys(names or set(EFFECTS) - OF_PARTS, number))

    def fill(self) -> None:
        """Let nothing new fit; what is there can be renamed and removed."""
        self.free_bytes = 0
        self.fail(errno.ENOSPC, *WRITES)

    def heal(self) -> None:
        """End all faults."""
        self.refused.clear()
        self.free_bytes, self.free_inodes, self.dies_at = PLENTY, None, None

    def _replacement(self, name: str) -> Callable[..., Any]:
        real = self._real[name]

        def effect(*arguments: Any, **more: Any) -> Any:
            self._before(name, arguments)
            return real(*arguments, **more)

        return effect

    def _before(self, name: str, arguments: tuple[Any, ...]) -> None:
        if self.is_gone:
            raise ProcessEnded
        if self.dies_at is not None:
            self.dies_at -= 1
            if self.dies_at < 0:
                self.dies_at, self.is_gone = None, True
                raise ProcessEnded
        if name in self.refused:
            number = self.refused[name]
            raise OSError(number, os.strerror(number), str(arguments[0]) if arguments else None)
        self.effects.append(name)

    def _free_bytes(self, _path: Path) -> int:
        return self.free_bytes

    def _free_inodes(self, _path: Path) -> int | None:
        return self.free_inodes
