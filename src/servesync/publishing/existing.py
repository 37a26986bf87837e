"""Makes manifests for existing archives: by frames, or where there are none by plain ranges of bytes."""

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import BinaryIO

from servesync.domain import manifest
from servesync.domain.manifest import Archive, File, Manifest
from servesync.domain.versions import Model, Release, Version
from servesync.errors import Reason, ReleaseRefused, SettingsError
from servesync.fetch import stream
from servesync.files import NotRegular, open_regular
from servesync.publishing.framed import framed_parts
from servesync.publishing.pack import Ranges
from servesync.publishing.request import (
    MANIFEST_TYPE,
    Published,
    Request,
    being_written,
    checked,
    exists,
    make_manifest,
    prove,
)
from servesync.redaction import redact
from servesync.settings import Fetch, Limits, Store
from servesync.store import AlreadyThere, ObjectAttributes, S3Store, S3Writer, manifest_key
from servesync.unpack import unpack_archive

READ_BYTES = 1 << 20
KINDS = {".tar.zst": "tar.zst", ".tar.gz": "tar.gz", ".tgz": "tar.gz", ".tar": "tar"}
FRAMED = "tar.zst"


def manifest_of_file(path: Path, request: Request) -> Manifest:
    """Return a manifest for an archive on this machine; unpacks it for a moment, and verifies it.

    Raises:
        ReleaseRefused: the archive would not be installed.
        SettingsError: there is no archive, or its name has no known ending.
        OSError: the archive cannot be read, or unpacked below the temporary directory.
    """
    try:
        archive = open_regular(path)
    except (FileNotFoundError, NotRegular) as error:
        text = f"{redact(str(path))}: {error.strerror}; give an archive, or s3://..."
        raise SettingsError(Reason.SETTINGS_INVALID, text) from None
    with archive:
        size = os.fstat(archive.fileno()).st_size
        chunks = iter(lambda: archive.read(READ_BYTES), b"")
        return _manifest_of(path.name, size, chunks, request, archive)


def manifest_of_object(store: Store, request: Request) -> Published:
    """Write a manifest beside an archive of the store that has none.

    Raises:
        ReleaseRefused: the archive would not be installed, there is none under this number, or it has a
            manifest already.
        StoreError, TransferError: the store refused or did not answer.
        OSError: the archive cannot be unpacked below the temporary directory.
    """
    model, version = checked(request)
    with closing(S3Store(store, Fetch(), request.limits)) as reader:
        release = _archive_in(reader, store, model, version)
        (archive,) = release.objects
        with stream(release.objects, reader.read, Fetch(), lambda: False) as parts:
            name = archive.key.rpartition("/")[2]
            made = _manifest_of(name, archive.size, (piece for _, piece in parts), request)
        reader.describe(archive)  # if it was replaced meanwhile, agents would refuse it for this manifest
    key = manifest_key(archive.key)
    if request.dry_run:
        return Published("not written (dry run)", archive.key, key, made)
    with S3Writer(store) as writer:
        try:
            writer.put_new(key, manifest.dump(made), ObjectAttributes(MANIFEST_TYPE))
        except AlreadyThere:
            _check_being_written(store, model, version, key)
            raise exists(model, version, "it has a manifest") from None
    return Published("published", archive.key, key, made)


def _check_being_written(store: Store, model: Model, version: Version, key: str) -> None:
    """Raise if the store lists no manifest although its answer says that there is one."""
    with closing(S3Store(store, Fetch())) as reader:
        listing = reader.list(lambda name: name == model)
    if not any(release.version == version and release.manifest for release in listing.documented(model)):
        raise being_written(key)


def _archive_in(reader: S3Store, store: Store, model: Model, version: Version) -> Release:
    listing = reader.list(lambda name: name == model)
    problem = listing.problems.get((model, version))
    if problem is not None:
        raise problem
    for release in listing.releases.get(model, ()):
        if release.version == version and release.manifest is not None:
            raise exists(model, version, "it has a manifest")
        if release.version == version and len(release.objects) == 1 and not release.objects[0].path:
            return release
    raise ReleaseRefused(Reason.RELEASE_INCOMPLETE, f"{store.url} has no archive of {model} {version}")


def _manifest_of(
    name: str,
    size: int,
    chunks: Iterable[bytes | memoryview],
    request: Request,
    archive: BinaryIO | None = None,
) -> Manifest:
    """Unpack and verify an archive in one pass over `chunks`, and return its manifest.

    `archive`: the same bytes, to be read again if it has frames; without it they are kept for a moment.
    """
    kind = next((kind for ending, kind in KINDS.items() if name.endswith(ending)), None)
    if kind is None:
        text = f"{name!a}: the name of an archive must end in one of {', '.join(KINDS)}"
        raise SettingsError(Reason.SETTINGS_INVALID, text)
    model, version = checked(request)
    limits = request.limits or Limits()
    ranges = Ranges()
    with tempfile.TemporaryDirectory(prefix="servesync-manifest-") as folder, ExitStack() as stack:
        if kind == FRAMED and archive is None:
            archive = stack.enter_context(Path(folder, "archive").open("w+b"))
            chunks = _kept(chunks, archive)
        tree = Path(folder, "tree")
        tree.mkdir()
        watched = _watched(chunks, size, ranges, request)
        unpacked = unpack_archive(watched, tree, version, limits, archive_bytes=size)
        facts = prove(unpacked.root, request)
        _, sha256, parts = ranges.finish()
        if kind == FRAMED and archive is not None:
            parts = framed_parts(archive, sha256, tree, unpacked.root, limits) or parts
    described = Archive.model_validate(
        {"key": name, "format": kind, "size": size, "sha256": sha256, "parts": parts}
    )
    files = tuple(File(path=file.path, size=file.size, sha256=file.sha256) for file in unpacked.content.files)
    return make_manifest(model, version, described, files, facts, request.labels)


def _watched(
    chunks: Iterable[bytes | memoryview], size: int, ranges: Ranges, request: Request
) -> Iterator[bytes | memoryview]:
    """Pass an archive's bytes on, hashing them and reporting progress."""
    done = 0
    for chunk in chunks:
        request.check()
        ranges.add(chunk)
        yield chunk
        done += len(chunk)
        request.progress(done, size)


def _kept(chunks: Iterable[bytes | memoryview], file: BinaryIO) -> Iterator[bytes | memoryview]:
    """Pass an archive's bytes on, and write them to a file."""
    for chunk in chunks:
        file.write(chunk)
        yield chunk
