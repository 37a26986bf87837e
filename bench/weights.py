"""Makes the models that are measured: float weights in tensors of 6 MB, with one head or another."""

import math
import subprocess
import sys
from pathlib import Path
from typing import Final

import numpy as np

from servesync.verify.bundle import shard_name

sys.path.append(str(Path(__file__).parents[1] / "tests/support"))
from bundle_writer import FLOAT, Entry, bytes_field, index, number_field, plain

TENSOR_BYTES: Final = 6_000_000
HEAD_SHARE: Final = 0.03
"""So much of a model differs from its predecessor's when its head was trained on."""


def write_model(root: Path, megabytes: int, *, retrained: int = 0) -> int:
    """Write a SavedModel of normally distributed weights; return the bytes of all its files.

    Models of the same size differ in their last tensors only, if `retrained` differs. One tensor at a time
    is in memory. The graph says only that it is for serving.
    """
    count = max(2, megabytes * 1_000_000 // TENSOR_BYTES)
    head = math.ceil(count * HEAD_SHARE)
    entries = []
    (root / "variables").mkdir(parents=True)
    with (root / "variables" / shard_name(0, 1)).open("wb") as file:
        for number in range(count):
            seed = [number, retrained if number >= count - head else 0]
            data = np.random.default_rng(seed).standard_normal(TENSOR_BYTES // 4, dtype=np.float32).tobytes()
            value = plain(b"weights/%05d" % number, FLOAT, (TENSOR_BYTES // 4,), data)
            entries.append(Entry(value.key, FLOAT, value.shape, 0, file.tell(), len(data), value.crc))
            file.write(data)
    (root / "variables/variables.index").write_bytes(index(entries))
    graph = bytes_field(1, bytes_field(4, b"serve"))
    (root / "saved_model.pb").write_bytes(number_field(1, 1) + bytes_field(2, graph))
    return sum(path.stat().st_size for path in root.rglob("*") if path.is_file())


def pack(root: Path, archive: Path) -> None:
    """Pack a version as people do, with tar and gzip."""
    command = ["tar", "-I", "gzip -1", "-cf", str(archive), "-C", str(root.parent), root.name]
    subprocess.run(command, check=True)
