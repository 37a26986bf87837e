"""The slices of a partitioned tensor: each is there, and together they are its shape, each part once."""

from math import prod

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bundle_writer as w
from servesync.verify.bundle import Bundle, read_bundle
from servesync.verify.slices import WHOLE, slice_key
from servesync.wire import Malformed

FLOAT, INT64 = 1, 9


def read(entries: list[w.Entry]) -> Bundle:
    """Read an index of these entries."""
    return read_bundle(memoryview(w.index(entries)))


def cut(shape: tuple[int, ...], slices: list[w.Extents]) -> list[w.Entry]:
    """Return the entries of a partitioned tensor of floats and of its slices, one behind the other."""
    entries = [w.Entry(b"whole", FLOAT, shape, slices=tuple(slices))]
    at = 0
    for extents in slices:
        key = slice_key(b"whole", tuple(WHOLE if n is None else (start, n) for start, n in extents))
        sizes = tuple(shape[d] if n is None else n for d, (_, n) in enumerate(extents))
        entries.append(w.Entry(key, FLOAT, sizes, 0, at, 4 * prod(sizes)))
        at += 4 * prod(sizes)
    return entries


GRID: list[w.Extents] = [[(row, size), (column, 5)] for row, size in ((0, 3), (3, 4)) for column in (0, 5)]
WINDMILL: list[w.Extents] = [
    [(0, 2), (0, 1)], [(0, 1), (1, 2)], [(1, 2), (2, 1)], [(2, 1), (0, 2)], [(1, 1), (1, 1)],
]  # fmt: skip
GOOD: list[tuple[tuple[int, ...], list[w.Extents]]] = [
    ((31, 5), [[(0, 11), (0, None)], [(11, 10), (0, None)], [(21, 10), (0, None)]]),
    ((7, 10), GRID),
    ((3, 3), WINDMILL),
    ((20_000,), [[(0, 10_000)], [(10_000, 10_000)]]),
    ((4,), [[(0, 0)], [(0, 4)]]),
    ((0, 5), [[(0, 0), (0, None)]]),
]


@pytest.mark.parametrize(("shape", "slices"), GOOD)
def test_slices_that_are_the_whole(shape: tuple[int, ...], slices: list[w.Extents]) -> None:
    """Cut along one axis or two, and in a way that no sequence of straight cuts makes."""
    assert len(read(cut(shape, slices)).tensors) == len(slices)


@pytest.mark.parametrize(("shape", "slices"), GOOD[:4])
@pytest.mark.parametrize("lost", [0, 1, -1])
def test_a_slice_that_is_missing(shape: tuple[int, ...], slices: list[w.Extents], lost: int) -> None:
    """Whether its name stays or goes too."""
    whole, *parts = cut(shape, slices)
    del parts[lost]
    with pytest.raises(Malformed, match="is missing"):
        read([whole, *parts])

    fewer = [extents for extents in slices if extents is not slices[lost]]
    with pytest.raises(Malformed, match="do not cover"):
        read(cut(shape, fewer))


@pytest.mark.parametrize(
    ("slices", "text"),
    [
        ([[(0, 3)], [(2, 3)]], "do not cover"),
        ([[(0, 3)], [(3, 3)]], "do not cover"),
        ([[(0, 2)], [(3, 2)]], "do not cover"),
        ([[(0, 5)], [(0, None)]], "do not cover"),
        ([[(0, None)], [(0, None)]], "twice"),
        ([[(-1, 6)]], "negative"),
        ([[(0, 5), (0, None)]], "dimensions"),
    ],
)
def test_slices_that_are_not_the_whole(slices: list[w.Extents], text: str) -> None:
    """They overlap, leave something out, or reach outside."""
    entries = [w.Entry(b"whole", FLOAT, (5,), slices=tuple(slices))]
    keys = {slice_key(b"whole", tuple(WHOLE if n is None else (s, n) for s, n in e)): e for e in slices}
    at = 0
    for key, extents in keys.items():
        size = extents[0][1] or 5
        entries.append(w.Entry(key, FLOAT, (size,), 0, at, 4 * size))
        at += 4 * size

    with pytest.raises(Malformed, match=text):
        read(entries)


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_random_slices(data: st.DataObject) -> None:
    """They pass if and only if every element of the tensor is in exactly one of them."""
    shape = tuple(data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=3)))
    box = st.tuples(*(extents_within(size) for size in shape))
    slices: list[w.Extents] = list(data.draw(st.lists(box, min_size=1, max_size=5, unique=True)))
    covered: dict[tuple[int, ...], int] = {}
    for extents in slices:
        for point in points(extents):
            covered[point] = covered.get(point, 0) + 1
    whole = len(covered) == prod(shape) and set(covered.values()) == {1}

    try:
        read(cut(shape, slices))
    except Malformed:
        assert not whole
    else:
        assert whole


def extents_within(size: int) -> st.SearchStrategy[tuple[int, int]]:
    """Draw a start and a length within a dimension."""
    return st.integers(0, size - 1).flatmap(
        lambda start: st.tuples(st.just(start), st.integers(1, size - start))
    )


def points(extents: w.Extents) -> list[tuple[int, ...]]:
    """Return every index in a box."""
    found: list[tuple[int, ...]] = [()]
    for start, length in extents:
        found = [(*point, at) for point in found for at in range(start, start + (length or 0))]
    return found


def test_a_slice_of_another_type_or_of_nobody() -> None:
    """What the entry of the whole says holds for each slice, and a slice without a whole is refused."""
    whole, first, second = cut((4,), [[(0, 2)], [(2, 2)]])
    with pytest.raises(Malformed, match="another type"):
        read([w.resealed(whole, dtype=INT64), first, second])
    with pytest.raises(Malformed, match="belong to no tensor"):
        read([first, second])


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (0, "80"), (-1, "7f"), (63, "bf"), (-64, "40"), (64, "c040"), (-65, "3fbf"), (8191, "dfff"),
        (8192, "e02000"), (2**62 - 1, "ffbfffffffffffffff"), (2**62, "ffc04000000000000000"),
        (2**63 - 1, "ffc07fffffffffffffff"), (-(2**63), "003f8000000000000000"),
    ],
)  # fmt: skip
def test_numbers_of_a_key(value: int, encoded: str) -> None:
    """The signed numbers of ordered_code_test.cc and those at the edges of each length."""
    assert slice_key(b"", ((value, value),)) == b"\x00\x00\x01\x01\x01" + bytes.fromhex(encoded * 2)


def test_a_key_with_the_bytes_that_are_escaped() -> None:
    """Zero and 255 in a name do not end it."""
    assert slice_key(b"a\x00b\xffc", ()) == b"\x00a\x00\xffb\xff\x00c\x00\x01\x00"


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=2, max_size=2))
def test_keys_sort_as_numbers_do(pair: list[int]) -> None:
    """That is what the encoding is for."""
    low, high = sorted(pair)

    assert slice_key(b"x", ((low, 0),)) <= slice_key(b"x", ((high, 0),))
