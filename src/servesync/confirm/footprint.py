"""How much memory the server may use and does use, where that can be seen from here.

The server's process is the one that listens where `serving.rest_url` points to, if that is this machine and
its processes are visible; a cgroup can also be named. Everything here may be unknown, and never fails.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import psutil

from servesync.confirm.cgroup import anonymous_bytes, cgroup_of, memory_limit

LOOK_AGAIN_SECONDS: Final = 10.0
LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Limit:
    """The server's limit in bytes, or None if it has none or none is visible; `source` says which, or why."""

    bytes: int | None
    source: str


class ServerFootprint:
    """The memory of the server at `rest_url`, or of the cgroup that the settings name."""

    def __init__(self, rest_url: str | None, cgroup: Path | None = None) -> None:
        self._rest_url = rest_url
        self._cgroup = cgroup
        self._process: psutil.Process | None = None
        self._next_search = 0.0

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
        parts = urlsplit(self._rest_url or "")
        if parts.hostname not in LOOPBACK or time.monotonic() < self._next_search:
            return None
        self._next_search = time.monotonic() + LOOK_AGAIN_SECONDS
        port = parts.port or PORTS.get(parts.scheme)
        for item in psutil.net_connections("tcp"):
            if item.status == psutil.CONN_LISTEN and item.laddr.port == port and item.pid is not None:
                self._process = psutil.Process(item.pid)
                break
        return self._process
