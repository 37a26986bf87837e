"""Publishes one version onto a shelf, and may die before the n-th call of one function of `disk`.

Run as a script: `MODELS_DIR VERSION [--die-before NAME N] [--without NAME] [--take-off V] [--in-frames]`.
It prints `installed` once publish() has returned. Exit code 137 is the death that was asked for.
"""

import argparse
import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from framed_releases import archive_of, frames_of
from servesync import disk
from servesync.domain.versions import Layout, Model, ProvenBy, Release, StoredObject, Version
from servesync.install import Proven, Shelf, Workspace, hash_tree, seal
from servesync.install.trash import take_off
from servesync.settings import Limits
from servesync.transfer.landing import Landing
from servesync.unpack.frames import Decoders

MODEL = Model("m")
FILES = {
    "saved_model.pb": 50_000,
    "variables/variables.index": 3_000,
    "variables/variables.data-00000-of-00001": 3_000_000,
}


def content_of(version: int) -> dict[str, bytes]:
    """Return the files of a version: different for each number, never zeros."""
    return {name: (f"{version}:{name};".encode() * (size // 8))[:size] for name, size in FILES.items()}


def _die_before(name: str, count: int) -> None:
    real: Callable[..., object] = getattr(disk, name)
    left = count

    def instead(*args: object) -> object:
        nonlocal left
        left -= 1
        if left == 0:
            os._exit(137)
        return real(*args)

    setattr(disk, name, instead)


def _without(name: str) -> None:
    setattr(disk, name, lambda *_: None)


def land(tree: Path, files: dict[str, bytes], number: int) -> Proven:
    """Write the files of a version as those of a release in frames are written, the last parts first."""
    data, found = archive_of(frames_of(files, f"{number}", 256 << 10), files, version=number)
    with Landing(tree, found, Limits(), lambda: None, decoders=Decoders()) as landing:
        for part in reversed(found.archive.parts):
            landing.land_stored(part, memoryview(data)[part.offset : part.offset + part.size])
        done = landing.finish()
    return Proven(done.content, 0, ProvenBy.MANIFEST, datetime.now(UTC), stamps=done.stamps)


def publish(models_dir: Path, number: int, *, in_frames: bool = False) -> None:
    """Stage and publish one version as the agent does."""
    workspace = Workspace(models_dir)
    workspace.claim()
    workspace.prepare([MODEL])
    release = Release(MODEL, Version(number), Layout.ARCHIVE, (StoredObject("k", 1, "e"),), f"id-{number}")
    tree = workspace.begin_attempt()
    if in_frames:
        proven = land(tree, content_of(number), number)
    else:
        for name, data in content_of(number).items():
            path = tree / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(data)
        proven = Proven(hash_tree(tree), 0, ProvenBy.NOTHING, datetime.now(UTC))
    sealed = seal(tree, release, proven)
    Shelf(workspace, MODEL).publish(tree, release, sealed)
    workspace.end_attempt(tree)
    print("installed", flush=True)  # noqa: T201


def prune(models_dir: Path, number: int) -> None:
    """Take one version off the shelf as the agent does."""
    workspace = Workspace(models_dir)
    take_off(workspace.shelf(MODEL) / str(number), workspace.trash_name(MODEL, Version(number)))
    Shelf(workspace, MODEL).forget(Version(number))
    disk.empty_dir(workspace.trash)
    print("pruned", flush=True)  # noqa: T201


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("models_dir", type=Path)
    parser.add_argument("version", type=int)
    parser.add_argument("--die-before", nargs=2)
    parser.add_argument("--without")
    parser.add_argument("--take-off", type=int)
    parser.add_argument("--in-frames", action="store_true")
    wanted = parser.parse_args()
    if wanted.without:
        _without(wanted.without)
    if wanted.die_before:
        _die_before(wanted.die_before[0], int(wanted.die_before[1]))
    if wanted.take_off is not None:
        prune(wanted.models_dir, wanted.take_off)
    else:
        publish(wanted.models_dir, wanted.version, in_frames=wanted.in_frames)
    sys.stdout.flush()
    os._exit(0)  # as a power cut would: nothing is tidied up


if __name__ == "__main__":
    main()
