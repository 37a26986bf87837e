"""Warm-up requests on their way: made of golden ones, published, installed, and run by the model server."""

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import forked
from agent_box import digests, digests_on_disk
from fixtures_publish import body, keys
from fixtures_store import Bucket
from served_scene import Scene, files_of, scene_of
from servesync.domain import manifest
from servesync.errors import Reason, ReleaseRefused, SettingsError
from servesync.verify import check_warmup

WARMUP = "assets.extra/tf_serving_warmup_requests"


@pytest.fixture
def scene(tmp_path: Path, bucket: Bucket, exported: Path) -> Iterator[Scene]:
    """Store and box are ready; agent and server are started by the test."""
    yield from scene_of(tmp_path, bucket, exported)


def with_golden(model: Path, folder: Path, requests: list[dict[str, Any]]) -> Path:
    """Return a copy of a model that carries golden requests."""
    shutil.copytree(model, folder)
    (folder / "assets.extra").mkdir()
    golden = {"schema": "servesync.golden/1", "requests": requests}
    (folder / "assets.extra/servesync_golden.json").write_text(json.dumps(golden))
    return folder


def test_the_server_runs_what_was_made_of_golden_requests(
    scene: Scene, exported: Path, tmp_path: Path
) -> None:
    """By the command, through the store and the agent; the exported directory stays as it is."""
    requests = [{"inputs": {"x": [[float(n)]]}, "outputs": {"y": [[2.0 * n + 1.0]]}} for n in range(3)]
    folder = with_golden(exported / "2", tmp_path / "2", requests)
    before = digests_on_disk(folder)
    scene.publish(1)
    assert scene.box.call("sync").returncode == 0
    scene.server.start()
    scene.server.wait_ready(120)

    where = ["--store", f"s3://{scene.bucket.name}/prod", "--region", "us-east-1"]
    where += ["--endpoint-url", scene.bucket.server.endpoint_url, "--model", "m", "--version", "2"]
    line = [sys.executable, "-m", "servesync", "publish", str(folder), "--warmup-from-golden", *where]
    done = forked.call(line, os.environ, 120)
    assert done.returncode == 0, done.stderr
    synced = scene.box.call("sync")

    assert synced.returncode == 0, synced.stderr
    assert "version_available" in synced.stdout
    assert scene.box.numbers() == ["2"]
    assert digests_on_disk(folder) == before
    made = (scene.box.shelf / "2" / WARMUP).read_bytes()
    assert digests_on_disk(scene.box.shelf / "2") == before | digests({WARMUP: made})
    assert check_warmup(scene.box.shelf / "2") == 3
    if scene.server.is_standin:
        assert "Number of warmup records read: 3." in scene.server.output()


def test_with_warm_up_requests_it_is_another_version(
    publish: Callable[..., Any], bucket: Bucket, model: Path, tmp_path: Path
) -> None:
    """The same again is a success that writes nothing; without them the number is taken."""
    golden = [{"inputs": {"x": [[0.0] * 50]}, "outputs": {"y": [[0.0] * 20]}}]
    folder = with_golden(model, tmp_path / "golden", golden)
    tried = publish(folder, warmup_from_golden=True, dry_run=True)
    done = publish(folder, warmup_from_golden=True)
    again = publish(folder, warmup_from_golden=True)

    assert [tried.outcome, done.outcome, again.outcome] == [
        "not written (dry run)", "published", "already there",
    ]  # fmt: skip
    assert tried.manifest.archive == done.manifest.archive
    stored = manifest.parse(body(bucket, "prod/m/1.manifest.json"))
    assert {file.path for file in stored.files} == {*files_of(folder), WARMUP}
    with pytest.raises(ReleaseRefused) as caught:
        publish(folder)
    assert caught.value.reason is Reason.RELEASE_EXISTS


def test_without_golden_requests_nothing_is_published(publish: Callable[..., Any], bucket: Bucket) -> None:
    """The mistake of whoever calls."""
    with pytest.raises(SettingsError, match=r"no assets\.extra/servesync_golden\.json"):
        publish(warmup_from_golden=True)

    assert keys(bucket) == []
