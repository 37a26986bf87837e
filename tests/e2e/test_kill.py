"""`kill -9` at random moments of updates: old or new, and the next start converges."""

import random
import time
from pathlib import Path

from agent_box import AgentBox, digests, digests_on_disk
from big_models import LONG, files_of, small_archive
from fixtures_store import Bucket
from servesync.domain.versions import server_sees_version

KILLS = 30 if LONG else 5
ASSET_BYTES = 12 << 20


def test_sudden_death_at_random_moments(box: AgentBox, bucket: Bucket, real_models: Path) -> None:
    """After every kill the shelf is whole; the next start ends the update and leaves nothing over."""
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    box.overrides = {"fetch": {"part_bytes": 1 << 20, "connections": 2, "memory_bytes": 4 << 20}}
    base = files_of(real_models / "plain_module")
    published: dict[str, dict[str, str]] = {}

    def publish(version: int) -> None:
        tree = base | {"assets/weights.bin": chance.randbytes(ASSET_BYTES)}
        published[str(version)] = digests(tree)
        bucket.put(f"prod/m/{version}.tar.gz", small_archive(tree, version))

    def check_shelf() -> None:
        for path in box.shelf.iterdir() if box.shelf.exists() else ():
            if server_sees_version(path.name):
                assert digests_on_disk(path) == published[path.name], f"seed {seed}"

    publish(1)
    started = time.monotonic()
    with box.running():
        box.until(lambda: box.numbers() == ["1"])
        whole = time.monotonic() - started
    for version in range(2, KILLS + 2):
        publish(version)
        with box.running() as process:
            time.sleep(chance.uniform(0.2, 1.2) * whole)
            process.kill()
            process.wait()
        check_shelf()
        assert set(box.numbers()) & {str(version - 1), str(version)}, f"seed {seed}"
        with box.running():
            box.until(lambda version=version: box.numbers() == [str(version)], f"seed {seed}")  # type: ignore[misc]
            box.until(lambda: box.leftovers() == [], f"seed {seed}")
            box.until(lambda: _records(box) == box.numbers(), f"seed {seed}")
        check_shelf()


def _records(box: AgentBox) -> list[str]:
    return sorted(path.stem for path in (box.workspace / "records/m").glob("*.json"))
