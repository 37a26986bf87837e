"""Filesystems that lack what the agent needs: named, with what to do, by the doctor before the agent."""

import errno
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import straced
import tools
from agent_box import AgentBox
from doctor_box import assert_says
from fixtures_store import Bucket
from servesync import disk
from servesync.doctor import examine

LOCAL = "put serving.models_dir on a local filesystem"


@pytest.fixture
def fuse(box: AgentBox) -> Iterator[Path]:
    """A models directory on a filesystem in user space: it has no renames that replace nothing."""
    tool = tools.find("bindfs")
    box.models_dir.mkdir()
    with tempfile.TemporaryDirectory() as behind:
        done = subprocess.run(
            [tool, behind, str(box.models_dir)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            pytest.skip(f"bindfs: {done.stderr.strip()}")
        try:
            yield box.models_dir
        finally:
            subprocess.run(["umount", "-l", str(box.models_dir)], check=True)


def test_a_filesystem_without_atomic_renames(fuse: Path, box: AgentBox, bucket: Bucket) -> None:
    """Agent and doctor name the filesystem and the rename that it lacks, and leave nothing behind."""
    findings = list(examine(box.write_settings(), box.environment(), 10))
    assert_says(findings, "disk.rename", "fail", f"(fuse, mounted at {fuse})", "RENAME_NOREPLACE", LOCAL)
    assert list(fuse.iterdir()) == []

    done = box.call("sync")

    assert done.returncode == 1
    assert "renameat2 with RENAME_NOREPLACE, Invalid argument" in done.stderr
    assert f"the filesystem there, fuse, mounted at {fuse}, cannot do this" in done.stderr
    assert LOCAL in done.stderr
    assert "dmesg" not in done.stderr
    assert box.numbers() == []


@pytest.mark.skipif(not straced.WORKS, reason="no strace here, or no right to use it")
@pytest.mark.parametrize("error", ["ENOSYS", "EOPNOTSUPP"])
def test_a_kernel_without_these_renames(error: str, box: AgentBox, bucket: Bucket) -> None:
    """An old one, or a sandbox: said in the same way, whatever the number."""
    done = straced.with_failing("renameat2", error, "1+", box.command("sync"), box.environment())

    assert done.returncode == 1
    assert f"mounted at {mount_point(box.models_dir)}, cannot do this" in done.stderr
    assert LOCAL in done.stderr


def mount_point(path: Path) -> Path:
    """Return where the filesystem of a path is mounted."""
    return next(place for place in (path, *path.parents) if place.is_mount())


@pytest.mark.parametrize(
    ("number", "reason", "words"),
    [
        (errno.EINVAL, "disk_unsupported", "local filesystem"),
        (errno.ENOTSUP, "disk_unsupported", "local filesystem"),
        (errno.EMFILE, "disk_failed", "LimitNOFILE"),
        (errno.ENFILE, "disk_failed", "LimitNOFILE"),
        (errno.ENOTCONN, "disk_failed", "mount it again"),
        (errno.ESTALE, "disk_failed", "mount it again"),
        (errno.EISDIR, "disk_failed", "move it away"),
        (errno.EBUSY, "disk_failed", "mounted there: unmount it"),
        (errno.EIO, "disk_failed", "dmesg"),
    ],
)
def test_the_kernel_log_is_named_only_where_it_helps(
    number: int, reason: str, words: str, tmp_path: Path
) -> None:
    """What is no fault of the disk has an advice of its own."""
    error = disk.describe(OSError(number, os.strerror(number), str(tmp_path / "gone/file")), "working")

    assert error.reason.value == reason
    assert words in str(error)
    assert ("dmesg" in str(error)) == (number == errno.EIO)
