"""Who holds the models directory? The lock is not taken, since that could stop an agent that starts."""

import json
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from servesync.doctor.findings import Check, Finding, fail, ok, warn
from servesync.doctor.mounts import OVER_THE_NETWORK
from servesync.doctor.processes import arguments_of, flags_of
from servesync.files import NotRegular, read_regular
from servesync.install import Workspace
from servesync.mounts import mount_of

LOCKS: Final = Path("/proc/locks")
_LINE: Final = re.compile(r"\d+: FLOCK +\S+ +\S+ +(?P<pid>\d+) +[0-9a-f]+:[0-9a-f]+:(?P<inode>\d+) ")
MOST_BYTES: Final = 4096


def examine_lock(workspace: Workspace, config: Path) -> Iterator[Finding]:
    """Yield whether an agent is at work in the models directory, and whether it is that of `config`."""
    try:
        inode = workspace.lock.lstat().st_ino
        noted = _noted(workspace.lock)
    except FileNotFoundError:
        yield ok(Check.LOCK_HOLDER, "no agent has worked here yet")
        return
    except NotRegular as error:
        text = f"{workspace.lock} is the lock's file, but {error.strerror}"
        yield fail(Check.LOCK_HOLDER, text, "remove it; the agent makes it anew")
        return
    except OSError as error:
        text = f"{workspace.lock} cannot be read: {error.strerror}"
        yield warn(Check.LOCK_HOLDER, text, "run the doctor as the agent's user")
        return
    pid = _holder(inode)
    host = str(noted.get("host", ""))
    if pid is not None:
        yield _at_work(pid, config)
    elif host and host != socket.gethostname() and _is_shared(workspace.root):
        text = f"the last agent here ran on {host}, and this is a network filesystem"
        advice = "if that one still runs, two agents share the directory: one directory for each agent"
        yield warn(Check.LOCK_HOLDER, text, advice)
    else:
        yield ok(Check.LOCK_HOLDER, "no agent is at work here now")


def _holder(inode: int) -> int | None:
    """Return the process that holds a lock on a file; None if none does, as far as the kernel shows it."""
    try:
        lines = LOCKS.read_text().splitlines()
    except OSError:
        return None
    matches = (_LINE.match(line) for line in lines)
    return next((int(match["pid"]) for match in matches if match and int(match["inode"]) == inode), None)


def _at_work(pid: int, config: Path) -> Finding:
    flags = flags_of(arguments_of(pid))
    theirs = flags.get("c") or flags.get("config")
    try:
        folder = Path(f"/proc/{pid}/cwd").readlink()
    except OSError:
        return ok(Check.LOCK_HOLDER, f"an agent is at work here (pid {pid})")
    if theirs is None or os.path.realpath(folder / theirs) == os.path.realpath(config):
        return ok(Check.LOCK_HOLDER, f"the agent is at work here (pid {pid})")
    text = f"another agent works here (pid {pid}, with the settings {theirs})"
    advice = "stop that one, or give this one a serving.models_dir of its own"
    return warn(Check.LOCK_HOLDER, text, advice)


def _noted(path: Path) -> dict[str, object]:
    try:
        found = json.loads(read_regular(path, MOST_BYTES, follow=False) or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _is_shared(path: Path) -> bool:
    mount = mount_of(path.resolve())
    return mount is not None and mount.kind in OVER_THE_NETWORK
