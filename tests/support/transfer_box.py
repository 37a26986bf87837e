"""Transfers from a store in memory into a real directory, and a context that a test cancels."""

import hashlib
import io
import random
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

import archives as a
import bundle_writer as bw
from framed_releases import Schema, release_of
from servesync.admin import AgentStatus
from servesync.domain import manifest
from servesync.domain.manifest import SCHEMA_2
from servesync.domain.versions import Layout, Model, Release, StoredObject, Version
from servesync.errors import DiskError, ReleaseRefused, Stopped
from servesync.fetch import FetchPool
from servesync.install import Workspace
from servesync.settings import Settings
from servesync.store.checksums import ObjectChecksum
from servesync.store.listing import Listing
from servesync.store.port import ObjectFacts
from servesync.transfer.disk_guard import DiskGuard
from servesync.transfer.progress import for_stream
from servesync.transfer.transfer import Staged, TransferOrder, Transfers
from servesync.verify import Expectations

M: Final = Model("m")
SHARD: Final = "variables/variables.data-00000-of-00001"


def model_files(folder: Path, kilobytes: int = 600) -> dict[str, bytes]:
    """Return the files of a small SavedModel of random bytes, by path."""
    data = random.Random(1).randbytes(kilobytes << 10)
    bw.write(folder, [bw.plain(b"w", bw.FLOAT, (len(data) // 4,), data)])
    graph = bw.bytes_field(1, bw.bytes_field(4, b"serve"))
    (folder / "saved_model.pb").write_bytes(bw.number_field(1, 1) + bw.bytes_field(2, graph))
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def flipped(data: bytes, at: int) -> bytes:
    """Return `data` with one bit turned."""
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def crc32_of(data: bytes) -> ObjectChecksum:
    """Return the checksum that a store keeps of an object."""
    return ObjectChecksum("CRC32", zlib.crc32(data).to_bytes(4, "big"))


def manifest_of(archive: bytes, files: Mapping[str, bytes], part_bytes: int = 64 << 10) -> bytes:
    """Return the manifest of an archive `1.tar.gz`."""
    starts = range(0, len(archive), part_bytes)
    parts = [(start, archive[start : start + part_bytes]) for start in starts]
    return manifest.dump(
        manifest.Manifest(
            model=M,
            version=1,
            created="2026-01-02T03:04:05Z",
            archive=manifest.Archive(
                key="1.tar.gz",
                format="tar.gz",
                size=len(archive),
                sha256=_sha256(archive),
                parts=tuple(
                    manifest.Part(offset=at, size=len(part), sha256=_sha256(part)) for at, part in parts
                ),
            ),
            files=tuple(
                manifest.File(path=path, size=len(data), sha256=_sha256(data))
                for path, data in sorted(files.items())
            ),
            totals=manifest.Totals(
                files=len(files), bytes=sum(map(len, files.values())), tensors=1, tensor_bytes=1
            ),
        )
    )


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class StoreStub:
    """Objects in memory. `way` may change what arrives, or be slow; `hold` keeps `describe` back."""

    def __init__(self) -> None:
        self.data: dict[str, bytes] = {}
        self.checksums: dict[str, ObjectChecksum] = {}
        self.manifest_to_come = False
        self.way: Callable[[str, bytes], bytes] = lambda _key, data: data
        self.hold = threading.Event()
        self.hold.set()
        self.is_asked = threading.Event()
        self.reads: list[str] = []

    def list(self, wants: Callable[[Model], bool], *, should_stop: Callable[[], bool]) -> Listing:
        """Not asked for in these tests."""
        raise NotImplementedError

    def describe(self, item: StoredObject) -> ObjectFacts:
        """Return the checksum, when `hold` is set."""
        self.is_asked.set()
        self.hold.wait(60)
        return ObjectFacts(self.checksums.get(item.key), self.manifest_to_come)

    def read(
        self,
        item: StoredObject,
        offset: int,
        length: int,
        buffer: memoryview,
        should_stop: Callable[[], bool],
    ) -> None:
        """Fill the buffer by what comes the way."""
        self.reads.append(item.key)
        buffer[:] = self.way(item.key, self.data[item.key])[offset : offset + length]

    def close(self) -> None:
        """Do nothing."""


class Context:
    """The context of a job; it is cancelled by `cancel`, or at look number `cancel_at`."""

    def __init__(self, cancel_at: int | None = None) -> None:
        self.cancelled = threading.Event()
        self.looks = 0
        self.asked: list[DiskError] = []
        self.room: Callable[[DiskError], bool] = lambda _: False
        self._cancel_at = cancel_at

    def cancel(self) -> None:
        """Cancel the job."""
        self.cancelled.set()

    def should_stop(self) -> bool:
        """Whether the job is cancelled."""
        return self.cancelled.is_set()

    def check(self) -> None:
        """Count, and raise if the job is cancelled."""
        self.looks += 1
        if self.looks == self._cancel_at:
            self.cancelled.set()
        if self.cancelled.is_set():
            raise Stopped

    def make_room(self, short: DiskError) -> bool:
        """Answer as the test says."""
        self.asked.append(short)
        return self.room(short)


class TransferBox:
    """One models directory, one store, and what is needed to bring version 1 of model `m`."""

    def __init__(self, folder: Path, **settings: object) -> None:
        self.workspace = Workspace(folder / "models")
        self.workspace.claim()
        self.workspace.prepare([M])
        self.files = model_files(folder / "model")
        self.store = StoreStub()
        plain: dict[str, object] = {
            "store": {"url": "s3://bucket", "region": "us-east-1"},
            "serving": {"models_dir": str(self.workspace.models_dir), "rest_url": None},
            "models": [{"name": "m"}],
            "limits": {"disk_reserve_bytes": 0, "disk_reserve_inodes": 0},
            "fetch": {"part_bytes": 64 << 10, "memory_bytes": 1 << 20},
        }
        self.settings = Settings.model_validate(plain | settings)
        self.guard = DiskGuard(self.workspace)
        self.transfers = Transfers(
            self.settings,
            self.store,
            FetchPool(self.settings.fetch),
            self.workspace,
            self.guard,
            AgentStatus(),
            for_stream(io.StringIO()),
        )

    def archive(
        self,
        data: bytes | None = None,
        *,
        manifest: bytes | None = None,
        checksum: ObjectChecksum | None = None,
    ) -> Release:
        """Offer an archive (by default that of the model) under `m/1.tar.gz`, and return its release."""
        data = a.tar_gz(self.files) if data is None else data
        items = [self._put("m/1.tar.gz", data)]
        if checksum is not None:
            self.store.checksums["m/1.tar.gz"] = checksum
        document = None if manifest is None else self._put("m/1.manifest.json", manifest)
        return Release(M, Version(1), Layout.ARCHIVE, tuple(items), "id", document)

    def frames(self, schema: Schema = SCHEMA_2) -> Release:
        """Offer the model in frames under `m/1.tar.zst`, with its manifest, and return the release."""
        data, document = release_of(self.files, schema)
        return self.framed(data, document)

    def framed(self, data: bytes, document: bytes) -> Release:
        """Offer an archive of frames with its manifest, and return the release."""
        item = self._put("m/1.tar.zst", data)
        return Release(M, Version(1), Layout.ARCHIVE, (item,), "id", self._put("m/1.manifest.json", document))

    def directory(self, files: Mapping[str, bytes] | None = None) -> Release:
        """Offer one object a file (by default those of the model), and return the release."""
        found = self.files if files is None else files
        items = tuple(self._put(f"m/1/{path}", data, path) for path, data in sorted(found.items()))
        return Release(M, Version(1), Layout.DIRECTORY, items, "id")

    def _put(self, key: str, data: bytes, path: str = "") -> StoredObject:
        self.store.data[key] = data
        return StoredObject(key, len(data), "e", path)

    def stage(self, release: Release, context: Context | None = None, *, present: bool = False) -> Staged:
        """Run the job in this thread."""
        order = TransferOrder(release, Expectations(), present=present)
        return self.transfers.run(order, context or Context())

    def refusal(self, release: Release) -> ReleaseRefused:
        """Return the refusal that a release meets; nothing of it may be left."""
        try:
            self.stage(release)
        except ReleaseRefused as error:
            assert self.left() == []
            return error
        raise AssertionError("it was not refused")

    def left(self) -> list[str]:
        """Return the attempts in staging."""
        return sorted(path.name for path in self.workspace.staging.iterdir())

    def staged_files(self, tree: Path) -> Iterator[tuple[str, bytes]]:
        """Yield every file of a tree."""
        for path in sorted(tree.rglob("*")):
            if path.is_file():
                yield path.relative_to(tree).as_posix(), path.read_bytes()
