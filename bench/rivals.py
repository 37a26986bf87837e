"""What a user would take instead of servesync, as lines of bash, and the stages alone.

A line runs in an empty folder and unpacks into `out/`. Its environment names the store (ENDPOINT, BUCKET,
KEY, PRESIGNED). LOCAL is a copy of the archive on this machine, and TREE the version's directory.
"""

import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

TOOLS: Final = Path(__file__).parents[1] / ".bench-venv"
"""Where bench/setup puts them."""

FOLDERS: Final = ("bin", "debian/usr/bin", "debian/usr/sbin")
OBJECT: Final = '"s3://$BUCKET/$KEY"'
S5CMD: Final = 's5cmd --endpoint-url "$ENDPOINT"'
KSERVE: Final = """
import sys
from kserve_storage import Storage
Storage.download(sys.argv[1], sys.argv[2])
"""


@dataclass(frozen=True)
class Rival:
    """A line, and the programs that it needs. `unpacks`: it leaves the version in `out/`, else nothing."""

    name: str
    line: str
    programs: tuple[str, ...]
    unpacks: bool = True


def _ways(ending: str, flag: str) -> tuple[Rival, ...]:
    """Return those that copy an archive to the disk and unpack it from there."""
    tar = f"tar {flag} -xf archive -C out"
    aws = f'aws --endpoint-url "$ENDPOINT" s3 cp --only-show-errors {OBJECT} archive'
    rclone = (
        'env -u AWS_CA_BUNDLE rclone copyto "store:$BUCKET/$KEY" archive'  # it has RCLONE_CA_CERT instead
    )
    unpacker = "zstd" if ending == "zst" else "gzip"
    return (
        Rival(f"aws s3 cp, tar {flag}", f"{aws} && {tar}", ("aws", "tar", unpacker)),
        Rival(f"s5cmd cp, tar {flag}", f"{S5CMD} cp {OBJECT} archive && {tar}", ("s5cmd", "tar", unpacker)),
        Rival(f"rclone copyto, tar {flag}", f"{rclone} && {tar}", ("rclone", "tar", unpacker)),
    )


def _stages(name: str, unpacker: str) -> tuple[Rival, ...]:
    """Return each stage alone."""
    curl = 'curl --silent --show-error --fail --output /dev/null "$PRESIGNED"'
    return (
        Rival("download alone, s5cmd cat", f"{S5CMD} cat {OBJECT} > /dev/null", ("s5cmd",), unpacks=False),
        Rival("download alone, one connection (curl)", curl, ("curl",), unpacks=False),
        Rival(f"{name} alone", f'{unpacker} "$LOCAL" > /dev/null', (name,), unpacks=False),
    )


IGZIP: Final = Rival(
    "s5cmd cat | igzip -dc | tar x",
    f"{S5CMD} cat {OBJECT} | igzip -dc | tar -x -C out",
    ("s5cmd", "igzip", "tar"),
)
ZSTD: Final = Rival(
    "s5cmd cat | zstd -dc | tar x",
    f"{S5CMD} cat {OBJECT} | zstd -dcq | tar -x -C out",
    ("s5cmd", "zstd", "tar"),
)
KSERVES: Final = Rival(
    "KServe's storage initializer",
    f"AWS_ENDPOINT_URL=\"$ENDPOINT\" kserve-python -c '{KSERVE}' {OBJECT} out",
    ("kserve-python",),
)
PUBLISH: Final = Rival(
    "tar --zstd | aws s3 cp -",
    f'tar --zstd -c -C "$TREE/.." 1 | aws --endpoint-url "$ENDPOINT" s3 cp --only-show-errors - {OBJECT}',
    ("aws", "tar", "zstd"),
    unpacks=False,
)
OF_TAR_GZ: Final = (IGZIP, *_ways("gz", "--gzip"), KSERVES, *_stages("igzip", "igzip -dc"))
OF_FRAMES: Final = (ZSTD, *_ways("zst", "--zstd"), *_stages("zstd", "zstd -dcq"))


KSERVES_VERSION: Final = 'import importlib.metadata as m; print(m.version("kserve-storage"))'
VERSIONS: Final = {
    "aws": "aws --version",
    "s5cmd": "s5cmd version",
    "rclone": "rclone version",
    "kserve-storage": f"kserve-python -c '{KSERVES_VERSION}'",
    "igzip": "igzip --version",
    "zstd": "zstd --version",
    "gzip": "gzip --version",
    "tar": "tar --version",
    "curl": "curl --version",
    "nginx": "nginx -v",
    "SeaweedFS": "weed version",
}


@dataclass
class Tools:
    """The programs that are there, and their versions; `left_out` names what is missing."""

    path: str
    left_out: set[str] = field(default_factory=set)

    def has(self, rival: Rival) -> bool:
        """Return whether a rival can be run; what it lacks is remembered."""
        missing = {program for program in rival.programs if shutil.which(program, path=self.path) is None}
        self.left_out |= missing
        return not missing

    def versions(self) -> dict[str, str]:
        """Return the first line that each program that is there says of itself."""
        found = {}
        for name, line in VERSIONS.items():
            if shutil.which(line.split()[0], path=self.path):
                done = subprocess.run(
                    ["bash", "-c", f"{line} 2>&1"],
                    check=False,
                    capture_output=True,
                    text=True,
                    env={"PATH": self.path, "HOME": os.devnull, "RCLONE_CONFIG": os.devnull},
                )
                found[name] = done.stdout.strip().partition("\n")[0]
        return found
