"""Somebody else works in the models directory while the agent does: nothing is lost, nobody is blamed."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from agent_box import AgentBox, digests, digests_on_disk
from big_models import files_of, first_of, small_archive
from fixtures_store import Bucket

SLOW = {"fetch": {"max_bytes_per_second": 256 << 10, "part_bytes": 64 << 10}}


@pytest.fixture
def tree(real_models: Path) -> dict[str, bytes]:
    """The files of a good model."""
    return files_of(real_models / "plain_module")


def failed(box: AgentBox, reason: str) -> list[str]:
    """Return the texts of failed actions with a reason."""
    return [line["because"] for line in box.events("action_failed") if line["reason"] == reason]


def cut(tree: Path) -> None:
    """Cut a file that is complete."""
    os.truncate(tree / "saved_model.pb", 10)


def swap(tree: Path) -> None:
    """Put another file in place of one that is complete, of the same size."""
    path = tree / "variables/variables.data-00000-of-00001"
    (tree / "other").write_bytes(bytes(path.stat().st_size))
    (tree / "other").replace(path)


def remove(tree: Path) -> None:
    """Remove all of staging."""
    shutil.rmtree(tree.parents[2])


@pytest.mark.parametrize("meddle", first_of(cut, remove, swap))
def test_staging_changed_during_a_fetch(
    meddle: Callable[[Path], None], box: AgentBox, bucket: Bucket, tree: dict[str, bytes]
) -> None:
    """The release is not refused for it: the disk is blamed, in words that help, and it is tried again."""
    big = tree | {"zz/last.bin": os.urandom(768 << 10)}
    bucket.put("prod/m/1.tar.gz", small_archive(big, 1))
    box.overrides = SLOW
    staging = box.workspace / "staging"
    with box.running():
        box.until(lambda: [*staging.glob("*/tree/*1/zz/last.bin")], "the last file to begin")
        meddle(next(staging.glob("*/tree/*1")))
        box.until(lambda: failed(box, "disk_failed"), "the failure")
        box.until(lambda: box.numbers() == ["1"], "the next attempt")

    assert "something else" in failed(box, "disk_failed")[0]
    assert box.events("version_refused") == []
    assert digests_on_disk(box.shelf / "1") == digests(big)
    assert list((box.workspace / "refusals/m").glob("*")) == []
