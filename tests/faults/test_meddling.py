"""Somebody else works in the models directory while the agent does: nothing is lost, nobody is blamed."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import straced
from admin_client import AdminClient
from agent_box import AgentBox, digests, digests_on_disk
from big_models import files_of, first_of, small_archive
from fixtures_store import Bucket
from servesync import disk

STRACED = pytest.mark.skipif(not straced.WORKS, reason="no strace here, or no right to use it")
MORE_LOOKS = 3
SLOW = {"fetch": {"max_bytes_per_second": 256 << 10, "part_bytes": 64 << 10}}


@pytest.fixture
def tree(real_models: Path) -> dict[str, bytes]:
    """The files of a good model."""
    return files_of(real_models / "plain_module")


def failed(box: AgentBox, reason: str) -> list[str]:
    """Return the texts of failed actions with a reason."""
    return [line["because"] for line in box.events("action_failed") if line["reason"] == reason]


def sizes(folder: Path, pattern: str) -> list[int]:
    """Return how many bytes the files that match have."""
    return [path.stat().st_size for path in folder.glob(pattern)]


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
        # files are written in their order: what comes before one that has bytes is complete
        box.until(lambda: any(sizes(staging, "*/tree/*1/zz/last.bin")), "the last file's bytes")
        meddle(next(staging.glob("*/tree/*1")))
        box.until(lambda: failed(box, "disk_failed"), "the failure")
        box.until(lambda: box.numbers() == ["1"], "the next attempt")

    assert "something else" in failed(box, "disk_failed")[0]
    assert box.events("version_refused") == []
    assert digests_on_disk(box.shelf / "1") == digests(big)
    assert list((box.workspace / "refusals/m").glob("*")) == []


def test_a_link_in_place_of_a_shelf_under_the_agent(
    box: AgentBox, bucket: Bucket, tree: dict[str, bytes]
) -> None:
    """Nothing is written through it, not once; when the directory is back, the agent goes on by itself."""
    bucket.put("prod/m/1.tar.gz", small_archive(tree, 1))
    with box.running() as process:
        box.until(lambda: box.events("version_installed"))
        kept = box.shelf.rename(box.folder / "kept")
        elsewhere = box.folder / "elsewhere"
        elsewhere.mkdir()
        box.shelf.symlink_to(elsewhere)
        bucket.put("prod/m/2.tar.gz", small_archive(tree, 2))
        box.until(lambda: failed(box, "disk_not_a_directory"), "disk_not_a_directory")
        box.until(lambda: len(failed(box, "disk_not_a_directory")) > MORE_LOOKS, "later looks")
        assert list(elsewhere.iterdir()) == []
        assert process.poll() is None

        disk.exchange(kept, box.shelf)
        box.until(lambda: box.numbers() == ["2"], "version 2")
    assert list(elsewhere.iterdir()) == []


def test_a_link_in_place_of_the_trash_empties_nothing(
    box: AgentBox, bucket: Bucket, tree: dict[str, bytes]
) -> None:
    """What it leads to is somebody's; the version that should leave stays until there is a trash."""
    bucket.put("prod/m/1.tar.gz", small_archive(tree, 1))
    precious = box.folder / "precious"
    precious.mkdir()
    (precious / "file").write_bytes(b"keep")
    box.overrides = {"reserve": {"keep": 0}}
    with box.running():
        box.until(lambda: box.events("version_installed"))
        (box.workspace / "trash").rename(box.folder / "away")  # it may not be empty yet
        (box.workspace / "trash").symlink_to(precious)
        bucket.put("prod/m/2.tar.gz", small_archive(tree, 2))
        box.until(lambda: len(failed(box, "disk_not_a_directory")) > 1, "refused")
        box.until(lambda: box.numbers() == ["1", "2"], "version 2 beside 1")
        (box.workspace / "trash").unlink()
        box.until(lambda: box.numbers() == ["2"], "version 1 gone")

    assert (precious / "file").read_bytes() == b"keep"


def as_newer(path: Path) -> None:
    """Make a record look as if a newer servesync had written it."""
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema_version": 2}))


def test_after_a_downgrade_what_serves_and_what_is_kept_stay(
    box: AgentBox, bucket: Bucket, tree: dict[str, bytes]
) -> None:
    """The version on the shelf is compared and taken over again, the reserve is left; each is said, once."""
    for version in (1, 2):
        bucket.put(f"prod/m/{version}.tar.gz", small_archive(tree, version))
        assert box.call("sync").returncode == 0
    served, kept = box.workspace / "records/m/2.json", box.workspace / "reserve_records/m/1.json"
    as_newer(served)
    as_newer(kept)

    seen = box.plan()["models"]["m"]
    assert seen["versions"]["2"]["state"] == "to_install"
    assert "its record cannot be read" in seen["versions"]["2"]["why"]
    assert all("newer servesync (schema_version 2" in text for text in seen["unreadable"])
    assert len(seen["unreadable"]) == len([served, kept])

    admin = AdminClient.listen(box)
    with box.running():
        box.until(lambda: box.events("version_installed") + box.events("version_restored"), "taken over")
        admin.await_listening()
        box.until(lambda: len(box.events("poll_finished")) > 0, "a look")
        box.until(lambda: len(admin.ask("/status").json["troubles"]) == 1, "the trouble")
        (trouble,) = admin.ask("/status").json["troubles"]

    assert (trouble["about"], trouble["reason"]) == ("m", "record_unreadable")
    assert str(kept) in trouble["text"]
    said = [line["because"] for line in box.events("record_unreadable")]
    assert len(said) == len(set(said)) == len([served, kept])
    assert json.loads(served.read_text())["schema_version"] == 1
    assert json.loads(kept.read_text())["schema_version"] == 2
    assert digests_on_disk(box.workspace / "reserve/m/1") == digests(tree)
    assert box.numbers() == ["2"]


@STRACED
def test_a_disk_that_gives_no_record_back(box: AgentBox, bucket: Bucket, tree: dict[str, bytes]) -> None:
    """EIO for each record of versions 1 and 2: nothing leaves, nothing is fetched, and later all is well."""
    for version in (1, 2):
        bucket.put(f"prod/m/{version}.tar.gz", small_archive(tree, version))
        assert box.call("sync").returncode == 0
    bucket.put("prod/m/1.tar.gz", small_archive(tree | {"assets/x": b"x"}, 1))

    only = ("1.json", "2.json")
    done = straced.with_failing("openat", "EIO", "1+", box.command("sync"), box.environment(), only=only)

    assert done.stdout.count('"record_unreadable", "model"') == len(only), done.stderr
    assert "Input/output error" in done.stdout
    assert '"version_fetched"' not in done.stdout
    assert digests_on_disk(box.workspace / "reserve/m/1") == digests(tree)
    assert digests_on_disk(box.shelf / "2") == digests(tree)
    assert box.call("sync").returncode == 0
    assert box.plan()["models"]["m"]["unreadable"] == []
    assert box.plan()["models"]["m"]["versions"]["1"]["state"] == "reserved"


def test_a_directory_in_place_of_a_record_holds_up_nothing(
    box: AgentBox, bucket: Bucket, tree: dict[str, bytes]
) -> None:
    """An old version leaves although the reserve has no place for its record; what is in there stays."""
    bucket.put("prod/m/1.tar.gz", small_archive(tree, 1))
    assert box.call("sync").returncode == 0
    blocked = box.workspace / "reserve_records/m/1.json"
    (blocked / "somebody's").mkdir(parents=True)
    (box.workspace / "records/m/2.json").mkdir()
    bucket.put("prod/m/2.tar.gz", small_archive(tree, 2))

    done = box.call("sync")

    assert done.returncode == 0, done.stdout + done.stderr
    assert box.numbers() == ["2"]
    assert f"move {blocked} away" in done.stdout
    assert (blocked / "somebody's").is_dir()
    assert (box.workspace / "records/m/2.json").is_file()
