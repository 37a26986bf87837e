"""Large, valid SavedModels made quickly: a real small one, with random bytes as an asset."""

import hashlib
import os
import tarfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent_box import tar_gz_of

MIB = 1 << 20
LONG = bool(os.environ.get("LONG_TESTS"))
LONG_ONLY = pytest.mark.skipif(not LONG, reason="one of several like it; make faults runs it")


def first_of(*values: object) -> list[object]:
    """Return the values of a parameter of which all but the first run in `make faults` only."""
    return [values[0], *(pytest.param(value, marks=LONG_ONLY) for value in values[1:])]


@dataclass(frozen=True)
class Made:
    """An archive on disk, and the size and SHA-256 of every file in it."""

    archive: Path
    files: dict[str, tuple[int, str]]


def make_archive(model: Path, folder: Path, version: int, megabytes: int, *, plain: bool = False) -> Made:
    """Pack `model` with an asset of random bytes below a folder named by `version`; constant memory."""
    weights = folder / f"weights-{version}.bin"
    with weights.open("wb") as file:
        for _ in range(megabytes):
            file.write(os.urandom(MIB))
    archive = folder / f"{version}.{'tar' if plain else 'tar.gz'}"
    files = {}
    options = {} if plain else {"compresslevel": 0}  # random bytes are stored as they are anyway
    with tarfile.open(archive, "w" if plain else "w:gz", **options) as tar:  # type: ignore[call-overload]
        sources = {str(path.relative_to(model)): path for path in model.rglob("*") if path.is_file()}
        for name, path in {**sources, "assets/weights.bin": weights}.items():
            member = tarfile.TarInfo(f"{version:07}/{name}")
            member.size = path.stat().st_size
            with path.open("rb") as file:
                tar.addfile(member, file)
            with path.open("rb") as file:
                files[name] = (member.size, hashlib.file_digest(file, "sha256").hexdigest())
    weights.unlink()
    return Made(archive, files)


def small_archive(files: dict[str, bytes], version: int) -> bytes:
    """Pack files given in memory."""
    return tar_gz_of(files, f"{version:07}")


def files_of(root: Path) -> dict[str, bytes]:
    """Return every file below `root`."""
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
