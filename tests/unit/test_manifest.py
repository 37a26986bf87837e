"""The manifest: what is written is read back, and whatever else claims to be one is refused."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servesync.domain import canonical_json, manifest
from servesync.domain.manifest import Archive, File, Manifest, Part, Piece, Totals
from servesync.domain.versions import Content, FileFact, Model, Version
from servesync.errors import Reason, ReleaseRefused

MIB = 1 << 20
DIGEST = hashlib.sha256(b"x").hexdigest()
SCHEMA_FILE = Path(__file__).parents[2] / "docs/manifest.schema.json"


def piece(at: int, offset: int, size: int) -> Piece:
    """A piece of the example's file."""
    return Piece(path="a/b", offset=offset, size=size, at=at, sha256=DIGEST)


def of_schema_1() -> Manifest:
    """The example as an older publisher wrote it: no piece has a digest."""
    archive = example().archive
    parts = tuple(
        Part(
            offset=part.offset,
            size=part.size,
            sha256=part.sha256,
            content=tuple(Piece(path=p.path, offset=p.offset, size=p.size) for p in part.content or ()),
        )
        for part in archive.parts
    )
    update = {"schema_version": manifest.SCHEMA_1, "archive": archive.model_copy(update={"parts": parts})}
    return example().model_copy(update=update)


def example() -> Manifest:
    """A small release: one file in two frames, and an empty one."""
    return Manifest(
        schema="servesync.manifest/2",
        model="m",
        version=7,
        created="2026-01-02T03:04:05Z",
        archive=Archive(
            key="7.tar.zst",
            format="tar.zst",
            size=30,
            sha256=DIGEST,
            parts=(
                Part(offset=0, size=10, sha256=DIGEST, content=(), unpacked_size=512),
                Part(offset=10, size=15, sha256=DIGEST, content=(piece(512, 0, 4),), unpacked_size=516),
                Part(offset=25, size=5, sha256=DIGEST, content=(piece(0, 4, 2),), unpacked_size=7),
            ),
        ),
        files=(File(path="a/b", size=6, sha256=DIGEST), File(path="a/c", size=0, sha256=DIGEST)),
        totals=Totals(files=2, bytes=6, tensors=1, tensor_bytes=6),
        labels={"git.commit": "0123abc", "by": "training run 7"},
    )


def changed(*path: str | int, to: object) -> bytes:
    """Return the example with one value replaced; `...` removes it."""
    found: Any = json.loads(manifest.dump(example()))
    place = found
    for name in path[:-1]:
        place = place[name]
    if to is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = to
    found.pop("digest")
    return canonical_json.dump(found)


def within_one_part(*at: int) -> list[dict[str, object]]:
    """Return one part for the whole example, whose two pieces begin at these places."""
    first, second = (piece(*where).model_dump() for where in zip(at, (0, 4), (4, 2), strict=True))
    part = {"offset": 0, "size": 30, "sha256": DIGEST, "unpacked_size": 6, "content": [first, second]}
    return [part]


def twins(*paths: str) -> list[dict[str, object]]:
    """Return files that together are as large as those of the example."""
    return [{"path": path, "size": 6 * (not at), "sha256": DIGEST} for at, path in enumerate(paths)]


def refusal(data: bytes) -> str:
    """Return the text with which `data` is refused."""
    with pytest.raises(ReleaseRefused) as caught:
        manifest.parse(data)
    assert caught.value.reason is Reason.MANIFEST_INVALID
    return str(caught.value)


def test_what_is_written_is_read_back() -> None:
    """Canonical: the same manifest always gives the same bytes."""
    data = manifest.dump(example())

    assert manifest.parse(data) == example()
    assert manifest.dump(manifest.parse(data)) == data
    assert data.isascii()
    assert data.endswith(b"}\n")


def test_a_manifest_of_schema_1_is_still_read() -> None:
    """Its pieces have no digests, and its bytes are those that an older publisher wrote."""
    old = of_schema_1()
    data = manifest.dump(old)

    assert manifest.parse(data) == old
    assert b'"content":[{"offset":0,"path":"a/b","size":4}]' in data
    assert manifest.schema_for(old.archive.parts) == old.schema_version
    assert manifest.schema_for(example().archive.parts) == example().schema_version == manifest.SCHEMA_2


@pytest.mark.parametrize(
    ("data", "place"),
    [
        (
            changed("schema", to="servesync.manifest/1"),
            "archive.parts.0: it says what servesync.manifest/1 does not",
        ),
        (changed("schema", to="servesync.manifest/3"), "a newer servesync reads it: update this one"),
        (changed("schema", to="servesync.manifest/0"), "schema"),
        (changed("schema", to=["servesync.manifest/2"]), "schema"),
        (changed("schema", to=...), "schema"),
        (changed("model", to="../m"), "model"),
        (changed("model", to=".m"), "model"),
        (changed("version", to="7"), "version"),
        (changed("version", to=True), "version"),
        (changed("version", to=-1), "version"),
        (changed("version", to=2**63), "version"),
        (changed("created", to="yesterday"), "created"),
        (changed("created", to="2026-02-31T03:04:05Z"), "created"),
        (changed("created", to="2026-01-02T29:04:05Z"), "created"),
        (changed("more", to=1), "more"),
        (changed("archive", "key", to="x/7.tar.zst"), "archive.key"),
        (changed("archive", "key", to=""), "archive.key"),
        (changed("archive", "format", to="zip"), "archive.format"),
        (changed("archive", "size", to=31), "archive"),
        (changed("archive", "parts", to=[]), "archive.parts"),
        (changed("archive", "parts", 1, "offset", to=11), "parts.1"),
        (changed("archive", "parts", 1, "size", to=0), "archive.parts.1.size"),
        (changed("archive", "parts", 1, "size", to=1 << 40), "archive.parts.1.size"),
        (changed("archive", "parts", 1, "sha256", to="A" * 64), "archive.parts.1.sha256"),
        (changed("archive", "parts", 1, "content", to=...), "archive.parts"),
        (changed("archive", "parts", 1, "content", 0, "path", to="a/x"), "a/x"),
        (changed("archive", "parts", 1, "content", 0, "size", to=3), "a/b"),
        (changed("archive", "parts", 1, "content", 0, "sha256", to=...), "a piece of 'a/b' has no sha256"),
        (changed("archive", "parts", 1, "content", 0, "sha256", to="A" * 64), "content.0.sha256"),
        (changed("archive", "parts", 1, "content", 0, "at", to=...), "does not say where it is"),
        (
            changed("archive", "parts", 1, "content", 0, "at", to=513),
            "parts.1: its pieces are more than its bytes",
        ),
        (changed("archive", "parts", 1, "content", 0, "at", to=-1), "content.0.at"),
        (changed("archive", "parts", 1, "unpacked_size", to=...), "go together"),
        (changed("archive", "format", to="tar.gz"), "parts.0 is no frame"),
        (changed("archive", "parts", 1, "unpacked_size", to=16 * MIB + 1), "unpacked_size"),
        (changed("archive", "parts", to=within_one_part(0, 3)), "begins before the last one ends"),
        (changed("archive", "parts", 1, "content", 0, "offset", to=1), "a/b"),
        (changed("archive", "parts", 2, "content", 0, "offset", to=3), "a/b"),
        (changed("archive", "parts", 2, "content", to=[]), "archive.parts"),
        (changed("files", 0, "path", to="/a/b"), "files.0.path"),
        (changed("files", 0, "path", to="a/../b"), "files.0.path"),
        (changed("files", 0, "path", to="a//b"), "files.0.path"),
        (changed("files", 0, "path", to="a/\x00"), "files.0.path"),
        (changed("files", 0, "path", to="a/\ud800"), "files.0.path"),
        (changed("files", 1, "path", to="A/B"), "files"),
        (changed("files", to=twins("a/STRASSE", "a/stra\u00dfe")), "differ in case only"),
        (changed("files", to=twins("a/\u00dcber/x", "a/\u00fcber/x")), "differ in case only"),
        (changed("files", 0, "path", to="a/gru\u0308n"), "form NFC"),
        (changed("files", 0, "path", to="a/\u202ex"), "control character"),
        (changed("files", 0, "path", to="a/" + "\u00e4" * 128), "longer than 255 bytes"),
        (changed("files", 1, "path", to="a/b/c"), "files"),
        (changed("files", 0, "path", to="z"), "files"),
        (changed("files", to=[]), "files"),
        (changed("totals", "files", to=3), "totals"),
        (changed("totals", "bytes", to=7), "totals"),
        (changed("labels", "new\nline", to="x"), "labels"),
        (changed("labels", "by", to="a\x1b[2J"), "labels.by"),
        (changed("labels", "by", to="x" * 257), "labels.by"),
        (changed("labels", to={f"l{n}": "" for n in range(65)}), "labels"),
        (b"", "Expecting"),
        (b"[]", "schema"),
        (b"null", "schema"),
        (b"\xff", "UTF-8"),
        (b"\xef\xbb\xbf{}", "BOM"),
        (b"[" * 100_000, "nested"),
        (b'{"a":' * 9, "nested"),
        (b'{"schema":1,"schema":1}', "twice"),
        (b'{"version": 1.0}', "1.0"),
        (b'{"version": NaN}', "NaN"),
        (b'{"version": 1e999}', "1e999"),
        (b'{"version": ' + b"9" * 5000 + b"}", "digits"),
        (b" " * (manifest.MAX_MANIFEST_BYTES + 1), "bytes"),
    ],
)
def test_whatever_is_not_right_in_every_respect_is_refused(data: bytes, place: str) -> None:
    """The text names the place."""
    assert place in refusal(data)


@pytest.mark.slow
def test_no_flipped_bit_goes_unseen() -> None:
    """Every single one, in every byte: for labels and dates the manifest's own digest is the only proof."""
    good = manifest.dump(example().model_copy(update={"labels": {"by": "caf\u00e9"}}))
    for place in range(len(good)):
        for bit in range(8):
            bad = bytearray(good)
            bad[place] ^= 1 << bit
            refusal(bytes(bad))


def test_a_part_may_hold_several_pieces() -> None:
    """One after the other, with or without something between."""
    for places in ((0, 4), (0, 5)):
        parts = within_one_part(*places)
        parts[0]["unpacked_size"] = 7
        manifest.parse(changed("archive", "parts", to=parts))


def test_only_the_canonical_form_counts() -> None:
    """Another form of the same is refused, too: two tools must not disagree about what was published."""
    pretty = json.dumps(json.loads(manifest.dump(example())), indent=1).encode()

    assert "canonical" in refusal(pretty)


@pytest.mark.slow
@given(st.binary(max_size=300) | st.text(max_size=300).map(lambda text: text.encode(errors="replace")))
def test_nonsense_is_refused(data: bytes) -> None:
    """Never another error, whatever comes."""
    refusal(data)


@pytest.mark.parametrize(
    ("data", "place"),
    [
        (b'"' + b'\\"' * ((2 << 20) - 1), "Unterminated"),
        (b'"' + b"\\" * ((4 << 20) - 1), "Unterminated"),
        (b"{" + b",".join([b'"%x":0' % n for n in range(300_000)] + [b'"493df":0']) + b"}", "493df"),
    ],
    ids=["an open string of quotes", "an open string of backslashes", "the last of many keys twice"],
)
def test_the_largest_nonsense_is_refused_too(data: bytes, place: str) -> None:
    """Work that grew with the square of the size would outlast the test's time limit by hours."""
    assert place in refusal(data)


def test_a_manifest_is_for_one_archive() -> None:
    """Every difference is named at once."""
    manifest.check_identity(example(), Model("m"), Version(7), "7.tar.zst", 30)

    with pytest.raises(ReleaseRefused) as caught:
        manifest.check_identity(example(), Model("n"), Version(8), "8.tar.zst", 31)

    assert caught.value.reason is Reason.MANIFEST_MISMATCH
    assert all(what in str(caught.value) for what in ("model", "version", "archive", "size"))


def test_the_files_are_compared_in_both_directions() -> None:
    """Missing, extra and changed are named at once."""
    same = [FileFact(file.path, file.size, file.sha256) for file in example().files]
    manifest.compare(example(), Content.of(same))

    other = [FileFact("a/c", 1, DIGEST), FileFact("a/d", 0, DIGEST)]
    with pytest.raises(ReleaseRefused) as caught:
        manifest.compare(example(), Content.of(other))

    assert caught.value.reason is Reason.CONTENT_DIFFERS
    assert "missing: 'a/b'; extra: 'a/d'; changed: 'a/c'" in str(caught.value)


def test_pieces_can_be_left_out() -> None:
    """What is left is a manifest of schema 1 with the same files and the same proofs of the parts."""
    bare = manifest.without_pieces(example())

    assert manifest.parse(manifest.dump(bare)) == bare
    assert bare.schema_version == manifest.SCHEMA_1
    assert bare.content == example().content
    assert bare.archive.proofs == example().archive.proofs
    assert all(part.content is None for part in bare.archive.parts)


def test_too_large_a_manifest_is_refused_before_it_is_published() -> None:
    """The publisher is told what to do."""
    files = tuple(File(path=f"{'x' * 200}/{number:06}", size=0, sha256=DIGEST) for number in range(20_000))
    totals = Totals(files=len(files), bytes=0, tensors=0, tensor_bytes=0)
    parts = (Part(offset=0, size=30, sha256=DIGEST),)
    archive = example().archive.model_copy(update={"parts": parts})
    large = example().model_copy(update={"files": files, "totals": totals, "archive": archive})

    with pytest.raises(ReleaseRefused) as caught:
        manifest.dump(large)

    assert caught.value.reason is Reason.RELEASE_TOO_BIG


def test_the_published_schema_is_the_one_of_the_code() -> None:
    """`python -m servesync.manifest > docs/manifest.schema.json` writes it anew."""
    assert json.loads(SCHEMA_FILE.read_text()) == manifest.json_schema()
