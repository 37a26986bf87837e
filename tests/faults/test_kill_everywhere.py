"""`kill -9` before every system call of one update that changes the disk: old or new, then convergence."""

import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import straced
from agent_box import AgentBox, digests, digests_on_disk
from big_models import LONG, files_of, small_archive
from fixtures_store import Bucket
from framed_releases import release_of
from servesync.domain.versions import server_sees_version
from servesync.planning.memory import estimate, weight_of
from straced import Call

pytestmark = pytest.mark.skipif(not straced.WORKS, reason="no strace here, or no right to use it")

SINGLES = 6
DOUBLES = 2
WORKERS = 2
RESERVE_KILLS = 2
RESERVE_RENAMES = 3
WRITEBACK_BYTES = 8 << 20
FRAME_BYTES = 1 << 20
LANDING = [
    Call("fallocate", 1),
    Call("fallocate", 4),
    Call("pwrite64", 1),
    Call("pwrite64", 3),
    Call("sync_file_range", 1),
    Call("sync_file_range", 2),
    Call("fsync", 1),
]
"""Calls that a release in frames makes on its way into staging, counted in each thread for itself."""


class Update:
    """A models directory with version 1 on it, a store with 1 and 2, and copies of both to break."""

    def __init__(
        self,
        box: AgentBox,
        bucket: Bucket,
        base: dict[str, bytes],
        extra: bytes = b"",
        memory: dict[str, Any] | None = None,
        *,
        in_frames: bool = False,
    ) -> None:
        box.overrides = {"store": {"settle_seconds": 0}} | ({"memory": memory} if memory else {})
        self._allowed = [{"1"}, {"2"}, set() if memory else {"1", "2"}]
        trees = {version: base | {"assets/version": b"%d" % version + extra} for version in (1, 2)}
        self.published = {str(version): digests(tree) for version, tree in trees.items()}
        bucket.put("prod/m/1.tar.gz", small_archive(trees[1], 1))
        assert box.call("sync").returncode == 0
        if in_frames:
            archive, manifest = release_of(trees[2], cut=FRAME_BYTES, version=2)
            bucket.put("prod/m/2.tar.zst", archive)
            bucket.put("prod/m/2.manifest.json", manifest)
        else:
            bucket.put("prod/m/2.tar.gz", small_archive(trees[2], 2))
        self._box = box

    def copy(self, name: str) -> AgentBox:
        """Return a box of its own in the state before the update."""
        folder = self._box.folder / name
        shutil.copytree(self._box.models_dir, folder / "models")
        return replace(self._box, folder=folder)

    def calls(self) -> list[Call]:
        """Return every call of the update that changes the models directory."""
        box = self.copy("counted")
        found = straced.calls_below(box.models_dir, box.command("sync"), box.environment(), every_open=LONG)
        assert box.numbers() == ["2"]
        return found

    def shelf_of(self, box: AgentBox, where: str) -> set[str]:
        """Return the versions on the shelf, having compared every one with what was published."""
        found = {path.name for path in box.shelf.iterdir() if server_sees_version(path.name)}
        for name in found:
            assert digests_on_disk(box.shelf / name) == self.published[name], where
        return found

    def survives(self, kills: Sequence[Call], name: str) -> int:
        """Kill one run after the other, then let one end; return how many were killed."""
        box = self.copy(name)
        where = " then ".join(f"{call.name} #{call.count}: {call.what}" for call in kills)
        killed = 0
        for call in kills:
            killed += straced.killed_before(call, box.command("sync"), box.environment())
            assert self.shelf_of(box, where) in self._allowed, where

        done = box.call("sync")

        assert done.returncode == 0, f"{where}\n{done.stdout}{done.stderr}"
        assert self.shelf_of(box, where) == {"2"}, where
        assert box.numbers() == ["2"], where
        assert box.leftovers() == [], where
        records = box.workspace / "records" / "m"
        assert sorted(path.name for path in records.iterdir()) == ["2.json"], where
        return killed


@pytest.fixture
def update(box: AgentBox, bucket: Bucket, real_models: Path) -> Update:
    """An update that is about to happen."""
    return Update(box, bucket, files_of(real_models / "plain_module"))


def chosen(calls: list[Call]) -> list[list[Call]]:
    """Return which calls to die at, in which runs: all, or the renames and a sample of the rest."""
    if LONG:
        return [[call] for call in calls] + [[call, calls[-1 - n]] for n, call in enumerate(calls)]
    renames = [call for call in calls if call.name.startswith("rename")]
    others = [call for call in calls if call not in renames]
    step = max(1, len(others) // max(1, SINGLES - len(renames)))
    singles = [*renames, *others[step // 2 :: step]]
    step = len(calls) // DOUBLES
    return [[call] for call in singles] + [[calls[-1 - n * step], calls[n * step]] for n in range(DOUBLES)]


def test_death_at_every_change(update: Update) -> None:
    """After every kill each version is whole; one clean run ends the update and leaves nothing over."""
    calls = update.calls()
    cases = chosen(calls)
    assert {"mkdirat", "openat", "fsync", "renameat2", "renameat", "unlinkat"} <= {c.name for c in calls}

    with ThreadPoolExecutor(WORKERS) as pool:
        names = [f"case-{number}" for number in range(len(cases))]
        killed = sum(pool.map(update.survives, cases, names))

    assert killed > 0.8 * sum(map(len, cases))  # a second run may have less to do than the first


@pytest.mark.parametrize("count", [1, 2] if LONG else [2])
def test_death_in_the_middle_of_a_file(count: int, box: AgentBox, bucket: Bucket, real_models: Path) -> None:
    """Half a file is never completed in place: it goes, and the version comes anew."""
    asset = os.urandom(3 * WRITEBACK_BYTES)  # the writer says sync_file_range every so many bytes
    update = Update(box, bucket, files_of(real_models / "plain_module"), asset)

    assert update.survives([Call("sync_file_range", count)], "half") == 1


@pytest.mark.parametrize(
    "call", LANDING if LONG else LANDING[1::2], ids=lambda call: f"{call.name}-{call.count}"
)
def test_death_while_a_release_lands_in_frames(
    call: Call, box: AgentBox, bucket: Bucket, real_models: Path
) -> None:
    """With its files preallocated, or half of the pieces in place: the version comes whole, or not at all."""
    update = Update(
        box, bucket, files_of(real_models / "plain_module"), os.urandom(24 * FRAME_BYTES), in_frames=True
    )

    assert update.survives([call], "landing") == 1


def test_death_while_an_old_version_retires_first(box: AgentBox, bucket: Bucket, real_models: Path) -> None:
    """Set aside, retired, and put on the shelf: never both versions, never half of one, and always an end."""
    base = files_of(real_models / "plain_module")
    each = estimate(weight_of((name, len(data)) for name, data in base.items()), 1.2)
    memory = {"budget_bytes": each * 3 // 2, "when_short": "retire_first"}
    update = Update(box, bucket, base, memory=memory)
    calls = [call for call in update.calls() if "reserve" in call.what]
    assert len([call for call in calls if call.name == "renameat2"]) == RESERVE_RENAMES
    cases = [[call] for call in (calls if LONG else calls[:: max(1, len(calls) // RESERVE_KILLS)])]

    with ThreadPoolExecutor(WORKERS) as pool:
        names = [f"retire-{number}" for number in range(len(cases))]
        killed = sum(pool.map(update.survives, cases, names))

    assert killed == len(cases)
