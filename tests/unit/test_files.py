"""Files that somebody else names or may swap: what is no regular file is refused, and never waited for."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from servesync import disk
from servesync.doctor.lock import examine_lock
from servesync.domain.versions import Model
from servesync.errors import SettingsError
from servesync.files import NotRegular, open_regular, read_regular
from servesync.install import Lock, Positions, Workspace, lock_holder
from servesync.publishing import Request, manifest_of_file
from servesync.runtime.verify_command import verify_command
from servesync.serving import models_config
from servesync.settings_file import load_settings


def make_socket(path: Path) -> None:
    """Leave a socket behind."""
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (os.mkfifo, "a pipe"),
        (Path.mkdir, "a directory"),
        (make_socket, "a socket"),
        (lambda path: path.symlink_to("/dev/zero"), "a character device"),
    ],
)
def test_what_is_no_file_is_named(make: Callable[[Path], None], kind: str, tmp_path: Path) -> None:
    """The error says what it is; none of it was read."""
    path = tmp_path / "settings"
    make(path)

    with pytest.raises(NotRegular, match=f"it is {kind}, not a regular file"):
        open_regular(path)
    with pytest.raises(SettingsError, match=f"it is {kind}, not a regular file: give the file"):
        load_settings(path, {})


def test_a_file_is_read_within_bounds(tmp_path: Path) -> None:
    """As much as allowed and one byte more; through a link only where that is meant."""
    path, link = tmp_path / "file", tmp_path / "link"
    path.write_bytes(b"x" * 100)
    link.symlink_to(path)

    assert read_regular(link, 10) == b"x" * 11
    assert read_regular(path, 100, follow=False) == b"x" * 100
    with pytest.raises(NotRegular, match="a symbolic link"):
        open_regular(link, follow=False)
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "nothing")


def test_no_pipe_is_waited_for(tmp_path: Path) -> None:
    """Whatever reads a file by its name goes on at once when there is a pipe: each says so in its own way."""
    pipe = tmp_path / "1.tar.gz"
    os.mkfifo(pipe)
    workspace = Workspace(tmp_path / "models")
    workspace.claim()
    os.mkfifo(workspace.lock)
    channels = workspace.root / "channels/m"
    channels.mkdir(parents=True)
    os.mkfifo(channels / "stable.json")
    os.mkfifo(channels / ".other.json.new")

    assert models_config.read(pipe).foreign == "it is a pipe, not a regular file"
    assert lock_holder(workspace.lock) is None
    assert "it is a pipe" in str(Positions(workspace, Model("m")).read()["stable"])
    with pytest.raises(SettingsError, match="it is a pipe"):
        verify_command(pipe, "structure")
    with pytest.raises(SettingsError, match="it is a pipe"):
        manifest_of_file(pipe, Request("m", 1))
    with pytest.raises(NotRegular, match="it is a pipe"), Lock(workspace.lock):
        pass
    assert [finding.advice for finding in examine_lock(workspace, pipe)] == [
        "remove it; the agent makes it anew"
    ]
    with pytest.raises(OSError, match=r"\.other\.json\.new"):
        disk.write_file(channels / "other.json", b"{}")
    with pytest.raises(OSError, match="Invalid argument"):
        disk.sync_file(pipe)
