"""Whatever the bytes, every reader ends in a refusal or in a result, in bounded time and memory.

LONG_TESTS=1 takes many more examples of each reader, and repeats them in a child whose address space is
limited to 1 GiB above what it began with.
"""

import io
import os
import random
import resource
import subprocess
import sys
import tarfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import pytest

import archives as a
import bundle_writer as w
from servesync.errors import ReleaseRefused
from servesync.settings import Limits
from servesync.unpack.formats import open_tar
from servesync.unpack.source import ByteSource
from servesync.unpack.tar_members import members
from servesync.verify.bundle import read_bundle
from servesync.verify.saved_model import read_graphs
from servesync.verify.table import entries
from servesync.wire import Malformed

LONG: Final = os.environ.get("LONG_TESTS") == "1"
EXAMPLES: Final = 20_000 if LONG else 400
PEAK_BYTES: Final = 48 << 20
"""Most memory that Python may allocate for one input; inputs have at most a few hundred KiB."""

LIMITS: Final = Limits(max_unpacked_bytes=64 << 20, max_members=200)
"""What one input may unpack to, and thereby how much work it may cause."""

MIB: Final = 1 << 20

Read = Callable[[bytes], object]


def read_archive(data: bytes) -> list[tuple[bytes, int]]:
    """Read an archive in any form to its end; return the members."""
    chunks = (data[at : at + 4096] for at in range(0, len(data), 4096))
    stream, capacity, _ = open_tar(ByteSource(chunks), len(data), LIMITS)
    found = []
    for member in members(stream, LIMITS, capacity):
        found.append((member.path, member.size))
        for _ in stream.exactly(member.size, "a file"):
            pass
    return found


def read_index(data: bytes) -> object:
    """Read a `variables.index`."""
    return read_bundle(memoryview(data))


def read_graph(data: bytes) -> object:
    """Read a `saved_model.pb`."""
    return read_graphs(memoryview(data))


READERS: Final[dict[str, Read]] = {
    "index": read_index,
    "saved_model.pb": read_graph,
    "tar": read_archive,
    "gzip": read_archive,
    "gzip members": read_archive,
    "zstd": read_archive,
}
PACK: Final[dict[str, Callable[[bytes], bytes]]] = {
    "tar": bytes,
    "gzip": a.gz,
    "gzip members": lambda data: a.gz_members(data, 3000),
    "zstd": a.zst,
}


def seeds(models: Path, reader: str) -> list[bytes]:
    """Return real bytes, to be mutated; archives are not compressed yet."""
    trees = [path for path in sorted(models.iterdir()) if (path / "saved_model.pb").is_file()]
    if reader == "saved_model.pb":
        return [(tree / "saved_model.pb").read_bytes() for tree in trees]
    if reader == "index":
        return [path.read_bytes() for tree in trees for path in tree.glob("variables/*.index")]
    return [tar_of(tree) for tree in trees if size_of(tree) < 100_000]


def size_of(tree: Path) -> int:
    """Return the bytes of all files."""
    return sum(path.stat().st_size for path in tree.rglob("*"))


def tar_of(tree: Path) -> bytes:
    """Pack a directory with long names in PAX and in GNU headers."""
    out = io.BytesIO()
    form = tarfile.PAX_FORMAT if len(tree.name) % 2 else tarfile.GNU_FORMAT
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        tar.add(tree, "0000001")
        long = tarfile.TarInfo("0000001/assets/" + "n" * 120)
        tar.addfile(long, io.BytesIO())
    return out.getvalue()


def inputs(models: Path, reader: str, count: int, seed: int) -> Iterator[bytes]:
    """Yield random bytes, bytes that begin well, and real ones with edits, some with checksums put right."""
    dice = random.Random(f"{reader} {seed}")
    plain = seeds(models, reader)
    pack = PACK.get(reader, bytes)
    real = [pack(data) for data in plain]
    for _ in range(count):
        data = dice.choice(real)
        match dice.randrange(8):
            case 0:
                yield dice.randbytes(dice.randrange(2000))
            case 1:
                yield data[: dice.randrange(600)] + dice.randbytes(dice.randrange(600))
            case 2 | 3 if reader in PACK:
                yield pack(resealed(edited(dice.choice(plain), dice)))
            case 2 | 3 if reader == "index":
                yield rewritten_index(data, dice)
            case 4 if reader == "index":
                yield forged_index(dice)
            case _:
                yield edited(data, dice)


def edited(data: bytes, dice: random.Random) -> bytes:
    """Return `data` with a few bytes changed, removed, repeated, or replaced by numbers that hurt."""
    changed = bytearray(data)
    for _ in range(dice.randint(1, 5)):
        at, size = dice.randrange(len(changed) + 1), dice.choice((1, 1, 2, 8, 100, 512))
        near = dice.randrange(len(changed) + 1)
        match dice.randrange(6):
            case 0:
                changed[at : at + 1] = dice.randbytes(1)
            case 1:
                changed[at : at + size] = dice.randbytes(size)
            case 2:
                del changed[at : at + size]
            case 3:
                changed[at:at] = changed[near : near + size]
            case 4:
                hurting = (b"\xff" * 9 + b"\x01", b"\xff\xff\xff\xff\x07", b"\x80" * 10, b"\0" * 8, b"7" * 11)
                changed[at : at + size] = dice.choice(hurting)
            case _:
                del changed[dice.randrange(len(changed) + 1) :]
    return bytes(changed)


def resealed(data: bytes) -> bytes:
    """Put the checksums of a tar right, so that an edit reaches what lies behind them."""
    blocks = (data[at : at + 512] for at in range(0, len(data), 512))
    return b"".join(
        a.sealed(block) if block[257:262] == b"ustar" and len(block) == 512 else block for block in blocks
    )


def rewritten_index(data: bytes, dice: random.Random) -> bytes:
    """Write a real index again with one entry edited, its checksums right, perhaps compressed."""
    pairs = list(entries(memoryview(data)))
    number = dice.randrange(len(pairs))
    key, value = pairs[number]
    pairs[number] = (key, edited(value, dice)) if dice.randrange(3) else (edited(key, dice), value)
    return w.table(pairs, block_bytes=dice.choice((1, 100, 4096)), snappy=bool(dice.randrange(2)))


def forged_index(dice: random.Random) -> bytes:
    """Return a table that is right and holds entries that are not."""
    entries = [
        w.Entry(
            dice.choice((dice.randbytes(dice.randrange(1, 40)), b"\0w\0\1\1\x80\x82", b"w")),
            dice.choice((1, 7, 20, 21, 200)),
            tuple(dice.choice((0, 1, 1 << 40, -1, 1 << 62)) for _ in range(dice.choice((0, 1, 3, 300)))),
            dice.choice((0, 0, 1, -1)),
            dice.choice((0, 1, 1 << 62, -5)),
            dice.choice((0, 4, 1 << 62)),
            slices=((((0, 2),) * dice.choice((1, 3, 20)),) * dice.choice((1, 1000)),)[dice.randrange(1)]
            if dice.randrange(2)
            else (),
            extra=dice.choice((b"", dice.randbytes(dice.randrange(30)))),
        )
        for _ in range(dice.choice((1, 2, 10)))
    ]
    return w.index(entries, dice.choice((0, 1, 100_000, 1 << 40)), snappy=bool(dice.randrange(2)))


def run(models: Path, reader: str, count: int, *, seed: int = 0) -> tuple[int, float]:
    """Read `count` inputs; return how many were not refused, and the seconds of the slowest."""
    read, accepted, slowest = READERS[reader], 0, 0.0
    for data in inputs(models, reader, count, seed):
        begin = time.process_time()
        try:
            first = read(data)
        except (ReleaseRefused, Malformed):
            pass
        else:
            accepted += 1
            assert read(data) == first
        slowest = max(slowest, time.process_time() - begin)
    return accepted, slowest


@pytest.mark.parametrize("reader", READERS)
def test_any_bytes_are_refused_or_read(reader: str, real_models: Path) -> None:
    """No other exception, and no input that keeps a reader busy: each ends long before the time limit."""
    begin = time.monotonic()

    accepted, slowest = run(real_models, reader, EXAMPLES)

    seconds = time.monotonic() - begin
    print(f"{reader}: {EXAMPLES} inputs, {accepted} read, {seconds:.1f} s, slowest {slowest:.3f} s")  # noqa: T201
    assert accepted < EXAMPLES


@pytest.mark.parametrize("reader", READERS)
def test_no_bytes_take_much_memory(reader: str, real_models: Path) -> None:
    """The peak of all allocations of Python is far below what a hostile count or length could claim."""
    tracemalloc.start()
    try:
        run(real_models, reader, EXAMPLES // 8, seed=1)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    print(f"{reader}: peak {peak / MIB:.1f} MiB")  # noqa: T201
    assert peak < PEAK_BYTES


def many(message: bytes, count: int) -> bytes:
    """Return a meta graph of `count` times the same field."""
    return w.bytes_field(2, w.bytes_field(2, message * count))


SOME: Final = 200_000 if LONG else 50_000
HOSTILE: Final[dict[str, tuple[str, Callable[[], bytes]]]] = {
    "graphs": ("saved_model.pb", lambda: w.bytes_field(2, b"") * SOME),
    "tags": ("saved_model.pb", lambda: w.bytes_field(2, w.bytes_field(1, w.bytes_field(4, b"ab") * SOME))),
    "signatures": (
        "saved_model.pb",
        lambda: w.bytes_field(2, w.bytes_field(5, w.bytes_field(1, b"ab")) * SOME),
    ),
    "nodes": ("saved_model.pb", lambda: many(w.bytes_field(1, b""), SOME)),
    "functions": (
        "saved_model.pb",
        lambda: many(w.bytes_field(2, w.bytes_field(1, w.bytes_field(3, b"") * SOME)), 1),
    ),
    "slices": (
        "index",
        lambda: w.index([w.Entry(b"x", extra=b"\x3a\x02\x0a\x00" * (2 * SOME if LONG else SOME))]),
    ),
    "extents": ("index", lambda: w.index([w.Entry(b"x", extra=w.bytes_field(7, b"\x0a\x00" * SOME))])),
    "dimensions": ("index", lambda: w.index([w.Entry(b"x", shape=(2**62,) * SOME)])),
    "shards": ("index", lambda: w.index([], 1 << 62)),
    "zeros in Snappy": ("index", lambda: w.table([(b"", bytes(15 * MIB))], snappy=True)),
    "zeros in gzip": ("gzip", lambda: a.gz(a.tar(a.member("0000001/x", bytes(40 * MIB))))),
    "zeros in zstd": ("zstd", lambda: a.zst(a.tar(a.member("0000001/x", bytes(40 * MIB))))),
    "long header of gzip": ("gzip", lambda: a.gz_with_header(b"", 0x08, b"x" * MIB)),
}
"""Made when they are read: together they take seconds."""


@pytest.mark.parametrize("name", HOSTILE)
def test_a_claim_of_much_costs_little(name: str) -> None:
    """Each of these is small, and was made to make a reader hold, or multiply, far more than there is."""
    reader, make = HOSTILE[name]
    data = make()
    tracemalloc.start()
    try:
        with suppress(ReleaseRefused, Malformed):
            READERS[reader](data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak < (PEAK_BYTES if "zeros" in name else PEAK_BYTES * SOME // 200_000)


@pytest.mark.skipif(not LONG, reason="a quarter of a long run again, in a process of little memory")
def test_little_memory_is_enough(real_models: Path) -> None:
    """A child with 1 GiB of address space above its start reads them all."""
    paths = os.pathsep.join(filter(None, sys.path))
    command = [sys.executable, __file__, str(real_models)]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": paths}, check=False)

    assert done.returncode == 0


def main() -> None:
    """Read many inputs of each reader with a limited address space."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    size = 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmSize"))
    resource.setrlimit(resource.RLIMIT_AS, (size + (1 << 30), size + (1 << 30)))
    for reader in READERS:
        run(Path(sys.argv[1]), reader, EXAMPLES // 4, seed=2)
    for reader, make in HOSTILE.values():
        with suppress(ReleaseRefused, Malformed):
            READERS[reader](make())


if __name__ == "__main__":
    main()
