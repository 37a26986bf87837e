"""Which filesystem a path is on, by the kernel's own table."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from servesync.doctor.findings import Check, Finding, fail, ok, warn

TABLE: Final = Path("/proc/self/mountinfo")
OVER_THE_NETWORK: Final = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "lustre", "beegfs", "gpfs", "virtiofs"}
)
IN_MEMORY: Final = frozenset({"tmpfs", "ramfs"})
OBJECTS_AS_FILES: Final = re.compile(
    r"fuse\.(s3fs|goofys|geesefs|mountpoint-s3|mount-s3|gcsfuse|rclone|blobfuse2?|juicefs|sshfs)"
)


@dataclass(frozen=True, slots=True)
class Mount:
    """A mounted filesystem: where, and of which kind (`ext4`, `nfs4`, `fuse.s3fs`)."""

    point: Path
    kind: str


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


def examine_kind(path: Path) -> Finding | None:
    """Return what is to be said of the filesystem below `path`, which exists."""
    mount = mount_of(path.resolve())
    if mount is None:
        return None
    text = f"{mount.kind}, mounted at {mount.point}"
    if OBJECTS_AS_FILES.fullmatch(mount.kind):
        advice = "no atomic rename and no real fsync there: put serving.models_dir on a local disk"
        return fail(Check.DISK_FILESYSTEM, text, advice)
    if mount.kind in OVER_THE_NETWORK:
        advice = (
            "when it hangs, agent and server hang; its lock may not hold between hosts: put "
            "serving.models_dir on a local disk, one for each server"
        )
        return warn(Check.DISK_FILESYSTEM, text, advice)
    if mount.kind in IN_MEMORY:
        advice = "versions there count as memory of this pod or machine, and are fetched anew after a restart"
        return warn(Check.DISK_FILESYSTEM, text, advice)
    if mount.kind == "overlay":
        advice = "the container's own layer, gone when it is: mount a volume that the server shares"
        return warn(Check.DISK_FILESYSTEM, text, advice)
    return ok(Check.DISK_FILESYSTEM, text)
