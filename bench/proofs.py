"""How fast a version is proven, against `sha256sum` and `cat` on its data: `bench/proofs.py [MIB] [ROUNDS]`.

Each round runs all three on the same file, one after the other, each in a process of its own; the file is in
the page cache. What counts is the median of the rounds' ratios. Ours reads the graph and the index, and
computes the CRC32C of every tensor; a second model holds a million short strings, which are slower to read.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

MIB: Final = 1 << 20
TEXTS: Final = 1_000_000
SHARD: Final = "variables/variables.data-00000-of-00001"
MAKE: Final = """
import sys
from pathlib import Path
from bundle_writer import write_model
write_model(Path(sys.argv[1]), int(sys.argv[2]), texts=int(sys.argv[3]))
"""
OURS: Final = """
import json, resource, sys, time
from pathlib import Path
from servesync.verify import verify_structure, verify_tensors
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
root, before, begin = Path(sys.argv[1]), peak(), time.perf_counter()
verify_structure(root)
proof = verify_tensors(root)
seconds = time.perf_counter() - begin
print(json.dumps({"seconds": seconds, "bytes": proof.bytes, "more_mib": peak() - before}))
"""


def make(root: Path, mebibytes: int, texts: int) -> Path:
    """Write a model without TensorFlow."""
    tests = str(Path(__file__).parents[1] / "tests/support")
    paths = os.pathsep.join(filter(None, (tests, os.environ.get("PYTHONPATH"))))
    command = [sys.executable, "-c", MAKE, str(root), str(mebibytes), str(texts)]
    subprocess.run(command, check=True, env=os.environ | {"PYTHONPATH": paths})
    return root


def prove(root: Path) -> dict[str, float]:
    """Return what one proof took."""
    command = [sys.executable, "-c", OURS, str(root)]
    told: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return told


def seconds_of(*command: str) -> float:
    """Return how long a command took."""
    begin = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin


def measure(root: Path, rounds: int, what: str) -> None:
    """Print one line for one model."""
    shard = str(root / SHARD)
    seconds_of("cat", shard)
    ours, sums, reads, more = [], [], [], []
    for _ in range(rounds):
        told = prove(root)
        ours.append(told["seconds"])
        more.append(told["more_mib"])
        sums.append(seconds_of("sha256sum", shard) / told["seconds"])
        reads.append(seconds_of("cat", shard) / told["seconds"])
    seconds = statistics.median(ours)
    print(
        f"{what}: {told['bytes'] / MIB:.0f} MiB proven in {seconds:.3f} s"
        f" ({told['bytes'] / MIB / seconds:.0f} MiB/s), {statistics.median(sums):.2f} x as fast as sha256sum,"
        f" {statistics.median(reads):.2f} x as fast as cat, {max(more):.0f} MiB of memory",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("mebibytes", type=int, nargs="?", default=1200)
    parser.add_argument("rounds", type=int, nargs="?", default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="servesync-bench-") as folder:
        weights = make(Path(folder, "weights"), arguments.mebibytes, 0)
        measure(weights, arguments.rounds, "weights")
        measure(make(Path(folder, "texts"), 0, TEXTS), arguments.rounds, f"{TEXTS} short strings")


if __name__ == "__main__":
    main()
