"""A good neighbour: while a version arrives, the threads that bring it let the model server go first."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures_store import Bucket
from jobs_scene import BIG, JobsScene, jobs_scene


@pytest.fixture
def scene(tmp_path: Path, bucket: Bucket) -> Iterator[JobsScene]:
    """Model `big`, whose version is to come."""
    with jobs_scene(tmp_path, bucket) as scene:
        scene.box.models = [{"name": "big"}]
        yield scene


def priorities(pid: int) -> Counter[int]:
    """Return how many threads of a process have which niceness (proc(5), field 19)."""
    stats = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    return Counter(int(stat.rpartition(")")[2].split()[16]) for stat in stats)


def test_a_transfer_lets_the_server_go_first(scene: JobsScene) -> None:
    """The threads of the transfer are lowered; those that decide and answer are not, nor are they later."""
    usual = os.getpriority(os.PRIO_PROCESS, 0)
    low = min(19, usual + 10)
    with scene.box.running() as process:
        held = scene.hold("/big/1.tar.gz")
        scene.put("big", 1, asset_bytes=BIG)
        scene.box.until(held.begun.is_set, "the transfer")

        scene.box.until(
            lambda: priorities(process.pid)[low] > 2, "its own thread, one that writes, and one that reads"
        )
        assert priorities(process.pid).keys() == {usual, low}
        held.released.set()
        scene.until("version_installed", "big", 1)
        scene.box.until(
            lambda: priorities(process.pid).keys() == {usual}, "the end of the transfer's threads"
        )
