"""Archives as other tools make them: what changes nothing about a member is accepted."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

import archives as a
from servesync.errors import Reason, ReleaseRefused
from servesync.settings import Limits
from unpack_box import UnpackBox, content_of, on_disk

TREE: Final = {
    "saved_model.pb": b"graph" * 1000,
    "variables/variables.index": b"index",
    "variables/variables.data-00000-of-00001": os.urandom(200_000),
    "assets/" + "n" * 80 + "/" + "m" * 70 + "/vocabulary.txt": b"words",
}
FOLDER: Final = {f"0000001/{path}": data for path, data in TREE.items()}
TIMES: Final = b"15303056140\x00" * 2


@pytest.fixture
def box(tmp_path: Path) -> UnpackBox:
    """Somewhere to unpack into."""
    return UnpackBox(tmp_path)


@pytest.fixture
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the version in `0000001`, one file with an attribute where the filesystem has them."""
    base = tmp_path_factory.mktemp("publisher")
    for path, data in FOLDER.items():
        (base / path).parent.mkdir(parents=True, exist_ok=True)
        (base / path).write_bytes(data)
    try:
        os.setxattr(base / "0000001/saved_model.pb", "user.note", b"line\nfeed\x00=")
    except OSError:  # then the tests with bytes of our own are all there is
        assert base.is_dir()
    return base


def output_of(*command: str, cwd: Path, **more: str) -> bytes:
    """Run a tool that writes an archive to standard output; skip where it is missing."""
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    return subprocess.run(command, cwd=cwd, check=True, capture_output=True, env=os.environ | more).stdout


# -- tar ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "records",
    [
        ((b"SCHILY.dev", b"64768"), (b"SCHILY.ino", b"9223372036854775808"), (b"SCHILY.nlink", b"2")),
        ((b"LIBARCHIVE.creationtime", b"1700000000.5"), (b"SCHILY.fflags", b"nodump")),
        ((b"SCHILY.xattr.user.x", b"1\n2=3\x00"), (b"LIBARCHIVE.xattr.user.x", b"MQo")),
        ((b"SCHILY.xattr.security.capability", b"\x01\x00\x00\x02"),),
        ((b"LIBARCHIVE.xattr.com.apple.provenance", b"AQ"),),
        ((b"RHT.security.selinux", b"system_u:object_r:httpd_sys_content_t:s0\x00"),),
        ((b"SCHILY.acl.access", b"user::rw-,user:1001:rwx"), (b"SCHILY.acl.default", b"user::rwx")),
        ((b"hdrcharset", b"BINARY"), (b"path", "0000001/größe".encode())),
        ((b"hdrcharset", b"ISO-IR 10646 2000 UTF-8"), (b"comment", b"")),
    ],
)
def test_pax_records_that_change_nothing_are_passed_over(
    box: UnpackBox, records: tuple[tuple[bytes, bytes], ...]
) -> None:
    """Devices, inodes, attributes and rights: files get mode 0644 and no attribute, whatever stands there."""
    archive = a.tar(a.member("0000001/saved_model.pb", b"x"), a.pax(*records), a.member("0000001/y", b"yy"))

    unpacked = box.unpack(archive)

    files = {path: unpacked.root / path for path in on_disk(unpacked.root)}
    assert unpacked.content.total_bytes == 3
    assert len(files) == 2
    assert all(path.stat().st_mode & 0o7777 == 0o644 for path in files.values())
    assert not any(os.listxattr(path) for path in files.values())


@pytest.mark.parametrize("prefix", [b"", b"0000001"])
def test_times_in_the_header_as_npm_writes_them_are_passed_over(box: UnpackBox, prefix: bytes) -> None:
    """They stand behind the end of the prefix, where every reader stops."""
    name = b"saved_model.pb" if prefix else b"0000001/saved_model.pb"
    archive = a.tar(a.header(name, prefix=prefix.ljust(131, b"\x00") + TIMES))

    assert on_disk(box.unpack(archive).root) == {"saved_model.pb": b""}


@pytest.mark.parametrize("kind", [b"0", b"\x00"])
def test_a_directory_as_the_oldest_tar_writes_it(box: UnpackBox, kind: bytes) -> None:
    """It has no type for directories: a slash ends the name."""
    archive = a.tar(
        a.member("0000001/", kind=kind, magic=a.V7),
        a.member("0000001/assets/", kind=kind, magic=a.V7),
        a.member("0000001/saved_model.pb", b"x", kind=kind, magic=a.V7),
    )

    unpacked = box.unpack(archive)

    assert on_disk(unpacked.root) == {"saved_model.pb": b"x"}
    assert (unpacked.root / "assets").is_dir()


@pytest.mark.parametrize("form", ["pax", "paxr", "ustar", "gnutar"])
@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_what_bsdtar_packs_is_unpacked(box: UnpackBox, packed: Path, form: str, locale: str) -> None:
    """With attributes, rights and flags, and in a container without a locale."""
    (packed / "0000001/assets/größe (2).txt").write_bytes(b"x")
    archive = output_of(
        *("bsdtar", f"--format={form}", "--xattrs", "--acls", "--fflags", "-cf", "-", "0000001"),
        cwd=packed,
        LC_ALL=locale,
    )

    assert on_disk(box.unpack(archive).root) == TREE | {"assets/größe (2).txt": b"x"}


@pytest.mark.parametrize("form", ["v7", "oldgnu", "gnu", "ustar", "posix"])
def test_what_gnu_tar_packs_with_all_it_knows_is_unpacked(box: UnpackBox, packed: Path, form: str) -> None:
    """Attributes, rights and labels, where the format has a place for them; short names, as v7 wants them."""
    shutil.rmtree(packed / "0000001/assets")
    more = ("--xattrs", "--xattrs-include=*", "--acls", "--selinux") if form == "posix" else ()
    archive = output_of("tar", f"--format={form}", *more, "-cf", "-", "0000001", cwd=packed)

    assert on_disk(box.unpack(archive).root) == {p: d for p, d in TREE.items() if "assets" not in p}


@pytest.mark.parametrize("options", ["{}", "{portable: true}", "{noPax: true}", "{mtime: new Date(1e13)}"])
def test_what_npms_tar_packs_is_unpacked(box: UnpackBox, packed: Path, options: str) -> None:
    """Device, inode and link counts in PAX headers, and times in the others."""
    npm = shutil.which("npm")
    library = Path(npm).resolve().parents[1] / "node_modules/tar" if npm else Path("/nowhere")
    if not library.is_dir():
        pytest.skip("npm, with its library tar, is not installed")
    target = packed / "made.tgz"
    script = f"""
        const places = {{cwd: {str(packed)!r}, file: {str(target)!r}}};
        require({str(library)!r}).c({{sync: true, gzip: true, ...places, ...{options}}}, ['0000001']);
    """
    output_of("node", "-e", script, cwd=packed)

    assert on_disk(box.unpack(target.read_bytes()).root) == TREE


@pytest.mark.parametrize(
    ("path", "folder"),
    [
        ("1/data/model/saved_model.pb", "1/data/model"),
        ("export/Servo/1/saved_model.pb", "export/Servo/1"),
        ("1/model.savedmodel/saved_model.pb", "1/model.savedmodel"),
        ("model/saved_model.pb", "model"),
        ("my model/saved_model.pbtxt", "'my model'"),
    ],
)
def test_a_deeper_model_is_named_with_the_way_to_pack_it(box: UnpackBox, path: str, folder: str) -> None:
    """MLflow, SageMaker and Triton put folders around it; what to pack instead is said."""
    other = path.rpartition("/")[0] + "/more/saved_model.pb"

    with pytest.raises(ReleaseRefused) as refused:
        box.unpack(a.tar_tree({other: b"deeper", path: b"x"}))

    assert refused.value.reason is Reason.ARCHIVE_LAYOUT
    assert str(refused.value).endswith(f": pack that directory (tar -czf modelv1.tar.gz -C {folder} .)")


@pytest.mark.parametrize(
    "folder", ["x'$(touch here)", "`touch here`", "$HOME;touch here", "x' \"$(touch here)"]
)
def test_the_way_to_pack_a_deeper_model_runs_nothing_else(
    box: UnpackBox, tmp_path: Path, folder: str
) -> None:
    """The folder's name comes from whoever may upload, and the command is there to be copied to a shell."""
    with pytest.raises(ReleaseRefused) as refused:
        box.unpack(a.tar_tree({f"{folder}/saved_model.pb": b"x"}))
    (tmp_path / "cwd" / folder).mkdir(parents=True)
    (tmp_path / "cwd" / folder / "saved_model.pb").touch()
    command = str(refused.value).partition("pack that directory (")[2].removesuffix(")")

    output_of("sh", "-c", command, cwd=tmp_path / "cwd")

    assert {path.name for path in (tmp_path / "cwd").iterdir()} == {folder, "modelv1.tar.gz"}


@pytest.mark.parametrize("folder", ["größe", "x" * 81])
def test_a_command_that_would_be_another_one_when_shown_is_not_named(box: UnpackBox, folder: str) -> None:
    """What is escaped or cut is no name for a shell; the folder is named all the same."""
    with pytest.raises(ReleaseRefused) as refused:
        box.unpack(a.tar_tree({f"{folder}/saved_model.pb": b"x"}))

    assert ascii(folder)[1:20] in str(refused.value)
    assert str(refused.value).endswith(": pack that directory")


def test_a_model_below_the_version_is_no_contradiction(box: UnpackBox) -> None:
    """A SavedModel may carry another one among its assets."""
    tree = {"saved_model.pb": b"graph", "assets/inner/saved_model.pb": b"x"}

    assert on_disk(box.unpack(a.tar_tree({f"1/{path}": data for path, data in tree.items()})).root) == tree


LONG_EMPTY: Final = b"variables/an-empty-file"


@pytest.mark.parametrize("said", [a.long_name(LONG_EMPTY), a.pax((b"path", LONG_EMPTY))])
def test_a_v7_file_is_no_directory_because_its_short_name_is_cut(box: UnpackBox, said: bytes) -> None:
    """Where an extension tells the name, the header holds only its beginning, up to a slash maybe."""
    archive = a.tar(said, a.header(b"variables/", magic=a.V7), a.member("saved_model.pb", b"graph"))

    assert on_disk(box.unpack(archive).root) == {LONG_EMPTY.decode(): b"", "saved_model.pb": b"graph"}


def test_a_v7_directory_may_have_a_long_name(box: UnpackBox) -> None:
    """The slash at the end of the whole name says what it is, as for GNU tar."""
    archive = a.tar(a.long_name(b"assets/"), a.header(b"ass", magic=a.V7), a.member("saved_model.pb", b"x"))

    assert (box.unpack(archive).root / "assets").is_dir()


# -- gzip --------------------------------------------------------------------------------------------------


def members(data: bytes, size: int) -> bytes:
    """Compress as many gzip members of `size` bytes each, with bgzip's empty one at the end."""
    pieces = (data[at : at + size] for at in range(0, len(data), size))
    extra = b"\x06\x00BC\x02\x00\xff\x00"  # where bgzip says how large a member is
    return b"".join(a.gz_with_header(piece, 0x04, extra) for piece in pieces) + a.gz(b"")


@pytest.mark.parametrize("size", [1, 511, 512, 65_280])
@pytest.mark.parametrize("sizes", [(1,), (511, 1, 3), (65_536,), (10**9,)])
def test_gzip_members_are_joined(box: UnpackBox, size: int, sizes: tuple[int, ...]) -> None:
    """Concatenation is gzip's standard (RFC 1952): bgzip cuts every 64 KiB, others at each file."""
    tree = {"saved_model.pb": b"graph" * 50, "variables/x": bytes(range(256)) * 20}

    assert box.unpack(members(a.tar_tree(tree), size), sizes=sizes).content == content_of(tree)


@pytest.mark.parametrize("command", [("pigz", "-c"), ("pigz", "-ic", "-b128"), ("bgzip", "-c", "-@2")])
def test_what_parallel_compressors_write_is_unpacked(
    box: UnpackBox, packed: Path, command: tuple[str, ...]
) -> None:
    """The real tools, with the real tar."""
    (packed / "made.tar").write_bytes(a.tar_tree(FOLDER))
    archive = output_of(*command, "made.tar", cwd=packed)

    assert box.unpack(archive).content == content_of(TREE)


def test_the_ratio_is_that_of_all_members(box: UnpackBox) -> None:
    """Honest data first does not buy a bomb behind it more than the ratio allows."""
    honest = a.member("0000001/noise", os.urandom(300_000))
    zeros = a.member("0000001/zeros", bytes(60 << 20))
    archive = a.gz(honest) + a.gz(zeros) + a.gz(a.END)

    with pytest.raises(ReleaseRefused) as refused:
        box.unpack(archive, limits=Limits(max_ratio=100))

    assert refused.value.reason is Reason.ARCHIVE_RATIO
    assert box.unpack(archive, limits=Limits(max_ratio=300)).content.total_bytes == (60 << 20) + 300_000


@pytest.mark.parametrize("sizes", [(12 + 65_535, 65_536), (10**9,), (1000,)])
def test_a_gzip_header_is_as_long_however_it_arrives(box: UnpackBox, sizes: tuple[int, ...]) -> None:
    """A name behind the longest extra field goes over the bound, at every boundary of chunks."""
    fields = b"\xff\xff" + bytes(65_535) + b"name\x00"
    archive = a.gz_with_header(a.tar_tree({"saved_model.pb": b"graph"}), 0x04 | 0x08, fields)

    with pytest.raises(ReleaseRefused) as refused:
        box.unpack(archive, sizes=sizes)

    assert refused.value.reason is Reason.ARCHIVE_CORRUPT
