"""One agent a models directory."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from servesync import disk
from servesync.errors import LockHeld
from servesync.install import Lock

HOLD = """
import sys, time
from pathlib import Path
from servesync.install import Lock
with Lock(Path(sys.argv[1])):
    print('held', flush=True)
    time.sleep(60)
"""


def test_the_second_learns_who_is_first(tmp_path: Path) -> None:
    """The error names the pid of the holder; the lock dies with the holder's process."""
    path = tmp_path / "lock"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == b"held\n"

        with pytest.raises(LockHeld, match=f"pid {holder.pid}"), Lock(path):
            pass
        holder.kill()
        holder.wait()

    with Lock(path):
        assert str(os.getpid()) in path.read_text()


def test_a_replaced_lock_file_is_noticed(tmp_path: Path) -> None:
    """Who removes the file takes the lock away: the holder must find out."""
    path = tmp_path / "lock"
    with Lock(path) as lock:
        lock.check()
        path.unlink()

        with pytest.raises(LockHeld):
            lock.check()


def test_a_lock_can_be_taken_again(tmp_path: Path) -> None:
    """Leaving gives the lock back, and the file stays."""
    path = tmp_path / "lock"
    with Lock(path):
        pass
    with Lock(path) as lock:
        lock.check()

    assert path.exists()


def test_a_directory_in_place_of_the_lock_is_named(tmp_path: Path) -> None:
    """Nobody can take it, and the message says what to do."""
    (tmp_path / "lock").mkdir()

    with pytest.raises(IsADirectoryError) as caught, Lock(tmp_path / "lock"):
        pass

    told = str(disk.describe(caught.value, "taking the lock"))
    assert repr(str(tmp_path / "lock")) in told
    assert "move it away" in told
