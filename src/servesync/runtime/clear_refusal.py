"""`retry`: lets the agent try a version at once that it has refused, or that waits because it came damaged.

A running agent gets a signal to do so now.
"""

import os
import signal
import socket
from pathlib import Path
from typing import Final

from servesync import disk
from servesync.domain.versions import parse_model, parse_version
from servesync.errors import Reason, SettingsError
from servesync.install import Refusals, Workspace, lock_holder
from servesync.settings import Settings
from servesync.transfer import attempts

UNDER_LATEST: Final = (
    "; a server with policy latest tries this number again only after a restart or a higher one"
)


def clear_refusal(settings: Settings, name: str, number: str) -> str:
    """Remove the refusal of a version on this instance, or its pause; return in words what was done.

    Raises:
        SettingsError: there is no such model or version, or neither holds it here. Nothing was changed.
        DiskError: the record cannot be removed.
    """
    model, version = parse_model(name), parse_version(number)
    if model is None or version is None:
        text = f"{name!a} {number!a}: give a model's name and a version number, as in: retry answer_bot 7"
        raise SettingsError(Reason.SETTINGS_INVALID, text)
    workspace = Workspace(settings.serving.models_dir)
    refusals = Refusals(workspace.refusals(model), "")
    try:
        lifted = refusals.lift(version)
        waited = attempts.lift(workspace, model, version)
    except OSError as error:
        raise disk.describe(error, f"lifting the refusal of {model} {version}") from error
    if not lifted and not waited:
        text = (
            f"{model} {version} is not refused under {workspace.models_dir}, nor put off: nothing was "
            "changed; `servesync plan` says why it is not in place"
        )
        raise SettingsError(Reason.SETTINGS_INVALID, text)
    note = UNDER_LATEST if settings.serving.version_policy == "latest" else ""
    done = f"no longer refused ({lifted})" if lifted else f"no longer put off ({waited})"
    return f"{model} {version}: {done}; {_tell(workspace)}{note}"


def _tell(workspace: Workspace) -> str:
    """Send SIGUSR1 to the running agent if its process is known for certain."""
    holder = lock_holder(workspace.lock)
    if holder is None:
        return "no agent is at work here, the next one tries it"
    pid, host = holder
    if host == socket.gethostname() and _is_agent(pid):
        os.kill(pid, signal.SIGUSR1)
        return f"the agent (pid {pid}) retries it at once"
    return "the agent tries it at its next poll"


def _is_agent(pid: int) -> bool:
    """Whether a process is a servesync: SIGUSR1 would end most other programs."""
    try:
        return b"servesync" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
