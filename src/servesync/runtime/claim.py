"""What `run` and `sync` have in common: the lock of the models directory, and how long an end may take."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

from servesync import disk
from servesync.install import Lock, Workspace
from servesync.settings import Settings

GRACE_SECONDS: Final = 7.0
POLL_SECONDS: Final = 0.2


@contextmanager
def claimed(settings: Settings) -> Iterator[Lock]:
    """Hold the lock of the models directory; a missing directory is made.

    Raises:
        LockHeld: another agent has it.
        DiskError: the models directory cannot be made or used.
    """
    workspace = Workspace(settings.serving.models_dir)
    with ExitStack() as stack:
        try:
            workspace.claim()
            lock = stack.enter_context(Lock(workspace.lock))
        except OSError as error:
            raise disk.describe(error, f"taking the lock in {workspace.root}") from error
        yield lock
