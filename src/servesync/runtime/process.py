"""The process of `run`: the main thread takes pending signals, another thread decides."""

import os
import signal
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from servesync import __version__, signals
from servesync.admin import AgentStatus
from servesync.logs import Event, drain, get_logger, set_listener
from servesync.runtime.claim import GRACE_SECONDS, POLL_SECONDS, claimed
from servesync.runtime.loop import Loop
from servesync.runtime.triggers import Wake
from servesync.settings import Settings


def run_daemon(path: Path, settings: Settings, environment: Mapping[str, str]) -> None:
    """Work until SIGTERM or SIGINT.

    Raises:
        LockHeld: another agent has the models directory.
        SyncError: the agent could not start, or lost its lock.
    """
    from servesync.runtime.listener import Listener  # noqa: PLC0415 (the web server is for this command only)

    signals.block()
    started = time.monotonic()
    with claimed(settings) as lock:
        agent_status = AgentStatus(settings.admin.stuck_after_seconds)
        set_listener(agent_status.note)
        get_logger().info(
            Event.AGENT_STARTED,
            servesync=__version__,
            pid=os.getpid(),
            store=settings.store.url,
            models_dir=str(settings.serving.models_dir),
            models=[model.name for model in settings.models],
        )
        wake = Wake()
        listener = Listener(agent_status, settings, wake.poll)
        listener.start()
        loop = Loop(path, settings, environment, lock, wake, listener)
        thread = threading.Thread(target=loop.run, name="servesync-decides", daemon=True)
        thread.start()
        name = _serve_signals(thread, wake)
        wake.end()
        _await_end(thread)
        listener.stop()
        get_logger().info(
            Event.AGENT_STOPPED,
            because=name,
            in_time=loop.jobs_ended,
            pid=os.getpid(),
            ran_seconds=round(time.monotonic() - started, 3),
        )
        if thread.is_alive():  # a system call that does not return: what it was doing does not count
            drain(0.5)
            os._exit(0)
        if loop.failure is not None:
            raise loop.failure


def _serve_signals(thread: threading.Thread, wake: Wake) -> str:
    """Pass signals on until a stop signal comes or the deciding thread ends; return that signal, if any."""
    while thread.is_alive():
        thread.join(POLL_SECONDS)
        taken = signals.take(signals.STOPPING)  # first: there may be others at every check
        if taken is not None:
            return taken.name
        if signals.take({signal.SIGHUP}) is not None:
            wake.reload(asked=True)
        if signals.take({signal.SIGUSR1}) is not None:
            wake.hurry()
    return "the deciding thread ended"


def _await_end(thread: threading.Thread) -> None:
    """Wait for the end of the deciding thread, at most as long as a stop may take, or for a second signal."""
    deadline = time.monotonic() + GRACE_SECONDS
    while thread.is_alive() and time.monotonic() < deadline:
        thread.join(0.05)
        if signals.take(signals.STOPPING) is not None:
            return
