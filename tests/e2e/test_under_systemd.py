"""What the hardened unit takes away, a pass does not need: held against the system calls that it makes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import tools
from agent_box import AgentBox
from big_models import files_of, small_archive
from deploy_files import DEPLOY
from fixtures_store import Bucket

UNIT = (DEPLOY / "systemd/servesync.service").read_text()
NO_WRITABLE_CODE = """
import ctypes, os, sys
if ctypes.CDLL(None).prctl(65, 1, 0, 0, 0):  # PR_SET_MDWE
    raise SystemExit(77)
os.execv(sys.argv[1], sys.argv[1:])
"""


def members(tool: str, group: str) -> set[str]:
    """Return the system calls of one of systemd's groups."""
    found: set[str] = set()
    for line in tools.run(tool, "syscall-filter", group).stdout.splitlines()[1:]:
        word = line.strip()
        if word and not word.startswith("#"):
            found |= members(tool, word) if word.startswith("@") else {word}
    return found


def test_every_system_call_is_allowed(box: AgentBox, bucket: Bucket, real_models: Path) -> None:
    """Two updates, so that a version is pruned; nothing of it is beyond SystemCallFilter."""
    strace, analyze = tools.find("strace"), tools.find("systemd-analyze")
    filters = [line for line in UNIT.splitlines() if line.startswith("SystemCallFilter=")]
    allow, deny = [line.partition("=")[2] for line in filters]
    allowed = members(analyze, allow) - members(analyze, deny.removeprefix("~"))
    assert "renameat2" in allowed
    made: set[str] = set()
    for version in (1, 2):
        bucket.put(f"prod/m/{version}.tar.gz", small_archive(files_of(real_models / "plain_module"), version))
        counts = box.folder / f"calls-{version}"
        command = [strace, "-f", "-c", "-o", str(counts), *box.command("sync")]
        done = subprocess.run(command, env=box.environment(), capture_output=True, text=True, check=False)
        if done.returncode and "ptrace" in done.stderr:
            pytest.skip(f"strace: {done.stderr.strip()}")
        assert box.numbers() == [str(version)], done.stderr
        rows = [line.split() for line in counts.read_text().splitlines()]
        made |= {row[-1] for row in rows if row and row[0].replace(".", "").isdigit()} - {"total"}

    assert "renameat2" in made
    assert made - allowed == set()


def test_no_memory_is_written_and_run(box: AgentBox, bucket: Bucket, real_models: Path) -> None:
    """`MemoryDenyWriteExecute=yes`, by the kernel itself."""
    assert "\nMemoryDenyWriteExecute=yes\n" in UNIT
    bucket.put("prod/m/1.tar.gz", small_archive(files_of(real_models / "plain_module"), 1))
    command = [sys.executable, "-c", NO_WRITABLE_CODE, *box.command("sync")]

    done = subprocess.run(command, env=box.environment(), capture_output=True, text=True, check=False)

    if done.returncode == 77:
        pytest.skip(f"the kernel {os.uname().release} has no PR_SET_MDWE")
    assert done.returncode == 0, done.stderr
    assert box.numbers() == ["1"]
