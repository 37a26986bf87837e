"""The model server's process, as far as it can be seen from here: by its port, or by its name."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final
from urllib.parse import urlsplit

PROGRAM: Final = "tensorflow_model_server"
PROC: Final = Path("/proc")
LISTENING: Final = "0A"
READS_ANYTHING: Final = 0b110
"""The capabilities CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH."""
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True)
class Process:
    """The server's process. Where only its port is visible, `pid` is None and only the user is known."""

    pid: int | None
    uid: int
    gids: frozenset[int]
    is_privileged: bool
    flags: Mapping[str, str]

    @property
    def root(self) -> Path | None:
        """Where the process's own files begin (it may be in a container); None if it cannot be seen."""
        return PROC / str(self.pid) / "root" if self.pid is not None else None


def find_server(rest_url: str) -> Process | None:
    """Return the process that answers at `rest_url`, or the only model server of this machine."""
    parts = urlsplit(rest_url)
    if parts.hostname in _LOOPBACK:
        for uid, inode in _listeners(parts.port or 80):
            pid = next((pid for pid in _pids() if _has_socket(pid, inode)), None)
            known = _process(pid) if pid is not None else None
            return known or Process(None, uid, frozenset(), uid == 0, {})
    named = [pid for pid in _pids() if _name(pid) == PROGRAM]
    return _process(named[0]) if len(named) == 1 else None


def _listeners(port: int) -> Iterator[tuple[int, str]]:
    """Yield uid and inode of each socket that listens on a TCP port."""
    for table in ("tcp", "tcp6"):
        try:
            lines = (PROC / "net" / table).read_text().splitlines()[1:]
        except OSError:
            continue
        for words in (line.split() for line in lines):
            if words[3] == LISTENING and int(words[1].rpartition(":")[2], 16) == port:
                yield int(words[7]), words[9]


def _pids() -> Iterator[int]:
    for entry in PROC.iterdir():
        if entry.name.isdecimal():
            yield int(entry.name)


def _has_socket(pid: int, inode: str) -> bool:
    try:
        return any(
            str(entry.readlink()) == f"socket:[{inode}]" for entry in (PROC / str(pid) / "fd").iterdir()
        )
    except OSError:
        return False


def arguments_of(pid: int) -> list[str]:
    """Return the command line of a process; empty if it cannot be seen."""
    try:
        return (PROC / str(pid) / "cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    except OSError:
        return []


def _name(pid: int) -> str:
    return PurePosixPath(next(iter(arguments_of(pid)), "")).name


def _process(pid: int) -> Process | None:
    try:
        status = (PROC / str(pid) / "status").read_text()
    except OSError:
        return None
    found = dict(re.findall(r"^(Uid|Gid|Groups|CapEff):\t(.*)$", status, re.MULTILINE))
    uid, gid = int(found["Uid"].split()[1]), int(found["Gid"].split()[1])
    gids = frozenset({gid, *map(int, found.get("Groups", "").split())})
    privileged = bool(int(found.get("CapEff", "0"), 16) & READS_ANYTHING)
    return Process(pid, uid, gids, privileged, flags_of(arguments_of(pid)))


def flags_of(arguments: list[str]) -> dict[str, str]:
    """Return the flags of a command line in the form `--name=value` or `--name value`."""
    found: dict[str, str] = {}
    for place, word in enumerate(arguments):
        if word.startswith("-"):
            name, equals, value = word.lstrip("-").partition("=")
            after = arguments[place + 1] if place + 1 < len(arguments) else ""
            found[name] = value if equals else ("" if after.startswith("-") else after)
    return found
