"""Frames and manifests of any bytes: what lands is what the manifest says, or the release is refused."""

import copy
import json
import os
import random
import shutil
import tracemalloc
from pathlib import Path
from typing import Any, Final

import pytest
import zstandard

from framed_releases import archive_of, compressed, frames_of, sha256
from servesync.domain import manifest
from servesync.domain.manifest import SCHEMA_1, SCHEMA_2, Manifest
from servesync.domain.parts import MAX_FRAME_BYTES
from servesync.errors import ReleaseRefused, TransferError
from servesync.settings import Limits
from servesync.transfer.landing import Landing, can_land
from servesync.unpack.frames import Decoder, Decoders
from servesync.unpack.source import ByteSource
from servesync.unpack.zstd_stream import unzstd

LONG: Final = os.environ.get("LONG_TESTS") == "1"
FRAMES: Final = 40_000 if LONG else 1500
MANIFESTS: Final = 5000 if LONG else 300
PEAK_BYTES: Final = 48 << 20
CUT: Final = 3000


def edited(data: bytes, dice: random.Random) -> bytes:
    """Return `data` with a few bytes changed, removed, repeated, or moved."""
    changed = bytearray(data)
    for _ in range(dice.randint(1, 3)):
        at, size = dice.randrange(len(changed) + 1), dice.choice((1, 1, 2, 4, 30))
        near = dice.randrange(len(changed) + 1)
        match dice.randrange(5):
            case 0:
                changed[at : at + 1] = dice.randbytes(1)
            case 1:
                changed[at : at + size] = dice.choice((b"\0", b"\xff", b"\x01")) * size
            case 2:
                del changed[at : at + size]
            case 3:
                changed[at:at] = changed[near : near + size]
            case _:
                changed[at : at + 1] = (
                    bytes([changed[at] ^ 1 << dice.randrange(8)]) if at < len(changed) else b""
                )
    return bytes(changed)


def seeds(dice: random.Random) -> list[bytes]:
    """Return frames of all kinds, and parts of several."""
    text, noise = b"some text, and again some text" * 90, dice.randbytes(3000)
    whole = [
        compressed(data, level=level, sized=sized)
        for data in (b"", text, noise, bytes(70_000), text * 120)
        for level in (-5, 3, 19)
        for sized in (True, False)
    ]
    skippable = b"\x53\x2a\x4d\x18\x05\x00\x00\x00hello"
    return [*whole, whole[3] + whole[9], skippable + whole[5], whole[7] + skippable]


def in_order(data: bytes) -> bytes | None:
    """Return what the ordered way makes of a stream; None if it refuses it."""
    try:
        return b"".join(unzstd(ByteSource([data])))
    except ReleaseRefused:
        return None


def test_any_frame_is_decoded_as_the_ordered_way_decodes_it() -> None:
    """Or refused by both; only a wrong length in its header is refused here alone.

    What one part decodes to never depends on the one before it.
    """
    dice = random.Random(11)
    frames, decoder, accepted = seeds(dice), Decoder(), 0
    for _ in range(FRAMES):
        data = dice.choice(frames)
        data = data if dice.randrange(9) == 0 else edited(data, dice)
        expected = in_order(data)
        try:
            found = bytes(decoder.decode(memoryview(data), 1 << 20))
        except ReleaseRefused:
            if expected is not None:
                assert zstandard.frame_content_size(data) not in (-1, len(expected)), data.hex()
        else:
            accepted += 1
            assert found == expected
    assert FRAMES / 20 < accepted < FRAMES


def test_no_frame_takes_more_memory_than_its_part_may() -> None:
    """Zeros without end, with and without their length, and a window of 128 MiB."""
    bombs = [compressed(bytes(60 << 20), sized=sized) for sized in (True, False)]
    decoder = Decoder()
    tracemalloc.start()
    try:
        for bomb in bombs:
            with pytest.raises(ReleaseRefused):
                decoder.decode(memoryview(bomb), MAX_FRAME_BYTES)
        assert tracemalloc.get_traced_memory()[1] < PEAK_BYTES
    finally:
        tracemalloc.stop()


def places(document: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the way to every value of a document that is no container."""
    if isinstance(document, dict):
        return [place for key, value in document.items() for place in places(value, (*path, key))]
    if isinstance(document, list):
        return [place for number, value in enumerate(document) for place in places(value, (*path, number))]
    return [path]


def changed(document: dict[str, Any], dice: random.Random) -> dict[str, Any]:
    """Return a manifest with one or two values that are others, or with its parts moved."""
    found = copy.deepcopy(document)
    parts = found["archive"]["parts"]
    for _ in range(dice.randint(1, 2)):
        match dice.randrange(8):
            case 0:
                one, other = dice.choice(parts), dice.choice(parts)
                one["content"], other["content"] = other["content"], one["content"]
            case 1:
                dice.shuffle(dice.choice(parts)["content"])
            case 2:
                content = dice.choice(parts)["content"]
                content[:] = [*content, *content[:1]] if dice.randrange(2) else content[1:]
            case 3:
                del parts[dice.randrange(len(parts))]
                if not parts:
                    return found
            case _:
                ways = places(found)
                way, other_way = dice.choice(ways), dice.choice(ways)
                value = _at(found, other_way[:-1])[other_way[-1]]
                old = _at(found, way[:-1])[way[-1]]
                if isinstance(old, int) and dice.randrange(3):
                    value = max(0, old + dice.choice((-1, 1, -512, 512, CUT)))
                _at(found, way[:-1])[way[-1]] = value
    return found


def _at(document: Any, way: tuple[Any, ...]) -> Any:
    for key in way:
        document = document[key]
    return document


def dumped(document: dict[str, Any]) -> bytes:
    """Return the canonical form of a document, with its digest put right."""
    plain = {key: value for key, value in document.items() if key != "digest"}
    bare = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=True) + "\n"
    return (
        json.dumps(plain | {"digest": sha256(bare.encode())}, sort_keys=True, separators=(",", ":")) + "\n"
    ).encode()


def land(data: bytes, found: Manifest, into: Path, dice: random.Random) -> None:
    """Land every part in any order, and compare the result, as a transfer does."""
    parts = list(found.archive.parts)
    dice.shuffle(parts)
    with Landing(into, found, Limits(), lambda: None, decoders=Decoders()) as landing:
        for part in parts:
            landing.land_stored(part, memoryview(data)[part.offset : part.offset + part.size])
        manifest.compare(found, landing.finish().content)


@pytest.mark.parametrize("schema", [SCHEMA_1, SCHEMA_2])
def test_any_manifest_of_frames_lands_what_it_says_or_is_refused(schema: Any, tmp_path: Path) -> None:
    """In form it is right, digest and all; it lies about offsets, sizes, paths, places and digests."""
    dice = random.Random(f"{schema}")
    files = {
        "saved_model.pb": dice.randbytes(800),
        "assets/a": b"",
        "assets/b": dice.randbytes(513),
        "variables/variables.data-00000-of-00001": dice.randbytes(4 * CUT + 9),
        "variables/variables.index": dice.randbytes(CUT),
    }
    data, good = archive_of(frames_of(files, cut=CUT), files, schema)
    document = json.loads(manifest.dump(good))
    assert dumped(document) == manifest.dump(good)
    parsed = landed = 0
    for number in range(MANIFESTS):
        try:
            found = manifest.parse(dumped(changed(document, dice)))
        except ReleaseRefused:
            continue
        parsed += 1
        if not can_land(found):
            continue
        into = tmp_path / f"{number}"
        into.mkdir()
        try:
            land(data, found, into, dice)
        except (ReleaseRefused, TransferError):
            pass
        else:
            landed += 1
            there = {path.relative_to(into).as_posix(): path for path in into.rglob("*") if path.is_file()}
            assert there.keys() == {file.path for file in found.files}
            for file in found.files:
                assert sha256(there[file.path].read_bytes()) == file.sha256
        shutil.rmtree(into)
    print(f"{schema}: {MANIFESTS} manifests, {parsed} parsed, {landed} landed")  # noqa: T201
    assert landed < parsed < MANIFESTS
