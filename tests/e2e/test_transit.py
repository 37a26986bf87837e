"""A gateway that damages what it passes on: a good release comes as soon as the gateway is mended."""

import os
import time
from pathlib import Path

import pytest

from agent_box import AgentBox, digests, digests_on_disk
from big_models import files_of, small_archive
from faulty_proxy import Exchange, FaultyProxy
from fixtures_store import Bucket

LONG = os.environ.get("LONG_TESTS") == "1"
FLIPPING_SECONDS = 12.0 if LONG else 0.0
"""How long the gateway damages what it passes on, but at least until the agent has noticed it."""


def flip_a_bit(exchange: Exchange) -> None:
    """Turn one bit in the middle of the body."""
    answer = exchange.forward()
    if answer.body:
        body = bytearray(answer.body)
        body[len(body) // 2] ^= 0x10
        answer.body = bytes(body)
    exchange.answer(answer)


def reads_of_archives(exchange: Exchange) -> bool:
    """Match reads of an archive's bytes."""
    return exchange.method == "GET" and ".tar" in exchange.path and not exchange.path.endswith(".json")


@pytest.mark.parametrize("published", [False, True], ids=["bare", "with_manifest"])
def test_a_bit_that_turns_on_the_way_refuses_nothing(
    *, published: bool, box: AgentBox, bucket: Bucket, real_models: Path
) -> None:
    """For a while one bit of each answer is turned; the version comes, and was never refused."""
    tree = files_of(real_models / "plain_module")
    if published:
        done = box.call("publish", str(real_models / "plain_module"), "--model", "m", "--version", "1")
        assert done.returncode == 0, done.stderr
    else:
        bucket.put("prod/m/1.tar.gz", small_archive(tree, 1))
    with FaultyProxy(int(box.endpoint_url.rpartition(":")[2]), matches=reads_of_archives) as gateway:
        gateway.fault = flip_a_bit
        box.endpoint_url = gateway.endpoint_url
        began = time.monotonic()
        with box.running():
            box.until(lambda: box.events("action_failed"), "the damage to be noticed")
            verdict = box.plan()["models"]["m"]["versions"]["1"]
            while time.monotonic() < began + FLIPPING_SECONDS:
                time.sleep(0.1)
            gateway.fault = None
            box.until(lambda: box.numbers() == ["1"], "version 1", 400)

        assert verdict["state"] == "held"
        assert "way" in verdict["why"], verdict
        assert not box.events("version_refused")
        assert digests_on_disk(box.shelf / "1") == digests(tree)


def test_a_release_that_is_damaged_is_read_once(box: AgentBox, bucket: Bucket, real_models: Path) -> None:
    """The store's own checksum fits the damaged bytes, so the way is not to blame."""
    archive = bytearray(small_archive(files_of(real_models / "plain_module"), 1))
    archive[len(archive) // 2] ^= 0x10
    bucket.put("prod/m/1.tar.gz", bytes(archive))
    with box.running():
        box.until(lambda: box.events("version_refused"), "the refusal")

    assert box.events("version_refused")[0]["reason"].startswith("archive_")
    assert not box.events("action_failed")
