"""Can the server's user read what the agent installs? By the mode bits; access lists are not looked at."""

import itertools
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from servesync import disk
from servesync.doctor.findings import Check, Finding, fail, ok, warn
from servesync.doctor.processes import Process

MOST_PLACES: Final = 2000
READ: Final = 4
ENTER: Final = 1


def examine_readable(models_dir: Path, shelves: Sequence[Path], server: Process | None) -> Iterator[Finding]:
    """Yield whether the server can come to the shelves and read them."""
    if not models_dir.is_dir():
        return
    if server is not None and server.is_privileged:
        yield ok(Check.DISK_READABLE, f"the server (uid {server.uid}) may read every file")
        return
    closed = next(_closed(models_dir, shelves, server), None)
    if server is None:
        yield _for_anybody(closed)
    elif closed is None:
        yield ok(Check.DISK_READABLE, f"the server (uid {server.uid}) can read the shelves")
    else:
        found = closed.lstat()
        text = (
            f"the server (uid {server.uid}) cannot read {closed} (uid {found.st_uid}, gid {found.st_gid}, "
            f"mode {stat.S_IMODE(found.st_mode):o})"
        )
        if server.pid is None:  # its groups are not known
            yield warn(Check.DISK_READABLE, text, f"{_advice(closed)}, unless it is in that group")
        else:
            yield fail(Check.DISK_READABLE, text, _advice(closed))


def _for_anybody(closed: Path | None) -> Finding:
    if closed is None:
        return ok(Check.DISK_READABLE, "any user can read the shelves")
    found = closed.lstat()
    text = (
        f"not everybody can read {closed} (uid {found.st_uid}, gid {found.st_gid}, mode "
        f"{stat.S_IMODE(found.st_mode):o}), and the server's process is not visible from here"
    )
    advice = f"if the server runs as another user: {_advice(closed)}, or give both one group (fsGroup)"
    return warn(Check.DISK_READABLE, text, advice)


def _advice(path: Path) -> str:
    return f"chmod o+{'rx' if path.is_dir() else 'r'} {path}"


def _closed(models_dir: Path, shelves: Sequence[Path], server: Process | None) -> Iterator[Path]:
    """Yield what the server's user cannot pass or read; where both see one root, from that on."""
    above = reversed(models_dir.parents) if _sees_our_root(server) else ()
    for folder in (*above, models_dir):
        if not _may(folder, ENTER, server):
            yield folder
    for shelf in shelves:
        for place in itertools.islice(_looked_at(shelf), MOST_PLACES):
            if not _may(place, READ | ENTER if place.is_dir() else READ, server):
                yield place


def _sees_our_root(server: Process | None) -> bool:
    """Tell whether the server has our view of the files; a container has a way of its own to the shelf."""
    if server is None or server.root is None:
        return False
    try:
        return server.root.samefile("/")
    except OSError:
        return False


def _looked_at(shelf: Path) -> Iterator[Path]:
    """Yield what the server reads: the shelf, and all of each version."""
    if not shelf.is_dir():
        return
    yield shelf
    for entry in disk.entries(shelf):
        if entry.name.isdecimal() and entry.is_dir(follow_symlinks=False):
            for folder, _, files in os.walk(entry.path):
                yield Path(folder)
                yield from (Path(folder, name) for name in files)


def _may(path: Path, bits: int, server: Process | None) -> bool:
    """Tell whether the mode allows `bits` (4 read, 1 enter) to the server's user, or to everybody."""
    try:
        found = path.lstat()
    except OSError:
        return True
    mode = found.st_mode & 0o777
    if server is None:
        allowed = mode & 7
    elif found.st_uid == server.uid:
        allowed = mode >> 6
    elif found.st_gid in server.gids:
        allowed = mode >> 3 & 7
    else:
        allowed = mode & 7
    return allowed & bits == bits
