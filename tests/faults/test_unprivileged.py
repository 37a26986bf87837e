"""Without any privilege: one writable directory is enough, and the server's user can read what comes."""

import hashlib
import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

import as_nobody
from agent_box import AgentBox, digests, digests_on_disk
from big_models import files_of, small_archive
from fixtures_store import Bucket

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="the tool setpriv needs root"),
    *(
        pytest.mark.skipif(not shutil.which(tool), reason=f"no {tool} here")
        for tool in ("setpriv", "unshare")
    ),
]

SERVER_UID = 65533
SHARED_GROUP = 64321


def read_by(uid: int, root: Path, groups: str = "") -> dict[str, str]:
    """Return the SHA-256 of every file below `root`, read by another user."""
    command = [*as_nobody.dropped(uid, groups), "find", str(root), "-type", "f"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = {}
    for path in done.stdout.splitlines():
        data = subprocess.run([*command[:-4], "cat", path], capture_output=True, check=True).stdout
        found[str(Path(path).relative_to(root))] = hashlib.sha256(data).hexdigest()
    return found


def modes(box: AgentBox) -> set[tuple[str, int]]:
    """Return every kind and mode on the shelf."""
    places = [box.shelf, *box.shelf.rglob("*")]
    return {("dir" if path.is_dir() else "file", path.stat().st_mode & 0o777) for path in places}


def test_one_writable_directory_is_enough(box: AgentBox, bucket: Bucket, real_models: Path) -> None:
    """Nobody, no capability, umask 077, all else read-only: two updates, readable by the server's user."""
    tree = files_of(real_models / "plain_module")
    box.models_dir.mkdir()
    os.chown(box.models_dir, as_nobody.UID, as_nobody.UID)
    for version in (1, 2):
        bucket.put(f"prod/m/{version}.tar.gz", small_archive(tree, version))

        done = as_nobody.run(box, "sync", read_only_root=True)

        assert done.returncode == 0, done.stderr + done.stdout
        assert box.numbers() == [str(version)]
        assert read_by(SERVER_UID, box.shelf / str(version)) == digests(tree)
        assert modes(box) == {("dir", 0o755), ("file", 0o644)}
    assert box.leftovers() == []


def test_a_shared_volume_that_belongs_to_root(box: AgentBox, bucket: Bucket, real_models: Path) -> None:
    """With Kubernetes' fsGroup a group is all one has: the root of the volume is left as it is."""
    tree = files_of(real_models / "plain_module")
    bucket.put("prod/m/1.tar.gz", small_archive(tree, 1))
    box.models_dir.mkdir()
    os.chown(box.models_dir, 0, SHARED_GROUP)
    box.models_dir.chmod(0o2770)

    done = as_nobody.run(box, "sync", groups=str(SHARED_GROUP))

    assert done.returncode == 0, done.stderr + done.stdout
    assert digests_on_disk(box.shelf / "1") == digests(tree)
    assert read_by(SERVER_UID, box.shelf / "1", str(SHARED_GROUP)) == digests(tree)
    found = box.models_dir.stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (0, SHARED_GROUP, 0o2770)


def test_a_directory_that_it_may_not_write(box: AgentBox, bucket: Bucket) -> None:
    """The message names the reason, uid and gid."""
    box.models_dir.mkdir(mode=0o755)

    done = as_nobody.run(box, "sync")

    assert done.returncode == 1
    assert "disk_permission" in done.stderr
    assert f"uid {as_nobody.UID}, gid {as_nobody.UID}" in done.stderr
    assert list(box.models_dir.iterdir()) == []


def test_a_file_that_the_publisher_may_not_read(
    box: AgentBox, bucket: Bucket, real_models: Path, tmp_path: Path
) -> None:
    """It is named, with what to do about it, and nothing is published."""
    folder = tmp_path / "model"
    shutil.copytree(real_models / "plain_module", folder)
    (folder / "variables/variables.index").chmod(0o600)

    done = as_nobody.run(box, "publish", str(folder), "--model", "m", "--version", "1")

    assert done.returncode == 1
    assert "variables.index" in done.stderr
    assert "must be able to read" in done.stderr
    assert bucket.client.list_objects_v2(Bucket=bucket.name)["KeyCount"] == 0
