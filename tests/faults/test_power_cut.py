"""What a power cut leaves: a copy of the disk's image, taken without syncing, is mounted and looked at."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import forked
import publish_and_die
from publish_and_die import MODEL, content_of
from servesync.install import Workspace

SCRIPT = Path(publish_and_die.__file__)
TOOLS = ("mkfs.ext4", "mount", "umount", "losetup")
# The harshest honest mode: nothing is written early on a rename, and data may come after the names.
OPTIONS = "loop,data=writeback,noauto_da_alloc,commit=300"

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="the tool mount needs root"),
    *(pytest.mark.skipif(shutil.which(tool) is None, reason=f"no {tool} here") for tool in TOOLS),
]


@contextmanager
def mounted(image: Path, folder: Path, options: str) -> Iterator[Path]:
    """Mount an image; skip where the machine has no loop devices."""
    folder.mkdir(exist_ok=True)
    done = subprocess.run(
        ["mount", "-o", options, str(image), str(folder)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"mount -o loop: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """An ext4 filesystem in a file."""
    path = tmp_path / "disk.img"
    with path.open("wb") as file:
        file.truncate(64 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", str(path)], check=True)
    return path


def publish(models_dir: Path, version: int, *options: str) -> str:
    """Publish one version in its own process and return what it printed."""
    command = [sys.executable, str(SCRIPT), str(models_dir), str(version), *options]
    return forked.call(command, os.environ, 120).stdout.strip()


def after_the_cut(image: Path, folder: Path) -> dict[int, bool]:
    """Return each version on the shelf of a copied image, and whether it is whole."""
    copy = folder / "after.img"
    shutil.copyfile(image, copy)
    with mounted(copy, folder / "after", "loop") as root:
        shelf = Workspace(root / "models").shelf(MODEL)
        found = {}
        for version in shelf.iterdir() if shelf.exists() else ():
            files = {str(p.relative_to(version)): p.read_bytes() for p in version.rglob("*") if p.is_file()}
            found[int(version.name)] = files == content_of(int(version.name))
        return found


def start(image: Path, tmp_path: Path) -> Iterator[Path]:
    """Mount the disk with version 1 on it, safe."""
    with mounted(image, tmp_path / "disk", OPTIONS) as root:
        assert publish(root / "models", 1) == "installed"
        os.sync()
        yield root / "models"


@pytest.fixture
def models_dir(image: Path, tmp_path: Path) -> Iterator[Path]:
    """A models directory on that disk."""
    yield from start(image, tmp_path)


@pytest.mark.parametrize("options", [[], ["--in-frames"]])
def test_what_is_called_installed_survives(
    options: list[str], models_dir: Path, image: Path, tmp_path: Path
) -> None:
    """After `installed` a cut leaves the version, whole, also if its files were preallocated."""
    assert publish(models_dir, 2, *options) == "installed"

    assert after_the_cut(image, tmp_path) == {1: True, 2: True}


@pytest.mark.parametrize(
    ("name", "count"),
    [("rename_noreplace", 2), ("rename_noreplace", 3), ("sync_dir", 3), ("sync_dir", 4), ("write_file", 2)],
)
def test_a_name_on_the_shelf_means_a_whole_version(
    name: str, count: int, models_dir: Path, image: Path, tmp_path: Path
) -> None:
    """Wherever it is cut off: if the number is there, every byte is."""
    publish(models_dir, 2, "--die-before", name, str(count))

    found = after_the_cut(image, tmp_path)
    assert found[1]
    assert all(found.values())


@pytest.mark.parametrize(("name", "count"), [("rename_noreplace", 3), ("sync_dir", 4), ("write_file", 2)])
def test_a_name_on_the_shelf_means_a_whole_version_that_landed_in_frames(
    name: str, count: int, models_dir: Path, image: Path, tmp_path: Path
) -> None:
    """Its files had their size long before their bytes: what is not synced would be zeros."""
    publish(models_dir, 2, "--in-frames", "--die-before", name, str(count))

    found = after_the_cut(image, tmp_path)
    assert found[1]
    assert all(found.values())


def test_a_version_that_left_is_gone_or_whole(models_dir: Path, image: Path, tmp_path: Path) -> None:
    """A cut after a prune leaves no half of it on the shelf."""
    publish(models_dir, 2)

    assert publish(models_dir, 0, "--take-off", "1") == "pruned"

    assert after_the_cut(image, tmp_path) == {2: True}


@pytest.mark.parametrize("options", [[], ["--in-frames"]])
def test_without_a_sync_the_cut_shows(
    options: list[str], models_dir: Path, image: Path, tmp_path: Path
) -> None:
    """The cases above can fail: with the files' sync taken out, `installed` is not true any more.

    (The directories' sync cannot be shown so: on ext4 the record's own sync commits the same journal.)
    """
    assert publish(models_dir, 2, "--without", "sync_file", *options) == "installed"

    assert after_the_cut(image, tmp_path) != {1: True, 2: True}
