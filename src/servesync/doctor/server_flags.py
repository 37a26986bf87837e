"""What the server was started with, where its process is visible: the flags that matter beside an agent."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from servesync.doctor.findings import Check, Finding, fail, ok, warn
from servesync.doctor.processes import Process
from servesync.domain.versions import Model
from servesync.install import Workspace
from servesync.settings import Serving

SLOW_SCAN_SECONDS: Final = 10.0


def examine_flags(
    server: Process, serving: Serving, workspace: Workspace, models: list[Model]
) -> Iterator[Finding]:
    """Yield what in the server's command line does not fit the settings, or makes it slow to recover."""
    if not server.flags:
        return
    found = [
        *_elsewhere(server, serving),
        *_scanning(server.flags.get("file_system_poll_wait_seconds", "1")),
        *_retries(server.flags.get("max_num_load_retries", "5")),
        *_one_model(server, serving, workspace, models),
    ]
    yield from found
    if not found:
        yield ok(Check.SERVER_FLAGS, f"the server's flags fit (pid {server.pid})")


def _scanning(text: str) -> Iterator[Finding]:
    seconds = _number(text)
    if seconds is None:
        return
    said = f"--file_system_poll_wait_seconds={text}"
    if seconds <= 0:
        advice = "the server never scans the shelf again: set it to 1"
        yield fail(Check.SERVER_FLAGS, said, advice, "file_system_poll_wait_seconds")
    elif seconds > SLOW_SCAN_SECONDS:
        advice = "it sees a new version only after that time: 1 is the usual value"
        yield warn(Check.SERVER_FLAGS, said, advice, "file_system_poll_wait_seconds")


def _retries(text: str) -> Iterator[Finding]:
    number = _number(text)
    if number:
        said = f"it tries a version that it cannot load {number + 1:.0f} times, a minute apart"
        advice = "meanwhile it loads no other version of the model: start it with --max_num_load_retries=0"
        yield warn(Check.SERVER_FLAGS, said, advice, "max_num_load_retries")


def _elsewhere(server: Process, serving: Serving) -> Iterator[Finding]:
    """Compare the directory from which the base paths in our file start with what the server sees there."""
    place = serving.server_models_dir or serving.models_dir
    if serving.config_file is None or server.root is None:
        return
    if _are_different(serving.models_dir, server.root / str(place).lstrip("/")):
        said = f"what the server finds at {place} is not serving.models_dir ({serving.models_dir})"
        advice = "set serving.server_models_dir to where the server has that directory mounted"
        yield fail(Check.SERVER_BASE_PATH, said, advice)


def _one_model(
    server: Process, serving: Serving, workspace: Workspace, models: list[Model]
) -> Iterator[Finding]:
    """Compare the one model that is named on the command line; with a file, the server has none there."""
    base_path = server.flags.get("model_base_path", "")
    if not base_path or server.flags.get("model_config_file"):
        return
    name = server.flags.get("model_name", "default")
    if name not in models:
        said = f"the server was started for --model_name={name}, which is not in the settings"
        yield fail(Check.SERVER_MODEL, said, f"start it with --model_name={models[0]}", name)
        return
    shelf, wanted = workspace.shelf(Model(name)), serving.base_path(name)
    theirs = server.root / base_path.lstrip("/") if server.root else Path(base_path)
    if _are_different(shelf, theirs):
        said = f"--model_base_path={base_path} is not {shelf}"
        advice = f"start it with --model_base_path={wanted} (in its container: where that volume is mounted)"
        yield fail(Check.SERVER_BASE_PATH, said, advice, name)
    if serving.version_policy == "all":
        said = "its command line means the policy latest, serving.version_policy says all"
        advice = "give it a models.config with model_version_policy { all {} }, or set it to latest here"
        yield warn(Check.SERVER_POLICY, said, advice, name)


def _are_different(ours: Path, theirs: Path) -> bool:
    """Tell whether two paths are certainly not one directory."""
    try:
        return not ours.samefile(theirs)
    except FileNotFoundError:
        return ours.exists()
    except OSError:
        return False


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
