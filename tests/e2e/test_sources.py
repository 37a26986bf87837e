"""Whole agents and a real store: what travels, when most of it is here already."""

import hashlib
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from agent_box import AgentBox, digests, digests_on_disk
from big_models import files_of
from counted_store import CachingProxy, counted
from fixtures_publish import heavy
from fixtures_store import Bucket
from mirror_stub import Trick, cut_short, drip, lie, say_nothing

MIB = 1 << 20
MOST_END_BYTES = 4096
"""Of the stored bytes of the last part, which ends the archive and holds nothing of any file."""

Publish = Callable[..., Any]


def archive_bytes(bucket: Bucket, version: int = 1) -> int:
    """Return the size of a version's archive."""
    return int(
        bucket.client.head_object(Bucket=bucket.name, Key=f"prod/m/{version}.tar.zst")["ContentLength"]
    )


def another(box: AgentBox, name: str) -> AgentBox:
    """Return a second agent of the same store."""
    folder = box.folder / name
    folder.mkdir()
    return AgentBox(folder, box.endpoint_url, box.bucket, box.access_key, box.secret_key, dict(box.overrides))


def sources_of(box: AgentBox, version: int = 1) -> dict[str, int]:
    """Return where an agent had a version from, as it says."""
    (line,) = [item for item in box.events("version_fetched") if item["version"] == version]
    return dict(line["sources"])


def assert_whole(came: dict[str, int], stored_bytes: int, *sources: str) -> None:
    """Make sure that an archive came from these sources alone, but for parts without files."""
    assert came.keys() == set(sources)
    assert 0 <= stored_bytes - sum(came.values()) <= MOST_END_BYTES


def test_a_retrained_head_brings_little(
    box: AgentBox, bucket: Bucket, publish: Publish, retrained: Path
) -> None:
    """Three tensors of sixty changed: at most 8 % of the bytes travel, and plan says so before."""
    publish(retrained / "1", 1)
    with counted(bucket, box) as count, box.running():
        box.until(lambda: box.numbers() == ["1"])
        assert count.sent_bytes >= archive_bytes(bucket)
        count.sent_bytes = 0
        publish(retrained / "2", 2)
        box.until(lambda: box.numbers() == ["2"])

        assert digests_on_disk(box.shelf / "2") == digests(files_of(retrained / "2"))
        assert count.sent_bytes <= 0.08 * archive_bytes(bucket, 2)
        came = sources_of(box, 2)
        assert came["store"] == count.sent_bytes
        assert_whole(came, archive_bytes(bucket, 2), "store", "version")


def test_the_plan_says_how_much_is_to_be_fetched(
    box: AgentBox, bucket: Bucket, publish: Publish, retrained: Path
) -> None:
    """Before anything of it comes, in words and in JSON; what a plan reads of the store is the manifest."""
    publish(retrained / "1", 1)
    assert box.call("sync").returncode == 0
    publish(retrained / "2", 2)

    with counted(bucket, box) as count:
        found = box.plan()["models"]["m"]["to_fetch"]["2"]
        said = box.call("plan").stdout
        assert count.sent_bytes == 0
        assert box.call("sync").returncode == 0
        assert found["bytes_to_fetch"] == count.sent_bytes

    assert found["bytes"] == archive_bytes(bucket, 2)
    few, parts = found["parts_to_fetch"], found["parts"]
    assert 0 < few < parts / 10
    words = f"{few} of {parts} parts are to be fetched, {parts - few} are here"
    assert words in " ".join(said.split())


def test_a_rollback_to_a_lost_version_brings_little(
    box: AgentBox, bucket: Bucket, publish: Publish, retrained: Path
) -> None:
    """What lies in the reserve serves as well as what is on the shelf."""
    publish(retrained / "1", 1)
    publish(retrained / "2", 2)
    box.models = [{"name": "m", "versions": {"pin": [1]}}]
    assert box.call("sync").returncode == 0
    box.models = [{"name": "m", "versions": {"pin": [2]}}]
    assert box.call("sync").returncode == 0
    assert box.numbers() == ["2"]
    box.models = [{"name": "m", "versions": {"pin": [2, 3]}}]
    publish(retrained / "1", 3)

    with counted(bucket, box) as count:
        assert box.call("sync").returncode == 0

    assert box.numbers() == ["2", "3"]
    assert digests_on_disk(box.shelf / "3") == digests(files_of(retrained / "1"))
    assert count.sent_bytes <= 0.08 * archive_bytes(bucket, 3)


@pytest.mark.parametrize("how", ["kill", "terminate"])
def test_what_came_before_a_death_does_not_come_again(
    box: AgentBox, bucket: Bucket, publish: Publish, model: Path, tmp_path: Path, how: str
) -> None:
    """Killed, or stopped, with half of it here: at most what was in flight comes again."""
    memory = 8 * MIB
    box.overrides = {"fetch": {"connections": 2, "memory_bytes": memory, "part_bytes": 2 * MIB}}
    tree = heavy(model, tmp_path / "heavy", 40)
    publish(tree, 1)
    whole = archive_bytes(bucket)
    with counted(bucket, box) as count:
        count.most_bytes = whole // 2
        with box.running() as process:
            assert count.is_stuck.wait(120)
            getattr(process, how)()
            process.wait(30)
        (attempt,) = (box.workspace / "staging").iterdir()
        assert (attempt / "offer.json").exists()
        assert box.numbers() == []

        count.most_bytes = None
        with box.running():
            box.until(lambda: box.numbers() == ["1"])
            box.until(lambda: box.leftovers() == [])

    assert digests_on_disk(box.shelf / "1") == digests(files_of(tree))
    assert count.sent_bytes <= whole + memory
    assert sources_of(box)["staging"] >= whole // 2 - memory


def test_a_tree_that_nobody_wants_any_more_is_given_up(
    box: AgentBox, bucket: Bucket, publish: Publish, model: Path, tmp_path: Path
) -> None:
    """The next start keeps what was interrupted only for the same offer."""
    box.overrides = {"fetch": {"connections": 2, "memory_bytes": 8 * MIB, "part_bytes": 2 * MIB}}
    publish(heavy(model, tmp_path / "heavy", 20), 1)
    with counted(bucket, box) as count:
        count.most_bytes = archive_bytes(bucket) // 2
        with box.running() as process:
            assert count.is_stuck.wait(120)
            process.kill()
            process.wait(30)
        publish(model, 2)
        count.most_bytes = None
        with box.running():
            box.until(lambda: box.numbers() == ["2"])
            box.until(lambda: box.leftovers() == [])

    (line,) = box.events("fetch_cancelled")
    assert line["version"] == 1


def test_three_agents_with_one_cache_fetch_one_model(
    box: AgentBox, bucket: Bucket, publish: Publish, model: Path, tmp_path: Path
) -> None:
    """They begin at the same time, as agents of one machine do when a version is published."""
    box.overrides = {"store": {"cache_dir": str(tmp_path / "cache")}}
    boxes = [box, another(box, "two"), another(box, "three")]
    tree = heavy(model, tmp_path / "heavy", 40)
    publish(tree, 1)

    with counted(bucket, *boxes) as count, ExitStack() as agents:
        for each in boxes:
            agents.enter_context(each.running())
        for each in boxes:
            each.until(lambda each=each: each.numbers() == ["1"])  # type: ignore[misc]

    for each in boxes:
        assert digests_on_disk(each.shelf / "1") == digests(files_of(tree))
    assert count.sent_bytes <= 1.1 * archive_bytes(bucket)


def test_three_agents_with_one_mirror_fetch_one_model(
    box: AgentBox, bucket: Bucket, publish: Publish, model: Path, tmp_path: Path
) -> None:
    """The mirror reads the object once, and the store sends the agents nothing of it."""
    tree = heavy(model, tmp_path / "heavy", 20)
    publish(tree, 1)
    with CachingProxy(bucket) as mirror:
        box.overrides = {"fetch": {"mirrors": [mirror.url]}}
        boxes = [box, another(box, "two"), another(box, "three")]
        with counted(bucket, *boxes) as count, ExitStack() as agents:
            for each in boxes:
                agents.enter_context(each.running())
            for each in boxes:
                each.until(lambda each=each: each.numbers() == ["1"])  # type: ignore[misc]

    for each in boxes:
        assert digests_on_disk(each.shelf / "1") == digests(files_of(tree))
        assert_whole(sources_of(each), archive_bytes(bucket), "mirror")
    assert mirror.read_bytes() == archive_bytes(bucket)
    assert count.sent_bytes == 0


@pytest.mark.parametrize("trick", [lie, cut_short, drip, say_nothing], ids=lambda trick: trick.__name__)
def test_a_mirror_that_does_wrong_fails_no_update(
    box: AgentBox, bucket: Bucket, publish: Publish, model: Path, trick: Trick
) -> None:
    """The version arrives, from the store, and the log says once which mirror is set aside."""
    publish(model, 1)
    with CachingProxy(bucket) as mirror:
        mirror.trick = trick
        box.overrides = {"fetch": {"mirrors": [mirror.url]}}
        with box.running():
            box.until(lambda: box.numbers() == ["1"])

    assert digests_on_disk(box.shelf / "1") == digests(files_of(model))
    (line,) = box.events("mirror_set_aside")
    assert line["mirror"] == mirror.url


def test_a_damaged_cache_fails_no_update(
    box: AgentBox, bucket: Bucket, publish: Publish, model: Path, tmp_path: Path
) -> None:
    """Every part in it is wrong: all comes from the store, and then the cache is right."""
    cache = tmp_path / "cache"
    box.overrides = {"store": {"cache_dir": str(cache)}}
    publish(model, 1)
    assert box.call("sync").returncode == 0
    parts = [path for path in cache.rglob("*") if len(path.name) == 64]
    for path in parts:
        path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])

    second = another(box, "two")
    assert second.call("sync").returncode == 0

    assert digests_on_disk(second.shelf / "1") == digests(files_of(model))
    assert parts
    for path in parts:
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name
