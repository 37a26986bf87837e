"""How fast packing is, against `tar --zstd` and `tar -z` of the same tree: `python bench/pack.py [MIB]`.

Each round runs all three, one after the other, and what counts is the median of the rounds' ratios. Ours
also hashes every file and every part, and cuts at tensor boundaries. Half of the weights are noise, half are
rounded.
"""

import argparse
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from servesync.domain.cuts import Extent
from servesync.domain.versions import Version
from servesync.publishing.pack import pack_tree

MIB = 1 << 20
SHARD = "variables/variables.data-00000-of-00001"


def make_model(folder: Path, mebibytes: int) -> list[Extent]:
    """Write a version whose tensors have 6 MiB each."""
    generator = np.random.default_rng(7)
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"graph" * 100_000)
    extents = []
    with (folder / SHARD).open("wb") as file:
        for number in range(mebibytes // 6):
            weights = generator.standard_normal(6 * MIB // 4, dtype=np.float32)
            data = np.round(weights, 1).tobytes() if number % 2 else generator.bytes(6 * MIB)
            extents.append((f"tensor_{number}", file.tell(), len(data)))
            file.write(data)
    return extents


def seconds(work: Callable[[], object]) -> float:
    """Return how long `work` takes."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def main() -> None:
    """Run three rounds and print the ratios."""
    parser = argparse.ArgumentParser()
    parser.add_argument("mebibytes", type=int, nargs="?", default=600)
    mebibytes = parser.parse_args().mebibytes
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        extents = make_model(folder / "1", mebibytes)
        ratios: dict[str, list[float]] = {"tar --zstd": [], "tar -z": []}
        for _ in range(3):
            with (folder / "ours.tar.zst").open("wb") as file:

                def write(data: bytes) -> None:
                    file.write(data)

                ours = seconds(lambda: pack_tree(folder / "1", Version(1), write, {SHARD: extents}))
            for title, flags in (("tar --zstd", "--zstd"), ("tar -z", "-z")):
                line = ["tar", flags, "-cf", str(folder / "theirs"), "-C", name, "1"]
                theirs = seconds(lambda: subprocess.run(line, check=True))  # noqa: B023
                ratios[title].append(theirs / ours)
                size = (folder / "theirs").stat().st_size
                print(f"ours {ours:.2f} s, {title} {theirs:.2f} s, {size / MIB:.0f} MiB")
        size = (folder / "ours.tar.zst").stat().st_size
    for title, found in ratios.items():
        print(
            f"packing {mebibytes} MiB ({size / MIB:.0f} packed): {statistics.median(found):.2f} times {title}"
        )


if __name__ == "__main__":
    main()
