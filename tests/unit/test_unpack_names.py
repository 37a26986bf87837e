"""Names as people give them to files: what can be written and told from others is accepted, everywhere."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

import archives as a
from servesync.domain.manifest import File
from servesync.domain.versions import StoredObject, Version
from servesync.errors import Reason, ReleaseRefused
from servesync.publishing.pack import pack_tree
from servesync.unpack import unpack_objects
from unpack_box import LIMITS, UnpackBox, content_of, on_disk


@pytest.fixture
def box(tmp_path: Path) -> UnpackBox:
    """Somewhere to unpack into."""
    return UnpackBox(tmp_path)


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
    "\u2764\ufe0f.txt",
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
    "hangul\u3164filler",
    "half\uffa0filler",
    "grapheme\u034fjoiner",
    "\ufe0f",
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


@pytest.mark.parametrize(
    "twins",
    [
        ("Über", "über"),
        ("straße", "STRASSE"),
        ("ΣΊΣΥΦΟΣ", "σίσυφος"),
        ("\u2764.txt", "\u2764\ufe0f.txt"),
        ("葛", "葛\U000e0100"),
    ],
)
def test_names_that_some_filesystem_takes_for_one_are_refused(
    twins: tuple[str, str], box: UnpackBox, tmp_path: Path
) -> None:
    """Case does not count there, in any alphabet, and neither do variation selectors (ext4's casefold)."""
    tree = {"saved_model.pb": b"graph"} | {f"assets/{name}": b"words" for name in twins}

    with pytest.raises(ReleaseRefused) as refused:
        box.unpack(AS["header"](tree, tmp_path))

    assert refused.value.reason is Reason.ARCHIVE_DUPLICATE
