"""What could not be removed is tried again at a later poll, without a restart."""

import errno
import os
from pathlib import Path

from agent_parts import World, one_model
from install_box import release_of
from servesync.agent.state import AgentState
from servesync.domain.versions import Model
from servesync.install import Workspace
from servesync.jobs import JobKind
from servesync.store import Listing


def test_the_trash_is_emptied_again_at_the_next_poll(tmp_path: Path) -> None:
    """It resisted once: not at once again, for that may go on for ever, but with the next poll."""
    settings = one_model(tmp_path)
    world, state = World(), AgentState.fresh(settings, durable=True)
    with world.agent_at_work(settings, state) as agent:
        agent.turn()
        world.jobs.let_fail(JobKind.EMPTY_TRASH, OSError(errno.EPERM, os.strerror(errno.EPERM)))
        agent.turn(refresh=False)
        assert world.jobs.started.count(JobKind.EMPTY_TRASH) == 1

        agent.turn(poll=True)
        assert world.jobs.started.count(JobKind.EMPTY_TRASH) == 2


def test_what_a_dead_transfer_left_goes_at_the_next_poll(tmp_path: Path) -> None:
    """The job could not remove its own folder: a disk was read-only, or its thread died."""
    settings = one_model(tmp_path)
    workspace = Workspace(settings.serving.models_dir)
    world, state = World(), AgentState.fresh(settings, durable=True)
    world.store.listing = Listing({Model("m"): (release_of(1),)}, {}, 0, (), 1)
    with world.agent_at_work(settings, state) as agent:
        agent.turn(poll=True)
        world.jobs.let_end(JobKind.LIST, JobKind.ASK_SERVER, JobKind.EMPTY_TRASH)
        agent.turn()
        world.jobs.let_end(JobKind.ASK_SERVER)
        agent.turn(refresh=False)
        assert JobKind.TRANSFER in world.jobs.started
        left = workspace.begin_attempt()
        agent.turn(poll=True)
        assert left.exists()  # a transfer is at work, whose it may be

        world.jobs.let_fail(JobKind.TRANSFER, OSError(errno.EROFS, os.strerror(errno.EROFS)))
        agent.turn()
        agent.turn(poll=True)
        assert list(workspace.staging.iterdir()) == []
        world.jobs.let_end(JobKind.ASK_SERVER, JobKind.EMPTY_TRASH)
        agent.turn()
        world.jobs.let_end(JobKind.EMPTY_TRASH)
        assert list(workspace.trash.iterdir()) == []
