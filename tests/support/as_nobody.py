"""Runs servesync as a user without any privilege: another uid, no capability, no way to get one."""

import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest

import servesync
from agent_box import AgentBox

UID = 65534
_READ_ONLY = """
mount --bind "$0" "$0" && mount --bind "$1" "$1" && mount --bind "$2" "$2" &&
mount -o remount,bind,ro "$1" && mount -o remount,bind,ro "$0" && mount -o remount,bind,ro / || exit 77
shift 2
exec "$@"
"""


def dropped(uid: int, groups: str = "") -> list[str]:
    """Return the start of a command line that runs the rest as `uid`, with nothing else and umask 077."""
    own = [f"--reuid={uid}", f"--regid={uid}", f"--groups={groups}" if groups else "--clear-groups"]
    command = ["setpriv", *own, "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]
    return [*command, "sh", "-c", 'umask 077; exec "$@"', "sh"]


def run(
    box: AgentBox, *arguments: str, groups: str = "", read_only_root: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run a servesync command as nobody, with no usable home; skip where no Python here can be run so.

    With `read_only_root` the models directory is the only place on any disk that can be written.
    """
    python, *rest = box.command(*arguments)
    (box.folder / "servesync.yaml").chmod(0o644)
    _let_in(box.folder)
    environment = box.environment() | {"HOME": "/nonexistent", "PYTHONPATH": _places(python)}
    start = dropped(UID, groups)
    if read_only_root:
        places = [tempfile.gettempdir(), str(box.folder), str(box.models_dir)]
        start = ["unshare", "--mount", "sh", "-c", _READ_ONLY, *places, *start]
    for candidate in (python, "/usr/bin/python3"):  # a Python below /root is closed to others
        if _call([*dropped(UID), candidate, "-c", "import servesync.cli"], environment).returncode == 0:
            done = _call([*start, candidate, *rest], environment)
            if done.returncode == 77:
                pytest.skip(f"unshare and mount: {done.stderr.strip()}")
            return done
    pytest.skip("no python here that another user may run")


def _call(command: Sequence[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, cwd="/", timeout=120
    )


def _let_in(folder: Path) -> None:
    """Let others through the folders that pytest made for one user."""
    for place in [folder, *folder.parents]:
        if str(place).startswith(tempfile.gettempdir() + "/"):
            place.chmod(place.stat().st_mode | 0o055)


def _places(python: str) -> str:
    """Return where `python` finds packages, in a form that another Python understands."""
    code = "import sys; print('\\n'.join(sys.path))"
    found = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout
    packages = [path for path in found.split("\n") if "site-packages" in path]
    return ":".join([*packages, str(Path(servesync.__file__).parents[1])])
