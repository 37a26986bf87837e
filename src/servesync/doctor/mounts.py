"""Is the filesystem of the models directory one on which the agent can work?"""

import re
from pathlib import Path
from typing import Final

from servesync.doctor.findings import Check, Finding, fail, ok, warn
from servesync.mounts import mount_of

OVER_THE_NETWORK: Final = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "lustre", "beegfs", "gpfs", "virtiofs"}
)
IN_MEMORY: Final = frozenset({"tmpfs", "ramfs"})
OBJECTS_AS_FILES: Final = re.compile(
    r"fuse\.(s3fs|goofys|geesefs|mountpoint-s3|mount-s3|gcsfuse|rclone|blobfuse2?|juicefs|sshfs)"
)


def examine_kind(path: Path) -> Finding | None:
    """Return the finding on the filesystem of `path`, which must exist."""
    mount = mount_of(path.resolve())
    if mount is None:
        return None
    if OBJECTS_AS_FILES.fullmatch(mount.kind):
        advice = "no atomic rename and no real fsync there: put serving.models_dir on a local disk"
        return fail(Check.DISK_FILESYSTEM, str(mount), advice)
    if mount.kind in OVER_THE_NETWORK:
        advice = (
            "agent and server hang when it hangs, and its lock may not hold between hosts: put "
            "serving.models_dir on a local disk, one for each server"
        )
    elif mount.kind in IN_MEMORY:
        advice = "versions there count as memory of this pod or machine, and are fetched anew after a restart"
    elif mount.kind == "overlay":
        advice = "the container's own layer, gone when it is: mount a volume that the server shares"
    else:
        return ok(Check.DISK_FILESYSTEM, str(mount))
    return warn(Check.DISK_FILESYSTEM, str(mount), advice)
