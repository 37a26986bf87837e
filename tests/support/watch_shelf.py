"""Watches a shelf every millisecond, as a server would scan it, and checks all that it sees.

Run as a script: `watch_shelf.py SHELF EXPECTED.json OUT.json`; it makes OUT.json when it
begins to watch, and ends when EXPECTED.json disappears.
EXPECTED.json maps version -> path -> [size, sha256] of what was published so far.
"""

import contextlib
import hashlib
import json
import os
import sys
import time
from pathlib import Path

from servesync.domain.versions import server_sees_version

Expected = dict[str, dict[str, tuple[int, str]]]


def read(path: Path) -> Expected | None:
    """Return what was published; None once the file is gone."""
    try:
        found: Expected = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    return found


def size_and_digest(data: bytes) -> tuple[int, str]:
    """Return what is expected of a file with this content."""
    return len(data), hashlib.sha256(data).hexdigest()


def tree(handle: int, prefix: str = "") -> dict[str, int]:
    """Return path -> size of all files below an open directory."""
    found: dict[str, int] = {}
    for name in os.listdir(handle):
        mode = os.stat(name, dir_fd=handle, follow_symlinks=False)
        if mode.st_mode & 0o170000 == 0o040000:
            inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=handle)
            try:
                found |= tree(inner, f"{prefix}{name}/")
            finally:
                os.close(inner)
        else:
            found[prefix + name] = mode.st_size
    return found


def hashes(handle: int, names: list[str]) -> dict[str, str]:
    """Return path -> SHA-256 of files below an open directory."""
    found = {}
    for name in names:
        inner = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=handle)
        with os.fdopen(inner, "rb") as file:
            found[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def check(shelf: Path, name: str, expected: dict[str, tuple[int, str]], *, every_byte: bool) -> str | None:
    """Return what is wrong with a version that is visible now; None if nothing, or if it has just left."""
    try:
        handle = os.open(shelf / name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"{name}: {error}"
    try:
        sizes = tree(handle)
        wrong = sizes != {path: size for path, (size, _) in expected.items()}
        if not wrong and every_byte:
            wrong = hashes(handle, list(expected)) != {path: digest for path, (_, digest) in expected.items()}
    except OSError:
        wrong = True  # it was being removed, or never was whole: the name tells which
    same = False
    with contextlib.suppress(OSError):
        same = (shelf / name).stat().st_ino == os.fstat(handle).st_ino
    os.close(handle)
    return f"{name} is not whole: {sizes}" if wrong and same else None


def main() -> None:
    """Watch until told to end."""
    shelf, expected_path, out = (Path(word) for word in sys.argv[1:4])
    sightings = 0
    rounds = 0
    hashed: set[str] = set()
    violations: list[str] = []
    out.touch()
    while (expected := read(expected_path)) is not None:
        for _ in range(50):
            rounds += 1
            with contextlib.suppress(FileNotFoundError):
                for name in os.listdir(shelf):  # noqa: PTH208 (names as the server sees them)
                    if not server_sees_version(name):
                        continue
                    sightings += 1
                    if name not in expected:
                        expected = read(expected_path) or {}
                    found = check(shelf, name, expected.get(name, {}), every_byte=name not in hashed)
                    hashed.add(name)
                    if found:
                        violations.append(found)
            time.sleep(0.001)
    result = {
        "rounds": rounds,
        "sightings": sightings,
        "hashed": sorted(hashed),
        "violations": violations[:10],
    }
    out.write_text(json.dumps(result))


if __name__ == "__main__":
    main()
