"""What the agent does with a version that cannot be read just now."""

import errno
import os
from pathlib import Path

from agent_parts import World, one_model
from install_box import publish, release_of
from servesync.agent.state import AgentState
from servesync.agent.tidying import REREAD_AGAIN_SECONDS
from servesync.install import Workspace
from servesync.jobs import JobKind


def test_a_version_that_cannot_be_read_is_tried_again_later_and_holds_up_no_other(tmp_path: Path) -> None:
    """Trying at once for ever would keep a processor busy, and the other version from being read."""
    settings, world = one_model(tmp_path), World()
    workspace = Workspace(settings.serving.models_dir)
    state = AgentState.fresh(settings, durable=True)
    with world.agent_at_work(settings, state) as agent:
        for number in (1, 2):
            publish(workspace, release_of(number))
            os.utime(settings.serving.models_dir / "m" / str(number) / "saved_model.pb", (1, 1))

        def turn() -> list[int | None]:
            """Take two turns, with the server's answer between them; return what is read then."""
            agent.turn()
            world.jobs.let_end(JobKind.ASK_SERVER)
            agent.turn(refresh=False)
            return [item.job.version for item in world.jobs.held if item.job.kind is JobKind.REREAD]

        (first,) = turn()
        world.jobs.let_fail(JobKind.REREAD, OSError(errno.EACCES, os.strerror(errno.EACCES)))
        (second,) = turn()
        assert {first, second} == {1, 2}
        world.jobs.let_end(JobKind.REREAD)
        assert turn() == []
        retry_seconds = agent.turn(refresh=False).retry_seconds
        assert retry_seconds is not None
        assert retry_seconds <= REREAD_AGAIN_SECONDS
        world.clock.seconds += REREAD_AGAIN_SECONDS
        assert turn() == [first]
