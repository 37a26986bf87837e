"""How much memory the server may use and does use, and when it started, if this process can see it.

The server's process is the one that listens where `serving.rest_url` points to, if that is this machine and
its processes are visible; a cgroup can also be named. A starting server does not listen yet: its command line
names the port. Everything here may be unknown, and no call raises.
"""

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import psutil

from servesync.planning.memory import Budget
from servesync.serving.cgroup import anonymous_bytes, cgroup_of, memory_limit
from servesync.settings import Memory

CHECK_AGAIN_SECONDS: Final = 10.0
LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
PORTS: Final = {"http": 80, "https": 443}

PROGRAM: Final = "tensorflow_model_server"
STAND_IN: Final = "servesync.demo.standin"
SEARCH_PAUSE_SECONDS: Final = 0.5
SEARCH_SHARE: Final = 0.05
"""Which part of a processor's time may be spent on going through the machine's processes."""


@dataclass(frozen=True, slots=True)
class Limit:
    """The server's limit in bytes, or None if it has none or none is visible; `source` says which, or why."""

    bytes: int | None
    source: str


def find_budget(settings: Memory, find_limit: Callable[[], Limit]) -> tuple[Budget | None, str]:
    """Return the budget in bytes and where it comes from; or None, and why nothing is compared."""
    if settings.budget_bytes is not None:
        return Budget(settings.budget_bytes, "memory.budget_bytes"), "memory.budget_bytes"
    if settings.limit_bytes is not None:
        limit = Limit(settings.limit_bytes, "memory.limit_bytes")
    else:
        limit = find_limit()
    if limit.bytes is None:
        return None, limit.source
    source = f"{limit.source}, {limit.bytes} bytes, less memory.headroom_bytes, {settings.headroom_bytes}"
    return Budget(max(0, limit.bytes - settings.headroom_bytes), source), source


class ServerFootprint:
    """The memory of the server at `rest_url`, or of the cgroup that the settings name."""

    def __init__(self, rest_url: str | None, cgroup: Path | None = None) -> None:
        self._rest_url = rest_url
        self._cgroup = cgroup
        self._process: psutil.Process | None = None
        self._next_search = 0.0
        self._running: psutil.Process | None = None
        self._next_walk = 0.0

    def started_at(self) -> float | None:
        """Return when the server's process started, in seconds since 1970; None if none is seen now.

        Also one that does not listen yet is seen. The same process always gives the same number, another one
        another number. May take some hundredths of a second while none is seen, so it is for a job.
        """
        try:
            if self._running is None or not _lives(self._running):
                self._running = self._search()
            return None if self._running is None else self._running.create_time()
        except (OSError, ValueError, psutil.Error):
            self._running = None
            return None

    def _search(self) -> psutil.Process | None:
        """Look for the server by its command line, or else by its port, but not too often."""
        port = self._local_port()
        if port is None or time.monotonic() < self._next_walk:
            return None
        began = time.thread_time()
        found = [process for process in map(_process, psutil.pids()) if process and _serves(process, port)]
        cost = time.thread_time() - began
        self._next_walk = time.monotonic() + max(SEARCH_PAUSE_SECONDS, cost / SEARCH_SHARE)
        if len(found) == 1:
            return found[0]
        listening = None if found else self._find()
        return listening if listening is not None and _lives(listening) else None

    def _local_port(self) -> int | None:
        """Return the server's port if it is on this machine."""
        parts = urlsplit(self._rest_url or "")
        return (parts.port or PORTS.get(parts.scheme)) if parts.hostname in LOOPBACK else None

    def limit(self) -> Limit:
        """Return the lowest memory limit that the server is under."""
        folder, why = self._folder()
        if folder is None:
            return Limit(None, why)
        try:
            found = memory_limit(folder)
        except (OSError, ValueError) as error:
            return Limit(None, f"the server's memory limit cannot be read: {error}")
        if found is None:
            return Limit(None, f"the server's cgroup {folder} has no memory limit")
        return Limit(found, f"the memory limit of the server's cgroup {folder}")

    def used_bytes(self) -> int | None:
        """Return what the server holds now besides files mapped into it; None if that cannot be seen."""
        try:
            if self._cgroup is not None:
                return anonymous_bytes(self._cgroup)
            process = self._find()
            if process is None:
                return None
            memory = process.memory_info()
            return int(memory.rss - memory.shared)
        except (OSError, ValueError, psutil.Error):
            return None

    def _folder(self) -> tuple[Path | None, str]:
        """Return the server's cgroup, or None and why it is not known."""
        if self._cgroup is not None:
            return self._cgroup, ""
        if self._rest_url is None:
            return None, "there is no server to ask (serving.rest_url is null)"
        try:
            process = self._find()
            folder = cgroup_of(process.pid) if process else None
        except (OSError, ValueError, psutil.Error) as error:
            return None, f"the server's cgroup cannot be read: {error}"
        if process is None:
            return None, f"the process that listens at {self._rest_url} is not visible from here"
        return folder, f"the cgroup of the server's process {process.pid} is not visible from here"

    def _find(self) -> psutil.Process | None:
        """Return the server's process; one that was not found is looked for again after a while."""
        if self._process is not None and self._process.is_running():
            return self._process
        self._process = None
        port = self._local_port()
        if port is None or time.monotonic() < self._next_search:
            return None
        self._next_search = time.monotonic() + CHECK_AGAIN_SECONDS
        for item in psutil.net_connections("tcp"):
            if item.status == psutil.CONN_LISTEN and item.laddr.port == port and item.pid is not None:
                self._process = psutil.Process(item.pid)
                break
        return self._process


def _lives(process: psutil.Process) -> bool:
    """Whether a process still runs; one that has ended and waits for its parent does not."""
    return process.is_running() and process.status() not in {psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD}


def _process(pid: int) -> psutil.Process | None:
    with contextlib.suppress(psutil.Error):
        return psutil.Process(pid)
    return None


def _serves(process: psutil.Process, port: int) -> bool:
    """Whether a process is a model server that is to listen at `port`, as far as its command line says."""
    try:
        words = process.cmdline()
        is_server = Path(words[0]).name == PROGRAM or words[1:3] == ["-m", STAND_IN] if words else False
        return is_server and _names_port(words, port) and _lives(process) and _shares_network(process)
    except psutil.Error:
        return False


def _names_port(words: list[str], port: int) -> bool:
    if f"--rest_api_port={port}" in words:
        return True
    return any(pair == ("--rest_api_port", str(port)) for pair in pairwise(words))


def _shares_network(process: psutil.Process) -> bool:
    """Whether the ports of a process are this one's, too; a container's are not. Unknown counts as yes."""
    try:
        return Path(f"/proc/{process.pid}/ns/net").readlink() == Path("/proc/self/ns/net").readlink()
    except OSError:
        return True
