"""The systemd steps of deploy/README.md, word by word, on a booted Debian 12 (LONG_TESTS=1)."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from big_models import LONG, files_of, small_archive
from booted_machine import Booted, booted, install_debian, until
from deploy_files import DEPLOY
from fixtures_store import Bucket
from settings_texts import fenced

PORT = 18_333
SERVED = "curl -s http://127.0.0.1:8501/v1/models/answer_bot"
READY = "curl -s --fail http://127.0.0.1:9494/readyz"


def steps() -> list[str]:
    """Return the blocks of commands of the section about systemd, as somebody would type them."""
    text = (DEPLOY / "README.md").read_text()
    section = re.findall(r"^## systemd\n(.*?)^## ", text, re.MULTILINE | re.DOTALL)[0]
    return [re.sub(r"^\$ ", "", block, flags=re.MULTILINE) for block in fenced(section, "console")]


def follow(machine: Booted, block: str) -> str:
    """Type one block; every command must succeed."""
    done = machine.run(f"set -ex\n{block}")
    assert done.returncode == 0, done.stdout
    return done.stdout


def edit_settings(tree: Path, bucket: Bucket) -> None:
    """Name the bucket, as the steps ask for."""
    file = tree / "etc/servesync/servesync.yaml"
    settings = yaml.safe_load(file.read_text())
    settings["store"] = {
        "url": f"s3://{bucket.name}/prod",
        "region": "us-east-1",
        "endpoint_url": f"http://127.0.0.1:{PORT}",
    }
    file.write_text(yaml.safe_dump(settings))


def warnings_of(machine: Booted) -> list[dict[str, object]]:
    """Return what `journalctl -p warning` shows of the agent."""
    text = machine.says("journalctl --boot --unit servesync --priority warning --output cat")
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Path]:
    """A Debian in a folder: half a gigabyte that is not to stay."""
    folder = tmp_path / "debian"
    install_debian(folder)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.skipif(not LONG, reason="takes minutes and a mirror of Debian: LONG_TESTS=1 runs it")
@pytest.mark.timeout(1800)
def test_the_steps_work_and_the_boot_waits_for_nothing(tree: Path, bucket: Bucket, real_models: Path) -> None:
    """Empty disk and no store: the machine comes up, and serves when the store comes; then without it."""
    install, keys, start = steps()
    server = bucket.server
    bucket.put("prod/answer_bot/1.tar.gz", small_archive(files_of(real_models / "plain_module"), 1))
    with booted(tree, networked=True) as machine:
        follow(machine, install)
    edit_settings(tree, bucket)
    lines = f"aws_access_key_id = {server.access_key}\naws_secret_access_key = {server.secret_key}"

    with booted(tree, networked=False) as machine:
        follow(machine, f"printf '%s\\n' '[default]' '{lines}' > keys.ini\n{keys}")
        with machine.door(PORT, server.port):
            said = follow(machine, start)
        assert re.search("ok +store.credentials +from shared-credentials-file", said)
        follow(
            machine,
            "systemctl stop servesync tensorflow-model-server\nrm -rf /srv/models/* /srv/models/.servesync",
        )

    with booted(tree, networked=False) as machine:  # an empty disk, and no store
        until(lambda: machine.says("systemctl is-system-running") == "running", "the end of the boot")
        assert machine.says("systemctl list-jobs") == "No jobs running."
        assert machine.says("systemctl is-active tensorflow-model-server") == "active"
        until(lambda: warnings_of(machine), "a warning in the journal")
        assert {line["level"] for line in warnings_of(machine)} == {"warning"}
        assert machine.run(READY).returncode != 0
        with machine.door(PORT, server.port):
            until(lambda: machine.run(READY).returncode == 0, "the server, once the store is there")
        assert "AVAILABLE" in machine.says(SERVED)

    with booted(tree, networked=False) as machine:  # what lies on the disk is enough
        until(lambda: machine.run(READY).returncode == 0, "the server, without the store")
        restarts = machine.says("systemctl show --value -p NRestarts servesync tensorflow-model-server")
        assert restarts.split() == ["0", "0"]
