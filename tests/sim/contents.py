"""What is published in the simulated world: tiny real SavedModels, in real archives, made once a process."""

import hashlib
import io
import json
import random
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Final

import archives
import bundle_writer as bundles
import graph_bytes as gb
from servesync.domain import manifest
from servesync.domain.versions import Content, FileFact, Model, Version

MARKER: Final = "assets.extra/simulated.json"
"""Says to the simulated server what comes of loading the tree, and which bytes belong to it."""

GRAPH: Final = "saved_model.pb"
NOT_A_GRAPH: Final = b"\xff" * 32
BYTE: Final = 4
"""The data type of a tensor of bytes."""

CREATED: Final = "2026-01-02T03:04:05Z"

Tree = Mapping[str, bytes]


class Loads(StrEnum):
    """What comes of it when the server loads these bytes."""

    WELL = "well"
    FAILS = "fails"
    HANGS = "hangs"
    ABORTS = "aborts"
    """The server's process ends."""
    DEAF = "deaf"
    """It is AVAILABLE, and answers each request with an error."""


class Flaw(StrEnum):
    """What is wrong with a release, so that servesync's own proofs refuse it."""

    NONE = "none"
    CUT = "cut"
    """The archive ends too early."""

    NO_GRAPH = "no_graph"
    """The archive is sound, and what it holds is no SavedModel."""


@dataclass(frozen=True)
class Contents:
    """What was published under a number. `weight`: bytes of tensors."""

    identity: str
    loads: Loads = Loads.WELL
    flaw: Flaw = Flaw.NONE
    weight: int = 100

    @property
    def is_sound(self) -> bool:
        """Whether it passes servesync's own proofs."""
        return self.flaw is Flaw.NONE

    @property
    def is_good(self) -> bool:
        """Whether it can be served."""
        return self.is_sound and self.loads is Loads.WELL

    @property
    def digest(self) -> str:
        """The digest of the tree that these contents are, as servesync computes it."""
        return content_of(self).digest


@lru_cache(maxsize=4096)
def tree_of(contents: Contents) -> Tree:
    """Return `path -> bytes` of a version."""
    graph = gb.saved_model(gb.graph([gb.node("out", "Const")]), gb.signature("serving_default", "out:0"))
    tree = {GRAPH: NOT_A_GRAPH if contents.flaw is Flaw.NO_GRAPH else graph, **_variables(contents)}
    facts = {
        "identity": contents.identity,
        "loads": contents.loads,
        "files": {path: _sha256(data) for path, data in tree.items()},
    }
    return {**tree, MARKER: json.dumps(facts).encode()}


def _variables(contents: Contents) -> Tree:
    """Return a checkpoint of one tensor; its bytes are those of these contents, and hard to compress."""
    data = random.Random(contents.identity).randbytes(contents.weight)
    with tempfile.TemporaryDirectory() as folder:
        bundles.write(Path(folder), [bundles.plain(b"weights", BYTE, (len(data),), data)])
        found = sorted(Path(folder, "variables").iterdir())
        return {f"variables/{path.name}": path.read_bytes() for path in found}


@lru_cache(maxsize=4096)
def content_of(contents: Contents) -> Content:
    """Return the same as servesync records it."""
    return Content.of(FileFact(path, len(data), _sha256(data)) for path, data in tree_of(contents).items())


@lru_cache(maxsize=4096)
def archive_of(contents: Contents, ending: str) -> bytes:
    """Return the archive of a version, its content at the top level."""
    pack = {".tar": archives.tar_tree, ".tar.gz": archives.tar_gz, ".tar.zst": archives.tar_zst}[ending]
    data = pack(tree_of(contents))
    return data[: len(data) // 2] if contents.flaw is Flaw.CUT else data


@lru_cache(maxsize=4096)
def manifest_of(contents: Contents, model: Model, version: Version, ending: str) -> bytes:
    """Return the manifest of the archive of a version."""
    data = archive_of(contents, ending)
    files = content_of(contents).files
    totals = manifest.Totals(
        files=len(files), bytes=sum(file.size for file in files), tensors=1, tensor_bytes=contents.weight
    )
    part = manifest.Part(offset=0, size=len(data), sha256=_sha256(data))
    archive = manifest.Archive.model_validate(
        {
            "key": f"{version}{ending}",
            "format": ending.removeprefix("."),
            "size": len(data),
            "sha256": _sha256(data),
            "parts": (part,),
        }
    )
    found = manifest.Manifest(
        model=model,
        version=version,
        created=CREATED,
        archive=archive,
        files=tuple(manifest.File(path=f.path, size=f.size, sha256=f.sha256) for f in files),
        totals=totals,
    )
    return manifest.dump(found)


@dataclass(frozen=True)
class OnDisk:
    """What the simulated server finds in a directory: whose bytes, and what comes of loading them."""

    identity: str
    loads: Loads
    bytes: int


def found_in(folder: Path) -> OnDisk | None:
    """Return what loading a directory comes to; None if it is not there. Damaged bytes fail."""
    try:
        files = {str(path.relative_to(folder)): path.read_bytes() for path in _files(folder)}
    except OSError:
        return None
    size = sum(map(len, files.values()))
    try:
        facts = json.load(io.BytesIO(files.pop(MARKER)))
        is_whole = facts["files"] == {path: _sha256(data) for path, data in files.items()}
        loads = Loads(facts["loads"]) if is_whole else Loads.FAILS
        return OnDisk(facts["identity"], loads, size)
    except (KeyError, ValueError, TypeError):
        return OnDisk("damaged", Loads.FAILS, size) if folder.is_dir() else None


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def write_tree(folder: Path, contents: Contents) -> None:
    """Write a version as somebody with `cp` would, aside first: the server must not see half of it."""
    aside = folder.with_name(f".{folder.name}.coming")
    for path, data in tree_of(contents).items():
        (aside / path).parent.mkdir(parents=True, exist_ok=True)
        (aside / path).write_bytes(data)
    aside.rename(folder)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
