"""Packing: the same tree gives the same bytes, all can unpack them, and what did not change is shared."""

import hashlib
import io
import os
import random
import shutil
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from servesync.domain import canonical_json
from servesync.domain.cuts import FINE, GRIDS, Extent, Grid, cuts, grid_for, manifest_bytes
from servesync.domain.manifest import MAX_MANIFEST_BYTES, SCHEMA_1, Archive, File, Part, Piece, dump, parse
from servesync.domain.parts import MAX_FRAME_BYTES
from servesync.domain.versions import FileFact, Model, Version
from servesync.errors import Reason, ReleaseRefused
from servesync.publishing.pack import (
    Format,
    Made,
    Packed,
    check_unchanged,
    describe,
    pack_tree,
    survey,
)
from servesync.publishing.pack.tree import members
from servesync.publishing.request import make_manifest
from servesync.verify import ModelFacts
from unpack_box import UnpackBox

KIB, MIB = 1 << 10, 1 << 20
SHARD = "variables/variables.data-00000-of-00001"


def write(root: Path, tree: Mapping[str, bytes]) -> Path:
    """Write files below `root`."""
    for name, data in tree.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def pack(
    root: Path, extents: Mapping[str, Sequence[Extent]] | None = None, archive_format: Format = "tar.zst"
) -> tuple[bytes, Packed]:
    """Pack version 7 into memory."""
    out = io.BytesIO()

    def take(data: bytes) -> None:
        out.write(data)

    packed = pack_tree(root, Version(7), take, extents or {}, archive_format=archive_format)
    return out.getvalue(), packed


@pytest.fixture
def tree(tmp_path: Path) -> dict[str, bytes]:
    """A version with small files, an empty one, a large one that shrinks, and one that does not."""
    noise = random.Random(1).randbytes(9 * MIB + 17)
    return {
        "saved_model.pb": b"graph" * 1000,
        "fingerprint.pb": b"f",
        "assets/empty.txt": b"",
        "assets/words.txt": b"word\n" * MIB,
        "variables/variables.index": b"index",
        SHARD: noise,
        f"assets/{'long name ' * 10}x/{'y' * 90}": b"a path that needs a pax header",
    }


@pytest.mark.parametrize("archive_format", ["tar.zst", "tar.gz"])
def test_the_same_tree_gives_the_same_bytes(
    archive_format: Format, tmp_path: Path, tree: dict[str, bytes]
) -> None:
    """Times, modes and the order in which files were written do not count."""
    first = write(tmp_path / "one", tree)
    second = write(tmp_path / "two", dict(reversed(tree.items())))
    for path in second.rglob("*"):
        path.chmod(0o700)
        os.utime(path, (1, 2))

    data, packed = pack(first, archive_format=archive_format)
    again, packed_again = pack(second, archive_format=archive_format)

    assert data == again
    assert packed == packed_again
    assert packed.sha256 == hashlib.sha256(data).hexdigest()
    assert packed.size == len(data)


@pytest.mark.parametrize("archive_format", ["tar.zst", "tar.gz"])
def test_our_own_unpacker_gives_the_tree_back(
    archive_format: Format, tmp_path: Path, tree: dict[str, bytes]
) -> None:
    """With the digests that packing has stated."""
    data, packed = pack(write(tmp_path / "tree", tree), archive_format=archive_format)
    box = UnpackBox(tmp_path / "box")

    unpacked = box.unpack(data, version=7)

    assert unpacked.content.files == tuple(FileFact(f.path, f.size, f.sha256) for f in packed.files)
    assert {file.path for file in packed.files} == set(tree)


@pytest.mark.parametrize("archive_format", ["tar.zst", "tar.gz"])
def test_what_is_made_goes_in_as_if_it_lay_there(archive_format: Format, tmp_path: Path) -> None:
    """At its place among the others, with the same bytes; the directory stays as it is."""
    tree = {"a.txt": b"1", "a/b": b"2", "a/d": b"3", "a.d/e": b"4", "z": b"5"}
    made = [Made("a/c", b"made"), Made("a/e", bytes(2 * MIB)), Made("zz", b"")]
    folder = write(tmp_path / "tree", tree)
    whole = write(tmp_path / "whole", tree | {one.path: one.data for one in made})
    out = bytearray()

    packed = pack_tree(folder, Version(7), out.extend, {}, made=made, archive_format=archive_format)

    assert (bytes(out), packed) == pack(whole, archive_format=archive_format)
    assert survey(folder).keys() == {*tree, "a", "a.d"}


@pytest.mark.parametrize("archive_format", ["tar.zst", "tar.gz"])
def test_everybody_can_unpack_it(archive_format: Format, tmp_path: Path, tree: dict[str, bytes]) -> None:
    """GNU tar and zstd's own test."""
    if shutil.which("tar") is None or shutil.which("zstd") is None:
        pytest.skip("no tar or no zstd here")
    data, _ = pack(write(tmp_path / "tree", tree), archive_format=archive_format)
    archive = tmp_path / f"7.{archive_format}"
    archive.write_bytes(data)
    out = tmp_path / "out"
    out.mkdir()
    flag = "--zstd" if archive_format == "tar.zst" else "--gzip"

    subprocess.run(["tar", flag, "-xf", archive, "-C", out], check=True)

    found = {str(p.relative_to(out / "7")): p.read_bytes() for p in out.rglob("*") if p.is_file()}
    assert found == tree
    assert {oct(path.stat().st_mode & 0o777) for path in out.rglob("*") if path.is_file()} == {"0o644"}
    if archive_format == "tar.zst":
        subprocess.run(["zstd", "-q", "-t", archive], check=True)


def test_every_part_is_proven_and_stands_alone(tmp_path: Path, tree: dict[str, bytes]) -> None:
    """Each frame has its digest, and decompressed alone it holds the pieces of files that it says."""
    data, packed = pack(write(tmp_path / "tree", tree))
    covered: dict[str, bytes] = {}
    for part in packed.parts:
        frame = data[part.offset : part.offset + part.size]
        assert hashlib.sha256(frame).hexdigest() == part.sha256
        content = zstandard.ZstdDecompressor().decompress(frame)
        assert len(content) == part.unpacked_size
        for piece in part.content or ():
            assert piece.at is not None
            expected = content[piece.at : piece.at + piece.size]
            assert hashlib.sha256(expected).hexdigest() == piece.sha256
            covered[piece.path] = covered.get(piece.path, b"") + expected

    assert covered == {path: content for path, content in tree.items() if content}
    assert sum(part.size for part in packed.parts) == len(data)


def test_noise_is_stored_and_text_is_compressed(tmp_path: Path) -> None:
    """Incompressible data costs a few bytes a frame; the rest shrinks."""
    noise = random.Random(2).randbytes(4 * MIB)
    stored, _ = pack(write(tmp_path / "noise", {"saved_model.pb": noise}))
    shrunk, _ = pack(write(tmp_path / "text", {"saved_model.pb": b"text " * MIB}))

    assert len(stored) < len(noise) + 16 * KIB
    assert len(shrunk) < 64 * KIB


def bundle(changed: int, *, inserted: bool) -> tuple[bytes, list[Extent]]:
    """Sixty tensors of all sizes; the last `changed` bytes differ, and one more may come in between."""
    sizes = [random.Random(n).choice([64, 4 * KIB, 300 * KIB, 700 * KIB, 5 * MIB]) for n in range(60)]
    named = [
        (f"layer_{n:02}/kernel", random.Random(1000 + n).randbytes(size)) for n, size in enumerate(sizes)
    ]
    if inserted:
        named.insert(31, ("layer_30b/bias", b"new" * 1000))
    data = bytearray(b"".join(tensor for _, tensor in named))
    begin = len(data) - changed
    data[begin:] = data[begin:].translate(bytes(range(255, -1, -1)))  # all bits of them
    extents = []
    offset = 0
    for name, tensor in named:
        extents.append((name, offset, len(tensor)))
        offset += len(tensor)
    return bytes(data), extents


@pytest.fixture(scope="module")
def unchanged(tmp_path_factory: pytest.TempPathFactory) -> tuple[int, Packed]:
    """The size of the bundle before it was trained on, and how it was packed."""
    old, extents = bundle(0, inserted=False)
    return len(old), pack(write(tmp_path_factory.mktemp("old"), {SHARD: old}), {SHARD: extents})[1]


def shared(old: Sequence[Part], new: Sequence[Part]) -> float:
    """Return the share of the new parts that the old version has, too."""
    known = {part.sha256 for part in old}
    return sum(part.sha256 in known for part in new) / len(new)


def shared_bytes(old: Sequence[Part], new: Sequence[Part]) -> float:
    """Return the share of the new version's bytes that lie in pieces of the old one."""
    known = {piece.sha256 for part in old for piece in part.content or ()}
    pieces = [piece for part in new for piece in part.content or ()]
    return sum(piece.size for piece in pieces if piece.sha256 in known) / sum(piece.size for piece in pieces)


@pytest.mark.slow
@pytest.mark.parametrize(("percent", "inserted"), [(5, False), (0, True)])
def test_a_retrained_head_shares_its_frames(
    percent: int, *, inserted: bool, unchanged: tuple[int, Packed], tmp_path: Path
) -> None:
    """5 % of the bytes changed, or half of them moved behind a new tensor: 90 % of the frames are known."""
    size, before = unchanged
    new, new_extents = bundle(size * percent // 100, inserted=inserted)
    _, after = pack(write(tmp_path / "new", {SHARD: new}), {SHARD: new_extents})

    assert shared(before.parts, after.parts) >= 0.9
    assert shared_bytes(before.parts, after.parts) >= 0.92
    assert len(before.parts) > 30


@given(
    st.lists(st.tuples(st.text(max_size=3), st.integers(0, 20 * MIB)), max_size=30),
    st.integers(0, 3 * MIB),
    st.sampled_from(GRIDS),
)
def test_cuts_cover_a_file_whatever_its_tensors(
    tensors: list[tuple[str, int]], rest: int, grid: Grid
) -> None:
    """In order, without a gap, and never too large."""
    extents = []
    offset = 0
    for name, size in tensors:
        extents.append((name, offset, size))
        offset += size

    sizes = list(cuts(offset + rest, extents, grid))

    assert sum(sizes) == offset + rest
    assert all(0 < size <= grid.most <= MAX_FRAME_BYTES for size in sizes)
    assert len(sizes) <= 2 * ((offset + rest) // grid.enough + len(tensors)) + 1


def layered(gibibytes: int) -> list[Extent]:
    """The tensors of a model of many small layers: of each a kernel of 1 MiB, and a bias before it."""
    extents = []
    offset = 0
    for number in range(gibibytes << 10):
        for name, size in ((f"layer_{number}/bias", 2 * KIB), (f"layer_{number}/kernel", MIB)):
            extents.append((name, offset, size))
            offset += size
    return extents


@pytest.mark.parametrize(("gibibytes", "is_fine"), [(1, True), (4, True), (16, False), (64, False)])
def test_the_pieces_of_the_largest_model_fit_into_a_manifest(gibibytes: int, *, is_fine: bool) -> None:
    """They become larger, and only where they must."""
    extents = layered(gibibytes)
    _, offset, length = extents[-1]
    sizes, named = {SHARD: offset + length}, {SHARD: extents}

    grid = grid_for(sizes, named)

    assert (grid == FINE) is is_fine
    assert manifest_bytes(sizes, named, grid) <= MAX_MANIFEST_BYTES
    assert grid_for(sizes, named) == grid


def test_a_manifest_is_not_larger_than_is_thought(tmp_path: Path) -> None:
    """With paths that JSON makes much longer, and as many parts as pieces."""
    long = "assets/" + "\u00e4" * 100
    tree = {f"{long}/{number}": bytes([number]) * (300 * KIB) for number in range(20)}
    _, packed = pack(write(tmp_path, tree))
    archive = Archive(
        key="7.tar.zst", format="tar.zst", size=packed.size, sha256=packed.sha256, parts=packed.parts
    )
    plain = [item.model_dump(mode="json", exclude_none=True) for item in (*archive.parts, *packed.files)]

    thought = manifest_bytes({path: len(data) for path, data in tree.items()}, {}, FINE)

    assert len(canonical_json.dump({"items": plain})) < thought


def test_an_index_that_lies_only_moves_the_cuts() -> None:
    """Extents that overlap or reach beyond the file are no reason to lose a byte."""
    wrong = [("a", 5, 10), ("b", 7, 3), ("c", 90, 20), ("d", 20, 30)]

    assert sum(cuts(100, wrong)) == 100


def test_so_many_files_that_their_pieces_do_not_fit() -> None:
    """Such a version can be published all the same: as one stream, in the schema that every agent reads."""
    digest = "0" * 64
    paths = [f"assets/{number:0100}" for number in range(11_000)]
    pieces = (Piece(path=path, offset=0, size=1, at=at, sha256=digest) for at, path in enumerate(paths))
    part = Part(offset=0, size=1, sha256=digest, content=tuple(pieces), unpacked_size=len(paths))
    archive = Archive(key="7.tar.zst", format="tar.zst", size=1, sha256=digest, parts=(part,))
    files = tuple(File(path=path, size=1, sha256=digest) for path in paths)

    made = make_manifest(Model("m"), Version(7), archive, files, ModelFacts(0, 0, 0, (), ""), {})

    assert made.schema_version == SCHEMA_1
    assert made.archive.parts == (Part(offset=0, size=1, sha256=digest),)
    assert parse(dump(made)).files == files


@pytest.mark.parametrize("kind", ["link", "fifo", "name", "long"])
def test_what_a_version_may_not_hold_is_refused(kind: str, tmp_path: Path) -> None:
    """The path is named."""
    root = write(tmp_path / "tree", {"saved_model.pb": b"graph"})
    if kind == "link":
        (root / "odd").symlink_to("/etc/passwd")
    elif kind == "fifo":
        os.mkfifo(root / "odd")
    elif kind == "name":
        (root / "odd\nname").write_text("x")
    else:
        write(root, {"/".join(["odd"] * 20): b"x"})

    with pytest.raises(ReleaseRefused, match="odd") as caught:
        pack(root)

    assert caught.value.reason is Reason.PACK_REFUSED


@pytest.mark.parametrize("growth", [-1, 1])
def test_a_file_that_is_still_written_is_refused(growth: int, tmp_path: Path) -> None:
    """Otherwise half of it would be published with a right checksum."""
    root = write(tmp_path / "tree", {"a": b"x" * 3 * MIB, "b": b"y" * 3 * MIB})
    calls = []

    def check() -> None:
        calls.append(1)
        if len(calls) == 1:
            with (root / "a").open("r+b") as file:
                file.truncate(3 * MIB + growth)

    with pytest.raises(ReleaseRefused, match="still written") as caught:
        pack_tree(root, Version(7), lambda _: None, {}, check=check)

    assert caught.value.reason is Reason.PACK_REFUSED


def _swap(path: Path, kind: str, other: Path) -> None:
    if kind == "rewritten":
        path.write_bytes(b"z" * path.stat().st_size)
        return
    path.unlink()
    if kind == "link":
        path.symlink_to(other)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "replaced":
        path.write_bytes(other.read_bytes())


@pytest.mark.parametrize("name", ["a", "b", "c/d"])
@pytest.mark.parametrize("kind", ["link", "pipe", "gone", "replaced", "rewritten"])
def test_a_file_that_is_swapped_is_refused(kind: str, name: str, tmp_path: Path) -> None:
    """Between the listing and the end of packing, whatever the size: no link is ever followed."""
    other = tmp_path / "secret"
    other.write_bytes(b"y" * MIB)
    root = write(tmp_path / "tree", dict.fromkeys(("a", "b", "c/d"), b"x" * MIB))
    before = survey(root)
    calls = []
    written: list[bytes] = []

    def check() -> None:
        calls.append(1)
        if len(calls) == 1:
            _swap(root / name, kind, other)

    with pytest.raises(ReleaseRefused, match=name) as caught:  # noqa: PT012 (either may see it)
        pack_tree(root, Version(7), written.append, {}, check=check)
        check_unchanged(root, before)

    assert caught.value.reason is Reason.PACK_REFUSED
    assert (
        "changed" in str(caught.value) or "went away" in str(caught.value) or "neither" in str(caught.value)
    )


def test_a_folder_that_is_swapped_for_a_link_is_refused(tmp_path: Path) -> None:
    """Its files would come from somewhere else."""
    elsewhere = write(tmp_path / "elsewhere", {"d": b"y" * MIB})
    root = write(tmp_path / "tree", dict.fromkeys(("a", "c/d"), b"x" * MIB))
    found = members(root)
    while (member := next(found)).path != "c":
        assert member.path == "a"
    (root / "c").rename(tmp_path / "old")
    (root / "c").symlink_to(elsewhere)

    with pytest.raises(ReleaseRefused, match="changed"):
        next(found)


def test_what_comes_after_the_proof_is_refused(tmp_path: Path) -> None:
    """A file that is added, or a folder, names itself."""
    root = write(tmp_path / "tree", {"a": b"x"})
    before = survey(root)
    check_unchanged(root, before)
    (root / "late").mkdir()

    with pytest.raises(ReleaseRefused, match="late"):
        check_unchanged(root, before)


def test_empty_files_do_not_pile_up(tmp_path: Path) -> None:
    """Headers without data go into frames of about a mebibyte, too: memory stays bounded."""
    root = tmp_path / "tree"
    root.mkdir()
    for number in range(2500):
        (root / f"{'x' * 200}{number}").touch()

    data, packed = pack(root)

    sizes = [
        len(zstandard.ZstdDecompressor().decompress(data[part.offset : part.offset + part.size]))
        for part in packed.parts
    ]
    assert len(sizes) > 1
    assert max(sizes) < MIB + 8 * KIB
    assert len(packed.files) == 2500


def test_an_archive_of_others_is_described_in_ranges(tmp_path: Path) -> None:
    """Ranges of 8 MiB, whatever the chunks were."""
    data = random.Random(3).randbytes(20 * MIB)

    size, sha256, parts = describe(data[start : start + 999_999] for start in range(0, len(data), 999_999))

    assert (size, sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert [(part.offset, part.size) for part in parts] == [
        (0, 8 * MIB),
        (8 * MIB, 8 * MIB),
        (16 * MIB, 4 * MIB),
    ]
    assert all(
        part.sha256 == hashlib.sha256(data[part.offset : part.offset + part.size]).hexdigest()
        for part in parts
    )


def test_the_tar_has_no_trace_of_the_machine(tmp_path: Path, tree: dict[str, bytes]) -> None:
    """No owner, no time, the version as its folder."""
    data, _ = pack(write(tmp_path / "tree", tree), archive_format="tar.gz")
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        members = tar.getmembers()

    assert {(m.uid, m.gid, m.uname, m.gname, m.mtime) for m in members} == {(0, 0, "", "", 0)}
    assert all(member.name == "7" or member.name.startswith("7/") for member in members)


def test_a_file_that_is_written_to_while_it_is_read(tmp_path: Path) -> None:
    """Of the same size before and after, half of it old and half of it new: that is no version."""
    root = write(tmp_path / "tree", {"a": b"a" * 3 * MIB})
    times = 0

    def take(_: bytes) -> None:
        """Take nothing in."""

    def check() -> None:
        nonlocal times
        times += 1
        if times == 2:
            with (root / "a").open("r+b") as file:
                file.write(b"b" * 3 * MIB)

    with pytest.raises(ReleaseRefused, match=r"changed|became") as caught:
        pack_tree(root, Version(7), take, {}, archive_format="tar.zst", check=check)
    assert caught.value.reason is Reason.PACK_REFUSED


def test_a_file_that_becomes_a_link_while_others_are_read(tmp_path: Path) -> None:
    """What the link points to is not packed."""
    root = write(tmp_path / "tree", {"a": b"a", "b": b"b"})
    (tmp_path / "secret").write_bytes(b"s")

    def take(_: bytes) -> None:
        """Take nothing in."""

    def check() -> None:
        (root / "b").unlink()
        (root / "b").symlink_to(tmp_path / "secret")

    with pytest.raises(ReleaseRefused) as caught:
        pack_tree(root, Version(7), take, {}, archive_format="tar.zst", check=check)
    assert caught.value.reason is Reason.PACK_REFUSED
