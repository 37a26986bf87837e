"""Tables of pieces: true for what was brought, found wherever the version lies, and gone with it."""

import errno
import hashlib
import random
from collections.abc import Callable
from pathlib import Path

import pytest

import archives as a
import bundle_writer as bw
from install_box import NOW, M, attempt, publish, release_of, sealed
from servesync import disk
from servesync.domain.manifest import SCHEMA_1, SCHEMA_2, Manifest, Part, Piece, dump, parse
from servesync.domain.versions import Model, Version
from servesync.install import (
    PlacedPiece,
    Record,
    Reserve,
    Shelf,
    Workspace,
    keep_pieces,
    piece_tables,
    sweep_pieces,
    write_staged,
)
from servesync.publishing.pack import pack_tree
from servesync.verify import bundle_extents
from transfer_box import TransferBox, manifest_of, model_files

N = Model("n")


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A prepared models directory with the models `m` and `n`."""
    workspace = Workspace(tmp_path / "models")
    workspace.claim()
    workspace.prepare([M, N])
    return workspace


def pieces_of(files: dict[str, str]) -> list[PlacedPiece]:
    """Return each file in pieces of three bytes."""
    cut = (
        (path, at, text.encode()[at : at + 3])
        for path, text in files.items()
        for at in range(0, len(text), 3)
    )
    return [PlacedPiece(path, at, len(data), hashlib.sha256(data).hexdigest()) for path, at, data in cut]


def brought(workspace: Workspace, number: int, text: str, model: Model = M) -> Record:
    """Bring a version onto the shelf with its table, as the agent does."""
    release, files = release_of(number, f"id-{number}", model), {"saved_model.pb": text}
    with attempt(workspace) as tree:
        done = sealed(tree, release, files)
        write_staged(tree, pieces_of(files))
        record = Shelf(workspace, model).publish(tree, release, done)
        keep_pieces(workspace, tree, done.content)
        return record


def texts(workspace: Workspace, first: Model | None = None) -> list[str]:
    """Return what the tables lead to, after proving every piece by its digest."""
    found = []
    for table in piece_tables(workspace, first):
        (folder,) = (folder for folder in table.folders if folder.is_dir())
        data = b""
        for piece in table.pieces:
            own = (folder / piece.path).read_bytes()[piece.offset : piece.offset + piece.size]
            assert hashlib.sha256(own).hexdigest() == piece.sha256
            data += own
        found.append(data.decode())
    return found


def tables(workspace: Workspace) -> list[str]:
    """Return the names of the files that hold tables."""
    return sorted(path.name for path in (workspace.root / "pieces").iterdir())


def leave(workspace: Workspace, number: int, record: Record) -> None:
    """Let a version leave for the reserve."""
    shelf = Shelf(workspace, M)
    Reserve(workspace, M).take(shelf.path / str(number), Version(number), record, NOW)
    shelf.forget(Version(number))


def test_a_table_is_found_wherever_its_version_lies(workspace: Workspace) -> None:
    """On the shelf, in the reserve, and back on the shelf: nothing is done to it."""
    record = brought(workspace, 1, "the first")
    assert texts(workspace) == ["the first"]

    leave(workspace, 1, record)
    assert texts(workspace) == ["the first"]

    reserve = Reserve(workspace, M)
    Shelf(workspace, M).put_back(reserve.path / "1", Version(1), reserve.versions()[Version(1)])
    reserve.forget(Version(1))
    assert texts(workspace) == ["the first"]


def test_the_models_own_versions_come_first(workspace: Workspace) -> None:
    """They are likelier to share something; and the same bytes come once."""
    for number, text, model in ((1, "one", M), (2, "two", M), (1, "other", N), (2, "one", N)):
        brought(workspace, number, text, model)

    assert texts(workspace, M) == ["two", "one", "other"]
    assert texts(workspace, N) == ["one", "other", "two"]
    assert len(tables(workspace)) == 3


def empty(path: Path) -> None:
    """Leave nothing of it."""
    path.write_bytes(b"")


def climbing(path: Path) -> None:
    """Name a file outside of the version."""
    path.write_text(path.read_text().replace("saved_model.pb", "../../../../etc/passwd"))


def newer(path: Path) -> None:
    """Make it one of a servesync to come."""
    path.write_text(path.read_text().replace('"schema_version":1', '"schema_version":2'))


def linked(path: Path) -> None:
    """Put a link in its place."""
    path.rename(path.with_name("moved"))
    path.symlink_to("moved")


@pytest.mark.parametrize("damage", [empty, climbing, newer, linked, Path.unlink])
def test_a_table_that_is_no_good_is_left_out(workspace: Workspace, damage: Callable[[Path], None]) -> None:
    """The others are found, and a version that is brought again replaces it."""
    bad = brought(workspace, 1, "the first").content.digest
    brought(workspace, 2, "the second")

    damage(workspace.root / f"pieces/{bad}.json")
    assert texts(workspace) == ["the second"]

    brought(workspace, 3, "the first")
    assert texts(workspace) == ["the first", "the second"]


def test_a_table_that_lies_leads_to_bytes_that_its_digest_denies(workspace: Workspace) -> None:
    """It may say of a piece what it likes: who reads there sees that it is another."""
    name = brought(workspace, 1, "the first").content.digest
    path = workspace.root / f"pieces/{name}.json"
    path.write_text(path.read_text().replace(hashlib.sha256(b"the").hexdigest(), "0" * 64))

    (table,) = piece_tables(workspace)

    assert table.pieces[0].sha256 == "0" * 64
    with pytest.raises(AssertionError):
        texts(workspace)


def test_tables_go_with_their_versions(workspace: Workspace) -> None:
    """Those of versions on the shelf and in the reserve stay."""
    record = brought(workspace, 1, "in the reserve")
    brought(workspace, 2, "gone")
    kept = brought(workspace, 3, "on the shelf").content.digest
    leave(workspace, 1, record)
    Shelf(workspace, M).forget(Version(2))

    assert sweep_pieces(workspace) == []

    assert tables(workspace) == sorted([f"{kept}.json", f"{record.content.digest}.json"])


def test_nothing_goes_while_a_record_cannot_be_read(workspace: Workspace) -> None:
    """Nobody knows which table is its version's."""
    brought(workspace, 1, "the first")
    brought(workspace, 2, "the second")
    (workspace.records(M) / "1.json").write_text("{")
    Shelf(workspace, M).forget(Version(2))

    assert sweep_pieces(workspace) == []

    assert len(tables(workspace)) == 2


def test_a_version_without_a_table_is_installed_all_the_same(workspace: Workspace) -> None:
    """As one is that an older servesync brought."""
    publish(workspace, release_of(1))
    with attempt(workspace) as tree:
        done = sealed(tree, release_of(2))
        Shelf(workspace, M).publish(tree, release_of(2), done)
        keep_pieces(workspace, tree, done.content)

    assert list(piece_tables(workspace)) == []


# -- what a transfer writes down ------------------------------------------------------------------------


def large_model(folder: Path) -> dict[str, bytes]:
    """Write a SavedModel of three large tensors and a few small ones; return its files."""
    noise = random.Random(3)
    sizes = {b"a": 13 << 20, b"b": 1000, b"c": 1 << 20, b"d": 3 << 20, b"e": 4000}
    tensors = [bw.plain(n, bw.FLOAT, (size // 4,), noise.randbytes(size)) for n, size in sizes.items()]
    model_files(folder)
    bw.write(folder, tensors)
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


@pytest.mark.parametrize("way", ["archive", "numbered", "directory", "manifest", "frames", "old frames"])
def test_a_transfer_writes_down_the_pieces_that_a_publisher_makes(tmp_path: Path, way: str) -> None:
    """Whichever way the version comes: what `publish` will say of the next one is found in this one."""
    box, folder, out = TransferBox(tmp_path), tmp_path / "large", bytearray()
    files = large_model(folder)
    packed = pack_tree(folder, Version(1), out.extend, bundle_extents(folder))
    gz, zst = a.tar_gz(files), bytes(out)
    said = parse(manifest_of(zst, files))
    archive = said.archive.model_copy(update={"format": "tar.zst", "parts": packed.parts})
    frames = said.model_copy(update={"schema_version": SCHEMA_2, "archive": archive})
    ways = {
        "archive": lambda: box.archive(gz),
        "numbered": lambda: box.archive(a.tar_gz({f"1/{path}": data for path, data in files.items()})),
        "directory": lambda: box.directory(files),
        "manifest": lambda: box.archive(gz, manifest=manifest_of(gz, files)),
        "frames": lambda: box.archive(zst, manifest=dump(frames)),
        "old frames": lambda: box.archive(zst, manifest=dump(of_schema_1(frames))),
    }

    staged = box.stage(ways[way]())
    Shelf(box.workspace, M).publish(staged.tree, staged.release, staged.proven)
    keep_pieces(box.workspace, staged.tree, staged.proven.content)

    pieces = sorted((piece for part in packed.parts for piece in part.content or ()), key=lambda p: p.path)
    (table,) = piece_tables(box.workspace)
    assert list(table.pieces) == [(p.path, p.offset, p.size, p.sha256) for p in pieces]
    assert len(table.pieces) > len(files) + 3


def of_schema_1(found: Manifest) -> Manifest:
    """Return a manifest as an older publisher wrote it: with pieces, without their digests."""
    parts = tuple(
        Part(
            offset=part.offset,
            size=part.size,
            sha256=part.sha256,
            content=tuple(Piece(path=p.path, offset=p.offset, size=p.size) for p in part.content or ()),
        )
        for part in found.archive.parts
    )
    archive = found.archive.model_copy(update={"parts": parts})
    return found.model_copy(update={"schema_version": SCHEMA_1, "archive": archive})


def test_a_small_version_has_a_table_too(tmp_path: Path) -> None:
    """Of one piece for each file."""
    box = TransferBox(tmp_path)

    staged = box.stage(box.archive())
    Shelf(box.workspace, M).publish(staged.tree, staged.release, staged.proven)
    keep_pieces(box.workspace, staged.tree, staged.proven.content)

    (table,) = piece_tables(box.workspace)
    digests = {path: hashlib.sha256(data).hexdigest() for path, data in box.files.items()}
    assert {piece.path: piece.sha256 for piece in table.pieces} == digests


def test_a_full_disk_costs_the_table_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The version is staged all the same."""
    box = TransferBox(tmp_path)
    write_file = disk.write_file

    def full(path: Path, data: bytes) -> None:
        if path.name == "pieces.json":
            raise OSError(errno.ENOSPC, "No space left on device")
        write_file(path, data)

    monkeypatch.setattr(disk, "write_file", full)

    staged = box.stage(box.archive())

    assert dict(box.staged_files(staged.tree)) == box.files
    assert not list(staged.tree.parent.glob("*.json"))
