"""How long a fresh instance takes for many models, and its memory: `bench/many_fresh.py [MODELS] [MB]`.

The store stands behind a link on which ONE connection gets `--rate` MB/s. For each number of transfers
`servesync sync` fills an empty directory; printed are seconds and the agent's peak memory, each against those
of the first number. The first row is one model alone.
"""

import argparse
import io
import os
import secrets
import sys
import tarfile
import tempfile
from pathlib import Path

import yaml

from beside import keys_of, s3_client
from measured import run
from servesync.demo.seaweed import Seaweed
from slow_link import slow_link

MB = 1_000_000


def archive(megabytes: int) -> bytes:
    """Pack a version that has a graph for serving and an asset that cannot be compressed."""
    # SavedModel{meta_graphs: {meta_info_def: {tags: "serve"}, graph_def: {node: {...}}}}
    node = b"\x0a\x01x\x12\x0bPlaceholder"
    graph = b"\x0a" + bytes([len(node)]) + node
    meta = b"\x0a\x07\x22\x05serve" + b"\x12" + bytes([len(graph)]) + graph
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        files = {
            "saved_model.pb": b"\x08\x01\x12" + bytes([len(meta)]) + meta,
            "assets/weights": secrets.token_bytes(megabytes * MB),
        }
        for name, data in files.items():
            member = tarfile.TarInfo(f"1/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return packed.getvalue()


def fill(server: Seaweed, models: int, megabytes: int) -> None:
    """Upload the models."""
    client = s3_client(server)
    client.create_bucket(Bucket="many")
    body = archive(megabytes)
    for number in range(models):
        client.put_object(Bucket="many", Key=f"m{number:03}/1.tar", Body=body)


def sync(settings: dict[str, object], keys: dict[str, str], wanted: int) -> tuple[float, float]:
    """Fill an empty directory; return seconds and the agent's peak memory in MB."""
    with tempfile.TemporaryDirectory(prefix="servesync-bench-") as name:
        folder = Path(name)
        serving = {"models_dir": str(folder / "models"), "rest_url": None}
        path = folder / "servesync.yaml"
        path.write_text(yaml.safe_dump(settings | {"serving": serving}))
        command = [sys.executable, "-m", "servesync", "sync", "-c", str(path)]
        found = run(command, folder=folder, environment=os.environ | keys)
        there = len(list((folder / "models").glob("m*/1")))
    if there != wanted:
        raise SystemExit(f"servesync sync ended with {there} of {wanted} models")
    return found.seconds, found.peak_mb


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", type=int, nargs="?", default=20)
    parser.add_argument("mb", type=int, nargs="?", default=50)
    parser.add_argument("--rate", type=float, default=20.0, help="MB/s of one connection")
    parser.add_argument("--connections", type=int, default=8, help="fetch.connections")
    parser.add_argument("--transfers", type=int, nargs="+", default=[1, 2, 4], help="fetch.transfers")
    asked = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="servesync-bench-") as name,
        Seaweed(Path(name)) as server,
        slow_link(server.port, asked.rate * MB) as url,
    ):
        fill(server, asked.models, asked.mb)
        keys = keys_of(server)

        def measure(transfers: int, model: str, wanted: int) -> tuple[float, float]:
            settings: dict[str, object] = {
                "store": {"url": "s3://many", "endpoint_url": url, "region": "us-east-1"},
                "models": [{"name": model}],
                "fetch": {"transfers": transfers, "connections": asked.connections},
                "limits": {"disk_reserve_bytes": 0},
            }
            return sync(settings, keys, wanted)

        alone_seconds, alone_mb = measure(1, "m000", 1)
        print(f"{asked.models} models of {asked.mb} MB, {asked.rate:.0f} MB/s a connection")
        print("| transfers | seconds | times as fast | peak MB | more than the first |")
        print("|---|---|---|---|---|")
        print(f"| one model alone | {alone_seconds:.1f} | | {alone_mb:.0f} | |", flush=True)
        first = None
        for transfers in asked.transfers:
            seconds, peak = measure(transfers, "*", asked.models)
            first = first or (seconds, peak)
            more = f"{first[0] / seconds:.2f} | {peak:.0f} | {peak - first[1]:+.0f}"
            print(f"| {transfers} | {seconds:.1f} | {more} |", flush=True)


if __name__ == "__main__":
    main()
