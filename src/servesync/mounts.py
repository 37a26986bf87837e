"""Which filesystem a path is on, by the kernel's own table."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

TABLE: Final = Path("/proc/self/mountinfo")


@dataclass(frozen=True, slots=True)
class Mount:
    """A mounted filesystem: where, and of which kind (`ext4`, `nfs4`, `fuse.s3fs`)."""

    point: Path
    kind: str

    def __str__(self) -> str:
        """Return it as messages name it."""
        return f"{self.kind}, mounted at {self.point}"


def mount_of(path: Path) -> Mount | None:
    """Return the mount that `path` is on; None where the kernel shows no table."""
    try:
        lines = TABLE.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return None
    found: Mount | None = None
    for line in lines:
        before, _, after = line.partition(" - ")
        point = Path(_unescaped(before.split()[4]))
        kind = after.split()[0]
        if path.is_relative_to(point) and (found is None or len(point.parts) >= len(found.point.parts)):
            found = Mount(point, kind)
    return found


def _unescaped(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
