"""Channels and withdrawals through the real commands, a real store, and the agent as a process."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from agent_box import AgentBox, tar_gz_of
from big_models import first_of
from faulty_proxy import FaultyProxy, s3_error
from fixtures_store import Bucket
from graph_bytes import data as field
from graph_bytes import entry, graph, node, number, saved_model
from said_server import LOADING, UP, SaidServer, said_server
from servesync.domain import channel
from servesync.domain.channel import Entry
from servesync.domain.versions import Model, Version
from servesync.errors import Reason, StoreError
from servesync.publishing import promote, store_at
from servesync.settings import Store

M = Model("m")


@pytest.fixture
def server(box: AgentBox) -> Iterator[SaidServer]:
    """A server that says what it is told, beside the agent."""
    with said_server() as server:
        box.overrides = {"serving": {"rest_url": server.url, "scan_interval_seconds": 0.1}}
        box.models = [{"name": "m", "versions": {"channel": "stable"}}]
        yield server


@pytest.fixture
def store(bucket: Bucket) -> Store:
    """The same store, for commands in this process."""
    where = bucket.server.endpoint_url
    return store_at(url=f"s3://{bucket.name}/prod", endpoint_url=where, region="us-east-1")


def put(bucket: Bucket, version: int) -> None:
    """Publish a version without variables, as a bare archive."""
    info = field(1, "x:0") + number(2, 1)
    named = entry(1, "x", info) + entry(2, "y", info)
    body = saved_model(graph([node("x", "Placeholder")]), entry(5, "serving_default", named))
    tree = {"saved_model.pb": body, "assets/n": b"%d" % version}
    bucket.put(f"prod/m/{version}.tar.gz", tar_gz_of(tree, f"{version:07}"))


def call(box: AgentBox, *words: str) -> Any:
    """Run a command with `--json`, and return what it says."""
    name, *rest = words
    done = box.call(name, *rest, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def lead(box: AgentBox, server: SaidServer, version: int) -> None:
    """Let the agent bring a version, and the server serve it alone."""
    box.until(lambda: str(version) in box.numbers(), f"version {version}")
    server.versions = {version: UP}
    box.until(lambda: box.numbers() == [str(version)], f"{version} alone")


def test_one_command_moves_an_instance_and_one_moves_it_back(
    box: AgentBox, bucket: Bucket, server: SaidServer
) -> None:
    """What is published is not served before it is promoted; the way back is a rename, without a fetch."""
    put(bucket, 1)
    call(box, "promote", "m", "1", "--channel", "stable", "--why", "first")
    with box.running():
        lead(box, server, 1)
        put(bucket, 2)
        polls = len(box.events("poll_finished"))
        box.until(lambda: len(box.events("poll_finished")) > polls, "a poll")
        assert box.numbers() == ["1"]

        moved = call(box, "promote", "m", "2", "--channel", "stable")
        assert (moved["was"], moved["now"]["sequence"]) == (1, 2)
        box.until(lambda: box.numbers() == ["1", "2"], "version 2 beside 1")
        server.versions = {1: UP, 2: LOADING}
        assert box.numbers() == ["1", "2"]
        lead(box, server, 2)

        fetched = len(box.events("version_fetched"))
        call(box, "rollback", "m", "--channel", "stable", "--why", "worse")
        lead(box, server, 1)
        assert len(box.events("version_fetched")) == fetched
    again = call(box, "promote", "m", "1", "--channel", "stable")
    listed = call(box, "channels", "m")

    assert not again["written"]
    assert [line["version"] for line in box.events("channel_moved")] == [1, 2, 1]
    assert box.events("channel_moved")[-1]["why"] == "worse"
    assert [move["version"] for move in listed["stable"]["past"]] == [2, 1]
    assert not box.events("channel_refused")


def test_a_rollback_that_was_seen_needs_no_store(box: AgentBox, bucket: Bucket, server: SaidServer) -> None:
    """The agent is killed after it has seen the channel move; the next one finishes without the store."""
    for version in (1, 2):
        put(bucket, version)
    call(box, "promote", "m", "1", "--channel", "stable")
    with box.running():
        lead(box, server, 1)
        call(box, "promote", "m", "2", "--channel", "stable")
        lead(box, server, 2)
    call(box, "rollback", "m", "--channel", "stable")
    server.versions = {2: LOADING}
    with box.running():
        box.until(lambda: box.events("channel_moved")[-1]["version"] == 1, "seen")
    box.overrides["store"] = {"endpoint_url": "http://127.0.0.1:9"}
    fetched = len(box.events("version_fetched"))
    server.versions = {2: UP}
    with box.running():
        box.until(lambda: box.numbers() == ["1", "2"], "back from the reserve")
        box.until(lambda: box.events("poll_failed"), "the store is gone")

    assert len(box.events("version_fetched")) == fetched


def test_an_older_position_changes_nothing(box: AgentBox, bucket: Bucket, server: SaidServer) -> None:
    """Not after a restart either; nor does an object that is missing, or none of ours."""
    key = "prod/m/channels/stable.json"
    for version in (1, 2):
        put(bucket, version)
        call(box, "promote", "m", str(version), "--channel", "stable")
    with box.running():
        lead(box, server, 2)
    old = channel.moved(None, M, "stable", Entry(Version(1), "promote", "2026-01-01T00:00:00Z", "me", ""))
    bucket.put(key, channel.dump(old))

    def refused(reason: str) -> bool:
        return reason in [line["reason"] for line in box.events("channel_refused")]

    with box.running():
        box.until(lambda: refused("channel_went_back"), "an older sequence")
        bucket.put(key, b"{}")
        box.until(lambda: refused("channel_invalid"), "no channel")
        bucket.delete(key)
        box.until(lambda: refused("channel_missing"), "nothing")
        plan = box.plan()["models"]["m"]

    assert box.numbers() == ["2"]
    assert plan["wanted"] == [2]


def test_of_two_moves_at_once_one_wins(bucket: Bucket, store: Store) -> None:
    """The other is told, and its move is nowhere."""
    for version in range(1, 9):
        put(bucket, version)
    promote(store, ("m", "1", "stable"), "me", "")

    def move(version: int) -> int | None:
        try:
            promote(store, ("m", str(version), "stable"), "me", "")
        except StoreError as error:
            assert error.reason is Reason.CHANNEL_MOVED_MEANWHILE  # noqa: PT017
            return None
        return version

    with ThreadPoolExecutor(7) as pool:
        won = [version for version in pool.map(move, range(2, 9)) if version is not None]
    found = bucket.client.get_object(Bucket=bucket.name, Key="prod/m/channels/stable.json")
    now = channel.parse_channel(found["Body"].read(), M, "stable")

    assert sorted(won) == sorted(move.version for move in (now.now, *now.past[:-1]))
    assert now.now.sequence == 1 + len(won)


def test_what_is_unproven_is_promoted_with_a_note(box: AgentBox, bucket: Bucket) -> None:
    """An archive that somebody packed by hand: what it is nobody has looked at yet."""
    put(bucket, 1)

    done = box.call("promote", "m", "1", "--channel", "stable")

    assert done.returncode == 0
    assert "note: 1 has no manifest" in done.stderr
    assert "servesync manifest s3://" in done.stderr
    assert call(box, "promote", "m", "1", "--channel", "stable")["note"].startswith("1 has no manifest")


def test_only_what_is_offered_can_be_promoted(box: AgentBox, bucket: Bucket, server: SaidServer) -> None:
    """The message says what there is; a withdrawn version is not offered."""
    del server
    put(bucket, 1)
    missing = box.call("promote", "m", "7", "--channel", "stable")
    wrong = box.call("promote", "m", "1", "--channel", "../x")
    nowhere = box.call("rollback", "m", "--channel", "stable")
    call(box, "withdraw", "m", "1", "--reason", "wrong data")
    withdrawn = box.call("promote", "m", "1", "--channel", "stable")

    assert (missing.returncode, wrong.returncode, nowhere.returncode, withdrawn.returncode) == (1, 2, 1, 1)
    assert "it has 1" in missing.stderr
    assert "wrong data" in withdrawn.stderr
    assert call(box, "channels", "m") == {}


def test_a_withdrawn_version_leaves_when_another_one_serves(
    box: AgentBox, bucket: Bucket, server: SaidServer
) -> None:
    """It leaves shelf and reserve, does not come back after a restart, and the last good one stays."""
    box.models = [{"name": "m", "versions": {"latest": 1}}]
    for version in (1, 2, 3):
        put(bucket, version)
    with box.running():
        lead(box, server, 3)
        call(box, "withdraw", "m", "3", "--reason", "wrong data")
        box.until(lambda: box.numbers() == ["2", "3"], "version 2 beside 3")
        assert box.events("version_withdrawn")[-1]["version"] == 3
        server.versions = {3: UP, 2: LOADING}
        box.until(lambda: box.numbers() == ["2", "3"], "still both")
        server.versions = {3: UP, 2: UP}
        box.until(lambda: box.numbers() == ["2"], "version 3 left")
        server.versions = {2: UP}
        for version in (1, 2):  # so that there never is another one to go to
            call(box, "withdraw", "m", str(version), "--reason", "all of them")
        box.until(lambda: len(box.events("version_withdrawn")) >= 2, "withdrawn, too")
    again = call(box, "withdraw", "m", "2", "--reason", "again")
    box.overrides["store"] = {"endpoint_url": "http://127.0.0.1:9"}
    with box.running():
        box.until(lambda: box.events("poll_failed"), "the store is gone")
        verdict = box.plan()["models"]["m"]["versions"]["2"]

    assert not again["written"]
    assert box.numbers() == ["2"]
    assert "withdrawn" in verdict["why"]
    assert not (box.workspace / "reserve/m/3").exists()


def test_a_withdrawn_number_cannot_be_published_again(
    box: AgentBox, bucket: Bucket, server: SaidServer
) -> None:
    """Nor is it ever brought to an instance that does not have it."""
    box.models = [{"name": "m", "versions": {"latest": 1}}]
    for version in (1, 2):
        put(bucket, version)
    call(box, "withdraw", "m", "2", "--reason", "wrong data")
    with box.running():
        lead(box, server, 1)
        box.until(lambda: box.events("version_refused"), "refused")

    assert box.events("version_refused")[0]["reason"] == "version_withdrawn"
    assert not [line for line in box.events("version_installed") if line["version"] == 2]


@pytest.mark.parametrize("instead", ["denied", *first_of("garbage", "another's withdrawal", "torn", "huge")])
def test_what_is_no_manifest_does_not_undo_a_withdrawal(
    instead: str, box: AgentBox, bucket: Bucket, publish: Callable[..., Any]
) -> None:
    """Also over a restart; the manifest put back does."""
    key = "prod/m/2.manifest.json"
    publish(version=2)
    good = bucket.client.get_object(Bucket=bucket.name, Key=key)["Body"].read()
    assert box.call("sync").returncode == 0
    call(box, "withdraw", "m", "2", "--reason", "wrong data")
    box.call("sync")
    withdrawal = bucket.client.get_object(Bucket=bucket.name, Key=key)["Body"].read()
    bodies = {
        "garbage": b"{}",
        "another's withdrawal": withdrawal.replace(b'"version":2', b'"version":3'),
        "torn": good[: len(good) // 2],
        "huge": bytes(5 << 20),
    }

    def why() -> str:
        return str(box.plan()["models"]["m"]["versions"]["2"]["why"])

    with FaultyProxy(bucket.server.port) as proxy:
        proxy.fault, proxy.matches = s3_error(403, "AccessDenied"), lambda exchange: key in exchange.path
        proxy.times = 1_000_000 if instead == "denied" else 0
        box.overrides = {"store": {"endpoint_url": proxy.endpoint_url}}
        bucket.put(key, bodies.get(instead, b"{}"))
        box.call("sync")
        assert "withdrawn" in why()

    box.overrides = {}
    bucket.put(key, good)
    assert box.call("sync").returncode == 0
    assert "withdrawn" not in why()
    bucket.put(key, withdrawal)
    publish(version=1)
    assert box.call("sync").returncode == 0
    assert box.numbers() == ["1"]


def test_a_manifest_that_cannot_be_read_hides_no_withdrawal(
    box: AgentBox, bucket: Bucket, publish: Callable[..., Any]
) -> None:
    """One key is denied; the withdrawal of a later version counts all the same."""
    box.models = [{"name": "m", "versions": {"all": True}}]
    for version in (1, 2, 3):
        publish(version=version)
    assert box.call("sync").returncode == 0
    call(box, "withdraw", "m", "2", "--reason", "wrong data")
    bucket.put("prod/m/1.manifest.json", b"{}")
    with FaultyProxy(bucket.server.port) as proxy:
        proxy.fault = s3_error(403, "AccessDenied")
        proxy.matches = lambda exchange: "1.manifest.json" in exchange.path
        box.overrides = {"store": {"endpoint_url": proxy.endpoint_url}}
        box.call("sync")

    assert box.numbers() == ["1", "3"]
