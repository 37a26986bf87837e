"""Archives as other tools make them, and names as other people give them: what is harmless is accepted."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

import archives as a
from servesync.errors import Reason, ReleaseRefused
from servesync.manifest import File
from servesync.pack import pack_tree
from servesync.plan.versions import StoredObject, Version
from servesync.settings import Limits
from servesync.unpack import unpack_objects
from unpack_box import LIMITS, UnpackBox, content_of, on_disk

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
        ("data/größe/saved_model.pbtxt", "data/gr\\xf6\\xdfe"),
    ],
)
def test_a_deeper_model_is_named_with_the_way_to_pack_it(box: UnpackBox, path: str, folder: str) -> None:
    """MLflow, SageMaker and Triton put folders around it; what to pack instead is said."""
    other = path.rpartition("/")[0] + "/more/saved_model.pb"

    with pytest.raises(ReleaseRefused) as refused:
        box.unpack(a.tar_tree({other: b"deeper", path: b"x"}))

    assert refused.value.reason is Reason.ARCHIVE_LAYOUT
    assert f"tar -czf modelv1.tar.gz -C '{folder}' ." in str(refused.value)


def test_a_model_below_the_version_is_no_contradiction(box: UnpackBox) -> None:
    """A SavedModel may carry another one among its assets."""
    tree = {"saved_model.pb": b"graph", "assets/inner/saved_model.pb": b"x"}

    assert on_disk(box.unpack(a.tar_tree({f"1/{path}": data for path, data in tree.items()})).root) == tree


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


# -- names -------------------------------------------------------------------------------------------------

NAMES: Final = (
    "größe (v2).txt",
    "100%.txt",
    "a&b;c,d.txt",
    "#1 ~x^`$HOME`!?*.txt",
    "\"quoted\" and 'so'.txt",
    "[bold]{x}<y>|.txt",
    "C:x",
    " leading",
    "語彙.txt",
    "😀👍🏽.vocab",
    "اللغة.txt",
    "\u0661",
    "한국어",
    "x\u0323\u0303",
    "ä" * 127,
    "%2e%2e",
    "-rf",
    "$folder$",
)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("how", ["header", "GNU", "PAX", "object", "packed", "manifest"])
def test_a_name_that_can_be_written_is_accepted(name: str, how: str, box: UnpackBox, tmp_path: Path) -> None:
    """A graph names its assets: whoever refuses a name refuses the model. One rule, wherever names go."""
    path = f"assets/{name}"
    tree = {"saved_model.pb": b"graph", path: b"words"}
    if how == "manifest":
        assert File(path=path, size=5, sha256="0" * 64).path == path
        return
    if how == "object":
        into = tmp_path / "into"
        into.mkdir()
        found = unpack_objects(objects(tree), into, LIMITS)
    else:
        found = box.unpack(AS[how](tree, tmp_path))

    assert found.content == content_of(tree)
    assert on_disk(found.root) == tree


def objects(tree: dict[str, bytes]) -> Iterator[tuple[StoredObject, list[bytes]]]:
    """Yield each file as a store hands it out."""
    for path, data in tree.items():
        yield StoredObject(f"prod/m/1/{path}", len(data), "e", path), [data]


def by_packing(tree: dict[str, bytes], folder: Path) -> bytes:
    """Write a tree, and pack it as `servesync publish` does."""
    for path, data in tree.items():
        (folder / "tree" / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / "tree" / path).write_bytes(data)
    out = bytearray()
    pack_tree(folder / "tree", Version(1), out.extend, {})
    return bytes(out)


AS: Final[dict[str, Callable[[dict[str, bytes], Path], bytes]]] = {
    "header": lambda tree, _: a.tar_tree(tree),
    "GNU": lambda tree, _: a.tar(
        *(a.long_name(p.encode()) + a.member("x", data, magic=a.GNU) for p, data in tree.items())
    ),
    "PAX": lambda tree, _: a.tar(
        *(a.pax((b"path", p.encode())) + a.member("x", data) for p, data in tree.items())
    ),
    "packed": by_packing,
}

FLAWED: Final = (
    "back\\slash",
    "new\nline",
    "\x1b[2J",
    "\u202egnp.exe",
    "zero\u200bwidth",
    "gru\u0308n",
    "dot.",
    "space ",
    "ä" * 128,
    "no\u00a0break",
)


@pytest.mark.parametrize("name", FLAWED)
def test_a_name_that_is_a_trap_is_refused_everywhere(name: str, box: UnpackBox, tmp_path: Path) -> None:
    """For the same reason, with the name escaped, and with what renaming an asset would do."""
    tree = {"saved_model.pb": b"graph", f"assets/{name}": b"words"}
    into = tmp_path / "into"
    into.mkdir()
    (tmp_path / "folder/assets").mkdir(parents=True)
    (tmp_path / "folder/assets/x").write_bytes(b"")
    if len(name.encode()) <= 255:
        (tmp_path / "folder/assets" / name).write_bytes(b"words")

        with pytest.raises(ReleaseRefused) as packing:
            pack_tree(tmp_path / "folder", Version(1), lambda _: None, {})

        assert "asset" in str(packing.value)
        assert str(packing.value).isascii()
        assert str(packing.value).isprintable()

    unpacking: tuple[Callable[[], object], ...] = (
        lambda: box.unpack(AS["PAX"](tree, tmp_path)),
        lambda: unpack_objects(objects(tree), into, LIMITS),
    )
    for unpack in unpacking:
        with pytest.raises(ReleaseRefused) as refused:
            unpack()
        assert refused.value.reason is Reason.ARCHIVE_PATH
        assert "asset" in str(refused.value)
        assert str(refused.value).isascii()
        assert str(refused.value).isprintable()
    with pytest.raises(ValueError, match="path"):
        File(path=f"assets/{name}", size=5, sha256="0" * 64)


@pytest.mark.parametrize("twins", [("Über", "über"), ("straße", "STRASSE"), ("ΣΊΣΥΦΟΣ", "σίσυφος")])
def test_names_that_some_filesystem_takes_for_one_are_refused(
    twins: tuple[str, str], box: UnpackBox, tmp_path: Path
) -> None:
    """Case does not count there, in any alphabet."""
    tree = {"saved_model.pb": b"graph"} | {f"assets/{name}": b"words" for name in twins}

    with pytest.raises(ReleaseRefused) as refused:
        box.unpack(AS["header"](tree, tmp_path))

    assert refused.value.reason is Reason.ARCHIVE_DUPLICATE
