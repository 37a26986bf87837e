"""A version of one object a file is written under the same rules as an archive."""

from collections.abc import Iterator
from pathlib import Path

import pytest

import archives as a
from servesync.domain.versions import StoredObject
from servesync.errors import Reason, ReleaseRefused, TransferError
from servesync.install.content import stamps
from servesync.settings import Limits
from servesync.unpack import Unpacked, unpack_objects
from unpack_box import LIMITS, UnpackBox, content_of, on_disk, open_descriptors

TREE = {"saved_model.pb": b"graph" * 9999, "variables/variables.index": b"", "variables/data": b"d" * 70_000}


def offered(
    tree: dict[str, bytes], *, longer: int = 0, sizes: tuple[int, ...] = (4096,)
) -> Iterator[tuple[StoredObject, Iterator[memoryview]]]:
    """Yield each file as a store hands it out, listed as `longer` than it is."""
    for path, data in tree.items():
        item = StoredObject(f"prod/m/1/{path}", len(data) + longer, '"etag"', path)
        yield item, a.in_chunks(data, sizes)


@pytest.fixture
def into(tmp_path: Path) -> Path:
    """An empty directory between sentinels."""
    UnpackBox(tmp_path)
    path = tmp_path / "into-1"
    path.mkdir()
    return path


def refusal(tree: dict[str, bytes], into: Path, limits: Limits = LIMITS) -> Reason:
    """Return why the tree is refused."""
    before = open_descriptors()
    with pytest.raises(ReleaseRefused) as refused:
        unpack_objects(offered(tree), into, limits)
    assert open_descriptors() <= before
    return refused.value.reason


@pytest.mark.parametrize("sizes", [(7,), (4096,), (10**9,)])
def test_objects_become_files(into: Path, sizes: tuple[int, ...]) -> None:
    """Also empty ones, also in directories."""
    unpacked = unpack_objects(offered(TREE, sizes=sizes), into, LIMITS)

    assert unpacked == Unpacked(into, content_of(TREE), stamps(into))
    assert on_disk(into) == TREE


@pytest.mark.parametrize("longer", [-1, 1])
def test_an_object_of_another_length_than_listed_is_the_transfers_fault(into: Path, longer: int) -> None:
    """The release is not refused for it."""
    with pytest.raises(TransferError) as broken:
        unpack_objects(offered({"saved_model.pb": b"x" * 10}, longer=longer), into, LIMITS)

    assert broken.value.reason is Reason.TRANSFER_BROKEN


@pytest.mark.parametrize(
    "path", ["../x", "/etc/x", "a//b", "variables/", "", ".", "a\\b", "a\x00b", "\udcff", "e\u0301"]
)
def test_paths_follow_the_rules_of_archives(into: Path, path: str) -> None:
    """A key can hold anything; a version cannot."""
    assert refusal({path: b"x"}, into) is Reason.ARCHIVE_PATH


@pytest.mark.parametrize("twin", ["./saved_model.pb", "Saved_model.pb", "saved_model.pb/x"])
def test_no_two_objects_share_a_path(into: Path, twin: str) -> None:
    """Not after normalisation, not in another case, not as file and directory."""
    assert refusal({"saved_model.pb": b"x", twin: b"y"}, into) is Reason.ARCHIVE_DUPLICATE


def test_limits_hold_before_anything_is_written(into: Path) -> None:
    """Sizes come from the listing; the file that goes over the limit is not begun."""
    limits = Limits(max_unpacked_bytes=1024)

    assert refusal({"a": b"x" * 1000, "b": b"x" * 25}, into, limits) is Reason.ARCHIVE_TOO_BIG
    assert sorted(path.name for path in into.iterdir()) == ["a"]


def test_the_number_of_objects_is_limited(into: Path) -> None:
    """As the number of members is."""
    tree = {f"{n}": b"" for n in range(6)}

    assert refusal(tree, into, Limits(max_members=5)) is Reason.ARCHIVE_TOO_MANY_MEMBERS


def test_no_object_at_all_is_refused(into: Path) -> None:
    """An empty version is none."""
    assert refusal({}, into) is Reason.ARCHIVE_EMPTY
