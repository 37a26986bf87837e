"""Versions that are doubted, repaired or tried again: what has served is not lost over it."""

import json
from collections.abc import Iterator

import pytest

import graph_bytes as gb
from agent_box import AgentBox, tar_gz_of
from fixtures_store import Bucket
from said_server import BAD, LOADING, UP, SaidServer, said_server


@pytest.fixture
def server(box: AgentBox) -> Iterator[SaidServer]:
    """A server that says what it is told, beside the agent."""
    with said_server() as server:
        box.overrides = {"serving": {"rest_url": server.url, "scan_interval_seconds": 0.1}}
        yield server


def put(bucket: Bucket, number: int, *, inputs: tuple[str, ...] = ("x",), asset: bytes = b"a" * 1000) -> None:
    """Publish a version without variables, with these inputs."""
    info = gb.data(1, "x:0") + gb.number(2, 1)
    named = b"".join(gb.entry(1, name, info) for name in inputs) + gb.entry(2, "y", info)
    graph = gb.graph([gb.node("x", "Placeholder")])
    tree = {
        "saved_model.pb": gb.saved_model(graph, gb.entry(5, "serving_default", named)),
        "assets/a.bin": asset,
    }
    bucket.put(f"prod/m/{number}.tar.gz", tar_gz_of(tree, f"{number:07}"))


def serve_first(box: AgentBox, server: SaidServer) -> None:
    """Let version 1 come and be served."""
    box.until(lambda: box.numbers() == ["1"], "version 1")
    server.versions = {1: UP}
    box.until(lambda: box.events("version_available"), "confirmed")


def test_a_repaired_version_outlives_what_was_said_of_the_damaged_one(
    box: AgentBox, bucket: Bucket, server: SaidServer
) -> None:
    """The server never looks again at a name that stays: it is taken away for a moment, and put back."""
    put(bucket, 1)
    with box.running():
        serve_first(box, server)
        server.versions = {1: LOADING}
        (box.shelf / "1/assets/a.bin").write_bytes(b"damaged")
        box.until(lambda: box.events("version_restored"), "repaired")
        server.versions = {1: BAD}
        box.until(lambda: box.events("version_retried"), "taken off")
        box.until(lambda: box.numbers() == ["1"], "put back")
        server.versions = {1: UP}
        box.until(lambda: len(box.events("version_available")) == 2, "served again")

    assert not box.events("version_quarantined")
    assert box.numbers() == ["1"]


@pytest.mark.usefixtures("server")
def test_a_mended_release_is_not_judged_by_the_bad_one(
    box: AgentBox, bucket: Bucket, server: SaidServer
) -> None:
    """Neither a reload of the settings nor a restart of the agent takes an old word for a new one."""
    put(bucket, 1)
    with box.running():
        serve_first(box, server)
        put(bucket, 2, asset=b"bad")
        box.until(lambda: box.numbers() == ["1", "2"], "version 2")
        server.versions = {1: UP, 2: BAD}
        box.until(lambda: box.events("version_quarantined"), "quarantined")
        put(bucket, 2, asset=b"mended")
        box.until(lambda: box.numbers() == ["1", "2"], "mended version 2")
        box.overrides["poll"] = {"interval_seconds": 2}
        box.write_settings()
        box.until(lambda: box.events("settings_reloaded"), "reloaded")
        box.until(lambda: box.events("version_retried"), "taken off, so that the server looks again")
    with box.running():
        box.until(lambda: box.numbers() == ["1", "2"], "put back by the next agent")
        server.versions = {1: UP, 2: UP}
        box.until(lambda: box.events("version_pruned"), "version 1 gave way")

    assert len(box.events("version_quarantined")) == 1
    assert box.numbers() == ["2"]


def test_signatures_as_served_outlive_a_repair_without_a_server(
    box: AgentBox, bucket: Bucket, server: SaidServer
) -> None:
    """While the served version is doubted and repaired, one that breaks clients stays out."""
    box.models = [{"name": "m", "versions": {"latest": 1}, "signatures": "as_served"}]
    put(bucket, 1)
    with box.running():
        serve_first(box, server)
        put(bucket, 2, inputs=("x", "more"))
        box.until(lambda: box.events("version_refused"), "version 2 refused")
        server.versions = {}
        (box.shelf / "1/saved_model.pb").write_bytes(b"damaged")
        box.until(lambda: box.events("version_restored"), "version 1 repaired")
        put(bucket, 3, inputs=("x", "more"))
        box.until(lambda: len(box.events("version_refused")) == 2, "version 3 refused")

    assert box.numbers() == ["1"]
    assert {line["reason"] for line in box.events("version_refused")} == {"signature_differs"}


def test_a_record_with_a_broken_time_stops_nothing(box: AgentBox, bucket: Bucket, server: SaidServer) -> None:
    """It counts as no record: the version is compared with the store's, and taken over again."""
    put(bucket, 1)
    with box.running():
        serve_first(box, server)
    path = box.workspace / "records/m/1.json"
    record = json.loads(path.read_text())
    path.with_suffix(".tmp").write_text(json.dumps(record | {"at": "2026-01-01T00:00:00"}))
    path.with_suffix(".tmp").replace(path)
    put(bucket, 2)
    with box.running():
        box.until(lambda: box.numbers() == ["1", "2"], "version 2")

    assert not box.events("internal_error")


def test_an_operator_lifts_a_refusal(box: AgentBox, bucket: Bucket, server: SaidServer) -> None:
    """`retry` lets the running agent try the same bytes again, at once; without a refusal it says so."""
    put(bucket, 1)
    with box.running() as agent:
        serve_first(box, server)
        put(bucket, 2)
        box.until(lambda: box.numbers() == ["1", "2"], "version 2")
        server.versions = {1: UP, 2: BAD}
        box.until(lambda: box.events("version_quarantined"), "quarantined")
        box.overrides["poll"] = {"interval_seconds": 600}
        box.write_settings()
        box.until(lambda: box.events("settings_reloaded"), "reloaded")
        server.versions = {1: UP}

        done = box.call("retry", "m", "2")

        assert done.returncode == 0, done.stderr
        assert "checksum mismatch" in done.stdout
        assert f"pid {agent.pid}" in done.stdout
        box.until(lambda: box.numbers() == ["1", "2"], "version 2 again")
        again = box.call("retry", "m", "2")
        assert again.returncode == 2
        assert "not refused" in again.stderr


def test_a_version_that_nobody_wants_back_takes_no_space_for_ever(
    box: AgentBox, bucket: Bucket, server: SaidServer
) -> None:
    """Version 2 is off the shelf to be tried again when 3 comes and is served: the reserve keeps one."""
    server_said = {1: UP, 2: ("END", "RESOURCE_EXHAUSTED", "out of memory")}
    put(bucket, 1)
    with box.running():
        serve_first(box, server)
        put(bucket, 2)
        box.until(lambda: "2" in box.numbers(), "version 2")
        server.versions = server_said
        box.until(lambda: box.events("version_retried"), "taken off")
        put(bucket, 3)
        box.until(lambda: "3" in box.numbers(), "version 3")
        server.versions = server_said | {3: UP}
        box.until(lambda: box.events("version_pruned"), "version 1 leaves")
        reserve = box.workspace / "reserve/m"
        box.until(lambda: [path.name for path in reserve.iterdir()] == ["1"], "version 2 gave way", 20)

    assert box.numbers() == ["3"]
