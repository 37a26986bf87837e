"""Existing archives in frames: what is said of each frame is true, and useless ones get no pieces."""

import hashlib
import io
import random
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest
import zstandard

from servesync.domain.manifest import Part
from servesync.domain.versions import Version
from servesync.publishing.framed import framed_parts
from servesync.publishing.pack import pack_tree
from servesync.settings import Limits
from unpack_box import UnpackBox

MIB = 1 << 20
TREE = {
    "saved_model.pb": b"graph" * 1000,
    "assets/empty": b"",
    "assets/words": b"word " * 300,
    "variables/variables.data-00000-of-00001": random.Random(1).randbytes(3 * MIB + 17),
    "variables/variables.index": b"index",
}


def tar_of(tree: Mapping[str, bytes], top: str) -> bytes:
    """Pack files as another tool does."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for path, data in tree.items():
            member = tarfile.TarInfo(f"{top}{path}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return out.getvalue()


def frame(data: bytes) -> bytes:
    """Return one frame with a checksum."""
    return zstandard.ZstdCompressor(1, write_checksum=True).compress(data)


def in_frames(tar: bytes, size: int) -> bytes:
    """Compress a tar in frames that are cut anywhere."""
    return b"".join(frame(tar[start : start + size]) for start in range(0, len(tar), size))


def parts_of(stored: bytes, tmp_path: Path, sha256: str | None = None) -> tuple[Part, ...]:
    """Unpack an archive, and describe it by its frames."""
    box = UnpackBox(tmp_path / "box")
    unpacked = box.unpack(stored, version=7)
    digest = sha256 or hashlib.sha256(stored).hexdigest()
    return framed_parts(io.BytesIO(stored), digest, box.into, unpacked.root, Limits())


@pytest.mark.parametrize("top", ["0000007/", "./", ""])
@pytest.mark.parametrize("size", [1000, 100_000, 2 * MIB])
def test_every_frame_is_described(top: str, size: int, tmp_path: Path) -> None:
    """Wherever it is cut: through headers and padding, within files, and over several of them."""
    stored = in_frames(tar_of(TREE, top), size)

    parts = parts_of(stored, tmp_path)

    covered: dict[str, bytes] = {}
    for part in parts:
        own = stored[part.offset : part.offset + part.size]
        assert hashlib.sha256(own).hexdigest() == part.sha256
        content = zstandard.ZstdDecompressor().decompress(own)
        assert len(content) == part.unpacked_size
        for piece in part.content or ():
            assert piece.at is not None
            assert piece.offset == len(covered.get(piece.path, b""))
            data = content[piece.at : piece.at + piece.size]
            assert hashlib.sha256(data).hexdigest() == piece.sha256
            covered[piece.path] = covered.get(piece.path, b"") + data
    assert covered == {path: data for path, data in TREE.items() if data}
    assert sum(part.size for part in parts) == len(stored)


def test_our_own_archive_is_described_as_the_publisher_did(tmp_path: Path) -> None:
    """By whichever way its manifest is made."""
    for path, data in TREE.items():
        (tmp_path / "tree" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tree" / path).write_bytes(data)
    out = bytearray()
    packed = pack_tree(tmp_path / "tree", Version(7), out.extend, {})

    assert parts_of(bytes(out), tmp_path) == packed.parts


@pytest.mark.parametrize(
    "kind", ["one frame for all", "a skippable frame", "an empty frame", "no frames", "another archive"]
)
def test_frames_that_are_no_use_alone(kind: str, tmp_path: Path) -> None:
    """There are no parts then, and the archive is described by plain ranges."""
    stored = in_frames(tar := tar_of(TREE, "7/"), MIB)
    if kind == "one frame for all":
        stored = frame(tar_of({**TREE, "assets/large": bytes(16 * MIB)}, "7/"))
    elif kind == "a skippable frame":
        stored += b"\x50\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"note"
    elif kind == "an empty frame":
        stored += frame(b"")
    elif kind == "no frames":
        stored = tar

    assert parts_of(stored, tmp_path, "0" * 64 if kind == "another archive" else None) == ()
