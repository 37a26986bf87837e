"""How fast an object is read, against boto3's download_file: `python bench/fetch.py [MIB] [ROUNDS]`.

Each round runs both, one after the other, each in a process of its own, against one SeaweedFS on
loopback. Both write what they get to a file in /dev/shm, so that no disk is measured. What counts is the
median of the rounds' ratios; "before" is the peak memory when all is imported and the transfer begins.
"""

import argparse
import json
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

import boto3

from servesync.demo.seaweed import Seaweed

MIB: Final = 1 << 20
COMMON: Final = """
import json, os, resource, sys, time
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
def tell(begin, before):
    print(json.dumps({"seconds": time.perf_counter() - begin, "peak_mib": peak(), "import_mib": before}))
"""
OURS: Final = (
    COMMON
    + """
from servesync.fetch import stream
from servesync.settings import Fetch, Store
from servesync.store import S3Store
store = S3Store(Store(url="s3://bench/prod", endpoint_url=sys.argv[1], region="us-east-1"), Fetch())
(release,) = next(iter(store.list(lambda model: True).releases.values()))
before = peak()
begin = time.perf_counter()
with (
    stream(release.objects, store.read, Fetch(), lambda: False) as parts,
    open(sys.argv[2], "wb", buffering=0) as file,
):
    assert sum(file.write(piece) for _, piece in parts) == release.stored_bytes
tell(begin, before)
"""
)
THEIRS: Final = (
    COMMON
    + """
import boto3
client = boto3.client("s3", endpoint_url=sys.argv[1], region_name="us-east-1")
client.list_objects_v2(Bucket="bench")
before = peak()
begin = time.perf_counter()
client.download_file("bench", "prod/m/1.tar", sys.argv[2])
tell(begin, before)
"""
)


def run(code: str, *arguments: str) -> dict[str, float]:
    """Return what a process that runs `code` says."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], check=True, capture_output=True, text=True, env=os.environ
    )
    told: dict[str, float] = json.loads(done.stdout)
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("mebibytes", type=int, nargs="?", default=1024)
    parser.add_argument("rounds", type=int, nargs="?", default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="servesync-bench-") as base, Seaweed(Path(base)) as server:
        os.environ["AWS_ACCESS_KEY_ID"] = server.access_key
        os.environ["AWS_SECRET_ACCESS_KEY"] = server.secret_key
        source = Path(base) / "object"
        with source.open("wb") as file:
            for _ in range(arguments.mebibytes):
                file.write(secrets.token_bytes(MIB))
        client = boto3.client("s3", endpoint_url=server.endpoint_url, region_name="us-east-1")
        client.create_bucket(Bucket="bench")
        client.upload_file(str(source), "bench", "prod/m/1.tar")
        source.unlink()
        ratios = []
        with tempfile.TemporaryDirectory(dir="/dev/shm") as memory:
            for number in range(arguments.rounds):
                ours = run(OURS, server.endpoint_url, f"{memory}/ours")
                Path(memory, "ours").unlink()
                theirs = run(THEIRS, server.endpoint_url, f"{memory}/theirs")
                Path(memory, "theirs").unlink()
                ratios.append(theirs["seconds"] / ours["seconds"])
                print(
                    f"round {number + 1}: stream {arguments.mebibytes / ours['seconds']:.0f} MiB/s,"
                    f" peak {ours['peak_mib']:.0f} MiB (before: {ours['import_mib']:.0f});"
                    f" download_file {arguments.mebibytes / theirs['seconds']:.0f} MiB/s,"
                    f" peak {theirs['peak_mib']:.0f} MiB (before: {theirs['import_mib']:.0f})",
                    flush=True,
                )
        print(
            f"stream is {statistics.median(ratios):.2f} times as fast (median of {arguments.rounds} rounds)"
        )


if __name__ == "__main__":
    main()
