"""Honest archives become exactly the tree that was packed, whoever packed it and however it arrives."""

import os
import shutil
import stat
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

import archives as a
from servesync.domain.versions import Version
from servesync.errors import Reason, ReleaseRefused, Stopped, TransferError
from servesync.settings import Limits
from servesync.unpack import unpack_archive
from unpack_box import LIMITS, UnpackBox, content_of, on_disk, open_descriptors

LONG = "/".join(["assets", "n" * 80, "m" * 70, "vocabulary.txt"])
TREE = {
    "saved_model.pb": b"graph" * 1000,
    "variables/variables.index": b"index",
    "variables/variables.data-00000-of-00001": os.urandom(300_000),
    "assets/empty": b"",
    "assets/a name with spaces": b"x" * 512,
    LONG: b"words",
}
FOLDER = {f"0000001/{path}": data for path, data in TREE.items()}
COMPRESS: Final[dict[str, Callable[[bytes], bytes]]] = {
    "tar": bytes,
    "gzip": a.gz,
    "zstd": a.zst,
    "frames": lambda data: a.zst_frames(data, 70_000),
}


@pytest.fixture
def box(tmp_path: Path) -> UnpackBox:
    """Somewhere to unpack into."""
    return UnpackBox(tmp_path)


@pytest.fixture
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the version in `0000001`, as a publisher has it."""
    base = tmp_path_factory.mktemp("publisher")
    for path, data in FOLDER.items():
        (base / path).parent.mkdir(parents=True, exist_ok=True)
        (base / path).write_bytes(data)
    return base


@pytest.mark.parametrize("tool", ["ustar", "gnu", "pax", "posix"])
@pytest.mark.parametrize("how", [["0000001"], ["-C", "0000001", "."]])
@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_what_gnu_tar_packs_is_unpacked(
    box: UnpackBox, packed: Path, tool: str, how: list[str], compression: str
) -> None:
    """Every format of GNU tar, as a folder and as its content, gives the same content."""
    option = [] if compression == "none" else [f"--{compression}"]
    command = ["tar", f"--format={tool}", *option, "-cf", "-", *how]
    archive = subprocess.run(command, cwd=packed, check=True, capture_output=True).stdout

    unpacked = box.unpack(archive)

    assert unpacked.content == content_of(TREE)
    assert on_disk(unpacked.root) == TREE


@pytest.mark.parametrize("tar_format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_what_pythons_tarfile_packs_is_unpacked(
    box: UnpackBox, packed: Path, tar_format: int, mode: str
) -> None:
    """Every format of Python's tarfile gives the same content."""
    target = packed / "made.tar"
    with tarfile.open(str(target), mode, format=tar_format) as tar:  # type: ignore[call-overload]
        tar.add(packed / "0000001", arcname="0000001")

    assert box.unpack(target.read_bytes()).content == content_of(TREE)


def test_what_the_zstd_tool_compresses_from_a_pipe_is_unpacked(box: UnpackBox) -> None:
    """A frame without a content size, with the tool's default checksum."""
    if shutil.which("zstd") is None:
        pytest.skip("the zstd tool is not installed")
    archive = subprocess.run(
        ["zstd", "-q", "-c", "-T2"], input=a.tar_tree(FOLDER), check=True, capture_output=True
    ).stdout

    assert box.unpack(archive).content == content_of(TREE)


@pytest.mark.parametrize("header", [(0x04, b"\x03\x00abc"), (0x08, b"m.tar\x00"), (0x10, b"a comment\x00")])
def test_optional_gzip_header_fields_are_passed_over(box: UnpackBox, header: tuple[int, bytes]) -> None:
    """Extra fields, a name and a comment say nothing about the content."""
    assert box.unpack(a.gz_with_header(a.tar_tree(FOLDER), *header)).content == content_of(TREE)


@pytest.mark.parametrize("compression", COMPRESS)
@pytest.mark.parametrize("sizes", [(1,), (511, 1, 3), (8192,), (10**9,)])
def test_chunk_boundaries_do_not_matter(box: UnpackBox, compression: str, sizes: tuple[int, ...]) -> None:
    """The same content comes out, though every chunk is overwritten when the next is asked for."""
    tree = {"saved_model.pb": b"graph" * 50, "variables/x": bytes(range(256)) * 20}

    unpacked = box.unpack(COMPRESS[compression](a.tar_tree(tree)), sizes=sizes)

    assert unpacked.content == content_of(tree)
    assert on_disk(unpacked.root) == tree


def test_the_numbered_folder_is_the_root(box: UnpackBox) -> None:
    """Leading zeros do not count; paths are reported relative to the folder."""
    unpacked = box.unpack(a.tar_gz({"0000012/saved_model.pb": b"x"}), version=12)

    assert unpacked.root == box.into / "0000012"
    assert unpacked.content == content_of({"saved_model.pb": b"x"})


def test_content_at_the_top_is_the_root(box: UnpackBox) -> None:
    """`into` itself is the version; a folder with a number deeper inside is just a folder."""
    tree = {"saved_model.pb": b"x", "assets/5/words": b"y"}

    unpacked = box.unpack(a.tar_gz(tree))

    assert unpacked.root == box.into
    assert unpacked.content == content_of(tree)


def test_skippable_frames_are_passed_over(box: UnpackBox) -> None:
    """A small one may stand anywhere between frames, as pzstd and seekable archives have it."""
    data = a.tar_tree(FOLDER)
    archive = a.skippable(12) + a.zst(data[:5000]) + a.skippable(65536) + a.zst(data[5000:]) + a.skippable(0)

    assert box.unpack(archive).content == content_of(TREE)


def test_modes_owners_and_times_of_the_archive_do_not_count(box: UnpackBox) -> None:
    """Whatever the archive and the umask say: directories 0755, files 0644, the time is now."""
    archive = a.tar(
        a.header(b"variables/", kind=b"5", mode=b"0000000\x00"),
        a.header(b"saved_model.pb", mode=b"0006777\x00", mtime=b"\x80" + b"\xff" * 11),
        a.header(b"variables/x", mode=b"0000000\x00", mtime=b"77777777777\x00"),
    )
    old = os.umask(0o077)
    try:
        unpacked = box.unpack(archive)
    finally:
        os.umask(old)

    modes = {
        str(path.relative_to(unpacked.root)): stat.S_IMODE(path.stat().st_mode)
        for path in (unpacked.root, *unpacked.root.rglob("*"))
    }
    assert modes == {".": 0o755, "variables": 0o755, "saved_model.pb": 0o644, "variables/x": 0o644}
    assert (unpacked.root / "variables/x").stat().st_mtime < 2**32


def test_the_group_of_a_volume_is_kept(box: UnpackBox, tmp_path: Path) -> None:
    """A set-group-ID bit on `into` is inherited and stays."""
    into = tmp_path / "into-77"
    into.mkdir()
    into.chmod(0o2775)
    archive = a.tar_tree({"saved_model.pb": b"", "variables/x": b""})

    unpack_archive([archive], into, Version(1), LIMITS, archive_bytes=len(archive))

    assert stat.S_IMODE((into / "variables").stat().st_mode) == 0o2755
    assert box.around()


def test_directories_may_come_in_any_order_and_twice(box: UnpackBox) -> None:
    """Before their content, after it, or not at all."""
    archive = a.tar(
        a.directory("./"),
        a.member("./variables/deep/x", b"1"),
        a.directory("./variables/"),
        a.directory("./variables/deep/"),
        a.member("./saved_model.pb", b"2"),
        a.member("./variables/y", b"3"),
        a.directory("./assets/"),
        a.directory("./variables/"),
    )

    unpacked = box.unpack(archive)

    expected = {"variables/deep/x": b"1", "saved_model.pb": b"2", "variables/y": b"3"}
    assert unpacked.content == content_of(expected)
    assert (unpacked.root / "assets").is_dir()


@pytest.mark.parametrize(
    "prelude",
    [
        a.pax((b"comment", b"0123456789abcdef"), kind=b"g"),
        a.pax((b"mtime", b"nan"), (b"uname", "j\u00f6rg".encode()), (b"uid", b"-1"), (b"comment", b"")),
    ],
)
def test_pax_headers_about_owners_and_times_are_passed_over(box: UnpackBox, prelude: bytes) -> None:
    """They are not even parsed: `mtime=nan` cannot hurt."""
    assert box.unpack(a.tar(prelude, a.member("saved_model.pb", b"x"))).content.total_bytes == 1


def test_a_pax_size_is_honoured_where_ustar_cannot_say_it(box: UnpackBox) -> None:
    """Eight gigabytes and more are in the PAX header alone: the limit is held against that."""
    archive = a.tar(a.pax((b"size", b"8589934592")), a.header(b"saved_model.pb", size=0))

    with pytest.raises(ReleaseRefused) as refused:
        box.unpack(archive, limits=Limits(max_unpacked_bytes=8589934591))

    assert refused.value.reason is Reason.ARCHIVE_TOO_BIG
    assert refused.value.facts["unpacked_bytes"] == 8589934592


def test_small_zero_filled_variables_are_no_bomb(box: UnpackBox) -> None:
    """Fifteen megabytes of zeros in fifteen kilobytes are what an untrained model looks like."""
    tree = {"saved_model.pb": b"x", "variables/zeros": bytes(15 << 20)}

    assert box.unpack(a.tar_gz(tree)).content == content_of(tree)


ZEROS: Final = bytes(40 << 20)


@pytest.mark.parametrize("compress", [a.gz, a.zst])
def test_a_promised_stretch_of_zeros_is_no_bomb(
    box: UnpackBox, tmp_path: Path, compress: Callable[[bytes], bytes]
) -> None:
    """The whole keeps to the ratio: with a manifest that says so it is unpacked, without one refused."""
    tree = {"1/saved_model.pb": ZEROS, "1/variables/x": os.urandom(1 << 20)}
    data = compress(a.tar_tree(tree))

    def unpack(into: str, promised: int | None) -> str:
        (tmp_path / into).mkdir()
        done = unpack_archive(
            a.in_chunks(data),
            tmp_path / into,
            Version(1),
            Limits(),
            archive_bytes=len(data),
            promised_bytes=promised,
        )
        return str(done.content.total_bytes)

    size = sum(map(len, tree.values()))
    assert unpack("promised", size) == str(size)
    for into, promised, reason in (
        ("bare", None, Reason.ARCHIVE_RATIO),
        ("lied", 1 << 20, Reason.ARCHIVE_TOO_BIG),
    ):
        with pytest.raises(ReleaseRefused) as caught:
            unpack(into, promised)
        assert caught.value.reason is reason
    data = compress(a.tar_tree({"1/saved_model.pb": ZEROS}))
    with pytest.raises(ReleaseRefused) as caught:
        unpack("bomb", len(ZEROS))
    assert caught.value.reason is Reason.ARCHIVE_RATIO


def test_limits_are_inclusive(box: UnpackBox) -> None:
    """What is exactly as large as allowed is accepted."""
    archive = a.tar_gz(FOLDER)
    size = sum(map(len, FOLDER.values()))
    directories = {str(parent) for path in FOLDER for parent in Path(path).parents} - {"."}
    limits = Limits(
        max_archive_bytes=len(archive),
        max_unpacked_bytes=size,
        max_members=len(FOLDER) + len(directories),
    )

    assert box.unpack(archive, limits=limits).content.total_bytes == size


@pytest.mark.parametrize("listed", [-1, +1, +100_000])
@pytest.mark.parametrize("compression", COMPRESS)
def test_another_length_than_listed_is_the_transfers_fault(
    box: UnpackBox, compression: str, listed: int
) -> None:
    """The release is not refused for it: it is fetched again."""
    archive = COMPRESS[compression](a.tar_tree(FOLDER))

    with pytest.raises(TransferError) as broken:
        box.unpack(archive, archive_bytes=len(archive) + listed)

    assert broken.value.reason is Reason.TRANSFER_BROKEN


def test_an_archive_listed_over_the_limit_is_not_even_begun(box: UnpackBox) -> None:
    """Not one chunk is asked for."""
    asked = []

    def watched() -> Iterator[bytes]:
        asked.append(1)
        yield bytes(2001)

    with pytest.raises(ReleaseRefused) as refused:
        unpack_archive(watched(), box.into, Version(1), Limits(max_archive_bytes=2000), archive_bytes=2001)

    assert refused.value.reason is Reason.ARCHIVE_TOO_BIG
    assert not asked


def test_a_stop_on_the_way_passes_through_and_leaves_nothing_open(box: UnpackBox) -> None:
    """The error of the chunks is the caller's own; no descriptor stays open."""
    archive = a.gz(a.tar_tree(FOLDER))

    def stopped() -> Iterator[bytes]:
        yield archive[: len(archive) // 2]
        raise Stopped

    into = box.into / "into-5"
    into.mkdir()
    before = open_descriptors()
    with pytest.raises(Stopped):
        unpack_archive(stopped(), into, Version(1), LIMITS, archive_bytes=len(archive))

    assert open_descriptors() <= before


def test_a_full_disk_is_an_oserror_that_names_the_file(box: UnpackBox) -> None:
    """A limit on the size of files stands in for the disk: the write fails, nothing stays open."""
    script = """
import resource, signal, sys
from pathlib import Path
from servesync.settings import Limits
from servesync.unpack import unpack_archive
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
data = sys.stdin.buffer.read()
try:
    unpack_archive([data], Path(sys.argv[1]), 1, Limits(), archive_bytes=len(data))
except OSError as error:
    print(error.errno, error.filename)
"""
    into = box.into / "into-6"
    into.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", script, str(into)],
        input=a.tar_gz(FOLDER),
        capture_output=True,
        check=True,
    )

    expected = into / "0000001/variables/variables.data-00000-of-00001"
    assert done.stdout.decode().split() == ["27", str(expected)]


def test_into_must_be_a_real_directory(tmp_path: Path) -> None:
    """A symbolic link is not followed, even to a directory that is fine."""
    (tmp_path / "real").mkdir()
    (tmp_path / "into").symlink_to("real")
    archive = a.tar_tree(FOLDER)

    with pytest.raises(NotADirectoryError):
        unpack_archive([archive], tmp_path / "into", Version(1), LIMITS, archive_bytes=len(archive))

    assert list((tmp_path / "real").iterdir()) == []


def test_a_file_that_is_in_the_way_is_not_overwritten(box: UnpackBox) -> None:
    """`into` was not empty: the old file keeps its content."""
    into = box.into / "into-8"
    into.mkdir()
    (into / "saved_model.pb").write_bytes(b"old")
    archive = a.tar_tree({"saved_model.pb": b"new"})

    with pytest.raises(FileExistsError):
        unpack_archive([archive], into, Version(1), LIMITS, archive_bytes=len(archive))

    assert (into / "saved_model.pb").read_bytes() == b"old"


def test_many_directories_need_few_descriptors(box: UnpackBox) -> None:
    """Descriptors do not grow with the tree."""
    tree = {"saved_model.pb": b"x"} | {f"assets/{n}/a/b/c/d": b"x" for n in range(300)}
    seen = 0

    def watched() -> Iterator[bytes]:
        nonlocal seen
        for view in a.in_chunks(a.tar_tree(tree), (4096,)):
            seen = max(seen, open_descriptors())
            yield bytes(view)

    into = box.into / "into-9"
    into.mkdir()
    before = open_descriptors()
    unpack_archive(watched(), into, Version(1), LIMITS, archive_bytes=len(a.tar_tree(tree)))

    assert seen <= before + 32
    assert open_descriptors() <= before
