"""A real model whose graph names an asset as people name files goes all the way, by every way there is."""

import hashlib
import shlex
import subprocess
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent_box import AgentBox, digests, digests_on_disk, tar_gz_of
from archives import tar_tree
from big_models import files_of
from fixtures_publish import body, keys
from fixtures_store import Bucket
from servesync.domain import manifest
from servesync.domain.manifest import Part


@pytest.fixture
def odd(real_models: Path) -> Path:
    """A model that looks words up in an asset with quotes, brackets, umlauts and an emoji in its name."""
    folder = real_models / "odd_asset"
    (name,) = (path.name for path in (folder / "assets").iterdir())
    assert {*name} > {*"ß (),%'\":&#~[]{}<>|*?!$`;^語🙂"}
    return folder


def test_an_asset_with_an_odd_name_is_published_and_brought(odd: Path, bucket: Bucket, box: AgentBox) -> None:
    """Published after TensorFlow has loaded it, proven by its manifest, put aside, and put back unfetched."""
    for version, level in (("1", "load"), ("2", "checksum")):
        done = box.call("publish", str(odd), "--model", "m", "--version", version, "--level", level)
        assert done.returncode == 0, done.stderr
    asset = next((odd / "assets").iterdir()).name
    stored = manifest.parse(body(bucket, "prod/m/1.manifest.json"))
    assert f"assets/{asset}" in {file.path for file in stored.files}

    box.overrides = {"store": {"require_manifest": True}, "reserve": {"keep": 1}}
    for pinned in (1, 2, 1):
        box.models = [{"name": "m", "versions": {"pin": [pinned]}}]
        done = box.call("sync")
        assert done.returncode == 0, done.stdout + done.stderr
        assert digests_on_disk(box.shelf / str(pinned)) == digests(files_of(odd))
    assert '"event": "version_restored"' in done.stdout
    assert '"event": "version_fetched"' not in done.stdout


@pytest.mark.parametrize("layout", ["archive", "directory"])
def test_an_asset_with_an_odd_name_in_a_bare_release(
    layout: str, odd: Path, bucket: Bucket, box: AgentBox
) -> None:
    """As another tool's archive, and as one object a file: its key is asked for as the store lists it."""
    tree = files_of(odd)
    if layout == "archive":
        bucket.put("prod/m/1.tar.gz", tar_gz_of(tree, "0000001"))
        made = box.call("manifest", f"s3://{bucket.name}/prod/m/1.tar.gz")
        assert made.returncode == 0, made.stderr
        assert "prod/m/1.manifest.json" in keys(bucket)
    else:
        box.overrides = {"store": {"settle_seconds": 0}}
        for path, data in tree.items():
            bucket.put(f"prod/m/1/{path}", data)

    done = box.call("sync")

    assert done.returncode == 0, done.stdout + done.stderr
    assert digests_on_disk(box.shelf / "1") == digests(tree)


def test_what_is_said_of_an_odd_name_is_escaped(odd: Path, bucket: Bucket, box: AgentBox) -> None:
    """A file that is not the one of the manifest is told in the log and by `plan`."""
    tree = files_of(odd)
    (asset,) = (path for path in tree if path.startswith("assets/"))
    bucket.put("prod/m/1.tar", tar_tree({f"1/{path}": data for path, data in tree.items()}))
    made = box.call("manifest", f"s3://{bucket.name}/prod/m/1.tar")
    assert made.returncode == 0, made.stderr
    twin = tree | {asset: b"yes\nno\nnever\n"}
    told = manifest.parse(body(bucket, "prod/m/1.manifest.json"))
    spoilt = tar_tree({f"1/{path}": data for path, data in twin.items()})
    sha256 = hashlib.sha256(spoilt).hexdigest()
    part = Part(offset=0, size=len(spoilt), sha256=sha256)
    archive = told.archive.model_copy(update={"sha256": sha256, "parts": (part,)})
    bucket.put("prod/m/1.tar", spoilt)
    bucket.put("prod/m/1.manifest.json", manifest.dump(told.model_copy(update={"archive": archive})))

    done = box.call("sync")

    assert '"reason": "content_differs"' in done.stdout
    assert "[bold] {x}" in done.stdout
    assert done.stdout.isascii()
    assert "[bold] {x}" in box.call("plan").stdout  # a name is no mark-up


@pytest.mark.parametrize("command", ["sync", "publish"])
def test_a_locale_in_which_the_name_would_be_another(
    command: str, odd: Path, bucket: Bucket, box: AgentBox
) -> None:
    """The graph has its names in UTF-8: what this process would read or write otherwise is not taken."""
    bucket.put("prod/m/1.tar.gz", tar_gz_of(files_of(odd), "1"))
    more = {"sync": (), "publish": (str(odd), "--model", "m", "--version", "2")}[command]
    other = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}
    done = subprocess.run(
        box.command(command, *more),
        env=box.environment() | other,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode != 0
    assert "PYTHONUTF8=1" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert box.numbers() == []
    assert keys(bucket) == ["prod/m/1.tar.gz"]


def test_a_key_is_no_name_of_a_file(publish: Callable[..., Any], box: AgentBox) -> None:
    """Folders that came from a Mac are not in NFC, and a pattern for them may end in one."""
    pattern = unicodedata.normalize("NFD", "{model}/{version}/mod\u00e8le")
    box.overrides = {"store": {"key_pattern": pattern}}

    for outcome in ("published", "already there"):
        assert publish(key_pattern=pattern).outcome == outcome
    assert box.call("sync").returncode == 0
    assert box.numbers() == ["1"]


def test_a_command_with_an_odd_key_can_be_copied(model: Path, bucket: Bucket, box: AgentBox) -> None:
    """What promoting says of an archive without a manifest names the command that makes one."""
    box.overrides = {"store": {"key_pattern": "{model}/{version}/a $(b) 'c'"}}
    bucket.put("prod/m/1/a $(b) 'c'.tar.gz", tar_gz_of(files_of(model), "1"))

    said = box.call("promote", "m", "1", "--channel", "stable").stderr

    _, *arguments = shlex.split(said.split("`")[1])
    assert arguments == ["manifest", f"s3://{bucket.name}/prod/m/1/a $(b) 'c'.tar.gz"]
    assert box.call(*arguments).returncode == 0
