"""One agent a models directory: an advisory lock that dies with its process."""

import fcntl
import json
import os
import socket
from pathlib import Path
from typing import Final, Self

from servesync.errors import LockHeld, Reason
from servesync.files import check_regular, open_regular

_OPEN_OR_MAKE: Final = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Lock:
    """Holds the workspace's lock file for as long as the object is entered."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle: int | None = None

    def __enter__(self) -> Self:
        """Take the lock, or leave everything as it is.

        Raises:
            LockHeld: another process has it; its pid and host are in the facts.
            OSError: the file cannot be made, or something else has its name.
        """
        while True:
            handle = os.open(self.path, _OPEN_OR_MAKE, 0o600)
            try:
                check_regular(self.path, os.fstat(handle))
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = _holder(handle)
                os.close(handle)
                raise self._held_by(holder) from None
            except BaseException:
                os.close(handle)
                raise
            if self._is_still_ours(handle):
                break
            os.close(handle)  # somebody replaced the file between open and lock: take the new one
        self._handle = handle
        facts = {"pid": os.getpid(), "host": socket.gethostname()}
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(facts).encode(), 0)
        return self

    def __exit__(self, *_: object) -> None:
        """Give the lock back; the file stays, so that nobody locks a removed one."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def check(self) -> None:
        """Make sure that the lock is still the one that others would see.

        Raises:
            LockHeld: the lock file was removed or replaced under us, so somebody else may hold another.
        """
        if self._handle is None or not self._is_still_ours(self._handle):
            text = (
                f"the lock file {self.path} was removed or replaced while this agent held it, so another "
                "agent may be at work here: stop both and start one"
            )
            raise LockHeld(Reason.LOCK_HELD, text)

    def _is_still_ours(self, handle: int) -> bool:
        ours = os.fstat(handle)
        try:
            named = self.path.lstat()
        except FileNotFoundError:
            return False
        return (ours.st_dev, ours.st_ino) == (named.st_dev, named.st_ino)

    def _held_by(self, holder: dict[str, object]) -> LockHeld:
        pid, host = holder.get("pid", "unknown"), holder.get("host", "unknown")
        text = (
            f"another agent works on {self.path.parent.parent} (pid {pid} on host {host}): "
            "one agent a models directory; stop that one first"
        )
        return LockHeld(Reason.LOCK_HELD, text, pid=str(pid), host=str(host))


def lock_holder(path: Path) -> tuple[int, str] | None:
    """Return process id and host of who holds a lock; None if nobody does, or it cannot be told."""
    try:
        with open_regular(path, follow=False) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                found = _holder(file.fileno())
                pid, host = found.get("pid"), found.get("host")
                return (pid, host) if isinstance(pid, int) and isinstance(host, str) else None
    except OSError:
        return None
    return None


def _holder(handle: int) -> dict[str, object]:
    try:
        found = json.loads(os.pread(handle, 4096, 0))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
