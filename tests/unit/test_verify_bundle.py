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
from servesync.verify.table import masked
from servesync.verify.tensors import READ_BYTES
from servesync.wire import Malformed

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


@pytest.mark.slow
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
    texts = [b""] * (READ_BYTES - 1) + [b"x" * (edge + n % 3) for n in range(20)]
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
        (w.block([HEADER, (b"\x7f", b"")]), "after its last key"),
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
