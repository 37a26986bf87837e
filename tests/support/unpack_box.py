"""A directory to unpack into, with a tree of sentinels around it that must never change."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from archives import in_chunks
from servesync.domain.versions import Content, FileFact, Version
from servesync.settings import Limits
from servesync.unpack import Unpacked, unpack_archive

LIMITS: Final = Limits()


class UnpackBox:
    """One `into` after the other, in the middle of files that somebody else owns."""

    def __init__(self, base: Path) -> None:
        self._base = base
        self._rounds = 0
        for name in ("saved_model.pb", "x", "into-not/x", "variables/x"):
            path = base / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"sentinel " + name.encode())
        self.into = base

    def unpack(
        self,
        archive: bytes,
        *,
        version: int = 1,
        limits: Limits = LIMITS,
        sizes: Iterable[int] = (65536,),
        archive_bytes: int | None = None,
    ) -> Unpacked:
        """Unpack into a new empty directory."""
        self._rounds += 1
        self.into = self._base / f"into-{self._rounds}"
        self.into.mkdir()
        size = len(archive) if archive_bytes is None else archive_bytes
        return unpack_archive(
            in_chunks(archive, sizes), self.into, Version(version), limits, archive_bytes=size
        )

    def around(self) -> tuple[tuple[str, int, int, bytes], ...]:
        """Return all that lies outside the `into` directories, with mode, time and content."""
        found = []
        for path in sorted(self._base.rglob("*")):
            if path.relative_to(self._base).parts[0].removeprefix("into-").isdigit():
                continue
            status = path.lstat()
            content = path.read_bytes() if path.is_file() else b""
            found.append((str(path), status.st_mode, status.st_mtime_ns, content))
        return tuple(found)


def content_of(tree: dict[str, bytes]) -> Content:
    """Return what unpacking must report for `path -> content`."""
    return Content.of(
        FileFact(path, len(data), hashlib.sha256(data).hexdigest()) for path, data in tree.items()
    )


def on_disk(root: Path) -> dict[str, bytes]:
    """Return the files below `root` as `path -> content`."""
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def open_descriptors() -> int:
    """Return how many descriptors this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))
