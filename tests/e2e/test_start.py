"""What the agent makes of its settings at the start, whoever hands them to it."""

import json
import os
import sys
import tempfile
from pathlib import Path

import pytest
import yaml

import forked
from agent_box import AgentBox
from big_models import files_of, small_archive
from doctor_box import assert_says
from fixtures_store import Bucket
from servesync.doctor import examine

SERVICE = {
    "SERVESYNC_SERVICE_HOST": "10.96.0.7",
    "SERVESYNC_SERVICE_PORT": "9494",
    "SERVESYNC_PORT": "tcp://10.96.0.7:9494",
    "SERVESYNC_PORT_9494_TCP_ADDR": "10.96.0.7",
}


def test_a_service_of_the_same_name_keeps_nothing_from_starting(box: AgentBox, bucket: Bucket) -> None:
    """`sync` says which variables it skips, and the doctor warns of them; what is a mistake still ends it."""
    box.models = [{"name": "m", "required": False}]
    environment = box.environment() | SERVICE

    done = forked.call(box.command("sync"), environment, 60)
    warnings = [json.loads(line) for line in done.stdout.splitlines() if '"variables_skipped"' in line]
    found = list(examine(box.write_settings(), environment, 10))
    wrong = forked.call(box.command("sync"), environment | {"SERVESYNC_PORT": "9494"}, 60)

    assert done.returncode == 0, done.stderr
    assert [warning["variables"] for warning in warnings] == [sorted(SERVICE)]
    assert "enableServiceLinks" in warnings[0]["because"]
    assert_says(found, "environment.service", "warn", "SERVESYNC_PORT_9494_TCP_ADDR", "enableServiceLinks")
    assert_says(found, "settings.file", "ok", "can be used; models: 1")
    assert not any("overridden by" in finding.text for finding in found)
    assert wrong.returncode == 2
    assert "SERVESYNC_PORT overrides nothing" in wrong.stderr


def test_a_pipe_for_settings_is_waited_for_by_nobody(
    box: AgentBox, bucket: Bucket, real_models: Path
) -> None:
    """Exit code 2 at the start; a running agent rejects it, works on, and takes the next good file."""
    path = box.write_settings()
    with box.running():
        box.until(lambda: box.events("poll_finished"))
        os.mkfifo(box.folder / "pipe")
        (box.folder / "pipe").replace(path)
        box.until(lambda: box.events("settings_rejected"), "settings_rejected")
        done = forked.call(
            [sys.executable, "-m", "servesync", "sync", "-c", str(path)], box.environment(), 60
        )
        bucket.put("prod/m/1.tar.gz", small_archive(files_of(real_models / "plain_module"), 1))
        box.until(lambda: box.numbers() == ["1"], "version 1, under the old settings")
        box.models.append({"name": "other", "required": False})
        box.write_settings()
        box.until(lambda: box.events("settings_reloaded"), "settings_reloaded")

    assert "it is a pipe, not a regular file" in box.events("settings_rejected")[0]["because"]
    assert done.returncode == 2
    assert "it is a pipe, not a regular file: give the file that holds the settings" in done.stderr


class CheckedOut(AgentBox):
    """Settings below a link to the newest checkout, as git-sync keeps them."""

    def write_settings(self) -> Path:
        """Write them into a folder of their own, to which the link is moved."""
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        (folder / "servesync.yaml").write_text(yaml.safe_dump(self.settings()))
        (self.folder / "aside").symlink_to(folder)
        (self.folder / "aside").replace(self.folder / "current")
        return self.folder / "current" / "servesync.yaml"


def test_settings_below_a_link_are_read_again(box: AgentBox, bucket: Bucket) -> None:
    """The kernel tells of no change in the folder that is watched; the next poll finds it."""
    linked = CheckedOut(**vars(box))
    with linked.running():
        linked.until(lambda: linked.events("poll_finished"))
        linked.overrides = {"reserve": {"keep": 2}}
        linked.write_settings()
        linked.until(lambda: linked.events("settings_reloaded"), "settings_reloaded")

    assert linked.events("settings_reloaded")[0]["changed"] == ["reserve"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [("AWS_CA_BUNDLE", "store_tls"), ("AWS_WEB_IDENTITY_TOKEN_FILE", "store_credentials")],
)
def test_a_pipe_that_the_environment_names_is_waited_for_by_nobody(
    name: str, reason: str, box: AgentBox, bucket: Bucket
) -> None:
    """The pass goes on and says what is wrong, and so does the doctor."""
    pipe = box.folder / "pipe"
    os.mkfifo(pipe)
    environment = box.environment() | {name: str(pipe), "AWS_EC2_METADATA_DISABLED": "true"}
    if reason == "store_credentials":
        environment |= {"AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/agent"}
        del environment["AWS_ACCESS_KEY_ID"], environment["AWS_SECRET_ACCESS_KEY"]

    for command in ("sync", "doctor"):
        done = forked.call(box.command(command), environment, 60)
        assert done.returncode == 3
        assert f"{name} names '{pipe}'" in done.stdout
        assert "it is a pipe, not a regular file" in done.stdout
        assert reason.replace("_", "." if command == "doctor" else "_") in done.stdout
