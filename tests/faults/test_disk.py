"""Real disks that are full, read-only, foreign or broken: what serves stays, and the agent goes on."""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import straced
from agent_box import AgentBox, digests, digests_on_disk
from big_models import LONG, files_of, small_archive
from fixtures_store import Bucket
from framed_releases import release_of
from said_server import BAD, UP, said_server

MIB = 1 << 20
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="the tool mount needs root")
STRACED = pytest.mark.skipif(not straced.WORKS, reason="no strace here, or no right to use it")


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


@contextmanager
def covered_read_only(folder: Path) -> Iterator[None]:
    """Make a folder read-only by a mount above it: the filesystem itself has the lock file open to write."""
    subprocess.run(["mount", "--bind", str(folder), str(folder)], check=True)
    try:
        remount(folder, "bind,ro")
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


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
        done = box.call("sync", "--timeout", "8")

        assert done.returncode == 3
        assert "disk_inodes" in done.stdout
        assert box.numbers() == []
        assert box.leftovers() == []


@AS_ROOT
@pytest.mark.parametrize("kind", ["directory", "manifest"])
def test_inodes_are_counted_before_the_first_byte(
    kind: str, box: AgentBox, bucket: Bucket, tree: dict[str, bytes]
) -> None:
    """By the listing of a directory or by the manifest; with more of them the version comes."""
    many = tree | {f"assets/{n}": b"x" for n in range(100)}
    if kind == "directory":
        for name, data in many.items():
            bucket.put(f"prod/m/1/{name}", data)
    else:
        for name, data in many.items():
            path = box.folder / "model" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        published = box.call("publish", str(box.folder / "model"), "--model", "m", "--version", "1")
        assert published.returncode == 0, published.stderr
    box.overrides = {"limits": {"disk_reserve_bytes": 0, "disk_reserve_inodes": 50}}
    with tmpfs(box.models_dir, "size=20m,nr_inodes=170"):
        done = box.call("sync", "--timeout", "8")
        assert done.returncode == 3
        assert "disk_inodes" in done.stdout
        assert "limits.disk_reserve_inodes (50)" in done.stdout
        assert "version_fetched" not in done.stdout
        assert box.leftovers() == []

        remount(box.models_dir, "nr_inodes=250")
        assert box.call("sync").returncode == 0
        assert box.numbers() == ["1"]


@AS_ROOT
def test_the_reserve_gives_way_for_inodes(box: AgentBox, bucket: Bucket, tree: dict[str, bytes]) -> None:
    """Version 1 left for the reserve; version 3 needs its inodes."""
    many = tree | {f"assets/{n}": b"x" for n in range(50)}
    box.overrides = {"limits": {"disk_reserve_bytes": 0, "disk_reserve_inodes": 50}}
    with tmpfs(box.models_dir, "size=20m,nr_inodes=220"):
        for version in (1, 2):
            bucket.put(f"prod/m/{version}.tar.gz", small_archive(many, version))
            assert box.call("sync").returncode == 0
        assert (box.workspace / "reserve/m/1").is_dir()
        for name, data in many.items():
            bucket.put(f"prod/m/3/{name}", data)
        done = box.call("sync")

        assert done.returncode == 0, done.stdout
        assert "reserve_gave_way" in done.stdout
        assert box.numbers() == ["3"]


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

    done = box.call("sync", "--timeout", "8")

    assert done.returncode == 3
    assert "limits.disk_reserve_bytes" in done.stdout
    assert "version_fetched" not in done.stdout


@pytest.mark.parametrize("when", ["1", "record", "2", "4", "6", "1+"] if LONG else ["1", "record"])
@STRACED
def test_a_failed_sync_is_never_trusted(
    when: str, box: AgentBox, bucket: Bucket, tree: dict[str, bytes]
) -> None:
    """EIO from fsync of a file, of a record, or always: the attempt is thrown away whole, the next is new."""
    bucket.put("prod/m/1.tar.gz", small_archive(tree, 1))

    if when == "record":  # the deciding thread's first; the others are the transfer's
        record = str(box.workspace / "records/m/.1.json.new")
        done = straced.with_failing(
            "fsync", "EIO", "1", box.command("sync"), box.environment(), only=[record]
        )
    else:
        done = straced.with_failing("fsync", "EIO", when, box.command("sync"), box.environment())

    assert done.returncode == 3, done.stderr
    assert "disk_failed" in done.stdout
    assert box.numbers() == []
    assert box.leftovers() == []
    assert box.call("sync").returncode == 0
    assert digests_on_disk(box.shelf / "1") == digests(tree)


@STRACED
def test_a_failed_sync_of_the_shelf_itself(box: AgentBox, bucket: Bucket, tree: dict[str, bytes]) -> None:
    """The version is there, complete; before it counts as installed it is read whole and synced again."""
    bucket.put("prod/m/1.tar.gz", small_archive(tree, 1))

    done = straced.with_failing(
        "fsync", "EIO", "1", box.command("sync"), box.environment(), only=[str(box.shelf)]
    )

    assert "disk_failed" in done.stdout
    assert '"version_installed"' not in done.stdout
    assert digests_on_disk(box.shelf / "1") == digests(tree)
    assert box.call("sync").returncode == 0
    assert box.plan()["models"]["m"]["versions"]["1"]["state"] == "serving"


def put_in_frames(bucket: Bucket, tree: dict[str, bytes], version: int) -> None:
    """Offer a version in frames, whose files are preallocated."""
    archive, manifest = release_of(tree, version=version)
    bucket.put(f"prod/m/{version}.tar.zst", archive)
    bucket.put(f"prod/m/{version}.manifest.json", manifest)


@STRACED
@pytest.mark.parametrize("name", ["fallocate", "pwrite64"])
def test_a_full_disk_while_a_release_lands_in_frames(
    name: str, box: AgentBox, bucket: Bucket, tree: dict[str, bytes]
) -> None:
    """ENOSPC though the space was counted before: nothing half is left, and with space the version comes."""
    put_in_frames(bucket, tree, 1)
    command = box.command("sync", "--timeout", "8")

    done = straced.with_failing(name, "ENOSPC", "2+", command, box.environment())

    assert done.returncode == 3, done.stderr
    assert "disk_full" in done.stdout
    assert box.numbers() == box.leftovers() == []
    assert box.call("sync").returncode == 0
    assert digests_on_disk(box.shelf / "1") == digests(tree)


@STRACED
@pytest.mark.parametrize("error", ["EOPNOTSUPP", "ENOSYS"])
def test_a_filesystem_that_cannot_preallocate(
    error: str, box: AgentBox, bucket: Bucket, tree: dict[str, bytes]
) -> None:
    """A release in frames comes all the same: its files get their size alone."""
    put_in_frames(bucket, tree, 1)

    done = straced.with_failing("fallocate", error, "1+", box.command("sync"), box.environment())

    assert done.returncode == 0, done.stdout
    assert digests_on_disk(box.shelf / "1") == digests(tree)


@pytest.mark.parametrize("in_frames", [False, True])
def test_a_limit_on_the_size_of_files(
    in_frames: bool,  # noqa: FBT001 (a case)
    box: AgentBox,
    bucket: Bucket,
    tree: dict[str, bytes],
) -> None:
    """EFBIG: the version is not installed, and the process does not die of SIGXFSZ."""
    big = tree | {"assets/big.bin": os.urandom(2 * MIB)}
    if in_frames:
        put_in_frames(bucket, big, 1)
    else:
        bucket.put("prod/m/1.tar.gz", small_archive(big, 1))
    limited = ["sh", "-c", 'ulimit -f 1024; exec "$@"', "sh", *box.command("sync", "--timeout", "8")]

    done = subprocess.run(limited, env=box.environment(), capture_output=True, text=True, check=False)

    assert done.returncode == 3, done.stderr
    assert "assets/big.bin" in done.stdout
    assert box.numbers() == box.leftovers() == []


@AS_ROOT
def test_a_disk_that_becomes_read_only_under_the_agent(
    box: AgentBox, bucket: Bucket, tree: dict[str, bytes]
) -> None:
    """The agent says so and stays alive; what serves stays; writable again, it goes on by itself."""
    bucket.put("prod/m/1.tar.gz", small_archive(tree, 1))
    with tmpfs(box.models_dir, "size=40m"), box.running() as process:
        box.until(lambda: box.events("version_installed"))
        with covered_read_only(box.models_dir):
            bucket.put("prod/m/2.tar.gz", small_archive(tree, 2))
            box.until(lambda: "disk_read_only" in failures(box), "disk_read_only")
            assert process.poll() is None
            assert digests_on_disk(box.shelf / "1") == digests(tree)

        box.until(lambda: box.numbers() == ["2"], "version 2")
        assert digests_on_disk(box.shelf / "2") == digests(tree)


@pytest.mark.skipif(shutil.which("chattr") is None, reason="no chattr here")
@AS_ROOT
def test_an_immutable_version_that_should_go(box: AgentBox, bucket: Bucket, tree: dict[str, bytes]) -> None:
    """It cannot be pruned: said, and no reason to keep the new version back; then it goes by itself."""
    bucket.put("prod/m/1.tar.gz", small_archive(tree, 1))
    assert box.call("sync").returncode == 0
    bucket.put("prod/m/2.tar.gz", small_archive(tree, 2))
    if subprocess.run(["chattr", "+i", str(box.shelf / "1")], capture_output=True, check=False).returncode:
        pytest.skip("chattr +i: this filesystem has no such attribute")
    try:
        done = box.call("sync", "--timeout", "5")
        assert "disk_permission" in done.stdout
        assert box.numbers() == ["1", "2"]
        assert digests_on_disk(box.shelf / "1") == digests(tree)
    finally:
        subprocess.run(["chattr", "-i", str(box.shelf / "1")], check=True)

    assert box.call("sync").returncode == 0
    assert box.numbers() == ["2"]


def test_what_others_put_there(box: AgentBox, bucket: Bucket, tree: dict[str, bytes]) -> None:
    """Rubbish in the workspace goes at the start, without following links; on the shelf all is left alone."""
    bucket.put("prod/m/1.tar.gz", small_archive(tree, 1))
    assert box.call("sync").returncode == 0
    precious = box.folder / "precious"
    precious.mkdir()
    (precious / "file").write_bytes(b"keep")
    for place in (box.workspace / "staging", box.workspace / "trash"):
        (place / "deep/er").mkdir(parents=True)
        (place / "deep/er/file").write_bytes(b"x")
        (place / "deep/link").symlink_to(precious)
        (place / "link").symlink_to(precious)
        (place / "file").write_bytes(b"x")
    unfinished = box.workspace / "records/m/.7.json.new"
    unfinished.write_bytes(b"{")
    (box.shelf / "notes.txt").write_bytes(b"mine")
    (box.shelf / "7").mkdir()
    (box.shelf / "7/saved_model.pb").write_bytes(b"not of the store")
    (box.shelf / "007").symlink_to(precious)

    done = box.call("sync")

    assert done.returncode == 0, done.stdout + done.stderr
    assert box.leftovers() == []
    assert not unfinished.exists()
    assert (precious / "file").read_bytes() == b"keep"
    assert box.numbers() == ["007", "1", "7", "notes.txt"]
    assert (box.shelf / "7/saved_model.pb").read_bytes() == b"not of the store"
    assert "version_foreign" in done.stdout


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


@AS_ROOT
def test_a_bad_version_leaves_a_disk_without_a_byte_free(
    box: AgentBox, bucket: Bucket, tree: dict[str, bytes]
) -> None:
    """On the shelf it would end the server at its next start; it is remembered when it has made room."""
    bucket.put("prod/m/1.tar.gz", small_archive(tree, 1))
    with tmpfs(box.models_dir, "size=20m"), said_server() as server:
        box.overrides |= {"serving": {"rest_url": server.url}, "log": {"level": "debug"}}
        with box.running():
            box.until(lambda: box.numbers() == ["1"], "version 1")
            server.versions = {1: UP}
            box.until(lambda: box.events("version_available"), "served")
            bucket.put("prod/m/2.tar.gz", small_archive(tree, 2))
            box.until(lambda: box.numbers() == ["1", "2"], "version 2")
            fill(box.models_dir / "full")
            server.versions = {1: UP, 2: BAD}
            box.until(lambda: box.events("version_quarantined"), "quarantined", 20)
            fetched = len(box.events("version_fetched"))
            polls = len(box.events("poll_finished"))
            box.until(lambda: len(box.events("poll_finished")) > polls, "a later poll")

        assert box.numbers() == ["1"]
        assert len(box.events("version_fetched")) == fetched == 2
        assert "server_refused" in box.plan()["models"]["m"]["versions"]["2"]["why"]


def fill(path: Path) -> None:
    """Leave no byte free on a filesystem."""
    with path.open("wb", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            try:
                while file.write(bytes(size)):
                    pass
            except OSError:
                continue


@AS_ROOT
def test_a_rollback_on_a_full_disk_waits_for_space(
    box: AgentBox, bucket: Bucket, tree: dict[str, bytes]
) -> None:
    """Without a byte for the record nothing comes back; it is tried again after a pause, not all the time."""
    bucket.put("prod/m/1.tar.gz", small_archive(tree, 1))
    with tmpfs(box.models_dir, "size=20m"), said_server() as server:
        box.overrides |= {"serving": {"rest_url": server.url}, "log": {"level": "debug"}}
        with box.running() as process:
            box.until(lambda: box.numbers() == ["1"], "version 1")
            server.versions = {1: UP}
            bucket.put("prod/m/2.tar.gz", small_archive(tree, 2))
            box.until(lambda: box.numbers() == ["1", "2"], "version 2")
            server.versions = {1: UP, 2: UP}
            box.until(lambda: box.numbers() == ["2"], "version 1 in the reserve")
            server.versions = {2: UP}
            fill(box.models_dir / "full")
            box.models = [{"name": "m", "versions": {"pin": [1]}}]
            box.write_settings()
            process.send_signal(signal.SIGHUP)
            box.until(lambda: failures(box), "the failure")
            before = len(box.events("poll_finished"))
            box.until(lambda: len(failures(box)) > 1, "the next failure")
            assert len(box.events("poll_finished")) - before < 100  # one each second, and what wakes it
            (box.models_dir / "full").unlink()
            box.until(lambda: box.numbers() == ["1", "2"], "version 1 back")
