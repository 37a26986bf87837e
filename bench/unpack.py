"""How fast unpacking is, against `tar -xzf` on the same archive: `python bench/unpack.py [MIB] [ROUNDS]`.

Each round runs both, one after the other, into fresh directories, and what counts is the median of the
rounds' ratios: noise of the machine hits both. Both end with every file synced, as an installation needs it;
ours also hashes every file and proves the end of the archive. Peak memory is that of a process that does
nothing else.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np

MIB: Final = 1 << 20
OURS: Final = """
import json, resource, sys, time
from pathlib import Path
from servesync import disk
from servesync.domain.versions import Version
from servesync.settings import Limits
from servesync.unpack import unpack_archive

def chunks(path):
    buffer = bytearray(8 << 20)
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            yield memoryview(buffer)[:count]

archive, into = Path(sys.argv[1]), Path(sys.argv[2])
begin = time.perf_counter()
unpacked = unpack_archive(chunks(archive), into, Version(1), Limits(), archive_bytes=archive.stat().st_size)
disk.sync_tree(into, lambda: None)
seconds = time.perf_counter() - begin
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"seconds": seconds, "peak_mib": peak / 1024, "bytes": unpacked.content.total_bytes}))
"""


def make_model(folder: Path, mebibytes: int, *, compressible: bool) -> None:
    """Write a version whose weights are random normal floats, or such floats rounded to few digits."""
    random = np.random.default_rng(7)
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"graph" * 100_000)
    with (folder / "variables/variables.data-00000-of-00001").open("wb") as file:
        for _ in range(0, mebibytes, 16):
            weights = random.standard_normal(4 * MIB, dtype=np.float32)
            file.write((np.round(weights, 1) if compressible else weights).tobytes())


def rounds(archive: Path, count: int, flag: str) -> Iterator[dict[str, float]]:
    """Yield what each pair of runs took."""
    for _ in range(count):
        with (
            tempfile.TemporaryDirectory(dir=archive.parent) as ours,
            subprocess.Popen(
                [sys.executable, "-c", OURS, str(archive), ours], stdout=subprocess.PIPE
            ) as process,
        ):
            told = json.loads(process.communicate()[0])
        with tempfile.TemporaryDirectory(dir=archive.parent) as theirs:
            begin = time.perf_counter()
            subprocess.run(["tar", flag, "-xf", str(archive), "-C", theirs], check=True)
            files = [str(path) for path in Path(theirs).rglob("*")]
            subprocess.run(["sync", *files], check=True)
            yield told | {"tar_seconds": time.perf_counter() - begin}


def measure(base: Path, mebibytes: int, count: int, *, compressible: bool) -> None:
    """Print one line for each format of one model."""
    make_model(base / "0000001", mebibytes, compressible=compressible)
    kind = "rounded floats" if compressible else "random floats"
    for flag, suffix in (("--gzip", "tar.gz"), ("--zstd", "tar.zst")):
        archive = base / f"model.{suffix}"
        subprocess.run(["tar", flag, "-cf", str(archive), "-C", str(base), "0000001"], check=True)
        results = list(rounds(archive, count, flag))
        seconds = statistics.median(result["seconds"] for result in results)
        speedup = statistics.median(result["tar_seconds"] / result["seconds"] for result in results)
        print(
            f"{kind}, {suffix}, {archive.stat().st_size / MIB:.0f} MiB packed: {seconds:.2f} s,"
            f" {archive.stat().st_size / MIB / seconds:.0f} MiB/s packed,"
            f" {results[0]['bytes'] / MIB / seconds:.0f} MiB/s unpacked,"
            f" {speedup:.2f} x tar, peak {max(result['peak_mib'] for result in results):.0f} MiB",
            flush=True,
        )
        archive.unlink()
    shutil.rmtree(base / "0000001")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("mebibytes", type=int, nargs="?", default=1200)
    parser.add_argument("rounds", type=int, nargs="?", default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="servesync-bench-") as base:
        for compressible in (False, True):
            measure(Path(base), arguments.mebibytes, arguments.rounds, compressible=compressible)


if __name__ == "__main__":
    main()
