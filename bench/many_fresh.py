"""How long a fresh instance takes for many models, and its memory: `bench/many_fresh.py [MODELS] [MB]`.

The store stands behind a link on which ONE connection gets `--rate` MB/s. For each number of transfers
`servesync sync` fills an empty directory; printed are seconds and the agent's peak memory, each against those
of the first number. The first row is one model alone.
"""

import argparse
import asyncio
import io
import os
import secrets
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import boto3
import yaml

from servesync.demo.seaweed import Seaweed

MB = 1_000_000
BLOCK_BYTES = 64 * 1024


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, rate: float) -> None:
    """Pass bytes on, never faster than `rate` bytes a second."""
    free_at = 0.0
    with suppress(OSError):
        while block := await reader.read(BLOCK_BYTES):
            writer.write(block)
            await writer.drain()
            free_at = max(free_at, time.monotonic()) + len(block) / rate
            await asyncio.sleep(free_at - time.monotonic())
    writer.close()


@contextmanager
def slow_link(port: int, rate: float) -> Iterator[str]:
    """Yield the URL of a link to a port on loopback; each of its connections gets `rate` bytes a second."""
    loop = asyncio.new_event_loop()
    tasks = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        store_reader, store_writer = await asyncio.open_connection("127.0.0.1", port)
        for task in (
            loop.create_task(pump(reader, store_writer, float("inf"))),
            loop.create_task(pump(store_reader, writer, rate)),
        ):
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    server = loop.run_until_complete(asyncio.start_server(connected, "127.0.0.1", 0, limit=BLOCK_BYTES))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


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
    client = boto3.client(
        "s3",
        endpoint_url=server.endpoint_url,
        region_name="us-east-1",
        aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
    )
    client.create_bucket(Bucket="many")
    body = archive(megabytes)
    for number in range(models):
        client.put_object(Bucket="many", Key=f"m{number:03}/1.tar", Body=body)


def peak_mb(process: "subprocess.Popen[bytes]") -> float:
    """Wait for a process and return the most memory it held; its own VmHWM: ru_maxrss begins with ours."""
    peak = 0
    while process.poll() is None:
        with suppress(OSError):
            text = Path(f"/proc/{process.pid}/status").read_text()
            peak = max(
                [peak, *(int(line.split()[1]) for line in text.splitlines() if line.startswith("VmHWM"))]
            )
        time.sleep(0.05)
    return peak * 1024 / MB


def sync(settings: dict[str, object], keys: dict[str, str], wanted: int) -> tuple[float, float]:
    """Fill an empty directory; return seconds and the agent's peak memory in MB."""
    with tempfile.TemporaryDirectory(prefix="servesync-bench-") as name:
        folder = Path(name)
        serving = {"models_dir": str(folder / "models"), "rest_url": None}
        path = folder / "servesync.yaml"
        path.write_text(yaml.safe_dump(settings | {"serving": serving}))
        command = [sys.executable, "-m", "servesync", "sync", "-c", str(path)]
        started = time.monotonic()
        with subprocess.Popen(command, env=os.environ | keys, stdout=subprocess.DEVNULL) as agent:
            peak = peak_mb(agent)
            status = agent.wait()
        seconds = time.monotonic() - started
        there = len(list((folder / "models").glob("m*/1")))
    if status or there != wanted:
        raise SystemExit(f"servesync sync ended with {status}, and {there} of {wanted} models")
    return seconds, peak


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
        keys = {"AWS_ACCESS_KEY_ID": server.access_key, "AWS_SECRET_ACCESS_KEY": server.secret_key}

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
