"""Can the server's user read what the agent installs? Only mode bits count here, not access lists."""

import contextlib
import itertools
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from servesync import disk
from servesync.doctor.findings import Check, Finding, fail, ok, warn
from servesync.doctor.processes import Process

MOST_PLACES: Final = 2000
READ: Final = 4
ENTER: Final = 1


def examine_readable(models_dir: Path, shelves: Sequence[Path], server: Process | None) -> Iterator[Finding]:
    """Yield whether the server can reach the shelves and read them."""
    if not models_dir.is_dir():
        return
    if server is not None and server.is_privileged:
        yield ok(Check.DISK_READABLE, f"the server (uid {server.uid}) may read every file")
        return
    closed = next(_closed(models_dir, shelves, server), None)
    if closed is None:
        whose = f"the server (uid {server.uid})" if server else "any user"
        yield ok(Check.DISK_READABLE, f"{whose} can read the shelves")
    elif server is None:
        text = f"not everybody can read {closed}, and the server's process is not visible from here"
        advice = f"if it runs as another user: {closed.advice}, or give both one group (fsGroup)"
        yield warn(Check.DISK_READABLE, text, advice)
    elif server.pid is None:
        text = f"the server (uid {server.uid}) can read {closed} only by its groups, which are not visible"
        yield warn(Check.DISK_READABLE, text, f"{closed.advice}, unless it is in that group")
    else:
        text = f"the server (uid {server.uid}) cannot read {closed}"
        yield fail(Check.DISK_READABLE, text, closed.advice)


@dataclass(frozen=True, slots=True)
class _Place:
    """A file or directory and who may read it."""

    path: Path
    found: os.stat_result

    def __str__(self) -> str:
        mode = stat.S_IMODE(self.found.st_mode)
        return f"{self.path} (uid {self.found.st_uid}, gid {self.found.st_gid}, mode {mode:o})"

    @property
    def advice(self) -> str:
        return f"chmod o+{'rx' if stat.S_ISDIR(self.found.st_mode) else 'r'} {self.path}"

    def admits(self, server: Process | None, *, only_through: bool) -> bool:
        """Tell whether the mode lets the server's user read it (or pass through), or everybody."""
        mode = self.found.st_mode & 0o777
        if server is None:
            allowed = mode & 7
        elif self.found.st_uid == server.uid:
            allowed = mode >> 6
        elif self.found.st_gid in server.gids:
            allowed = mode >> 3 & 7
        else:
            allowed = mode & 7
        if only_through:
            return bool(allowed & ENTER)
        bits = READ | ENTER if stat.S_ISDIR(self.found.st_mode) else READ
        return allowed & bits == bits


def _closed(models_dir: Path, shelves: Sequence[Path], server: Process | None) -> Iterator[_Place]:
    """Yield what the server's user cannot pass or read; where both see one root, from that on."""
    above = reversed(models_dir.parents) if _sees_our_root(server) else ()
    for place in _places((*above, models_dir)):
        if not place.admits(server, only_through=True):
            yield place
    for shelf in shelves:
        for place in _places(itertools.islice(_read_by_server(shelf), MOST_PLACES)):
            if not place.admits(server, only_through=False):
                yield place


def _places(paths: Iterable[Path]) -> Iterator[_Place]:
    """Yield those that are still there: an agent may be at work."""
    for path in paths:
        with contextlib.suppress(OSError):
            yield _Place(path, path.stat())


def _sees_our_root(server: Process | None) -> bool:
    """Tell whether the server has our view of the files; a container has a way of its own to the shelf."""
    if server is None or server.root is None:
        return False
    try:
        return server.root.samefile("/")
    except OSError:
        return False


def _read_by_server(shelf: Path) -> Iterator[Path]:
    """Yield what the server reads: the shelf, and all of each version."""
    if not shelf.is_dir():
        return
    yield shelf
    for entry in disk.entries(shelf):
        if entry.name.isdecimal() and entry.is_dir(follow_symlinks=False):
            for folder, _, files in os.walk(entry.path):
                yield Path(folder)
                yield from (Path(folder, name) for name in files)
