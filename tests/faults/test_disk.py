"""Real disks that are full, read-only, foreign or broken: what serves stays, and the agent goes on."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import servesync
from agent_box import AgentBox, digests, digests_on_disk
from big_models import files_of, small_archive
from fixtures_store import Bucket

MIB = 1 << 20
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="the tool mount needs root")


@pytest.fixture
def tree(real_models: Path) -> dict[str, bytes]:
    """The files of a good model."""
    return files_of(real_models / "plain_module")


@contextmanager
def tmpfs(folder: Path, options: str) -> Iterator[Path]:
    """Mount a filesystem in memory; skip where that is forbidden."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"mount -t tmpfs: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def remount(folder: Path, options: str) -> None:
    """Change a mounted filesystem."""
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


def failures(box: AgentBox) -> list[str]:
    """Return the reasons of failed actions."""
    return [line["reason"] for line in box.events("action_failed")]


@AS_ROOT
def test_a_full_disk(box: AgentBox, bucket: Bucket, tree: dict[str, bytes]) -> None:
    """Version 2 does not fit: version 1 stays, nothing half is left, and with space it comes by itself."""
    bucket.put("prod/m/1.tar.gz", small_archive(tree, 1))
    big = tree | {"assets/half.bin": os.urandom(8 * MIB) + bytes(22 * MIB)}  # fits packed, not unpacked
    with tmpfs(box.models_dir, "size=20m"), box.running() as process:
        box.until(lambda: box.numbers() == ["1"])
        bucket.put("prod/m/2.tar.gz", small_archive(big, 2))
        box.until(lambda: failures(box), "action_failed")

        assert failures(box)[0] == "disk_full"
        assert box.leftovers() == []
        assert digests_on_disk(box.shelf / "1") == digests(tree)
        assert process.poll() is None

        remount(box.models_dir, "size=80m")
        box.until(lambda: box.numbers() == ["2"], "version 2")
        assert digests_on_disk(box.shelf / "2") == digests(big)


@AS_ROOT
def test_no_inodes(box: AgentBox, bucket: Bucket, tree: dict[str, bytes]) -> None:
    """The message says inodes, not space."""
    many = tree | {f"assets/{n}": b"x" for n in range(100)}
    bucket.put("prod/m/1.tar.gz", small_archive(many, 1))
    with tmpfs(box.models_dir, "size=20m,nr_inodes=60"):
        done = box.call("sync")

        assert done.returncode == 3
        assert "disk_inodes" in done.stdout
        assert box.numbers() == []
        assert box.leftovers() == []


@AS_ROOT
def test_a_read_only_disk(box: AgentBox, bucket: Bucket, tree: dict[str, bytes]) -> None:
    """The error says so, what is there stays, and with a writable disk the next pass goes on."""
    bucket.put("prod/m/1.tar.gz", small_archive(tree, 1))
    with tmpfs(box.models_dir, "size=40m"):
        assert box.call("sync").returncode == 0
        bucket.put("prod/m/2.tar.gz", small_archive(tree, 2))
        remount(box.models_dir, "ro")
        done = box.call("sync")
        assert done.returncode == 1
        assert "disk_read_only" in done.stderr
        assert box.plan()["models"]["m"]["versions"]["2"]["state"] == "to_install"
        assert box.numbers() == ["1"]

        remount(box.models_dir, "rw")
        assert box.call("sync").returncode == 0
        assert box.numbers() == ["2"]


@AS_ROOT
def test_a_shelf_on_another_filesystem_is_refused_at_the_start(box: AgentBox, bucket: Bucket) -> None:
    """No rename could be atomic: better no start than a copy into a scanned directory."""
    box.models_dir.mkdir()
    with tmpfs(box.shelf, "size=10m"):
        done = box.call("sync")

    assert done.returncode == 1
    assert "disk_other_filesystem" in done.stderr
    assert "one filesystem" in done.stderr


def test_a_link_instead_of_a_shelf_is_refused(box: AgentBox, bucket: Bucket) -> None:
    """It could lead anywhere."""
    box.models_dir.mkdir()
    (box.folder / "elsewhere").mkdir()
    box.shelf.symlink_to(box.folder / "elsewhere")

    done = box.call("sync")

    assert done.returncode == 1
    assert "disk_not_a_directory" in done.stderr
    assert list((box.folder / "elsewhere").iterdir()) == []


def test_the_reserve_is_kept_free(box: AgentBox, bucket: Bucket, tree: dict[str, bytes]) -> None:
    """A version that would eat the reserve is not even fetched."""
    bucket.put("prod/m/1.tar.gz", small_archive(tree, 1))
    box.overrides = {"limits": {"disk_reserve_bytes": 1 << 42}}

    done = box.call("sync")

    assert done.returncode == 3
    assert "limits.disk_reserve_bytes" in done.stdout
    assert "version_fetched" not in done.stdout


@pytest.mark.skipif(shutil.which("strace") is None, reason="no strace here")
@AS_ROOT
def test_a_failed_sync_is_never_trusted(box: AgentBox, bucket: Bucket, tree: dict[str, bytes]) -> None:
    """EIO from fsync: the attempt is thrown away whole, and the next one starts from nothing."""
    bucket.put("prod/m/1.tar.gz", small_archive(tree, 1))
    real = str(Path(box.command("sync")[0]).resolve())
    command = [
        "strace",
        "-f",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        "trace=fsync",
        "-e",
        "inject=fsync:error=EIO:when=1",
    ]
    words = [real, *box.command("sync")[1:]]
    site = subprocess.run(
        [box.command("sync")[0], "-c", "import sys; print(':'.join(p for p in sys.path if p))"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    environment = box.environment() | {"PYTHONPATH": site}
    done = subprocess.run([*command, *words], env=environment, capture_output=True, text=True, check=False)

    assert done.returncode == 3, done.stderr
    assert "disk_failed" in done.stdout
    assert box.numbers() == []
    assert box.leftovers() == []
    assert box.call("sync").returncode == 0
    assert digests_on_disk(box.shelf / "1") == digests(tree)


def as_nobody(box: AgentBox, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command as uid 65534: no capability, umask 077, no home; with Debian's python if need be."""
    command = box.command(*arguments)
    (box.folder / "servesync.yaml").chmod(0o644)
    for folder in [box.folder, *box.folder.parents]:
        if str(folder).startswith(tempfile.gettempdir() + "/"):
            folder.chmod(folder.stat().st_mode | 0o055)
    code = "import sys; print(':'.join(path for path in sys.path if path))"
    found = subprocess.run([command[0], "-c", code], capture_output=True, text=True, check=True).stdout
    site = ":".join(path for path in found.strip().split(":") if "site-packages" in path or "src" in path)
    site += f":{Path(servesync.__file__).parents[1]}"
    environment = box.environment() | {"HOME": "/nonexistent", "PYTHONPATH": site}
    drop = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all"]
    shell = [*drop, "--no-new-privs", "sh", "-c", 'umask 077; exec "$@"', "sh"]
    for python in (command[0], "/usr/bin/python3"):
        works = [*shell, python, "-c", "import servesync.cli"]
        if subprocess.run(works, env=environment, capture_output=True, check=False, cwd="/").returncode == 0:
            whole = [*shell, python, *command[1:]]
            return subprocess.run(
                whole, env=environment, capture_output=True, text=True, check=False, cwd="/"
            )
    pytest.skip("no python here that another user may run")


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="no setpriv here")
@AS_ROOT
def test_without_any_privilege(box: AgentBox, bucket: Bucket, tree: dict[str, bytes]) -> None:
    """As nobody, with nothing but the models directory: it works, and another user can read the result."""
    bucket.put("prod/m/1.tar.gz", small_archive(tree, 1))
    box.models_dir.mkdir()
    os.chown(box.models_dir, 65534, 65534)

    done = as_nobody(box, "sync")

    assert done.returncode == 0, done.stderr + done.stdout
    for path in [box.shelf, box.shelf / "1", *(box.shelf / "1").rglob("*")]:
        assert path.stat().st_mode & 0o777 == (0o755 if path.is_dir() else 0o644)


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="no setpriv here")
@AS_ROOT
def test_a_directory_that_it_may_not_write(box: AgentBox, bucket: Bucket) -> None:
    """The message names uid and gid."""
    box.models_dir.mkdir(mode=0o755)

    done = as_nobody(box, "sync")

    assert done.returncode == 1
    assert "disk_permission" in done.stderr
    assert "uid 65534" in done.stderr


def test_the_workspace_removed_under_a_running_agent(
    box: AgentBox, bucket: Bucket, tree: dict[str, bytes]
) -> None:
    """With the lock file goes the lock: the agent ends with 4 rather than work beside another one."""
    bucket.put("prod/m/1.tar.gz", small_archive(tree, 1))
    with box.running() as process:
        box.until(lambda: box.events("version_installed"))
        shutil.rmtree(box.workspace)
        assert process.wait(30) == 4
    assert digests_on_disk(box.shelf / "1") == digests(tree)

    assert box.call("sync").returncode == 0
    assert box.plan()["models"]["m"]["versions"]["1"]["state"] == "serving"


def test_a_removed_base_path_is_put_back(box: AgentBox, bucket: Bucket, tree: dict[str, bytes]) -> None:
    """Without it the server would stop updating every model."""
    bucket.put("prod/m/1.tar.gz", small_archive(tree, 1))
    with box.running():
        box.until(lambda: box.events("version_installed"))
        shutil.rmtree(box.shelf)
        box.until(lambda: box.numbers() == ["1"] and box.events("version_restored"), "the version again")
    assert digests_on_disk(box.shelf / "1") == digests(tree)
