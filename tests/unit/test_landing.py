"""The landing of a version in frames: any order, any place, and nothing that is not proven."""

import random
import stat
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

import archives as a
from framed_releases import (
    CUT_BYTES,
    Frame,
    Schema,
    archive_of,
    compressed,
    frames_of,
    sha256,
)
from servesync.domain import manifest
from servesync.domain.manifest import SCHEMA_1, SCHEMA_2, Manifest, Part
from servesync.errors import DiskError, Reason, ReleaseRefused, Stopped, TransferError
from servesync.folders import stamp_of
from servesync.settings import Limits
from servesync.transfer.landing import Landing, can_land
from servesync.unpack import Unpacked
from servesync.unpack.frames import Decoders

DICE = random.Random(5)
FILES = {
    "saved_model.pb": DICE.randbytes(700),
    "assets/empty": b"",
    "assets/one": b"1",
    "assets/block": DICE.randbytes(512),
    "assets/zeros": bytes(3000),
    "variables/variables.data-00000-of-00001": DICE.randbytes(5 * CUT_BYTES + 77),
    "variables/variables.index": DICE.randbytes(CUT_BYTES),
}
SCHEMAS = [SCHEMA_1, SCHEMA_2]


class LandingBox:
    """A directory to land in."""

    def __init__(self, folder: Path) -> None:
        self.into = folder / "tree"
        self.into.mkdir(parents=True)
        self.wrote: list[tuple[int, int]] = []

    def landing(self, found: Manifest, *, is_kept: bool = False, **limits: int) -> Landing:
        """Return the landing of a version."""
        return Landing(
            self.into,
            found,
            Limits(**limits),
            lambda: None,
            wrote=lambda size, inodes: self.wrote.append((size, inodes)),
            decoders=Decoders(),
            is_kept=is_kept,
        )

    def land(
        self, frames: Sequence[Frame], files: Mapping[str, bytes], schema: Schema = SCHEMA_2
    ) -> Unpacked:
        """Land every part, in order, and compare the result as a transfer does."""
        data, found = archive_of(frames, files, schema)
        with self.landing(found) as landing:
            for part in found.archive.parts:
                landing.land_stored(part, stored(data, part))
            unpacked = landing.finish()
        manifest.compare(found, unpacked.content)
        return unpacked

    def files(self) -> dict[str, bytes]:
        """Return what lies there."""
        return {
            path.relative_to(self.into).as_posix(): path.read_bytes()
            for path in self.into.rglob("*")
            if path.is_file()
        }


@pytest.fixture
def box(tmp_path: Path) -> LandingBox:
    """An empty directory."""
    return LandingBox(tmp_path)


def stored(data: bytes, part: Part) -> memoryview:
    """Return the stored bytes of a part."""
    return memoryview(data)[part.offset : part.offset + part.size]


# -- what lands -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("schema", SCHEMAS)
@pytest.mark.parametrize("seed", range(4))
def test_parts_land_in_any_order(box: LandingBox, schema: Schema, seed: int) -> None:
    """The tree is the version to the byte, with modes and stamps as unpacking gives them."""
    data, found = archive_of(frames_of(FILES), FILES, schema)
    parts = list(found.archive.parts)
    random.Random(seed).shuffle(parts)

    with box.landing(found) as landing:
        for part in parts:
            landing.land_stored(part, stored(data, part))
            assert not landing.missing(part)
        unpacked = landing.finish()

    manifest.compare(found, unpacked.content)
    assert box.files() == FILES
    assert unpacked.stamps == {path: stamp_of((box.into / path).stat()) for path in FILES}
    modes = {stat.S_IMODE(path.stat().st_mode) for path in box.into.rglob("*") if path.is_file()}
    folders = {
        stat.S_IMODE(path.stat().st_mode) for path in (box.into, *box.into.rglob("*")) if path.is_dir()
    }
    assert (modes, folders) == ({0o644}, {0o755})
    assert sum(size for size, _ in box.wrote) == sum(map(len, FILES.values()))
    assert sum(inodes for _, inodes in box.wrote) == len(FILES) + 2


@pytest.mark.parametrize("schema", SCHEMAS)
def test_many_threads_land_at_once(box: LandingBox, schema: Schema) -> None:
    """Each part twice, too: what has landed is not written again."""
    big = FILES | {"assets/big": DICE.randbytes(40 * CUT_BYTES)}
    data, found = archive_of(frames_of(big), big, schema)
    parts = [*found.archive.parts] * 2
    random.Random(1).shuffle(parts)

    with box.landing(found) as landing, ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda part: landing.land_stored(part, stored(data, part)), parts))
        unpacked = landing.finish()

    manifest.compare(found, unpacked.content)
    assert box.files() == big


def test_files_have_their_size_and_their_space_before_the_first_byte(box: LandingBox) -> None:
    """So a full disk shows at once, and the pieces may come in any order."""
    _, found = archive_of(frames_of(FILES), FILES)

    with box.landing(found):
        sizes = {path: (box.into / path).stat().st_size for path in FILES}
        taken = sum((box.into / path).stat().st_blocks * 512 for path in FILES)

    assert sizes == {path: len(data) for path, data in FILES.items()}
    assert taken >= sum(sizes.values())


def test_nothing_counts_before_all_is_there(box: LandingBox) -> None:
    """Preallocated zeros are no file."""
    data, found = archive_of(frames_of(FILES), FILES)

    with box.landing(found) as landing:
        for part in found.archive.parts[:-2]:
            landing.land_stored(part, stored(data, part))
        with pytest.raises(ReleaseRefused) as caught:
            landing.finish()

    assert caught.value.reason is Reason.CONTENT_DIFFERS


def test_a_part_may_hold_several_frames(box: LandingBox) -> None:
    """As parallel compressors write them, with skippable ones between."""
    first, *rest = frames_of(FILES)
    half = len(first.plain) // 2
    several = (
        compressed(first.plain[:half])
        + b"\x50\x2a\x4d\x18\x03\x00\x00\x00abc"
        + compressed(first.plain[half:])
    )

    box.land([Frame(first.plain, first.pieces, several), *rest], FILES)

    assert box.files() == FILES


def test_a_frame_need_not_say_how_long_it_is(box: LandingBox) -> None:
    """Tools that compress a stream do not know it before."""
    frames = [Frame(one.plain, one.pieces, compressed(one.plain, sized=False)) for one in frames_of(FILES)]

    box.land(frames, FILES)

    assert box.files() == FILES


SMALL = {f"assets/f{size}": DICE.randbytes(size) for size in (1, 511, 512, 513, 1500)}
SEGMENTS = [
    (a.directory("1/"), None),
    *(
        segment
        for path, data in (SMALL | {"assets/none": b"", "saved_model.pb": b"model"}).items()
        for segment in (
            (a.header(f"1/{path}".encode(), size=len(data)), None),
            (data, path),
            (bytes(-len(data) % a.BLOCK), None),
        )
    ),
    (a.END, None),
]


def joined(segments: Sequence[tuple[bytes, str | None]]) -> Frame:
    """Return the frame of some segments of a tar: those that are the content of a file have its path."""
    plain, pieces = b"", []
    for data, path in segments:
        if path is not None and data:
            pieces.append((path, 0, len(plain), len(data)))
        plain += data
    return Frame(plain, tuple(pieces))


@pytest.mark.parametrize("cut", range(1, len(SEGMENTS)))
def test_schema_1_is_read_wherever_its_frames_are_cut(box: LandingBox, cut: int) -> None:
    """After a header, before padding, after it: what lies between the pieces is found out."""
    files = SMALL | {"assets/none": b"", "saved_model.pb": b"model"}

    box.land([joined(SEGMENTS[:cut]), joined(SEGMENTS[cut:])], files, SCHEMA_1)

    assert box.files() == files


def test_schema_1_with_long_names(box: LandingBox) -> None:
    """They have headers of their own."""
    name = "assets/" + "n" * 150
    files = {"saved_model.pb": b"model", name: b"long"}
    frame = joined(
        [
            (a.header(b"1/saved_model.pb", size=5), None),
            (b"model", "saved_model.pb"),
            (bytes(507) + a.pax((b"path", f"1/{name}".encode())) + a.header(b"1/n", size=4), None),
            (b"long", name),
            (bytes(508) + a.END, None),
        ]
    )

    box.land([frame], files, SCHEMA_1)

    assert box.files() == files


# -- what does not land ---------------------------------------------------------------------------------


def refused(
    box: LandingBox, frames: Sequence[Frame], files: Mapping[str, bytes] = FILES, schema: Schema = SCHEMA_2
) -> Reason:
    """Return why a version is refused."""
    with pytest.raises(ReleaseRefused) as caught:
        box.land(frames, files, schema)
    return caught.value.reason


def with_first(**changes: object) -> list[Frame]:
    """Return the frames of a version, the first of which is changed."""
    first, *rest = frames_of(FILES)
    return [replace(first, **changes), *rest]  # type: ignore[arg-type]


def test_other_stored_bytes_are_not_even_decompressed(box: LandingBox) -> None:
    """They may come right when they are read again, so the release is not refused."""
    data, found = archive_of(frames_of(FILES), FILES)
    wrong = bytearray(data)
    wrong[3] ^= 1

    with box.landing(found) as landing:
        with pytest.raises(TransferError) as caught:
            landing.land_stored(found.archive.parts[0], stored(bytes(wrong), found.archive.parts[0]))
        assert landing.missing(found.archive.parts[0])

    assert caught.value.reason is Reason.TRANSFER_DIFFERS


@pytest.mark.parametrize("schema", SCHEMAS)
def test_a_frame_of_more_than_its_manifest_says_is_refused(box: LandingBox, schema: Schema) -> None:
    """Before more than that is in memory."""
    first = frames_of(FILES)[0]
    much = first.plain + bytes(30 << 20)
    for sized in (True, False):
        frames = with_first(stored=compressed(much, sized=sized))
        assert (
            refused(LandingBox(box.into.parent / f"{sized}"), frames, FILES, schema) is Reason.ARCHIVE_TOO_BIG
        )


@pytest.mark.parametrize("schema", SCHEMAS)
def test_a_frame_of_less_than_its_manifest_says_is_refused(box: LandingBox, schema: Schema) -> None:
    """No piece is made up of what was there before."""
    first = frames_of(FILES)[0]
    _, _, begin, size = first.pieces[-1]
    frames = with_first(stored=compressed(first.plain[: begin + size - 1]))

    assert refused(box, frames, FILES, schema) is Reason.CONTENT_DIFFERS


def test_a_frame_that_holds_other_bytes_is_refused(box: LandingBox) -> None:
    """The digest of the piece tells, not only that of the file at the end."""
    first = frames_of(FILES)[0]
    _, _, begin, _ = first.pieces[0]
    other = first.plain[:begin] + bytes([first.plain[begin] ^ 1]) + first.plain[begin + 1 :]

    assert refused(box, with_first(stored=compressed(other))) is Reason.CONTENT_DIFFERS


def test_schema_1_has_the_digest_of_the_file(box: LandingBox) -> None:
    """What its frame holds instead is refused at the end."""
    frames = frames_of(FILES)
    number = next(n for n, one in enumerate(frames) if one.pieces and one.pieces[0][1] == CUT_BYTES)
    frames[number] = replace(frames[number], stored=compressed(bytes(CUT_BYTES)))

    assert refused(box, frames, FILES, SCHEMA_1) is Reason.CONTENT_DIFFERS


def test_digests_of_pieces_that_disagree_with_those_of_files_are_refused(box: LandingBox) -> None:
    """The pieces are all right by themselves, and are not the file."""
    frames = frames_of(FILES)
    other = FILES | {"variables/variables.index": DICE.randbytes(CUT_BYTES)}
    path = "variables/variables.data-00000-of-00001"
    for files in (other, FILES | {path: FILES[path][:-1] + b"?"}):
        assert (
            refused(LandingBox(box.into.parent / sha256(files[path])), frames, files)
            is Reason.CONTENT_DIFFERS
        )


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda frame: frame + b"more", Reason.ARCHIVE_TRAILING_DATA),
        (lambda frame: frame[:-1], Reason.ARCHIVE_TRUNCATED),
        (lambda frame: frame[:-4] + bytes(4), Reason.ARCHIVE_CORRUPT),
        (lambda frame: frame[:40] + bytes([frame[40] ^ 1]) + frame[41:], Reason.ARCHIVE_CORRUPT),
        (lambda _: b"no frame at all", Reason.ARCHIVE_TRAILING_DATA),
        (lambda _: b"\x50\x2a\x4d\x18\x03\x00\x00\x00abc", Reason.CONTENT_DIFFERS),
        (lambda frame: frame * 5000, Reason.ARCHIVE_TOO_BIG),
    ],
)
def test_what_is_no_whole_frame_is_refused(
    box: LandingBox, change: Callable[[bytes], bytes], reason: Reason
) -> None:
    """Though its SHA-256 is the manifest's."""
    good = compressed(frames_of(FILES)[0].plain)

    assert refused(box, with_first(stored=change(good))) is reason


def test_a_frame_without_a_checksum_is_refused(box: LandingBox) -> None:
    """As in the ordered way."""
    frames = with_first(stored=compressed(frames_of(FILES)[0].plain, checksum=False))

    assert refused(box, frames) is Reason.ARCHIVE_UNCHECKSUMMED


def test_a_thousand_empty_frames_are_refused(box: LandingBox) -> None:
    """Each would cost time."""
    assert refused(box, with_first(stored=compressed(b"") * 5000)) is Reason.ARCHIVE_CORRUPT


def test_limits_hold(box: LandingBox) -> None:
    """Files and directories are counted as unpacking counts them."""
    _, found = archive_of(frames_of(FILES), FILES)
    with pytest.raises(ReleaseRefused) as caught, box.landing(found, max_members=len(FILES) + 2):
        pass
    assert caught.value.reason is Reason.ARCHIVE_TOO_MANY_MEMBERS

    with box.landing(found, max_members=len(FILES) + 3):
        assert box.files().keys() == FILES.keys()


@pytest.mark.parametrize(
    ("path", "reason"),
    [("deeper/saved_model.pb", Reason.ARCHIVE_LAYOUT), ("assets/._one", Reason.ARCHIVE_LAYOUT)],
)
def test_paths_are_judged_as_unpacking_judges_them(box: LandingBox, path: str, reason: Reason) -> None:
    """What the schema of a manifest lets pass is refused all the same, before anything is made."""
    files = {path: b"x", "variables/variables.index": b"y"}
    _, found = archive_of(frames_of(files), files)
    with pytest.raises(ReleaseRefused) as caught, box.landing(found):
        pass

    assert caught.value.reason is reason
    assert list(box.into.iterdir()) == []


def test_a_bomb_is_refused_before_anything_is_made(box: LandingBox) -> None:
    """By the ratio of what the manifest says."""
    files = {"saved_model.pb": bytes(20 << 20)}
    _, found = archive_of(frames_of(files, cut=8 << 20), files)
    with pytest.raises(ReleaseRefused) as caught, box.landing(found, max_ratio=2):
        pass

    assert caught.value.reason is Reason.ARCHIVE_RATIO


def test_frames_that_are_too_large_for_memory_come_in_order(box: LandingBox) -> None:
    """And so does what has no frames."""
    files = {"saved_model.pb": bytes(20 << 20)}
    frames = frames_of(files, cut=8 << 20)
    _, found = archive_of(frames, files, SCHEMA_1)
    assert can_land(found)
    _, found = archive_of(frames_of(files, cut=15 << 20), files, SCHEMA_1)
    assert not can_land(found)
    _, found = archive_of([one.but(content=None, unpacked_size=None) for one in frames], files)
    assert not can_land(found)


# -- from elsewhere --------------------------------------------------------------------------------------


def test_pieces_may_be_copied_from_open_files(box: LandingBox, tmp_path: Path) -> None:
    """Only what was read and hashed counts."""
    _, found = archive_of(frames_of(FILES), FILES)
    other = tmp_path / "other"
    with box.landing(found) as landing:
        for part in reversed(found.archive.parts):
            for piece in landing.missing(part):
                other.write_bytes(b"before" + FILES[piece.path] + b"after")
                with other.open("rb") as file:
                    assert not landing.land_plain(piece, file.fileno(), piece.offset + 5)
                    assert not landing.land_plain(piece, file.fileno(), 1 << 30)
                    assert piece in landing.missing(part)
                    assert landing.land_plain(piece, file.fileno(), piece.offset + 6)
        unpacked = landing.finish()

    manifest.compare(found, unpacked.content)
    assert box.files() == FILES


def test_without_a_digest_only_whole_files_are_copied(box: LandingBox) -> None:
    """Of schema 1."""
    _, found = archive_of(frames_of(FILES), FILES, SCHEMA_1)
    sources = {path: box.into.parent / path.replace("/", "_") for path in FILES}
    landed = set()
    with box.landing(found) as landing:
        for part in found.archive.parts:
            for piece in landing.missing(part):
                sources[piece.path].write_bytes(FILES[piece.path])
                with sources[piece.path].open("rb") as file:
                    if landing.land_plain(piece, file.fileno(), piece.offset):
                        landed.add(piece.path)

    assert landed == {path for path, data in FILES.items() if 0 < len(data) <= CUT_BYTES}


def test_a_tree_that_was_kept_is_read_before_it_counts(box: LandingBox) -> None:
    """What lies in place is proven piece by piece; the rest is fetched."""
    data, found = archive_of(frames_of(FILES), FILES)
    parts = found.archive.parts
    with box.landing(found) as landing:
        for part in parts[::2]:
            landing.land_stored(part, stored(data, part))
    large = box.into / "variables/variables.data-00000-of-00001"
    with large.open("r+b") as file:
        file.write(b"?")

    with box.landing(found, is_kept=True) as landing:
        found_there = [part for part in parts if all(map(landing.land_in_place, landing.missing(part)))]
        for part in parts:
            landing.land_stored(part, stored(data, part))
        unpacked = landing.finish()

    spoiled = next(
        part
        for part in parts
        for piece in part.content or ()
        if piece.path in str(large) and not piece.offset
    )
    assert [part for part in parts[::2] if part.content and part != spoiled] == [
        part for part in found_there if part.content
    ]
    manifest.compare(found, unpacked.content)
    assert box.files() == FILES
    assert unpacked.stamps == {path: stamp_of((box.into / path).stat()) for path in FILES}


@pytest.mark.parametrize("kind", ["link", "hard link", "folder"])
def test_a_kept_tree_with_something_else_in_it_is_not_written_to(box: LandingBox, kind: str) -> None:
    """Somebody may have put a link there."""
    _, found = archive_of(frames_of(FILES), FILES)
    with box.landing(found):
        pass
    outside = box.into.parent / "outside"
    outside.write_bytes(b"precious")
    place = box.into / "assets/one"
    place.unlink()
    if kind == "link":
        place.symlink_to(outside)
    elif kind == "hard link":
        place.hardlink_to(outside)
    else:
        place.mkdir()

    with pytest.raises(OSError), box.landing(found, is_kept=True):
        pass

    assert outside.read_bytes() == b"precious"


def test_what_is_there_already_is_not_written_to(box: LandingBox) -> None:
    """A new tree is empty."""
    _, found = archive_of(frames_of(FILES), FILES)
    (box.into / "saved_model.pb").write_bytes(b"mine")

    with pytest.raises(FileExistsError), box.landing(found):
        pass

    assert (box.into / "saved_model.pb").read_bytes() == b"mine"


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_somebody_puts_in_the_place_is_not_written_to(box: LandingBox, kind: str) -> None:
    """Neither a hard link to another file, nor one behind a symbolic link."""
    data, found = archive_of(frames_of(FILES), FILES)
    part = next(
        part for part in found.archive.parts if part.content and part.content[0].path == "assets/block"
    )
    outside = box.into.parent / "outside"
    outside.mkdir()
    for path in ("one", "block", "zeros", "empty"):
        (outside / path).write_bytes(b"precious")

    with box.landing(found) as landing:
        if kind == "file":
            (box.into / "assets/block").unlink()
            (box.into / "assets/block").hardlink_to(outside / "block")
        else:
            (box.into / "assets").rename(box.into / "was")
            (box.into / "assets").symlink_to(outside)
        with pytest.raises((OSError, DiskError)):
            landing.land_stored(part, stored(data, part))

    assert (box.into / "assets/block").read_bytes() == b"precious"


# -- the end --------------------------------------------------------------------------------------------


def test_after_its_end_nothing_is_written(box: LandingBox) -> None:
    """A worker may come late."""
    data, found = archive_of(frames_of(FILES), FILES)
    with box.landing(found) as landing:
        pass

    with pytest.raises(Stopped):
        landing.land_stored(found.archive.parts[0], stored(data, found.archive.parts[0]))

    assert not any(data.strip(b"\0") for data in box.files().values())


def test_no_descriptor_is_left(box: LandingBox) -> None:
    """Not after an error either."""
    data, found = archive_of(frames_of(FILES), FILES)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for number in range(3):
        own = LandingBox(box.into.parent / f"{number}")
        with own.landing(found) as landing:
            landing.land_stored(found.archive.parts[0], stored(data, found.archive.parts[0]))
        with pytest.raises(FileExistsError), own.landing(found):
            pass

    assert len(list(Path("/proc/self/fd").iterdir())) == before
