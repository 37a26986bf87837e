"""What a memory cgroup says: its limit, and what its processes hold. Versions 1 and 2, nested or not."""

import contextlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final

from servesync.files import read_regular

LIMIT_FILES: Final = ("memory.max", "memory.limit_in_bytes")
MAX_BYTES: Final = 1 << 20
NO_LIMIT_FROM: Final = 1 << 62
"""Version 1 says "no limit" with the largest number of pages that fits into 63 bits."""
ANONYMOUS: Final = ("anon", "total_rss")
"""What cannot be written back to files: in memory.stat of version 2, and of version 1."""


def memory_limit(folder: Path) -> int | None:
    """Return the lowest limit, in bytes, of a cgroup and all above it; None if none of them has one.

    Raises:
        OSError: there is no cgroup at `folder`, or it cannot be read.
        ValueError: its files hold something else.
    """
    if not _is_cgroup(folder):
        raise FileNotFoundError(f"{folder} is no cgroup")
    limits = []
    for place in (folder, *folder.parents):
        if not _is_cgroup(place):
            break
        limits += [int(text) for text in _limit_texts(place) if text != "max"]
    return min((limit for limit in limits if limit < NO_LIMIT_FROM), default=None)


def _is_cgroup(folder: Path) -> bool:
    return (folder / "cgroup.procs").exists()


def _limit_texts(folder: Path) -> Iterator[str]:
    """Yield the cgroup's own limit; nothing at the root of version 2, and where memory is not counted."""
    for name in LIMIT_FILES:
        with contextlib.suppress(FileNotFoundError):
            yield _text(folder / name).strip()


def _text(path: Path) -> str:
    return read_regular(path, MAX_BYTES).decode()


def anonymous_bytes(folder: Path) -> int:
    """Return the bytes that a cgroup's processes hold besides cached files.

    Raises:
        OSError: it cannot be read.
        ValueError: its files hold something else.
    """
    lines = _text(folder / "memory.stat").splitlines()
    facts = dict(line.split(maxsplit=1) for line in lines)
    for name in ANONYMOUS:
        if name in facts:
            return int(facts[name])
    raise ValueError(f"{folder}/memory.stat has neither {' nor '.join(ANONYMOUS)}")


def cgroup_of(pid: int, proc: Path = Path("/proc")) -> Path | None:
    """Return the directory of a process's memory cgroup; None if it is not visible from here.

    Raises:
        OSError: there is no such process, or it may not be looked at.
    """
    for kind, inside in _memberships((proc / str(pid) / "cgroup").read_text()):
        for root, place in _mounts((proc / "self/mountinfo").read_text(), kind):
            found = _below(root, place, inside)
            if found is not None and found.is_dir():
                return found
    return None


def _memberships(text: str) -> list[tuple[str, str]]:
    """Return `(filesystem, path)` of the hierarchies that may count memory: version 1's memory, version 2."""
    found: list[tuple[str, str]] = []
    for line in text.splitlines():
        number, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            found.insert(0, ("cgroup", path))
        elif number == "0" and not controllers:
            found.append(("cgroup2", path))
    return found


def _mounts(text: str, kind: str) -> list[tuple[str, str]]:
    """Return `(root, mount point)` of the mounts of one filesystem that count memory."""
    found = []
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        filesystem, _, options = right.split(" ", 2)
        counts = kind == "cgroup2" or "memory" in options.split(",")
        if filesystem == kind and counts:
            root, place = left.split(" ")[3:5]
            found.append((_plain(root), _plain(place)))
    return found


def _plain(text: str) -> str:
    """Undo the kernel's escapes of a path in mountinfo."""
    return text.encode().decode("unicode_escape") if "\\" in text else text


def _below(root: str, place: str, inside: str) -> Path | None:
    """Return where the cgroup `inside` lies when `root` is mounted at `place`; None if it lies outside."""
    path = PurePosixPath(inside)
    if ".." in path.parts or not path.is_relative_to(root):
        return None
    return Path(place) / path.relative_to(root)
