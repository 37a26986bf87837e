"""What a container platform does to an agent: settings behind swapped links, no inotify, being process 1."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest
import yaml

from agent_box import AgentBox, digests, digests_on_disk
from big_models import files_of, small_archive
from fixtures_store import Bucket

GRACE_SECONDS = 10
NO_INOTIFY = 'echo 0 > /proc/sys/user/max_inotify_instances && exec "$@"'
needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("unshare"), reason="the tool unshare is not here, or needs root"
)


class ConfigMapVolume:
    """A folder that changes as the kubelet changes a ConfigMap's: one rename of the link `..data`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = count(1)
        folder.mkdir()

    @property
    def file(self) -> Path:
        """The settings file as the container sees it: a link through the link."""
        return self._folder / "servesync.yaml"

    def update(self, content: str) -> None:
        """Write a new generation and swap it in; the old one is removed, as the kubelet does."""
        data = self._folder / "..data"
        old = data.readlink() if data.is_symlink() else None
        fresh = f"..2026_11_23_10_00_00.{next(self._numbers)}"
        (self._folder / fresh).mkdir()
        (self._folder / fresh / "servesync.yaml").write_text(content)
        aside = self._folder / "..data_tmp"
        aside.symlink_to(fresh)
        aside.replace(data)
        if old is None:
            self.file.symlink_to("..data/servesync.yaml")
        else:
            shutil.rmtree(self._folder / old)


@contextmanager
def running(box: AgentBox, settings: Path, *before: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Run the daemon with a settings file that the test writes, below the command `before`."""
    python, *_ = box.command("run")
    command = [*before, python, "-m", "servesync", "run", "-c", str(settings)]
    with box.log.open("ab") as log:
        process = subprocess.Popen(command, env=box.environment(), stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def tree(real_models: Path) -> dict[str, bytes]:
    """The files of a good model."""
    return files_of(real_models / "plain_module")


def test_a_config_map_is_reloaded(box: AgentBox, bucket: Bucket, tree: dict[str, bytes]) -> None:
    """Three generations: a second model comes, a mistake is rejected, a third model comes."""
    for model in ("m", "second", "third"):
        bucket.put(f"prod/{model}/1.tar.gz", small_archive(tree, 1))
    box.overrides = {"poll": {"interval_seconds": 3600}}
    volume = ConfigMapVolume(box.folder / "config")
    volume.update(yaml.safe_dump(box.settings()))
    with running(box, volume.file):
        box.until(lambda: box.numbers() == ["1"], "version 1")

        box.models.append({"name": "second"})
        volume.update(yaml.safe_dump(box.settings()))
        box.until((box.models_dir / "second/1").is_dir, "the second model")

        volume.update("store: {}")
        box.until(lambda: box.events("settings_rejected"), "settings_rejected")

        box.models.append({"name": "third"})
        volume.update(yaml.safe_dump(box.settings()))
        box.until((box.models_dir / "third/1").is_dir, "the third model")

    assert [line["changed"] for line in box.events("settings_reloaded")] == [["models"], ["models"]]


@needs_root
def test_without_inotify_the_poll_notices(box: AgentBox, bucket: Bucket, tree: dict[str, bytes]) -> None:
    """Nodes run out of inotify instances: changed settings and a lost version are found all the same."""
    bucket.put("prod/m/1.tar.gz", small_archive(tree, 1))
    bucket.put("prod/second/1.tar.gz", small_archive(tree, 1))
    volume = ConfigMapVolume(box.folder / "config")
    volume.update(yaml.safe_dump(box.settings()))
    unshared = ["unshare", "--user", "--map-root-user", "sh", "-c", NO_INOTIFY, "sh"]
    if subprocess.run([*unshared, "true"], capture_output=True, check=False).returncode:
        pytest.skip("unshare cannot make a user namespace with a limit of its own here")
    with running(box, volume.file, *unshared):
        box.until(lambda: box.numbers() == ["1"], "version 1")
        assert box.events("watch_unavailable")

        box.models.append({"name": "second"})
        volume.update(yaml.safe_dump(box.settings()))
        box.until((box.models_dir / "second/1").is_dir, "the second model")

        shutil.rmtree(box.shelf / "1")
        box.until(lambda: box.numbers() == ["1"], "version 1 again")
        assert digests_on_disk(box.shelf / "1") == digests(tree)


@needs_root
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_as_process_1(number: int, box: AgentBox, bucket: Bucket, tree: dict[str, bytes]) -> None:
    """The kernel drops signals for a process 1 that does not expect them; an agent needs no init above it."""
    bucket.put("prod/m/1.tar.gz", small_archive(tree, 1))
    with running(box, box.write_settings(), "unshare", "--pid", "--fork", "--kill-child") as parent:
        box.until(lambda: box.numbers() == ["1"], "version 1")
        agent = int(Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text())
        assert box.events("agent_started")[0]["pid"] == 1
        os.kill(agent, number)

        assert parent.wait(GRACE_SECONDS) == 0
    deadline = time.monotonic() + GRACE_SECONDS
    while not box.events("agent_stopped") and time.monotonic() < deadline:
        time.sleep(0.02)
    assert box.events("agent_stopped")[0]["because"] == signal.Signals(number).name
