"""One release in frames, and each source from which all of its bytes can come."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from framed_releases import archive_of, frames_of
from mirror_stub import MirrorStub
from servesync.domain import manifest
from servesync.domain.manifest import SCHEMA_2, Manifest
from servesync.domain.versions import Layout, Release, StoredObject, Version
from servesync.errors import Stopped
from servesync.install import HostCache, Reserve, Shelf, interrupted, keep_pieces
from servesync.install.reserve import Leaving
from servesync.store import Bounds
from servesync.transfer.progress import Report
from servesync.transfer.sources.mirrors import Mirrors
from servesync.transfer.sources.supply import Elsewhere
from servesync.transfer.transfer import Staged, TransferOrder
from servesync.verify import Expectations
from transfer_box import Context, M, TransferBox

MIB: Final = 1 << 20
HASTY: Final = Bounds(
    connect_seconds=1.0,
    read_seconds=0.5,
    floor_bytes_per_second=1 << 20,
    floor_after_seconds=0.3,
    answer_seconds=0.5,
)
LOCAL: Final = ("staging", "version", "reserve", "cache")
"""The sources on this machine; `reserve` is a version that lies there."""

KEY: Final = "m/2.tar.zst"


@dataclass
class Scene:
    """A store with version 2 of a model, which the source `name` has as well.

    `kept`: the tree of an interrupted transfer, if that is the source.
    """

    name: str
    box: TransferBox
    release: Release
    found: Manifest
    kept: Path | None = None
    elsewhere: Elsewhere = field(default_factory=Elsewhere)
    mirror: MirrorStub | None = None

    @property
    def source(self) -> str:
        """The name under which the bytes are counted."""
        return "version" if self.name == "reserve" else self.name

    @property
    def stored_bytes(self) -> int:
        """The size of the archive."""
        return self.release.stored_bytes

    def files(self) -> list[Path]:
        """Return the files in which a source on this machine has bytes of the release, large ones first."""
        match self.name:
            case "staging":
                assert self.kept is not None
                root = self.kept
            case "version":
                root = self.box.workspace.shelf(M) / "1"
            case "reserve":
                root = Reserve(self.box.workspace, M).path / "1"
            case _:
                assert self.elsewhere.cache is not None
                root = self.elsewhere.cache.folder
        found = [path for path in root.rglob("*") if path.is_file() and path.stat().st_size]
        return sorted(found, key=lambda path: -path.stat().st_size)

    def bring(self, context: Context | None = None) -> Staged:
        """Bring the release as an agent does that may use all sources."""
        order = TransferOrder(self.release, Expectations(), kept=self.kept)
        transfers = replace(self.box.transfers, elsewhere=self.elsewhere)
        return transfers.run(order, context or Context())

    def came_from(self) -> Mapping[str, int]:
        """Return the stored bytes by source, of all transfers of this scene since the last call."""
        metric = self.box.transfers.agent_status.metrics.source_bytes
        found = {
            sample.labels["source"]: int(sample.value)
            for family in metric.collect()
            for sample in family.samples
            if sample.name.endswith("_total") and sample.value
        }
        metric.clear()
        return found

    def content(self, staged: Staged) -> dict[str, bytes]:
        """Return what lies in staging."""
        return dict(self.box.staged_files(staged.tree))


@contextmanager
def scene(name: str, folder: Path, files: Mapping[str, bytes] | None = None) -> Iterator[Scene]:
    """Lend a scene in which `name` has all bytes of the release, whose files are the model's or `files`."""
    box = TransferBox(folder)
    if files is not None:
        box.files = dict(files)
    frames = frames_of(box.files)
    data, found = archive_of(frames, box.files, SCHEMA_2, version=2)
    release = Release(
        M,
        Version(2),
        Layout.ARCHIVE,
        (put(box, KEY, data),),
        "id",
        put(box, "m/2.manifest.json", manifest.dump(found)),
    )
    made = Scene(name, box, release, found)
    with _prepared(made):
        made.came_from()
        box.store.reads.clear()
        yield made


def put(box: TransferBox, key: str, data: bytes) -> StoredObject:
    """Put an object into the store."""
    box.store.data[key] = data
    return StoredObject(key, len(data), "e")


@contextmanager
def _prepared(made: Scene) -> Iterator[None]:
    match made.name:
        case "staging":
            made.kept = interrupt(made)
        case "version" | "reserve":
            install_first(made.box, to_reserve=made.name == "reserve")
        case "cache":
            cache = HostCache(made.box.workspace.models_dir.parent / "cache", 64 * MIB, 0)
            made.elsewhere = Elsewhere(cache)
            made.box.workspace.end_attempt(made.bring().tree)
        case "mirror":
            with MirrorStub({KEY: made.box.store.data[KEY]}) as mirror:
                made.mirror = mirror
                made.elsewhere = Elsewhere(mirrors=Mirrors([mirror.url], 8, HASTY))
                yield
            return
        case _:
            pass
    yield


def interrupt(made: Scene) -> Path:
    """Bring the release up to its verification, and return the tree that is left then."""
    context, box = Context(), made.box

    @contextmanager
    def reporter(release: Release) -> Iterator[Report]:
        def report(done_bytes: int) -> None:
            if done_bytes == release.stored_bytes:
                context.cancel()

        yield report

    try:
        replace(box.transfers, reporter=reporter).run(TransferOrder(made.release, Expectations()), context)
    except Stopped:
        (left,) = interrupted(box.workspace)
        return left.tree
    raise AssertionError("it was not interrupted")


def install_first(box: TransferBox, *, to_reserve: bool = False) -> None:
    """Put version 1, which has the same files, onto the shelf, or into the reserve."""
    data, found = archive_of(frames_of(box.files), box.files, SCHEMA_2)
    document = put(box, "m/1.manifest.json", manifest.dump(found))
    release = Release(M, Version(1), Layout.ARCHIVE, (put(box, "m/1.tar.zst", data),), "one", document)
    staged = box.stage(release)
    shelf = Shelf(box.workspace, M)
    record = shelf.publish(staged.tree, release, staged.proven)
    keep_pieces(box.workspace, staged.tree, staged.proven.content)
    box.workspace.end_attempt(staged.tree)
    if to_reserve:
        reserve = Reserve(box.workspace, M)
        reserve.take(box.workspace.shelf(M) / "1", Version(1), record, record.at, why=Leaving())
        shelf.forget(Version(1))


def replace_by(kind: str, path: Path) -> None:
    """Put something else in the place of a file."""
    right = path.with_name(f".{path.name}.right")
    path.rename(right)
    data = right.read_bytes()
    others: dict[str, Callable[[], object]] = {
        "nothing": lambda: None,
        "link": lambda: path.symlink_to(right),
        "folder": path.mkdir,
        "pipe": lambda: os.mkfifo(path),
        "half": lambda: path.write_bytes(data[: len(data) // 2]),
        "empty": path.touch,
        "zeros": lambda: path.write_bytes(bytes(len(data))),
        "longer": lambda: path.write_bytes(b"!" + data),
    }
    others[kind]()
