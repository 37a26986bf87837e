"""What compose.yaml runs may run again, and the health checks of the images ask where the settings say."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import tools
from admin_client import AdminClient
from agent_box import AgentBox
from big_models import files_of, small_archive
from deploy_files import DEPLOY, DOCKER
from fixtures_store import Bucket
from servesync.demo.seaweed import Seaweed

SETTINGS = "/etc/servesync/servesync.yaml"


def service(name: str) -> Any:
    """Return one service of compose.yaml."""
    return yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"][name]


def script(name: str, *arguments: str, **paths: str) -> list[str]:
    """Return the command that a service runs, with paths of this machine in place of the container's."""
    program, flags, text, *rest = service(name)["entrypoint"]
    text = text.replace("$$", "$")
    for inside, here in paths.items():
        text = text.replace(inside, here)
    return [program, flags, text, *rest, *arguments]


def health_checks() -> dict[str, list[str]]:
    """Return the commands of the health checks of the agent, by the file that has them."""
    line = re.search(r"^  CMD (\[.*\])$", (DOCKER / "Dockerfile").read_text(), re.MULTILINE)
    assert line is not None
    task = json.loads((DEPLOY / "ecs/task-definition.json").read_text())
    (agent,) = (item for item in task["containerDefinitions"] if item["name"] == "servesync")
    return {
        "Dockerfile": json.loads(line[1]),
        "compose": service("servesync")["healthcheck"]["test"][1:],
        "ecs": agent["healthCheck"]["command"][1:],
    }


def search_path(*first: Path) -> dict[str, str]:
    """Return the variable with which these folders' programs, then this environment's, are found first."""
    folders = [*first, Path(sys.executable).parent, os.environ["PATH"]]
    return {"PATH": ":".join(map(str, folders))}


def test_the_bucket_is_made_once(seaweed: Seaweed, tmp_path: Path) -> None:
    """A second `up` finds it there."""
    weed = tools.find("weed")
    master, _, filer, *_ = seaweed._ports
    shim = tmp_path / "weed"
    shim.write_text(f'#!/bin/sh\nexec {weed} "$1" -master=127.0.0.1:{master} -filer=127.0.0.1:{filer}\n')
    shim.chmod(0o755)
    command = script("bucket")
    env = os.environ | search_path(tmp_path)

    first, second = (
        subprocess.run(command, env=env, capture_output=True, text=True, check=False) for _ in range(2)
    )

    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert "created bucket acme-models" in first.stdout
    assert "created" not in second.stdout


def test_publishing_again_changes_nothing(box: AgentBox, bucket: Bucket, tmp_path: Path) -> None:
    """The exports are kept, and so the same files come again; also after a half-made export."""
    models = tmp_path / "exports"
    (models / "new" / "1").mkdir(parents=True)
    settings = str(box.write_settings())

    def publish(number: str) -> str:
        command = script("publish", number, **{"/models": str(models), SETTINGS: settings})
        env = box.environment() | search_path()
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    assert "answer_bot 1: published" in publish("1")
    assert "answer_bot 1: already there" in publish("1")
    assert "answer_bot 2: published" in publish("2")
    assert [path.name for path in models.iterdir()] == ["exported"]


@pytest.mark.parametrize("where", health_checks())
def test_health_checks_ask_where_the_settings_say(
    where: str, box: AgentBox, bucket: Bucket, real_models: Path
) -> None:
    """The port of the file or of the environment; and a mistake in the file harms no agent that runs."""
    command = health_checks()[where]
    assert command[-2:] == ["-c", SETTINGS]

    def check(**more: str) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", *command[:-1], str(file)]
        return subprocess.run(line, env=box.environment() | more, capture_output=True, text=True, check=False)

    admin = AdminClient.listen(box)
    file = box.folder / "as_the_check_sees_it.yaml"
    file.write_text(box.write_settings().read_text())
    with box.running():
        port = admin.address[1]
        unset = check()
        before = check(SERVESYNC_ADMIN__PORT=str(port))
        bucket.put("prod/m/1.tar.gz", small_archive(files_of(real_models / "plain_module"), 1))
        box.until(lambda: admin.ask("/startupz").status == 200)
        file.write_text(json.dumps(box.settings() | {"admin": {"host": "0.0.0.0", "port": port}}))
        after = check()
        file.write_text("models: [")
        broken = check(SERVESYNC_ADMIN__PORT=str(port))
    gone = check(SERVESYNC_ADMIN__PORT=str(port))

    assert unset.returncode == 2
    assert "admin.port is 0" in unset.stderr
    assert before.returncode == (1 if "startupz" in command else 0), before.stderr
    assert ("m: no proven version on disk" in before.stdout) is ("startupz" in command)
    assert after.returncode == 0, after.stderr
    assert broken.returncode == 0, broken.stderr
    assert gone.returncode == 2
    assert "not valid YAML" in gone.stderr
