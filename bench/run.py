"""One whole update, measured against what a user would take instead, in one run, as a ratio.

`servesync sync` (ranged reads, unpack, verify every tensor, sync to disk, rename) against
`aws s3 cp` (or boto3's download_file where there is no aws) followed by `tar -xzf` and `sync`, which checks
nothing and needs the disk twice. Run: `bench/run.py [--mb 1200] [--rounds 3]`.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import boto3
import numpy as np
import yaml

from servesync.demo.seaweed import Seaweed


def make_archive(folder: Path, megabytes: int) -> Path:
    """Write a real SavedModel with a big asset of weights, and pack it as people do."""
    script = Path(__file__).parents[1] / "tests/support/make_models.py"
    subprocess.run([sys.executable, str(script), str(folder / "made")], check=True, capture_output=True)
    root = folder / "0000001"
    shutil.copytree(folder / "made" / "plain_module", root)
    (root / "assets").mkdir(exist_ok=True)
    generator = np.random.default_rng(1)
    with (root / "assets" / "weights.bin").open("wb") as file:
        for _ in range(megabytes):
            file.write(generator.standard_normal(1 << 18, dtype=np.float32).tobytes())
    archive = folder / "modelv1.tar.gz"
    packed = ["tar", "-I", "gzip -1", "-cf", str(archive), "-C", str(folder), "0000001"]
    subprocess.run(packed, check=True)
    shutil.rmtree(root)
    return archive


def peak_rss_mb(process: "subprocess.Popen[bytes]") -> float:
    """Wait for a process and return the most memory it held, by its own VmHWM."""
    peak = 0
    while process.poll() is None:
        try:
            text = Path(f"/proc/{process.pid}/status").read_text()
        except OSError:
            break
        peak = max([peak, *(int(line.split()[1]) for line in text.splitlines() if line.startswith("VmHWM"))])
        time.sleep(0.02)
    return peak / 1024


def run_servesync(folder: Path, settings: Path, environment: dict[str, str]) -> tuple[float, float]:
    """Return seconds and peak RSS (MB) of one `servesync sync` into an empty directory."""
    shutil.rmtree(folder, ignore_errors=True)
    started = time.monotonic()
    command = [sys.executable, "-m", "servesync", "sync", "-c", str(settings)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as process:
        rss = peak_rss_mb(process)
        if process.wait():
            raise SystemExit("servesync sync failed")
    return time.monotonic() - started, rss


def run_loop(folder: Path, endpoint: str, key: str, environment: dict[str, str]) -> float:
    """Return the seconds of the home-made way."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    archive = folder / "model.tar.gz"
    aws = shutil.which("aws")
    started = time.monotonic()
    if aws:
        copy = [
            aws,
            "--endpoint-url",
            endpoint,
            "s3",
            "cp",
            "--only-show-errors",
            f"s3://bench/{key}",
            str(archive),
        ]
    else:
        call = f"download_file('bench', {key!r}, {str(archive)!r})"
        code = f"import boto3; boto3.client('s3', endpoint_url={endpoint!r}).{call}"
        copy = [sys.executable, "-c", code]
    subprocess.run(copy, check=True, env=environment)
    subprocess.run(["tar", "-xzf", str(archive), "-C", str(folder)], check=True)
    for path in [item for item in folder.rglob("*") if item.is_file() and item != archive]:
        with path.open("rb") as file:
            os.fsync(file.fileno())
    return time.monotonic() - started


def main() -> None:
    """Measure, and print one line a round and the medians."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--mb", type=int, default=1200)
    parser.add_argument("--rounds", type=int, default=3)
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="servesync-bench-") as name:
        folder = Path(name)
        archive = make_archive(folder, wanted.mb)
        with Seaweed(folder / "seaweed") as seaweed:
            keys = {"AWS_ACCESS_KEY_ID": seaweed.access_key, "AWS_SECRET_ACCESS_KEY": seaweed.secret_key}
            environment = os.environ | keys | {"AWS_DEFAULT_REGION": "us-east-1"}
            os.environ.update(environment)
            client = boto3.client("s3", endpoint_url=seaweed.endpoint_url)
            client.create_bucket(Bucket="bench")
            client.upload_file(str(archive), "bench", "prod/m/1.tar.gz")
            settings = folder / "servesync.yaml"
            settings.write_text(
                yaml.safe_dump(
                    {
                        "store": {"url": "s3://bench/prod", "endpoint_url": seaweed.endpoint_url},
                        "serving": {"models_dir": str(folder / "models"), "rest_url": None},
                        "models": [{"name": "m"}],
                        "limits": {"disk_reserve_bytes": 0},
                    }
                )
            )
            size = archive.stat().st_size / 1e6
            ours, theirs, memory = [], [], []
            for number in range(wanted.rounds):
                seconds, rss = run_servesync(folder / "models", settings, environment)
                other = run_loop(folder / "loop", seaweed.endpoint_url, "prod/m/1.tar.gz", environment)
                ours.append(seconds)
                theirs.append(other)
                memory.append(rss)
                print(f"round {number + 1}: servesync {seconds:.1f} s, copy and tar {other:.1f} s")
            ratio = statistics.median(b / a for a, b in zip(ours, theirs, strict=True))
            print(
                f"{size:.0f} MB tar.gz: servesync sync {statistics.median(ours):.1f} s "
                f"({size / statistics.median(ours):.0f} MB/s), the loop {statistics.median(theirs):.1f} s: "
                f"{ratio:.2f} times as fast; peak RSS {max(memory):.0f} MB"
            )


if __name__ == "__main__":
    main()
