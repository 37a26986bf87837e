"""What holds for every archive: honest ones come back whole, cut or damaged ones never pass as another."""

import os
import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import archives as a
from servesync.errors import ReleaseRefused
from servesync.settings import Limits
from unpack_box import UnpackBox, content_of, on_disk

LONG: Final = os.environ.get("LONG_TESTS") == "1"
SMALL: Final = {"0000001/saved_model.pb": b"graph" * 60, "0000001/variables/x": bytes(range(256)) * 4}
INSIDE: Final = {path.removeprefix("0000001/"): data for path, data in SMALL.items()}
COMPRESS: Final[dict[str, Callable[[bytes], bytes]]] = {
    "tar": bytes,
    "gzip": a.gz,
    "gzip members": lambda data: a.gz_members(data, 700),
    "zstd": a.zst,
    "frames": lambda data: a.zst_frames(data, 700),
}
FUZZ_LIMITS: Final = Limits(max_unpacked_bytes=1 << 22, max_members=100)

names = st.text("abcXYZ019._-+=@ %&#~:,()[]'\"\u00e4\u00c4\u8a9e\U0001f642", min_size=1, max_size=12).filter(
    lambda name: not name.startswith("._") and not name.endswith((".", " "))
)
paths = st.lists(names, min_size=1, max_size=5).map("/".join)
trees = st.dictionaries(paths, st.binary(max_size=3000), max_size=8)


def without_clashes(tree: dict[str, bytes]) -> dict[str, bytes]:
    """Return the paths that can live in one directory on any filesystem."""
    kept: dict[str, bytes] = {"saved_model.pb": b"x"}
    taken: dict[str, str] = {"saved_model.pb": "saved_model.pb"}
    for path, data in tree.items():
        parts = path.split("/")
        parents = ["/".join(parts[:n]) for n in range(1, len(parts))]
        if any(taken.get(p.lower(), p + "/") != p + "/" for p in parents) or path.lower() in taken:
            continue
        taken.update({p.lower(): p + "/" for p in parents} | {path.lower(): path})
        kept[path] = data
    return kept


@pytest.mark.slow
@settings(
    max_examples=1000 if LONG else 60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    tree=trees.map(without_clashes),
    compression=st.sampled_from(sorted(COMPRESS)),
    sizes=st.lists(st.integers(1, 5000), min_size=1, max_size=5),
)
def test_an_honest_tree_comes_back_whole(
    tmp_path: Path, tree: dict[str, bytes], compression: str, sizes: list[int]
) -> None:
    """In every format, with any chunk boundaries, file by file."""
    folder = {f"1/{path}": data for path, data in tree.items()}

    unpacked = UnpackBox(tmp_path / os.urandom(8).hex()).unpack(
        COMPRESS[compression](a.tar_tree(folder)), sizes=sizes
    )

    assert unpacked.content == content_of(tree)
    assert on_disk(unpacked.root) == tree


@pytest.mark.slow
@pytest.mark.parametrize("compression", COMPRESS)
def test_an_archive_cut_anywhere_is_refused(tmp_path: Path, compression: str) -> None:
    """At every position, though the listing agrees with the cut (short form: every fourth, and edges)."""
    archive = COMPRESS[compression](a.tar_tree(SMALL))
    box = UnpackBox(tmp_path)

    for end in range(len(archive)):
        if not (LONG or end % 4 == 0 or end % 512 in {1, 511} or len(archive) - end < 20):
            continue
        with pytest.raises(ReleaseRefused):
            box.unpack(archive[:end])


@pytest.mark.slow
@pytest.mark.parametrize("compression", ["gzip", "gzip members", "zstd", "frames"])
def test_a_flipped_bit_never_changes_the_content_silently(tmp_path: Path, compression: str) -> None:
    """Any bit: refused, or it was one that says nothing, such as gzip's time or an unused Huffman code."""
    archive = COMPRESS[compression](a.tar_tree(SMALL))
    box = UnpackBox(tmp_path)
    accepted = 0

    for bit in range(0, 8 * len(archive), 1 if LONG else 7):
        damaged = bytearray(archive)
        damaged[bit // 8] ^= 1 << bit % 8
        with suppress(ReleaseRefused):
            assert box.unpack(bytes(damaged)).content == content_of(INSIDE)
            accepted += 1

    assert accepted < len(archive)


def mutate(data: bytes, dice: random.Random) -> bytes:
    """Return `data` with a few bytes changed, removed, repeated or moved."""
    changed = bytearray(data)
    for _ in range(dice.randint(1, 4)):
        at, size = dice.randrange(len(changed)), dice.choice((1, 2, 8, 100, 512))
        match dice.randrange(5):
            case 0:
                changed[at] ^= 1 << dice.randrange(8)
            case 1:
                changed[at : at + size] = dice.randbytes(size)
            case 2:
                del changed[at : at + size]
            case 3:
                changed[at:at] = changed[at : at + size]
            case _:
                changed[at : at + size] = dice.choice((b"\x00", b"\xff", b"7", b"/")) * size
        if not changed:
            return b"\x00"
    return bytes(changed)


def reseal(data: bytes) -> bytes:
    """Put every header checksum right, so that a mutation reaches what lies behind it."""
    blocks = [data[at : at + 512] for at in range(0, len(data), 512)]
    return b"".join(
        a.sealed(block) if block[257:262] == b"ustar" and len(block) == 512 else block for block in blocks
    )


@pytest.mark.parametrize("seed", range(8))
def test_random_damage_is_refused_or_harmless(tmp_path: Path, seed: int) -> None:
    """Nothing but `ReleaseRefused` comes out, nothing outside `into` changes, and it always ends."""
    dice = random.Random(seed)
    plain = a.tar(
        a.pax((b"comment", b"x"), kind=b"g"),
        a.directory("0000001/"),
        a.pax((b"path", b"0000001/saved_model.pb"), (b"size", b"5"), (b"mtime", b"1.5")),
        a.member("x", b"graph"),
        a.long_name(b"0000001/" + b"n" * 120),
        a.member("y", b"words" * 200, magic=a.GNU),
    )
    box = UnpackBox(tmp_path)
    before = box.around()
    outcomes = {True: 0, False: 0}

    for _ in range(20_000 if LONG else 150):
        damaged = mutate(plain, dice)
        archive = dice.choice(
            (
                damaged,
                reseal(damaged),
                a.gz(reseal(damaged)),
                a.zst(reseal(damaged)),
                mutate(a.gz(plain), dice),
                mutate(a.zst_frames(plain, 900), dice),
                mutate(a.gz_members(plain, 900), dice),
            )
        )
        try:
            box.unpack(archive, limits=FUZZ_LIMITS, sizes=(dice.randint(1, 4000),))
        except ReleaseRefused:
            outcomes[False] += 1
        else:
            outcomes[True] += 1

    assert outcomes[False] > outcomes[True]
    assert box.around() == before
