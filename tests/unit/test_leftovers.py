"""What an interrupted transfer has left: who goes on with it, and when it is given up."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from agent_parts import Parts, StoreStub, World, listing_of, one_model, settings_of, turn_until_idle
from install_box import release_of
from servesync.agent.agent import Agent
from servesync.agent.state import AgentState
from servesync.domain.versions import Model, Release, Version
from servesync.errors import DiskError, Reason
from servesync.install import Lock, Workspace, interrupted
from servesync.install.interrupted import NOTE, allocated_bytes, clear_for, note
from servesync.jobs import Job, JobKind, RoomWanted
from servesync.runtime.build import build_agent
from source_scenes import Scene, scene
from transfer_box import M

# -- the agent ---------------------------------------------------------------------------------------------


@contextmanager
def agent_of(made: Scene, release: Release) -> Iterator[Agent]:
    """Lend an agent whose store offers `release`, and whose models directory has what the scene left."""
    parts = Parts(StoreStub(listing_of(release), made.box.store.data))
    settings = settings_of(
        made.box.workspace.models_dir, "m", limits={"disk_reserve_bytes": 0, "disk_reserve_inodes": 0}
    )
    with Lock(made.box.workspace.lock) as lock:
        agent = build_agent(settings, lock, parts.ports())
        agent.prepare()
        yield agent


def stored_from(agent: Agent, source: str) -> int:
    """Return how many stored bytes came from a source."""
    return int(agent.context.agent_status.metrics.source_bytes.labels(source)._value.get())


def test_the_next_agent_goes_on_with_it(tmp_path: Path) -> None:
    """Nothing is fetched again, and nothing is left over."""
    with scene("staging", tmp_path) as made, agent_of(made, made.release) as agent:
        turn_until_idle(agent, poll=True)

        shelf = made.box.workspace.shelf(M) / "2"
        assert {path: (shelf / path).read_bytes() for path in made.box.files} == made.box.files
        assert stored_from(agent, "staging") == made.stored_bytes
        assert stored_from(agent, "store") == 0
        assert made.box.left() == []


def test_another_offer_begins_anew(tmp_path: Path) -> None:
    """The same number, and other bytes as far as anybody knows."""
    with scene("staging", tmp_path) as made, agent_of(made, replace(made.release, identity="new")) as agent:
        turn_until_idle(agent, poll=True)

        assert stored_from(agent, "staging") == 0
        assert stored_from(agent, "store") == made.stored_bytes
        assert made.box.left() == []


def test_what_nobody_wants_goes_when_the_store_was_listed(tmp_path: Path) -> None:
    """A higher version came meanwhile."""
    with scene("staging", tmp_path) as made:
        higher = replace(made.release, version=Version(3))
        with agent_of(made, higher) as agent:
            assert len(made.box.left()) == 1
            turn_until_idle(agent, poll=True)
            assert not [item for item in interrupted(made.box.workspace) if item.version == 2]


def test_it_gives_way_when_space_is_short(tmp_path: Path) -> None:
    """It goes first, and the transfer that waits goes on when it is removed."""
    settings = one_model(tmp_path)
    workspace = Workspace(settings.serving.models_dir)
    workspace.claim()
    workspace.make_folders()
    left = workspace.begin_attempt()
    note(left, release_of(1))
    world, answers = World(), list[bool]()
    with world.agent_at_work(settings, AgentState.fresh(settings, durable=True)) as agent:
        assert left.exists()
        short = DiskError(Reason.DISK_FULL, "short")
        job = Job(JobKind.TRANSFER, lambda _: None, Model("n"), Version(1))
        world.jobs.put(RoomWanted(job, short, answers.append))
        agent.turn(poll=True)
        assert not left.exists()
        assert answers == []
        world.jobs.let_end(JobKind.EMPTY_TRASH)
        agent.turn()
        world.jobs.let_end(JobKind.EMPTY_TRASH)
        agent.turn()
        assert answers == [True]


# -- the tree ----------------------------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree in staging, of version 1."""
    workspace = Workspace(tmp_path)
    workspace.claim()
    workspace.make_folders()
    tree = workspace.begin_attempt()
    note(tree, release_of(1))
    return tree


@pytest.mark.parametrize("data", [b"", b"{", b'{"model":"..","version":1,"offer":"x"}', bytes(5000)])
def test_a_note_that_is_none_makes_it_a_stray(tree: Path, data: bytes) -> None:
    """Then nobody goes on with it."""
    workspace = Workspace(tree.parents[3])
    assert [item.tree for item in interrupted(workspace)] == [tree]

    (tree.parent / NOTE).write_bytes(data)

    assert interrupted(workspace) == ()
    assert len(workspace.stray_attempts([])) == 1


def test_a_link_in_place_of_a_tree_is_no_tree(tree: Path, tmp_path: Path) -> None:
    """Nothing is written through it."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    tree.rmdir()
    tree.symlink_to(elsewhere)

    assert interrupted(Workspace(tmp_path)) == ()


def test_only_plain_files_of_the_release_stay(tree: Path, tmp_path: Path) -> None:
    """What somebody put there, or linked to from elsewhere, goes."""
    (tree / "a").mkdir()
    right = [tree / "a" / "right", tree / "top"]
    for path in right:
        path.write_bytes(b"x")
    os.link(tree / "top", tmp_path / "second")
    (tree / "a" / "link").symlink_to("/etc/passwd")
    (tree / "strange" / "deep").mkdir(parents=True)
    (tree / "folder").mkdir()
    os.mkfifo(tree / "pipe")

    clear_for(tree, {"a/right", "a/link", "top", "folder", "pipe", "a/missing"})

    assert sorted(path.relative_to(tree).as_posix() for path in tree.rglob("*")) == ["a", "a/right"]


def test_what_it_takes_of_the_disk_is_counted(tree: Path) -> None:
    """In bytes, whatever the sizes of its files say."""
    (tree / "data").write_bytes(bytes([1]) * (1 << 20))
    with (tree / "hole").open("wb") as file:
        file.truncate(1 << 30)
    os.sync()

    assert 1 << 20 <= allocated_bytes(tree) < 1 << 21
    assert allocated_bytes(tree.parent / "gone") == 0
