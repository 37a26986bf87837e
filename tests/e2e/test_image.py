"""A built image, run as the deploy files run it; SERVESYNC_IMAGE names it (CONTRIBUTING.md: "Images")."""

import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

import tools
from admin_client import AdminClient
from agent_box import AgentBox
from big_models import files_of, small_archive
from fixtures_store import Bucket

IMAGE = os.environ.get("SERVESYNC_IMAGE", "")
SETTINGS = "/etc/servesync/servesync.yaml"
HARDENED = ["--read-only", "--cap-drop=all", "--security-opt=no-new-privileges"]
pytestmark = pytest.mark.skipif(not IMAGE, reason="no image: SERVESYNC_IMAGE names none")


def engine(*arguments: str) -> str:
    """Run podman or docker to its end, without error; return what it prints."""
    done = tools.run(tools.find("podman", "docker"), *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def agent(box: AgentBox, bucket: Bucket, real_models: Path) -> Iterator[str]:
    """The name of a container of the image that runs an agent, with a release of `m` in the store."""
    bucket.put("prod/m/1.tar.gz", small_archive(files_of(real_models / "plain_module"), 1))
    box.overrides = {"serving": {"models_dir": "/models"}, "admin": {"port": 0}}
    file, name = box.write_settings(), f"servesync-{uuid.uuid4().hex[:8]}"
    keys = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    environment = [f"--env={key}={box.environment()[key]}" for key in keys]
    volumes = [f"--volume={file}:{SETTINGS}:ro", f"--volume={name}:/models"]
    engine("run", "--detach", f"--name={name}", "--network=host", *HARDENED, *environment, *volumes, IMAGE)
    try:
        yield name
    finally:
        engine("rm", "--force", name)
        engine("volume", "rm", name)


def test_it_works_without_any_right(agent: str, box: AgentBox) -> None:
    """No root, no capability, only /models is writable: a version comes, probes answer, SIGTERM ends it."""

    def logged(event: str) -> bool:
        box.log.write_text(engine("logs", agent) + "\n")
        return bool(box.events(event))

    box.until(lambda: logged("version_installed"))
    box.until(lambda: logged("admin_listening"))
    admin = AdminClient(box)
    box.until(lambda: admin.ask("/startupz").status == 200)
    pid = engine("inspect", "--format={{.State.Pid}}", agent)
    facts = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    port = str(admin.address[1])
    check = json.loads(engine("inspect", "--format={{json .Config.Healthcheck.Test}}", agent))
    healthy = engine("exec", f"--env=SERVESYNC_ADMIN__PORT={port}", agent, *check[1:])
    denied = tools.run(tools.find("podman", "docker"), "exec", agent, "touch", "/etc/servesync/x")

    assert admin.ask("/livez").json == {"ok": True, "missing": []}
    assert engine("exec", agent, "ls", "/models/m") == "1"
    assert facts["Uid"].split() == ["10001"] * 4
    assert (int(facts["CapEff"], 16), int(facts["CapBnd"], 16), facts["NoNewPrivs"]) == (0, 0, "1")
    assert (check[0], healthy) == ("CMD", "")
    assert "Read-only file system" in denied.stderr
    engine("stop", "--time=15", agent)
    assert engine("wait", agent) == "0"
    box.until(lambda: logged("agent_stopped"))


def test_pip_is_not_in_it() -> None:
    """Neither beside the agent nor in the base image's own Python."""
    found = engine("run", "--rm", "--entrypoint=python", IMAGE, "-I", "-c", LOOK_FOR_PIP).splitlines()

    assert len(found) == 2
    assert [line for line in found if not line.endswith(" None")] == []


LOOK_FOR_PIP = """
import os, subprocess, sys
for python in (sys.executable, os.path.realpath(sys.executable)):
    subprocess.run([python, "-I", "-c", "import importlib.util as u; print(u.__file__, u.find_spec('pip'))"])
"""


def test_it_has_the_example_and_compiled_modules() -> None:
    """The whole package, ready to start from a read-only root."""
    run = ("run", "--rm", *HARDENED)
    assert "store:" in engine(*run, IMAGE, "schema", "--example")
    program = (
        "import servesync, pathlib; print(*pathlib.Path(servesync.__file__).parent.glob('__pycache__/*.pyc'))"
    )
    assert "settings" in engine(*run, "--entrypoint=python", IMAGE, "-c", program)
