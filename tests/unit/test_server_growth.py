"""What the server grows by for a version is observed, and raises what the next ones are thought to need."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from agent_parts import FootprintStub, Parts, ServerStub, StoreStub, listing_of, settings_of, turn_until_idle
from install_box import M, attempt, release_of, sealed
from servesync.agent.agent import Agent
from servesync.agent.memory_estimates import MemoryEstimates
from servesync.agent.ports import FootprintPort
from servesync.domain.versions import Layout, Release, StoredObject, Version
from servesync.errors import Reason, ServerError
from servesync.install import Lock, Proven, Reserve, Shelf, Workspace
from servesync.planning.facts import Served, ServerState
from servesync.serving import ServerFootprint

MIB = 1 << 20
ONE, TWO = Version(1), Version(2)
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
def growing() -> Iterator[Growing]:
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


@pytest.fixture
def lock(workspace: Workspace) -> Iterator[Lock]:
    """The lock of the models directory."""
    with Lock(workspace.lock) as lock:
        yield lock


def proven(tree: Path, tensor_bytes: int, release: Release) -> Proven:
    """Return what is known of a sealed tree whose tensors take so much."""
    return replace(sealed(tree, release, {"fingerprint.pb": ""}), tensor_bytes=tensor_bytes)


class Scene:
    """Version 1 serves, version 2 waits in the reserve; each has tensors of some MiB."""

    def __init__(self, workspace: Workspace, lock: Lock, megabytes: int, footprint: FootprintPort) -> None:
        self.workspace = workspace
        with attempt(workspace) as tree:
            sealing = proven(tree, megabytes * MIB, release_of(1))
            Shelf(workspace, M).publish(tree, release_of(1), sealing)
        with attempt(workspace) as tree:
            sealing = proven(tree, megabytes * MIB, release_of(2))
            Reserve(workspace, M).set_aside(tree, release_of(2), sealing)
        self.server = ServerStub({M: {ONE: UP}})
        store = StoreStub(listing_of(release_of(1), release_of(2)))
        parts = Parts(store, self.server, footprint=footprint)
        serving = {"models_dir": str(workspace.models_dir), "rest_url": "http://127.0.0.1:9"}
        memory = {"budget_bytes": 1000 * MIB}
        settings = settings_of(workspace.models_dir, M, serving=serving, memory=memory)
        self.agent: Agent = parts.agent(settings, lock)
        self.agent.prepare()

    def bring(self) -> None:
        """Let version 2 come to the shelf."""
        turn_until_idle(self.agent, poll=True)
        assert TWO in Shelf(self.workspace, M).records()

    def serve(self) -> int | None:
        """Let the server serve both; return by how much it is seen to have grown."""
        self.server.said[M] = {ONE: UP, TWO: UP}
        with capture_logs() as logs:
            turn_until_idle(self.agent)
        (line,) = [line for line in logs if line["event"] == "version_available"]
        grown: int | None = line.get("server_grew_bytes")
        return grown

    @property
    def observed(self) -> float:
        """What the next version is thought to need for each byte of its weight, by what was seen."""
        memory = self.agent.context.last_memory
        assert memory is not None
        return memory.observed[M]


def test_what_the_server_grew_by_raises_the_next_estimate(
    workspace: Workspace, lock: Lock, growing: Growing
) -> None:
    """Version 2 weighs 16 MiB and took 32 more than noise: the next is taken to need twice its weight."""
    scene = Scene(workspace, lock, 16, ServerFootprint(growing.url))
    scene.bring()
    growing.grow(64 + 32)

    grown = scene.serve()

    assert grown is not None
    assert 95 * MIB < grown < 104 * MIB
    assert scene.observed == pytest.approx((grown - 64 * MIB) / (16 * MIB))


@pytest.mark.parametrize(("megabytes", "observed"), [(35, 0.0), (128, 64.0)])
def test_only_what_exceeds_noise_teaches(
    workspace: Workspace, lock: Lock, megabytes: int, observed: float
) -> None:
    """A version of 1 MiB for which the server grows by 35 is no reason to hold the next one back."""
    footprint = FootprintStub(500 * MIB)
    scene = Scene(workspace, lock, 1, footprint)
    scene.bring()
    footprint.used = (500 + megabytes) * MIB

    assert scene.serve() == megabytes * MIB
    assert scene.observed == observed


def test_it_is_known_again_after_a_restart(workspace: Workspace, lock: Lock) -> None:
    """The record keeps it."""
    footprint = FootprintStub(500 * MIB)
    scene = Scene(workspace, lock, 1, footprint)
    scene.bring()
    footprint.used = 628 * MIB
    scene.serve()

    estimates = MemoryEstimates(workspace)
    assert estimates.of_installed((M, TWO), release_of(2).identity)
    assert estimates.observed(M) == 64.0


def test_nothing_is_learnt_across_a_silence(workspace: Workspace, lock: Lock) -> None:
    """The server may have been started anew."""
    footprint = FootprintStub(500 * MIB)
    scene = Scene(workspace, lock, 1, footprint)
    scene.bring()
    scene.server.said[M] = ServerError(Reason.SERVER_UNREACHABLE, "timed out")
    turn_until_idle(scene.agent)
    footprint.used = 700 * MIB

    assert scene.serve() is None
    assert scene.observed == 0.0


def test_memory_that_is_being_freed_hides_what_is_taken(workspace: Workspace, lock: Lock) -> None:
    """Then there is nothing to learn."""
    footprint = FootprintStub(500 * MIB)
    scene = Scene(workspace, lock, 1, footprint)
    scene.server.said[M] = {ONE: UP, Version(9): Served(ServerState.UNLOADING)}
    scene.bring()
    footprint.used = 700 * MIB

    assert scene.serve() is None


def test_a_directory_is_weighed_by_its_listing(workspace: Workspace) -> None:
    """Known before the first byte, so that one without room is not even fetched."""
    sizes = {
        "saved_model.pb": 10,
        "variables/variables.index": 5,
        "variables/variables.data-00000-of-00001": 900,
    }
    objects = tuple(StoredObject(f"m/9/{path}", size, "e", path) for path, size in sizes.items())

    weight = MemoryEstimates(workspace).of_offered(Release(M, Version(9), Layout.DIRECTORY, objects, "id-9"))

    assert weight == 900 + 6 * 10


def test_a_directory_that_is_not_ours_is_weighed_by_its_files(workspace: Workspace) -> None:
    """There is no record that tells."""
    foreign = workspace.shelf(M) / "5"
    foreign.mkdir()
    (foreign / "weights").write_bytes(bytes(100))

    assert MemoryEstimates(workspace).of_foreign((M, Version(5))) == 100
