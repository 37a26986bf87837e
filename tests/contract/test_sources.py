"""One contract for all sources of bytes: what lands is right, whatever a source does, and no update fails.

Each test brings a whole release, as the agent does, while one source has all of its bytes.
"""

import hashlib
import os
import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

import archives as a
from framed_releases import archive_of, frames_of
from mirror_stub import QUICK_TRICKS, SLOW_TRICKS, Call, Trick, cut_short
from servesync import disk
from servesync.domain import manifest
from servesync.domain.versions import Release, Version
from servesync.errors import Stopped
from servesync.install import HostCache, interrupted
from servesync.settings import Limits
from servesync.transfer.landing import Landing
from servesync.transfer.progress import Report
from servesync.transfer.sources import Source
from servesync.transfer.sources.cache import CacheSource
from servesync.transfer.sources.staging import StagingSource
from servesync.transfer.sources.supply import Elsewhere
from servesync.transfer.sources.versions import Place, VersionSource
from servesync.transfer.transfer import TransferOrder
from servesync.unpack.frames import Decoders
from servesync.verify import Expectations
from source_scenes import LOCAL, Scene, interrupt, replace_by, scene
from transfer_box import Context, TransferBox, manifest_of

ALL = (*LOCAL, "mirror", "store")
REPLACED = ("nothing", "link", "folder", "pipe", "half", "empty", "zeros", "longer")


@pytest.fixture(params=ALL)
def any_scene(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Scene]:
    """Each source in its turn."""
    with scene(request.param, tmp_path) as made:
        yield made


@pytest.fixture(params=LOCAL)
def local_scene(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Scene]:
    """Each source on this machine in its turn."""
    with scene(request.param, tmp_path) as made:
        yield made


def assert_right(made: Scene, from_source: range | None = None) -> None:
    """Bring the release: it is right, and the store sends what the source does not have.

    `from_source`: how many of the stored bytes may come from the source; None: any number.
    """
    staged = made.bring()

    assert made.content(staged) == made.box.files
    came = made.came_from()
    assert sum(came.values()) == made.stored_bytes
    assert came.keys() <= {made.source, "store"}
    assert from_source is None or came.get(made.source, 0) in from_source
    assert made.box.left() == [staged.tree.parent.name]


def test_all_bytes_come_from_the_cheapest_source(any_scene: Scene) -> None:
    """The store is asked only where it is the only one."""
    assert_right(any_scene, range(any_scene.stored_bytes, any_scene.stored_bytes + 1))


@pytest.mark.parametrize("kind", REPLACED)
def test_a_file_of_the_source_is_something_else(local_scene: Scene, kind: str) -> None:
    """Nothing of it is believed, no link is followed, no pipe is waited for; other files still serve."""
    replace_by(kind, local_scene.files()[0])

    assert_right(local_scene, range(local_scene.stored_bytes))


@pytest.mark.parametrize("seed", range(4))
def test_one_bit_of_the_source_is_wrong(local_scene: Scene, seed: int) -> None:
    """One part is fetched instead, and only that one."""
    dice = random.Random(seed)
    path = local_scene.files()[0]
    wrong = bytearray(path.read_bytes())
    wrong[dice.randrange(len(wrong))] ^= 1 << dice.randrange(8)
    path.write_bytes(wrong)

    largest = max(part.size for part in local_scene.found.archive.parts)
    assert_right(local_scene, range(local_scene.stored_bytes - largest, local_scene.stored_bytes))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["staging", "version", "cache"])
def test_every_single_bit_counts(name: str, tmp_path: Path) -> None:
    """Each bit of a small piece, or of its stored part, is found when it is wrong; the store has it right."""
    small = SmallSource(name, tmp_path)
    assert small.lands(small.right)

    for bit in range(8 * len(small.right)):
        wrong = bytearray(small.right)
        wrong[bit // 8] ^= 1 << bit % 8
        assert not small.lands(bytes(wrong)), bit


class SmallSource:
    """A source that has one small file, and may have it wrong."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder
        files = {"small": random.Random(1).randbytes(40)}
        self.data, self.found = archive_of(frames_of(files), files)
        (self.part,) = self.found.archive.parts
        self.right = self.data if name == "cache" else files["small"]
        self.tries = 0

    def lands(self, has: bytes) -> bool:
        """Land the version; return whether the source could land what it has. It is right in any case."""
        self.tries += 1
        folder = self.folder / f"{self.tries}"
        tree = folder / "tree"
        tree.mkdir(parents=True)
        source = self._source(folder, tree, has)
        with Landing(
            tree, self.found, Limits(), lambda: None, decoders=Decoders(), is_kept=self.name == "staging"
        ) as landing:
            could = source.bring(self.part, landing, lambda: False)
            assert could is not bool(landing.missing(self.part))
            landing.land_stored(self.part, memoryview(self.data))
            manifest.compare(self.found, landing.finish().content)
        assert hashlib.sha256((tree / "small").read_bytes()).hexdigest() == self.found.files[0].sha256
        return could

    def _source(self, folder: Path, tree: Path, has: bytes) -> Source:
        match self.name:
            case "staging":
                (tree / "small").write_bytes(has)
                return StagingSource()
            case "version":
                (folder / "small").write_bytes(has)
                (piece,) = self.part.content or ()
                return VersionSource({piece.sha256 or "": [Place((folder,), "small", 0)]})
            case _:
                cache = HostCache(folder / "cache", 64 << 20, 0)
                assert cache.put(self.part.sha256, memoryview(has))
                return CacheSource(cache)


def test_the_source_is_gone(local_scene: Scene) -> None:
    """What records still name is not there any more, in whole."""
    for path in local_scene.files():
        shutil.rmtree(path.parent, ignore_errors=True)

    assert_right(local_scene, range(1))


@pytest.mark.parametrize("look", [8, 12, 20, 30])
@pytest.mark.parametrize("name", [name for name in LOCAL if name != "staging"])
def test_the_source_goes_while_it_is_read(name: str, look: int, tmp_path: Path) -> None:
    """Whenever it goes, the release arrives."""
    with scene(name, tmp_path) as made:
        paths = made.files()
        removed: list[Path] = []

        class Removes(Context):
            def check(self) -> None:
                super().check()
                if self.looks == look:
                    for path in paths:
                        path.unlink()
                    removed.extend(paths)

        staged = made.bring(Removes())

        assert made.content(staged) == made.box.files
        assert removed == paths


@pytest.mark.parametrize("look", [1, 3, 8, 16])
def test_a_transfer_ends_when_it_is_told(any_scene: Scene, look: int) -> None:
    """It ends with what has come kept for the next one, which goes on with it."""
    with pytest.raises(Stopped):
        any_scene.bring(Context(cancel_at=look))

    found = interrupted(any_scene.box.workspace)
    assert [item.version for item in found] in ([], [Version(2)])
    any_scene.kept = found[0].tree if found else None
    staged = any_scene.bring()
    assert any_scene.content(staged) == any_scene.box.files


@pytest.mark.parametrize("trick", [*QUICK_TRICKS, *SLOW_TRICKS], ids=lambda trick: trick.__name__)
def test_a_mirror_that_does_wrong_fails_nothing(trick: Trick, tmp_path: Path) -> None:
    """It lies, cuts, drips, sends elsewhere, or says nothing: all bytes come from the store."""
    with scene("mirror", tmp_path) as made:
        assert made.mirror is not None
        made.mirror.trick = trick
        assert_right(made, range(1))


def test_a_mirror_that_goes_in_the_middle_fails_nothing(tmp_path: Path) -> None:
    """What it sent counts."""
    with scene("mirror", tmp_path) as made:
        mirror = made.mirror
        assert mirror is not None

        def two_answers(call: Call) -> None:
            (Call.answer if len(mirror.requests) <= 2 else cut_short)(call)

        mirror.trick = two_answers
        assert_right(made, range(1, made.stored_bytes))


def test_the_cache_gives_way_to_a_transfer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where both lie on one filesystem and space is short, before the agent is asked for anything else."""
    cache = HostCache(tmp_path / "cache", 64 << 20, 0)
    with scene("store", tmp_path) as made:
        made.elsewhere = Elsewhere(cache)
        data = bytes(1000)
        sha256 = hashlib.sha256(data).hexdigest()
        assert cache.put(sha256, memoryview(data))
        monkeypatch.setattr(disk, "free_bytes", lambda _: 0 if cache.has(sha256, len(data)) else 1 << 40)

        context = Context()
        staged = made.bring(context)

        assert made.content(staged) == made.box.files
        assert context.asked == []
        assert not cache.has(sha256, len(data))


def test_progress_never_goes_back(local_scene: Scene) -> None:
    """Whatever comes from where, it ends with the whole archive."""
    path = local_scene.files()[0]
    path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])
    seen: list[int] = []

    @contextmanager
    def reporter(release: Release) -> Iterator[Report]:
        yield seen.append

    box = local_scene.box
    box.transfers = replace(box.transfers, reporter=reporter)
    local_scene.bring()

    assert seen == sorted(seen)
    assert seen[-1] == local_scene.stored_bytes


def test_new_settings_ask_other_places(tmp_path: Path) -> None:
    """What stays the same keeps what it knows of a mirror; anything else begins anew."""
    old = TransferBox(tmp_path).settings
    fetch = old.fetch.model_copy(update={"mirrors": ["http://127.0.0.1:9"]})
    store = old.store.model_copy(update={"cache_dir": tmp_path / "cache"})
    mirrored, cached = old.model_copy(update={"fetch": fetch}), old.model_copy(update={"store": store})

    found = Elsewhere.of(old)
    assert found.renewed(old, mirrored).mirrors is not None
    assert found.renewed(old, cached).cache is not None
    found = Elsewhere.of(mirrored)
    assert found.renewed(mirrored, mirrored) is found
    assert found.renewed(mirrored, old).mirrors is None


def test_a_tar_gz_with_a_manifest_comes_from_the_cache(tmp_path: Path) -> None:
    """It has no pieces, and its parts are proven all the same; a bare archive comes from the store alone."""
    elsewhere = Elsewhere(HostCache(tmp_path / "cache", 64 << 20, 0))
    for number, with_manifest in enumerate((True, True, False)):
        folder = tmp_path / f"{number}"
        folder.mkdir()
        box = TransferBox(folder)
        data = a.tar_gz(box.files)
        release = box.archive(data, manifest=manifest_of(data, box.files) if with_manifest else None)
        order = TransferOrder(release, Expectations())
        staged = replace(box.transfers, elsewhere=elsewhere).run(order, Context())

        assert dict(box.staged_files(staged.tree)) == box.files
        assert ("m/1.tar.gz" in box.store.reads) is (number != 1)


def test_all_sources_together(tmp_path: Path) -> None:
    """What each has lost, the next has."""
    with scene("version", tmp_path) as made:
        path = made.files()[0]
        data = bytearray(path.read_bytes())
        data[: len(data) // 2] = bytes(len(data) // 2)
        made.kept = interrupt(made)
        largest = max((made.kept).rglob("*"), key=lambda item: item.stat().st_size)
        kept = bytearray(largest.read_bytes())
        kept[len(kept) // 4 :] = bytes(len(kept) - len(kept) // 4)
        largest.write_bytes(kept)
        path.write_bytes(data)
        made.came_from()

        staged = made.bring()
        assert made.content(staged) == made.box.files
        came = made.came_from()
        assert came.keys() == {"staging", "version", "store"}


def test_strangers_in_a_kept_tree_go(tmp_path: Path) -> None:
    """What is not the release's is removed before anything lands; a file with a second name is, too."""
    with scene("staging", tmp_path) as made:
        assert made.kept is not None
        elsewhere = tmp_path / "elsewhere"
        os.link(made.files()[0], elsewhere)
        elsewhere_before = elsewhere.read_bytes()
        (made.kept / "stranger").write_bytes(b"x")
        (made.kept / "strange" / "folder").mkdir(parents=True)
        (made.kept / "link").symlink_to("/etc/passwd")

        assert_right(made, range(made.stored_bytes))
        assert elsewhere.read_bytes() == elsewhere_before
