"""A store that disappears, answers HTML, refuses, or is emptied: what is there stays, and why is said."""

import time
from pathlib import Path

import pytest

from agent_box import AgentBox, digests, digests_on_disk
from big_models import files_of, small_archive
from fixtures_store import Bucket
from http_stubs import door_before


@pytest.mark.parametrize(
    ("state", "reason"),
    [("shut", "store_unreachable"), ("html", "store_bad_answer"), ("denied", "store_denied")],
)
def test_a_store_in_trouble(
    state: str, reason: str, box: AgentBox, bucket: Bucket, real_models: Path
) -> None:
    """Version 1 stays, log and plan name the reason, and version 2 comes by itself when the store is back."""
    tree = files_of(real_models / "plain_module")
    bucket.put("prod/m/1.tar.gz", small_archive(tree, 1))
    with door_before(box.endpoint_url) as (url, door):
        box.endpoint_url = url
        with box.running() as process:
            box.until(lambda: box.numbers() == ["1"])
            door.state = state
            box.until(lambda: box.events("poll_failed"), "poll_failed")
            plan = box.plan()
            before = door.requests
            bucket.put("prod/m/2.tar.gz", small_archive(tree, 2))
            box.until(lambda: door.requests > before)

            assert box.events("poll_failed")[0]["reason"] == reason
            assert plan["store_error"]["reason"] == reason
            assert digests_on_disk(box.shelf / "1") == digests(tree)
            assert process.poll() is None

            door.state = "open"
            box.until(lambda: box.numbers() == ["2"], "version 2")


def test_an_emptied_store_removes_nothing(box: AgentBox, bucket: Bucket, real_models: Path) -> None:
    """No key is left, and nothing follows from that; a new version is taken as ever."""
    tree = files_of(real_models / "plain_module")
    bucket.put("prod/m/1.tar.gz", small_archive(tree, 1))
    with box.running():
        box.until(lambda: box.numbers() == ["1"])
        bucket.empty()
        box.until(lambda: box.events("store_empty"), "the log to say so, at its ordinary level")
        time.sleep(2.5)  # two more polls
        verdict = box.plan()["models"]["m"]["versions"]["1"]

        assert box.numbers() == ["1"]
        assert [line["on_shelf"] for line in box.events("store_empty")] == [[1]]
        assert box.events("poll_finished")[-1]["in_store"] == {"m": 0}
        assert "no longer lists it" in verdict["why"]
        assert digests_on_disk(box.shelf / "1") == digests(tree)

        bucket.put("prod/m/2.tar.gz", small_archive(tree, 2))
        box.until(lambda: box.numbers() == ["2"], "version 2")


def test_other_bytes_under_a_served_number_are_named(
    box: AgentBox, bucket: Bucket, real_models: Path
) -> None:
    """A version is immutable: what is on the shelf stays, and the log says once what the store has now."""
    tree = files_of(real_models / "plain_module")
    bucket.put("prod/m/1.tar.gz", small_archive(tree, 1))
    with box.running():
        box.until(lambda: box.numbers() == ["1"])
        bucket.put("prod/m/1.tar.gz", small_archive(tree | {"assets/more.txt": b"more"}, 1))
        box.until(lambda: box.events("version_changed_in_store"), "the log to say so")
        time.sleep(1.5)

        (line,) = box.events("version_changed_in_store")
        assert line["version"] == 1
        assert line["on_shelf"] != line["in_store"]
        assert "something else under this number" in box.plan()["models"]["m"]["versions"]["1"]["why"]
        assert digests_on_disk(box.shelf / "1") == digests(tree)
