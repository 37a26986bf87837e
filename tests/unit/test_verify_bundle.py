"""Exactly the well-formed indexes pass, compressed or not; each thing that can be wrong is named."""

import struct
from math import prod
from pathlib import Path

import google_crc32c
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import bundle_writer as w
from servesync.errors import Reason, ReleaseRefused
from servesync.verify import verify_tensors
from servesync.verify.bundle import Bundle, read_bundle
from servesync.verify.slices import WHOLE, slice_key
from servesync.verify.table import masked
from servesync.verify.wire import Malformed

FLOAT, INT64 = 1, 9

names = st.text("abc/_-.0é", min_size=1, max_size=30).map(str.encode)
shapes = st.lists(st.integers(0, 6), max_size=3).map(tuple)


@st.composite
def values(draw: st.DrawFn) -> list[w.Value]:
    """Draw tensors of several types in up to three shards; the order is that of the shards."""
    made = []
    for key in draw(st.lists(names, unique=True, max_size=12)):
        shard = draw(st.integers(0, 2))
        if draw(st.integers(0, 3)) == 0:
            made.append(w.strings(key, draw(st.lists(st.binary(max_size=300), max_size=5)), shard))
            continue
        dtype, shape = draw(st.sampled_from(sorted(w.WIDTHS))), draw(shapes)
        size = prod(shape) * w.WIDTHS[dtype]
        made.append(w.plain(key, dtype, shape, draw(st.binary(min_size=size, max_size=size)), shard))
    return made


def read(entries: list[w.Entry], shards: int = 3) -> Bundle:
    """Read an index of these entries."""
    return read_bundle(memoryview(w.index(entries, shards)))


@given(values=values(), block_bytes=st.integers(1, 600), snappy=st.booleans())
@settings(max_examples=100, deadline=None)
def test_what_is_well_formed_passes(values: list[w.Value], block_bytes: int, *, snappy: bool) -> None:
    """Any tensors, blocks of any size, compressed or not: every entry comes back as it was written."""
    entries, data = w.laid_out(values)

    bundle = read_bundle(memoryview(w.index(entries, 3, block_bytes=block_bytes, snappy=snappy)))

    found = {
        (t.name.encode(), t.dtype, t.elements, t.shard, t.offset, t.size, t.crc32c) for t in bundle.tensors
    }
    assert found == {(e.key, e.dtype, prod(e.shape), e.shard, e.offset, e.size, e.crc32c) for e in entries}
    assert bundle.shard_sizes() == [len(data.get(number, b"")) for number in range(3)]


@given(values=values().filter(bool), data=st.data())
@settings(max_examples=200, deadline=None)
def test_exactly_what_fits_passes(values: list[w.Value], data: st.DataObject) -> None:
    """A tensor somewhere else, longer or shorter: refused unless all still lie side by side."""
    entries, _ = w.laid_out(values)
    victim = data.draw(st.integers(0, len(entries) - 1))
    change = data.draw(st.sampled_from(["offset", "size", "shard"]))
    before = getattr(entries[victim], change)
    new = data.draw(st.integers(-1, 4) if change == "shard" else st.integers(before - 64, before + 64))
    entries[victim] = w.resealed(entries[victim], **{change: new})

    try:
        read(entries)
    except Malformed:
        assert not fits(entries)
    else:
        assert fits(entries)


def fits(entries: list[w.Entry]) -> bool:
    """Whether each tensor has the size of its type and each byte of each shard belongs to exactly one."""
    if any(not 0 <= entry.shard < 3 or min(entry.offset, entry.size) < 0 for entry in entries):
        return False
    if any(e.dtype != w.STRING and e.size != prod(e.shape) * w.WIDTHS[e.dtype] for e in entries):
        return False
    for shard in range(3):
        mine = [entry for entry in entries if entry.shard == shard]
        covered = [at for entry in mine for at in range(entry.offset, entry.offset + entry.size)]
        edges = {0} | {entry.offset + entry.size for entry in mine if entry.size}
        if sorted(covered) != list(range(len(covered))) or any(entry.offset not in edges for entry in mine):
            return False
    return True


@given(values=values(), data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_checksums_of_any_tensors(
    values: list[w.Value], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Each tensor's checksum is found right, and after one flipped bit wrong."""
    root = tmp_path_factory.mktemp("model")
    w.write(root, values, 3)

    assert verify_tensors(root).tensors == len(values)

    shards = [path for path in (root / "variables").glob("*.data-*") if path.stat().st_size]
    if shards:
        flip(data.draw(st.sampled_from(sorted(shards))), data)
        with pytest.raises(ReleaseRefused) as caught:
            verify_tensors(root)
        assert caught.value.reason is Reason.TENSOR_CHECKSUM


def flip(path: Path, data: st.DataObject) -> None:
    """Flip one bit of a file."""
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)


@given(lengths=st.lists(st.sampled_from([0, 1, 127, 128, 129, 300, 16383, 16384, 16385]), max_size=60))
@settings(max_examples=60, deadline=None)
def test_lengths_of_every_width(lengths: list[int], tmp_path_factory: pytest.TempPathFactory) -> None:
    """Runs of short and of long lengths, in any order."""
    root = tmp_path_factory.mktemp("model")
    w.write(root, [w.strings(b"texts", [b"x" * length for length in lengths])])

    assert verify_tensors(root).tensors == 1


@pytest.mark.parametrize("edge", [1, 127, 128, 16384])
def test_more_lengths_than_one_read(edge: int, tmp_path: Path) -> None:
    """Lengths that end in the middle of what is read at a time, in one, two and three bytes."""
    texts = [b"x" * edge] * 20 if edge > 1000 else [b"x" * (edge + n % 3) for n in range(600_001)]
    root = tmp_path / "model"
    w.write(root, [w.strings(b"before", [b"odd"]), w.strings(b"texts", texts)])

    assert verify_tensors(root).tensors == 2


@pytest.mark.parametrize(
    "lengths", [b"\x80" * 40, b"\xff" * 12 + b"\x01", b"\x80", b"\xff" * 9 + b"\x7f", b"\xff\xff\xff\xff\x7f"]
)
def test_lengths_that_are_none(lengths: bytes, tmp_path: Path) -> None:
    """A number that does not end, has too many bits, or counts more than there is."""
    data = lengths + b"abcd" * 8
    crc = masked(google_crc32c.value(data))
    w.write(tmp_path, [w.Value(b"texts", w.STRING, (1,), data, crc)])

    with pytest.raises(ReleaseRefused) as caught:
        verify_tensors(tmp_path)

    assert caught.value.reason is Reason.TENSOR_CHECKSUM


def test_a_shape_of_too_many_dimensions() -> None:
    """Its product would have millions of digits."""
    entry = w.Entry(b"x", shape=(1 << 62,) * 255)

    with pytest.raises(Malformed, match="dimensions"):
        read([entry])


# Partitioned tensors.

LENGTHS = {1: [(0, None)], 2: [(0, 2), (2, 3)], 3: [(0, 1), (1, 1), (2, 3)]}


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


# The table under it.


def sealed(blocks: list[bytes], kind: bytes = b"\x00") -> bytes:
    """Return a table of one data block, a meta block and an index block, each given as it is stored."""
    out, handles = b"", []
    for block in blocks:
        stored = block + (kind if block is blocks[0] else b"\x00")
        handles.append(w.varint(len(out)) + w.varint(len(block)))
        out += stored + struct.pack("<I", masked(google_crc32c.value(stored)))
    data, meta = handles
    at = len(out)
    index = w.block([(b"~", data)], interval=1) + b"\x00"
    out += index + struct.pack("<I", masked(google_crc32c.value(index)))
    footer = (meta + w.varint(at) + w.varint(len(index) - 1)).ljust(40, b"\0")
    return out + footer + struct.pack("<Q", 0xDB4775248B80FB57)


HEADER = (b"", w.number_field(1, 1))
ENTRIES = w.block([HEADER])


@pytest.mark.parametrize(
    ("block", "text"),
    [
        (ENTRIES[:-8] + struct.pack("<I", 0), "restart"),
        (ENTRIES[:-8] + struct.pack("<II", 1, 1), "restart"),
        (ENTRIES[:-8] + struct.pack("<III", 0, 1, 2), "restart"),
        (ENTRIES[:-4] + struct.pack("<I", 1 << 30), "restarts"),
        (b"\x01", "restarts"),
        (w.block([HEADER, (b"b", b""), (b"a", b"")]), "order"),
        (w.block([HEADER, (b"a", b""), (b"a", b"")]), "order"),
        (w.block([HEADER, (b"\x7f", b"")]), "behind its last key"),
        (b"\x01" + ENTRIES[1:], "does not fit"),
        (b"\x00\x7f" + ENTRIES[2:], "does not fit"),
    ],
)
def test_a_block_that_contradicts_itself(block: bytes, text: str) -> None:
    """With every checksum right."""
    assert read_bundle(memoryview(sealed([ENTRIES, w.block([])]))).shards == 1

    with pytest.raises(Malformed, match=text):
        read_bundle(memoryview(sealed([block, w.block([])])))


@pytest.mark.parametrize(
    ("block", "text"),
    [
        (w.varint(1 << 40) + b"\x00", "unpacks to"),
        (w.varint(17 << 20) + b"\x00", "unpacks to"),
        (w.varint(100) + b"\x00a", "decompress"),
        (w.varint(4) + b"\x0cabcde", "decompress"),
        (w.varint(8) + b"\x00a\x01\x09", "decompress"),
        (w.varint(8) + b"\x00a\x0d\x00", "decompress"),
        (b"", "no number"),
        (b"\xff" * 12, "no number"),
    ],
)
def test_a_compressed_block_that_is_none(block: bytes, text: str) -> None:
    """Too long, too short, or with a copy from before its beginning; never more than 16 MiB."""
    with pytest.raises(Malformed, match=text):
        read_bundle(memoryview(sealed([block, w.block([])], kind=b"\x01")))


def test_a_number_that_goes_on_into_the_padding() -> None:
    """The footer's last number could be written in more bytes than it needs, and mean the same."""
    table = bytearray(sealed([ENTRIES, w.block([])]))
    last = max(at for at in range(len(table) - 48, len(table) - 8) if table[at])
    table[last] |= 0x80

    with pytest.raises(Malformed, match="padding"):
        read_bundle(memoryview(table))


def test_an_unknown_compression() -> None:
    """Only none and Snappy exist."""
    with pytest.raises(Malformed, match="unknown compression 2"):
        read_bundle(memoryview(sealed([ENTRIES, w.block([])], kind=b"\x02")))


def test_keys_that_share_nearly_everything() -> None:
    """A few bytes an entry could otherwise claim gigabytes of names."""
    size = 60_000
    first = w.varint(0) + w.varint(size) + w.varint(0) + b"x" * size
    more = [w.varint(size) + w.varint(4) + w.varint(0) + struct.pack(">I", n) for n in range(1_200)]
    block = ENTRIES[:-8] + first + b"".join(more) + struct.pack("<II", 0, 1)

    with pytest.raises(Malformed, match="bytes of keys"):
        read_bundle(memoryview(sealed([block, w.block([])])))
