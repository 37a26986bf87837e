"""`servesync verify`: makes the proof for a path on disk that the agent makes before it installs."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from servesync import disk
from servesync.errors import Reason, SettingsError
from servesync.files import NotRegular, open_regular
from servesync.settings import Level, Limits, LoadLimits
from servesync.unpack import unpack_archive
from servesync.verify import (
    Expectations,
    check_warmup,
    find_operations,
    in_words,
    load_model,
    require_tensorflow,
    verify_structure,
    verify_tensors,
)

READ_BYTES: Final = 1 << 20


def verify_command(
    path: Path, level: Level, limits: Limits | None = None, load: LoadLimits | None = None
) -> str:
    """Prove a version's directory, or an archive of one, and return what was found, in words.

    An archive is unpacked below the system's temporary directory, which is emptied again. `limits` and
    `load` are those of the settings, None for their defaults.

    Raises:
        ReleaseRefused: it would not be installed.
        SettingsError: there is nothing to prove at `path`, or what the level load needs is not installed.
        CheckFailed: the level load could not be reached on this machine.
        DiskError: it cannot be read, or there is no space to unpack it.
    """
    load = load or LoadLimits()
    if level == "load":
        require_tensorflow(load.libraries)  # before gigabytes are read
    try:
        if path.is_dir():
            return _verify_tree(path, level, load)
        if not path.exists():
            text = f"{path}: no such file or directory; give a version's directory or an archive of one"
            raise SettingsError(Reason.SETTINGS_INVALID, text)
        with open_regular(path) as archive, tempfile.TemporaryDirectory(prefix="servesync-verify-") as folder:
            size = os.fstat(archive.fileno()).st_size
            tree = Path(folder, "tree")
            tree.mkdir()
            unpacked = unpack_archive(_pieces(archive), tree, None, limits or Limits(), archive_bytes=size)
            return _verify_tree(unpacked.root, level, load)
    except NotRegular as error:
        text = f"{error.filename}: {error.strerror}; give a version's directory or an archive of one"
        raise SettingsError(Reason.SETTINGS_INVALID, text) from None
    except OSError as error:
        raise disk.describe(error, f"verifying {path}") from error


def _verify_tree(root: Path, level: Level, load: LoadLimits) -> str:
    found = verify_structure(root)
    text = f"structure: {found.tensors} tensors in {found.shards} shards, {found.tensor_bytes} bytes"
    report = find_operations(root)
    if report.total:
        first = in_words(report.findings[0])
        text += f"; {report.total} operations that reach out of the graph, first {first}"
    requests = check_warmup(root)
    if requests:
        text += f"; warm-up requests: {requests}"
    if level == "structure":
        return text
    text = f"{text}; checksum: {verify_tensors(root).tensors} tensors match their CRC32C"
    if level == "checksum":
        return text
    tried = load_model(root, Expectations(), load)
    return (
        f"{text}; load: TensorFlow {tried.tensorflow_version} loaded it in {tried.seconds:.1f} s with "
        f"{tried.peak_memory_bytes} bytes of memory, signatures: {', '.join(map(ascii, tried.signatures))}, "
        f"golden requests answered as expected: {tried.golden_requests}, network: {tried.network}"
    )


def _pieces(archive: BinaryIO) -> Iterator[bytes]:
    while piece := archive.read(READ_BYTES):
        yield piece
