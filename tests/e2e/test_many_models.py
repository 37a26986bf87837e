"""Many models in one agent: one broken release delays none, and a poll costs no more than its listing."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import graph_bytes as gb
from agent_box import AgentBox, tar_gz_of
from big_models import LONG
from fixtures_store import Bucket
from said_server import UP, said_server

MODELS, VERSIONS = (100, 50) if LONG else (12, 5)
BROKEN = "model-003"


def archive(number: int) -> bytes:
    """Return a version without variables."""
    info = gb.data(1, "x:0") + gb.number(2, 1)
    named = gb.entry(1, "x", info) + gb.entry(2, "y", info)
    graph = gb.graph([gb.node("x", "Placeholder")])
    tree = {"saved_model.pb": gb.saved_model(graph, gb.entry(5, "serving_default", named))}
    return tar_gz_of(tree | {"assets/a": b"%d" % number}, f"{number:07}")


def fill(bucket: Bucket) -> list[str]:
    """Publish every version of every model; the newest of one model is no archive."""
    names = [f"model-{number:03}" for number in range(MODELS)]
    bodies = {number: archive(number) for number in range(1, VERSIONS + 1)}
    wanted = [(name, number) for name in names for number in bodies]

    def put(which: tuple[str, int]) -> None:
        name, number = which
        body = b"not an archive" if which == (BROKEN, VERSIONS) else bodies[number]
        bucket.put(f"prod/{name}/{number}.tar.gz", body)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(put, wanted))
    return names


def polls(box: AgentBox) -> list[dict[str, Any]]:
    """Return the lines of polls."""
    return box.events("poll_finished")


def test_every_model_of_the_store(box: AgentBox, bucket: Bucket) -> None:
    """All come, the broken one with its next good version; a model that is published later comes, too."""
    names = fill(bucket)
    pages = -(-MODELS * VERSIONS // 1000)
    box.models = [{"name": "*", "versions": {"latest": 1}}]
    with said_server() as server:
        box.overrides = {"serving": {"rest_url": server.url}, "log": {"level": "debug"}}
        server.versions = {VERSIONS: UP, VERSIONS - 1: UP}
        with box.running():
            shelves = {name: box.models_dir / name for name in names}
            newest = {name: VERSIONS - (name == BROKEN) for name in names}
            box.until(lambda: all((shelves[name] / str(newest[name])).is_dir() for name in names), "all", 300)
            box.until(lambda: len(box.events("version_available")) == MODELS, "all confirmed", 60)
            before = len(polls(box))
            box.until(lambda: len(polls(box)) >= before + 3, "three polls more")
            bucket.put(f"prod/later/{VERSIONS}.tar.gz", archive(VERSIONS))
            box.until(lambda: len(box.events("version_installed")) == MODELS + 1, "a model of its own")
    lines = polls(box)

    assert [line["version"] for line in box.events("version_refused")] == [VERSIONS]
    assert {line["requests"] for line in lines[:-2]} == {pages}
    assert sorted(line["model"] for line in box.events("version_installed")) == sorted([*names, "later"])
    assert not box.events("internal_error")


def test_a_model_that_leaves_the_store_stays_on_the_machine(box: AgentBox, bucket: Bucket) -> None:
    """Also over a restart, with the store gone: what "*" stood for is known from the disk."""
    bucket.put("prod/one/1.tar.gz", archive(1))
    box.models = [{"name": "*"}]
    assert box.call("sync").returncode == 0
    bucket.empty()

    assert list(box.plan()["models"]) == ["one"]
    box.overrides = {"store": {"endpoint_url": "http://127.0.0.1:9"}}
    assert list(box.plan()["models"]) == ["one"]
    assert (box.models_dir / "one/1").is_dir()


def test_nothing_found_is_not_in_place(box: AgentBox) -> None:
    """An empty store under a required "*" is no success for an init container."""
    box.models = [{"name": "*"}]
    done = box.call("sync")

    assert done.returncode == 3
    assert "not in place: *" in done.stderr


def test_a_model_whose_only_version_is_away_for_a_moment_is_known_after_a_restart(
    box: AgentBox, bucket: Bucket
) -> None:
    """Taken off to be tried again, agent restarted, store gone: what "*" stood for comes back."""
    bucket.put("prod/one/1.tar.gz", archive(1))
    box.models = [{"name": "*"}]
    with said_server() as server:
        box.overrides = {"serving": {"rest_url": server.url, "scan_interval_seconds": 60}}
        with box.running():
            box.until((box.models_dir / "one/1").is_dir, "version 1")
            server.versions = {1: ("END", "RESOURCE_EXHAUSTED", "out of memory")}
            box.until(lambda: box.events("version_retried"), "taken off")
        box.overrides["store"] = {"endpoint_url": "http://127.0.0.1:9"}
        with box.running():
            box.until(lambda: box.events("version_restored"), "put back", 30)

    assert (box.models_dir / "one/1").is_dir()
