"""Every asset that a graph names is a regular file below `assets/`, whatever its name."""

from collections.abc import Callable
from pathlib import Path

import pytest

import graph_bytes as gb
from servesync.errors import Reason, ReleaseRefused
from servesync.verify import ModelFacts, verify_structure

GRAPH, SIGNATURE = gb.served([gb.node("out", "NoOp"), gb.node("path", "Const")])


def version(root: Path, *more: bytes) -> Path:
    """Write a SavedModel with these fields in its meta graph."""
    (root / "assets").mkdir()
    (root / "saved_model.pb").write_bytes(gb.saved_model(GRAPH, SIGNATURE, *more))
    return root


def refusal(root: Path) -> ReleaseRefused:
    """Return why a version is refused."""
    with pytest.raises(ReleaseRefused) as caught:
        verify_structure(root)
    return caught.value


def collection(name: str, *files: str) -> bytes:
    """Return a collection of assets, each with a tensor of its own."""
    kind = gb.data(1, "type.googleapis.com/tensorflow.AssetFileDef")
    packed = b"".join(
        gb.data(1, kind + gb.data(2, gb.data(1, gb.data(1, f"path{index}:0")) + gb.data(2, file)))
        for index, file in enumerate(files)
    )
    return gb.entry(4, name, gb.data(5, packed))


@pytest.mark.parametrize(
    "name",
    [
        "words.txt",
        "more/words.txt",
        "./words.txt",
        "more//words.txt",
        "the words (1), 100%.txt",
        "w\u00f6rter.txt",
        "..words..",
        "x" * 255,
    ],
)
def test_any_file_below_assets_will_do(name: str, tmp_path: Path) -> None:
    """Also an empty one: decision forests mark their end with one."""
    root = version(tmp_path, gb.asset("path:0", name))
    (root / "assets/more").mkdir()
    (root / "assets" / name).touch()

    assert verify_structure(root).signatures == ("serving_default",)


@pytest.mark.parametrize(
    "name", ["", ".", "..", "/etc/passwd", "../words.txt", "a/../../words.txt", "a/..", "a/", "nul\0byte"]
)
def test_a_name_that_leads_out_is_refused(name: str, tmp_path: Path) -> None:
    """The file may be there or not: the server would look for it elsewhere than in the version."""
    root = version(tmp_path, gb.asset("path:0", name))
    (root / "words.txt").touch()
    (root / "assets/a").mkdir()
    error = refusal(root)

    assert error.reason is Reason.ASSET_INVALID
    assert ascii(name) in str(error)


def _leave_out(_path: Path) -> None:
    """Make nothing."""


def _rename(path: Path) -> None:
    path.with_name("Words.txt").touch()


def _link_to_nothing(path: Path) -> None:
    path.symlink_to("nowhere")


def _link_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


@pytest.mark.parametrize(
    "put", [_leave_out, _rename, Path.mkdir, _link_to_nothing, _link_to_itself], ids=lambda put: put.__name__
)
def test_what_is_no_file_is_missed(put: Callable[[Path], None], tmp_path: Path) -> None:
    """The message has the path, and what lies beside."""
    root = version(tmp_path, gb.asset("path:0", "words.txt"))
    put(root / "assets/words.txt")
    error = refusal(root)

    assert error.reason is Reason.ASSET_MISSING
    assert "missing, or are no regular files: 'assets/words.txt' (assets/ " in str(error)
    assert ("holds 'Words.txt'" in str(error)) == (put is _rename)
    assert error.facts["files"] == ["words.txt"]


def test_a_name_too_long_for_a_file_is_missed(tmp_path: Path) -> None:
    """No file system has it; the message is cut."""
    error = refusal(version(tmp_path, gb.asset("path:0", "x" * 5000)))

    assert error.reason is Reason.ASSET_MISSING
    assert len(str(error)) < 1000


def test_every_missing_one_counts(tmp_path: Path) -> None:
    """Some are named, escaped; the rest is counted."""
    files = [gb.asset(f"path{number}:0", f"w\u00f6rter{number}.txt") for number in range(8)]
    root = version(tmp_path, *files)
    (root / "assets/w\u00f6rter3.txt").touch()
    error = refusal(root)

    assert "'assets/w\\xf6rter0.txt'" in str(error)
    assert "w\\xf6rter3.txt'," not in str(error)
    assert "and 2 more (assets/ holds 'w\\xf6rter3.txt')" in str(error)


def test_the_old_collection_counts_where_the_field_is_empty(tmp_path: Path) -> None:
    """As TensorFlow's loader reads it, and no other collection."""
    root = version(tmp_path, collection("others", "../x"), collection("saved_model_assets", "a", "b"))
    (root / "assets/a").touch()
    error = refusal(root)

    assert error.reason is Reason.ASSET_MISSING
    assert error.facts["files"] == ["b"]


def test_the_old_collection_does_not_count_beside_the_field(tmp_path: Path) -> None:
    """Releases in between wrote both; the field is what is read."""
    both = gb.asset("path:0", "a"), collection("saved_model_assets", "b")
    root = version(tmp_path, *both)
    (root / "assets/a").touch()

    assert verify_structure(root) == ModelFacts(0, 0, 0, ("serving_default",), "")


def test_the_assets_of_another_graph_do_not_count(tmp_path: Path) -> None:
    """Only the graph with the tag `serve` is loaded."""
    other = gb.saved_model(GRAPH, SIGNATURE, gb.asset("path:0", "gone"), tag="train")
    root = version(tmp_path)
    path = root / "saved_model.pb"
    path.write_bytes(other + path.read_bytes())

    assert verify_structure(root).signatures == ("serving_default",)


@pytest.mark.parametrize("second", ["path:0", "path"])
def test_two_assets_for_one_tensor_are_refused(second: str, tmp_path: Path) -> None:
    """The server refuses to set a tensor twice, be it to the same file."""
    root = version(tmp_path, gb.asset("path:0", "a"), gb.asset(second, "a"))
    (root / "assets/a").touch()

    assert refusal(root).reason is Reason.ASSET_INVALID


def test_one_file_may_serve_two_tensors(tmp_path: Path) -> None:
    """Two tables may share a vocabulary."""
    root = version(tmp_path, gb.asset("path:0", "a"), gb.asset("path:1", "a"))
    (root / "assets/a").touch()

    assert verify_structure(root).signatures == ("serving_default",)
