"""Channels and versions that came to harm in the store: what commands refuse, and the way out of it."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent_box import AgentBox
from big_models import files_of, first_of, small_archive
from faulty_proxy import FaultyProxy, s3_error
from fixtures_store import Bucket
from said_server import LOADING, UP, SaidServer, said_server
from servesync.domain import channel
from servesync.domain.channel import Entry
from servesync.domain.versions import Model, Version
from servesync.errors import Reason, StoreError
from servesync.publishing import promote, store_at

M = Model("m")
STABLE = "prod/m/channels/stable.json"
MANIFEST = "prod/m/2.manifest.json"


@pytest.fixture
def server(box: AgentBox) -> Iterator[SaidServer]:
    """A server that says what it is told, beside the agent."""
    with said_server() as server:
        box.overrides = {"serving": {"rest_url": server.url, "scan_interval_seconds": 0.1}}
        yield server


@pytest.fixture
def put(bucket: Bucket, model: Path) -> Callable[[int], None]:
    """Publish a version as a bare archive."""
    tree = files_of(model)
    return lambda version: bucket.put(f"prod/m/{version}.tar.gz", small_archive(tree, version))


def call(box: AgentBox, *words: str) -> Any:
    """Run a command with `--json`, and return what it says."""
    name, *rest = words
    done = box.call(name, *rest, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def follow(box: AgentBox, put: Callable[[int], None]) -> None:
    """Let a box without a server follow `stable`, which is at version 1 with sequence 3."""
    box.models = [{"name": "m", "versions": {"channel": "stable"}}]
    for version in (1, 2):
        put(version)
    for version in (1, 2, 1):
        call(box, "promote", "m", str(version), "--channel", "stable")
    assert box.call("sync").returncode == 0
    assert box.numbers() == ["1"]


def older() -> bytes:
    """Return the channel as it was at its first move."""
    entry = Entry(Version(1), "promote", "2026-01-01T00:00:00Z", "me", "")
    return channel.dump(channel.moved(None, M, "stable", entry))


@pytest.mark.parametrize("harm", first_of("removed", "spoilt", "restored"))
@pytest.mark.parametrize("target", first_of(1, 2))
def test_a_channel_that_came_to_harm_goes_on_after_what_instances_have_seen(
    harm: str, target: int, box: AgentBox, bucket: Bucket, put: Callable[[int], None]
) -> None:
    """One command, with the sequence that the log of an instance names, whatever is in the store by now."""
    follow(box, put)
    if harm == "removed":
        bucket.delete(STABLE)
    else:
        bucket.put(STABLE, b"{}" if harm == "spoilt" else older())
    seen = box.call("sync")
    (refused,) = [json.loads(line) for line in seen.stdout.splitlines() if "channel_refused" in line]
    assert "--after 3" in refused["because"]
    if harm == "spoilt":
        plain = box.call("promote", "m", "1", "--channel", "stable")
        assert plain.returncode == 1
        assert "--after" in plain.stderr

    done = call(box, "promote", "m", str(target), "--channel", "stable", "--after", "3")

    assert (done["now"]["version"], done["now"]["sequence"], done["written"]) == (target, 4, True)
    again = box.call("sync")
    assert "channel_refused" not in again.stdout
    assert box.numbers() == [str(target)]


def test_a_sequence_is_never_lowered(box: AgentBox, put: Callable[[int], None]) -> None:
    """Where the store is further than what was given, it goes on from there."""
    follow(box, put)

    done = call(box, "promote", "m", "2", "--channel", "stable", "--after", "1")

    assert done["now"]["sequence"] == 4
    assert box.call("promote", "m", "2", "--channel", "stable", "--after", "-1").returncode == 2


@pytest.mark.parametrize("gone", first_of("after", "before", "with its manifest"))
def test_a_version_whose_archive_was_removed_can_be_withdrawn(
    gone: str,
    box: AgentBox,
    bucket: Bucket,
    put: Callable[[int], None],
    publish: Callable[..., Any],
    server: SaidServer,
) -> None:
    """Removing it in haste takes it from no instance, and keeps nobody from withdrawing it then."""
    put(1)
    publish(version=2)
    server.versions = {2: UP}
    with box.running():
        box.until(lambda: box.numbers() == ["2"] and box.events("version_available"), "version 2")
    if gone == "before":
        bucket.delete("prod/m/2.tar.zst")
        call(box, "withdraw", "m", "2", "--reason", "wrong data")
    elif gone == "after":
        call(box, "withdraw", "m", "2", "--reason", "wrong data")
        bucket.delete("prod/m/2.tar.zst")
    else:
        bucket.delete("prod/m/2.tar.zst")
        bucket.delete(MANIFEST)
        done = box.call("withdraw", "m", "2", "--reason", "wrong data")
        assert done.returncode == 1
        assert "--removed" in done.stderr
        call(box, "withdraw", "m", "2", "--reason", "wrong data", "--removed")
    again = call(box, "withdraw", "m", "2", "--reason", "again")
    assert not again["written"]

    with box.running():
        box.until(lambda: box.numbers() == ["1", "2"], "version 1 beside 2")
        server.versions = {1: LOADING, 2: UP}
        box.until(lambda: box.events("version_withdrawn"), "withdrawn")
        server.versions = {1: UP, 2: UP}
        box.until(lambda: box.numbers() == ["1"], "version 1 alone")
    published = box.call("promote", "m", "2", "--channel", "stable")
    assert published.returncode == 1
    assert "wrong data" in published.stderr


def test_a_withdrawal_holds_when_the_archive_comes_back(
    box: AgentBox, bucket: Bucket, put: Callable[[int], None]
) -> None:
    """It stands where the manifest would."""
    for version in (1, 2):
        put(version)
    assert box.call("sync").returncode == 0
    archive = bucket.client.get_object(Bucket=bucket.name, Key="prod/m/2.tar.gz")["Body"].read()
    bucket.delete("prod/m/2.tar.gz")
    call(box, "withdraw", "m", "2", "--reason", "wrong data", "--removed")
    assert box.call("sync").returncode == 0
    assert box.numbers() == ["1"]

    bucket.put("prod/m/2.tar.gz", archive)

    assert box.call("sync").returncode == 0
    assert box.numbers() == ["1"]
    assert "wrong data" in box.plan()["models"]["m"]["versions"]["2"]["why"]


@pytest.mark.parametrize("wrong", first_of("half a withdrawal", "another's withdrawal"))
def test_a_withdrawal_that_is_not_sound_can_be_written_anew(
    wrong: str, box: AgentBox, bucket: Bucket, publish: Callable[..., Any]
) -> None:
    """It takes nothing away, so it must not be in the way of one that does."""
    for version in (1, 2):
        publish(version=version)
    assert box.call("sync").returncode == 0
    call(box, "withdraw", "m", "1", "--reason", "to be copied")
    body = bucket.client.get_object(Bucket=bucket.name, Key="prod/m/1.manifest.json")["Body"].read()
    bucket.put(MANIFEST, body if wrong.startswith("another") else body.replace(b"copied", b"x"))

    assert call(box, "withdraw", "m", "2", "--reason", "wrong data")["written"]

    assert '"event": "version_withdrawn"' in box.call("sync").stdout


@pytest.mark.parametrize("lack", ["interrupted", *first_of("unproven", "garbage", "another's")])
def test_what_no_instance_would_take_is_not_promoted(
    lack: str, box: AgentBox, bucket: Bucket, put: Callable[[int], None], publish: Callable[..., Any]
) -> None:
    """The command says so, and the channel stays where it is."""
    publish(version=1)
    publish(version=2)
    good = bucket.client.get_object(Bucket=bucket.name, Key="prod/m/1.manifest.json")["Body"].read()
    version, reason = "2", "manifest_invalid"
    if lack == "interrupted":
        bucket.delete(MANIFEST)
        reason = "release_incomplete"
    elif lack == "garbage":
        bucket.put(MANIFEST, b"{}")
    elif lack == "another's":
        bucket.put(MANIFEST, good)
        reason = "manifest_mismatch"
    else:
        put(3)
        box.overrides = {"store": {"require_manifest": True}}
        version, reason = "3", "release_unproven"

    done = box.call("promote", "m", version, "--channel", "stable")

    assert done.returncode == 1
    assert reason in done.stderr
    assert call(box, "channels", "m") == {}


def test_a_rollback_that_cannot_be_says_where_else_to_go(box: AgentBox, put: Callable[[int], None]) -> None:
    """The version before was withdrawn: the channel stays, and the way is named."""
    for version in (1, 2, 3):
        put(version)
        call(box, "promote", "m", str(version), "--channel", "stable")
    call(box, "withdraw", "m", "2", "--reason", "wrong data")

    done = box.call("rollback", "m", "--channel", "stable")

    assert done.returncode == 1
    assert "wrong data" in done.stderr
    assert "--to" in done.stderr
    assert call(box, "rollback", "m", "--channel", "stable", "--to", "1")["now"]["version"] == 1


@pytest.mark.parametrize("name", ["stable", "new"])
def test_a_store_that_calls_it_a_conflict(name: str, bucket: Bucket, put: Callable[[int], None]) -> None:
    """S3 answers so (409) when two conditional writes are under way at once."""
    for version in (1, 2):
        put(version)
    with FaultyProxy(bucket.server.port) as proxy:
        store = store_at(url=f"s3://{bucket.name}/prod", endpoint_url=proxy.endpoint_url, region="us-east-1")
        promote(store, ("m", "1", "stable"), "me", "")
        proxy.fault = s3_error(409, "ConditionalRequestConflict")
        proxy.matches = lambda exchange: exchange.method == "PUT"

        with pytest.raises(StoreError) as caught:
            promote(store, ("m", "2", name), "me", "")

    assert caught.value.reason is Reason.CHANNEL_MOVED_MEANWHILE


def test_what_a_channel_says_is_shown_and_not_obeyed(
    box: AgentBox, bucket: Bucket, put: Callable[[int], None]
) -> None:
    """Neither by the terminal, nor by what lays out the table: who wrote it may write to the bucket."""
    put(1)
    call(box, "promote", "m", "1", "--channel", "stable", "--who", "[/red]\x9b2J", "--why", "[link=x]\u202ey")

    done = box.call("channels", "m")

    assert done.returncode == 0, done.stderr
    assert "[/red]\\x9b2J" in done.stdout
    assert "[link=x]\\u202ey" in done.stdout
    box.call("withdraw", "m", "1", "--who", "\x9b2J", "--reason", "[/]\u202ebad")
    for line in (*box.call("withdraw", "m", "1", "--reason", "bad").stdout, *box.call("plan").stdout):
        assert line.isprintable() or line == "\n"
