"""One wrong bit anywhere in a real model is refused with its place, or changes nothing that counts.

Without a manifest some files of a bare directory and of an uncompressed tar have no checksum at all: they are
listed here (`NO_CHECKSUM`), and nothing else may get through. The index and the shards never do, in no form.
"""

import io
import os
import random
import shutil
import tarfile
from bisect import bisect
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Final

import pytest

import archives as a
from fixtures_models import KINDS
from servesync.errors import Reason, ReleaseRefused
from servesync.verify import verify_structure, verify_tensors
from unpack_box import UnpackBox, on_disk

LONG: Final = os.environ.get("LONG_TESTS") == "1"
SAMPLES: Final = 60 if LONG else 8
"""Random places for each kind of model in each form, beside those that are always taken."""

PASSING: Final = 60 if LONG else 20
"""Random places of each file that has no checksum."""

EDGE_BYTES: Final = 16 if LONG else 4
BLOCK: Final = 512
INDEX: Final = "variables/variables.index"
NO_CHECKSUM: Final = ("saved_model.pb", "fingerprint.pb", "assets/", "assets.extra/")
"""Files, by the beginning of their path, that TensorFlow writes without any checksum. In a gzip or Zstandard
stream the stream's own checksum covers them; in a manifest their SHA-256 does."""

CHECKSUM_FIELD: Final = range(148, 156)
"""Of a tar header: some bits turn its zero digits and end marks into others that mean the same."""

PROOFS_OF_THE_STREAM: Final = {
    Reason.ARCHIVE_CORRUPT,
    Reason.ARCHIVE_FORMAT,
    Reason.ARCHIVE_HEADER,
    Reason.ARCHIVE_RATIO,
    Reason.ARCHIVE_TRAILING_DATA,
    Reason.ARCHIVE_TRUNCATED,
    Reason.ARCHIVE_UNCHECKSUMMED,
    Reason.ARCHIVE_WINDOW,
}


@dataclass(frozen=True)
class Mode:
    """A way of proving a version: what is called, and which files may be wrong unseen in which form."""

    name: str
    prove: Callable[[Path], None]
    unseen: Mapping[str, tuple[str, ...]]


def prove_alone(root: Path) -> None:
    """Prove a version by what it says about itself, without a manifest."""
    verify_structure(root)
    verify_tensors(root)


MODES: Final = [Mode("alone", prove_alone, {"directory": NO_CHECKSUM, "tar": NO_CHECKSUM})]
PACKERS: Final[dict[str, Callable[[bytes], bytes]]] = {"tar": bytes, "tar.gz": a.gz, "tar.zst": a.zst}


@dataclass(frozen=True)
class Place:
    """A byte of a packed model: in which part of it, at which offset of that part."""

    part: str
    """A file's path, or `header`, `padding`, `end` of a tar, or the name of a compressed stream."""
    offset: int
    at: int
    """The offset in the whole archive, or in the file of a directory."""


@dataclass(frozen=True)
class Part:
    """A run of bytes of one part, since a `Place` for each byte of a large model takes seconds."""

    name: str
    size: int
    begin: int = 0
    """Where it begins in the whole archive, or in the file of a directory."""

    def place(self, offset: int) -> Place:
        """Return one of its bytes."""
        return Place(self.name, offset, self.begin + offset)

    def places(self, offsets: Iterable[int]) -> list[Place]:
        """Return some of its bytes."""
        return [self.place(offset) for offset in offsets]


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
@pytest.mark.parametrize("kind", KINDS)
def test_a_directory(kind: str, mode: Mode, real_models: Path, tmp_path: Path) -> None:
    """Every byte of the index (of most kinds every third), the edges of each file, and random places."""
    dice = random.Random(kind)
    tree = on_disk(real_models / kind)
    model = a_copy(tree, tmp_path)
    unseen: Counter[str] = Counter()
    parts = [Part(path, len(data)) for path, data in tree.items()]
    for place in chosen(parts, edges_of(kind, parts), dice):
        path = model / place.part
        for bit in bits(dice):
            path.write_bytes(flipped(tree[place.part], place.at, bit))
            error = refusal_of(model, mode)
            if error is None:
                unseen[place.part] += 1
            else:
                assert place.part in str(error)
                assert error.reason in reasons_of(place.part)
        path.write_bytes(tree[place.part])

    assert all(path.startswith(mode.unseen["directory"]) for path in unseen), unseen


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
@pytest.mark.parametrize("form", PACKERS)
@pytest.mark.parametrize("kind", KINDS)
def test_an_archive(kind: str, form: str, mode: Mode, real_models: Path, tmp_path: Path) -> None:
    """Refused; or the very same files; or, in a bare tar, a file that has no checksum."""
    dice = random.Random(f"{kind} {form}")
    tree = on_disk(real_models / kind)
    plain, parts = packed(tree)
    archive = PACKERS[form](plain)
    if form != "tar":
        parts = [Part(form, len(archive))]
    box = UnpackBox(tmp_path)

    for place in chosen(parts, always(form, kind, parts), dice):
        for bit in bits(dice):
            outcome = outcome_of(box, flipped(archive, place.at, bit), mode)
            if isinstance(outcome, ReleaseRefused):
                assert outcome.reason in reasons_of(place.part), (place, outcome)
                assert place.part in str(outcome) or outcome.reason in PROOFS_OF_THE_STREAM, (place, outcome)
            elif outcome == tree:
                assert may_say_nothing(place), place
            else:
                assert place.part.startswith(mode.unseen.get(form, ())), place


def test_the_list_of_what_has_no_checksum_is_true(real_models: Path, tmp_path: Path) -> None:
    """Each file on it really passes with a wrong bit, in a directory and in a bare tar: no claim is free."""
    tree = on_disk(real_models / "string_assets")
    plain, parts = packed(tree)
    box = UnpackBox(tmp_path)
    for path in ("fingerprint.pb", "assets/vocabulary.txt", "saved_model.pb"):
        [inside] = [part for part in parts if part.name == path]
        passed = [
            place
            for place in inside.places(random.Random(3).sample(range(inside.size), min(PASSING, inside.size)))
            if isinstance(outcome_of(box, flipped(plain, place.at, 0), MODES[0]), dict)
        ]
        assert passed, path
    assert all(path.startswith((*NO_CHECKSUM, "variables/")) for path in tree)


def refusal_of(root: Path, mode: Mode) -> ReleaseRefused | None:
    """Return why a directory is refused."""
    try:
        mode.prove(root)
    except ReleaseRefused as error:
        return error
    return None


def outcome_of(box: UnpackBox, archive: bytes, mode: Mode) -> dict[str, bytes] | ReleaseRefused:
    """Return the files that would be installed, or why none are."""
    try:
        unpacked = box.unpack(archive)
        return refusal_of(unpacked.root, mode) or on_disk(unpacked.root)
    except ReleaseRefused as error:
        return error
    finally:
        shutil.rmtree(box.into)


def reasons_of(part: str) -> set[Reason]:
    """Return the reasons that fit damage in a part."""
    if part == INDEX:
        return {Reason.VARIABLES_INDEX_CORRUPT}
    if part.startswith("variables/"):
        return {Reason.TENSOR_CHECKSUM}
    if part == "saved_model.pb":
        return {Reason.SAVED_MODEL_CORRUPT, Reason.SAVED_MODEL_NO_SERVE_TAG}
    return PROOFS_OF_THE_STREAM


def may_say_nothing(place: Place) -> bool:
    """Whether a bit may be wrong there and all files come out as they were."""
    return place.part in {"tar.gz", "tar.zst"} or (place.part == "header" and place.offset in CHECKSUM_FIELD)


def packed(tree: Mapping[str, bytes]) -> tuple[bytes, list[Part]]:
    """Return a tar of a version and what its bytes are, in their order."""
    out = io.BytesIO()
    parts: list[Part] = []
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for path, data in sorted(tree.items()):
            member = tarfile.TarInfo(f"0000001/{path}")
            member.size, member.mtime, member.uname, member.gname = len(data), 1_700_000_000, "joe", "staff"
            begin, end = out.tell() + BLOCK, out.tell() + BLOCK + len(data)
            parts += [Part("header", BLOCK, out.tell()), Part(path, len(data), begin)]
            parts.append(Part("padding", -len(data) % BLOCK, end))
            tar.addfile(member, io.BytesIO(data))
        end = out.tell()
    return out.getvalue(), [*parts, Part("end", len(out.getvalue()) - end, end)]


def always(form: str, kind: str, parts: list[Part]) -> list[Place]:
    """Return the places of an archive that are taken in every run."""
    if form == "tar":
        header = range(BLOCK) if kind == KINDS[0] else CHECKSUM_FIELD
        index = [
            place for part in parts if part.name == INDEX for place in part.places(range(0, part.size, 50))
        ]
        return parts[0].places(header) + index
    [whole] = parts
    head, tail = (10, 8) if form == "tar.gz" else (18, 4)
    return whole.places(range(head)) + whole.places(range(whole.size - tail, whole.size))


def edges_of(kind: str, parts: list[Part]) -> list[Place]:
    """Return the first and last bytes of each file, and the bytes of the index, all of them at least once."""
    found = []
    for part in parts:
        if part.name == INDEX:
            found += part.places(range(0, part.size, 1 if LONG or kind == KINDS[0] else 3))
        else:
            offsets = range(part.size)
            found += part.places({*offsets[:EDGE_BYTES], *offsets[-EDGE_BYTES:]})
    return found


def chosen(parts: list[Part], fixed: list[Place], dice: random.Random) -> list[Place]:
    """Return `fixed` and some random ones: as many of each name that there is."""
    named: dict[str, list[Part]] = {}
    for part in parts:
        named.setdefault(part.name, []).append(part)
    each = -(-SAMPLES // len(named))
    return fixed + [place for alike in named.values() for place in some_of(alike, each, dice)]


def some_of(parts: list[Part], count: int, dice: random.Random) -> list[Place]:
    """Return random places of these parts as if they were one."""
    ends = list(accumulate(part.size for part in parts))
    picked = dice.sample(range(ends[-1]), min(count, ends[-1]))
    numbers = [bisect(ends, place) for place in picked]
    return [
        parts[number].place(place - ends[number] + parts[number].size)
        for number, place in zip(numbers, picked, strict=True)
    ]


def bits(dice: random.Random) -> list[int]:
    """Return the bits to flip: all in a long run, else a random one."""
    return list(range(8)) if LONG else [dice.randrange(8)]


def flipped(data: bytes, at: int, bit: int) -> bytes:
    """Return `data` with one bit wrong."""
    return data[:at] + bytes((data[at] ^ 1 << bit,)) + data[at + 1 :]


def a_copy(tree: Mapping[str, bytes], folder: Path) -> Path:
    """Write the files into a directory."""
    for path, data in tree.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return folder
