"""Admission beside a real process that stands for the server: what it grows by is observed."""

import subprocess
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest
from servesync.agent.admission import Admission

from servesync.agent.manifests import ManifestReader
from servesync.agent.weights import Weights
from servesync.confirm import ServerFootprint
from servesync.install import Proven, Shelf, Workspace, hash_tree
from servesync.plan.facts import Facts, Latest, Served, Server, ServerPolicy, ServerState
from servesync.plan.memory import Way
from servesync.plan.versions import Layout, Model, ProvenBy, Release, StoredObject, Version
from servesync.settings import Fetch, Limits, Memory, Store
from servesync.store import S3Store

MIB = 1 << 20
M = Model("m")
UP = Served(ServerState.AVAILABLE)
GROWING = """
import os, socket, sys
server = socket.socket()
server.bind(("127.0.0.1", 0))
server.listen()
print(server.getsockname()[1], flush=True)
held = []
for line in sys.stdin:
    held.append(bytearray(os.urandom(1 << 20)) * int(line))
    print("grown", flush=True)
"""


class Growing:
    """A process that listens, and takes as many MiB as it is told."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", GROWING], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout
        self.url = f"http://127.0.0.1:{int(self.process.stdout.readline())}"

    def grow(self, megabytes: int) -> None:
        """Take more memory."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(f"{megabytes}\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "grown\n"


@pytest.fixture
def server() -> Iterator[Growing]:
    """Run the process for one test."""
    growing = Growing()
    try:
        yield growing
    finally:
        growing.process.kill()
        growing.process.communicate()


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A prepared models directory with the one model `m`."""
    workspace = Workspace(tmp_path / "models")
    workspace.claim()
    workspace.prepare([M])
    return workspace


def release(number: int) -> Release:
    """Return a bare archive of one version."""
    item = StoredObject(f"m/{number}.tar.gz", 10, "e")
    return Release(M, Version(number), Layout.ARCHIVE, (item,), f"id-{number}")


OFFERED = {M: {Version(9): release(9)}}


def put(workspace: Workspace, number: int, tensor_bytes: int) -> None:
    """Install a version whose record says what its tensors take."""
    with workspace.attempt() as tree:
        (tree / "fingerprint.pb").write_bytes(b"")
        proven = Proven(hash_tree(tree), tensor_bytes, ProvenBy.NOTHING, datetime.now(UTC))
        Shelf(workspace, M).publish(tree, release(number), proven)


def admission(workspace: Workspace, url: str | None, budget: int) -> Admission:
    """Return one with this budget, whose store is never asked."""
    store = S3Store(Store(url="s3://nowhere/x", region="us-east-1"), Fetch(), Limits())
    reader = ManifestReader(store, Fetch(), lambda: False)
    return Admission(Memory(budget_bytes=budget), ServerFootprint(url), Weights(workspace, reader))


def facts(
    workspace: Workspace, server: Mapping[Version, Served] | None, policy: ServerPolicy = ServerPolicy.ALL
) -> Facts:
    """Return what an observer would, with the shelf as it is and version 9 in the store."""
    return Facts(
        model=M,
        policy=Latest(1),
        offered={Version(9): "id-9"},
        held={},
        shelf=Shelf(workspace, M).inventory().versions,
        server=Server(versions=server, policy=policy),
    )


def test_what_the_server_grew_by_raises_the_next_estimate(workspace: Workspace, server: Growing) -> None:
    """Version 2 weighs 16 MiB and took 32 more than noise: version 9 is taken to need twice its weight."""
    judge = admission(workspace, server.url, 1000 * MIB)
    put(workspace, 1, 16 * MIB)
    judge.admit({M: facts(workspace, {Version(1): UP})}, OFFERED, 0.0)
    judge.about_to_load((M, Version(2)))
    put(workspace, 2, 16 * MIB)
    judge.admit({M: facts(workspace, {Version(1): UP})}, OFFERED, 1.0)
    server.grow(64 + 32)
    found = facts(workspace, {Version(1): UP, Version(2): UP})
    judge.admit({M: found}, OFFERED, 2.0)

    grown = judge.available((M, Version(2)))

    assert grown is not None
    assert 95 * MIB < grown < 104 * MIB
    judge.admit({M: found}, OFFERED, 3.0)
    short = judge.shortage(found, release(9), 600 * MIB)
    assert short is not None
    assert short.version_bytes == pytest.approx(600 * (grown - 64 * MIB) / 16, rel=0.01)


def test_noise_teaches_nothing(workspace: Workspace, server: Growing) -> None:
    """A version of 1 MiB for which the server grows by 35 is no reason to hold the next one back."""
    judge = admission(workspace, server.url, 1000 * MIB)
    put(workspace, 1, MIB)
    judge.admit({M: facts(workspace, {Version(1): UP})}, OFFERED, 0.0)
    judge.about_to_load((M, Version(1)))
    server.grow(35)
    assert judge.available((M, Version(1)))
    found = facts(workspace, {Version(1): UP})
    judge.admit({M: found}, OFFERED, 1.0)

    short = judge.shortage(found, release(9), 1000 * MIB)

    assert short is not None
    assert short.version_bytes == pytest.approx(1200 * MIB)


def test_a_growth_beyond_all_bounds_counts_three_times_the_factor(
    workspace: Workspace, server: Growing
) -> None:
    """Requests, or another load, may be part of it."""
    judge = admission(workspace, server.url, 1000 * MIB)
    put(workspace, 1, MIB)
    judge.admit({M: facts(workspace, {Version(1): UP})}, OFFERED, 0.0)
    judge.about_to_load((M, Version(1)))
    server.grow(128)
    judge.available((M, Version(1)))
    found = facts(workspace, {Version(1): UP})
    judge.admit({M: found}, OFFERED, 1.0)

    short = judge.shortage(found, release(9), 1000 * MIB)

    assert short is not None
    assert short.version_bytes == pytest.approx(3600 * MIB)


def test_nothing_is_learnt_across_a_silence(workspace: Workspace, server: Growing) -> None:
    """The server may have been started anew."""
    judge = admission(workspace, server.url, 1000 * MIB)
    put(workspace, 1, MIB)
    judge.admit({M: facts(workspace, {Version(1): UP})}, OFFERED, 0.0)
    judge.about_to_load((M, Version(2)))
    judge.admit({M: facts(workspace, None)}, OFFERED, 1.0)
    server.grow(8)

    assert judge.available((M, Version(2))) is None


def test_what_left_and_is_still_unloading_counts(workspace: Workspace) -> None:
    """Until the server says END; the same for a directory that is not ours, by its files."""
    judge = admission(workspace, None, 1000)
    put(workspace, 1, 500)
    foreign = workspace.shelf(M) / "5"
    foreign.mkdir()
    (foreign / "weights").write_bytes(bytes(100))
    seen = {Version(1): UP, Version(5): UP}
    _, view = judge.admit({M: facts(workspace, seen)}, OFFERED, 0.0)
    assert {(item.version, item.bytes) for item in view.loaded} == {(1, 600), (5, 120)}

    (workspace.shelf(M) / "1").rename(workspace.trash / "1")
    seen[Version(1)] = Served(ServerState.UNLOADING)
    found = facts(workspace, seen)
    _, view = judge.admit({M: found}, OFFERED, 1.0)
    short = judge.shortage(found, release(9), 300)
    assert {(item.version, item.bytes) for item in view.loaded} == {(1, 600), (5, 120)}
    assert short is not None
    assert short.way is Way.UNLOADING

    seen[Version(1)] = Served(ServerState.END)
    found = facts(workspace, seen)
    judge.admit({M: found}, OFFERED, 2.0)
    assert judge.shortage(found, release(9), 300) is None


@pytest.mark.parametrize(("after", "short"), [(29.0, True), (31.0, False)])
def test_a_server_that_fell_silent_unloads_nothing_for_ever(
    workspace: Workspace,
    after: float,
    short: bool,  # noqa: FBT001 (a column)
) -> None:
    """It has no port before its first load: what it waits for must come."""
    judge = admission(workspace, None, 1000)
    put(workspace, 1, 500)
    judge.admit({M: facts(workspace, {Version(1): UP})}, OFFERED, 0.0)
    (workspace.shelf(M) / "1").rename(workspace.trash / "1")
    judge.admit({M: facts(workspace, {Version(1): UP})}, OFFERED, 1.0)
    found = facts(workspace, None)
    judge.admit({M: found}, OFFERED, 1.0 + after)

    assert (judge.shortage(found, release(9), 500) is not None) is short


def test_beside_a_server_with_policy_latest_only_the_highest_is_loaded(workspace: Workspace) -> None:
    """The others lie on the shelf, and cost no memory."""
    judge = admission(workspace, None, 1000)
    put(workspace, 1, 500)
    put(workspace, 2, 500)
    found = facts(workspace, {Version(2): UP}, ServerPolicy.LATEST)

    _, view = judge.admit({M: found}, OFFERED, 0.0)

    assert [item.version for item in view.loaded] == [2]
    assert judge.shortage(found, release(0), 900) is None
    assert judge.shortage(found, release(9), 900) is not None


def test_a_directory_is_weighed_by_its_listing(workspace: Workspace) -> None:
    """Known before the first byte, so that one without room is not even fetched."""
    sizes = {
        "saved_model.pb": 10,
        "variables/variables.index": 5,
        "variables/variables.data-00000-of-00001": 900,
    }
    objects = tuple(StoredObject(f"m/9/{path}", size, "e", path) for path, size in sizes.items())
    directory = Release(M, Version(9), Layout.DIRECTORY, objects, "id-9")
    put(workspace, 1, 500)
    found = facts(workspace, {Version(1): UP})

    changed, view = admission(workspace, None, 1000).admit({M: found}, {M: {Version(9): directory}}, 0.0)

    ((model, short),) = view.shortages
    assert (model, short.version, short.way) == (M, 9, Way.REFUSED)
    assert short.version_bytes == (900 + 6 * 10) * 12 // 10
    assert "bytes are missing" in changed[M].held[Version(9)].text
