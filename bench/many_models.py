"""What many models in one agent cost: `python bench/many_models.py [MODELS] [VERSIONS]`.

A real S3 server holds MODELS x VERSIONS small archives, one agent with `name: "*"` brings the newest version
of each. Printed: the time until all are in place; then, with nothing to do, processor time and requests of a
poll, and the agent's peak memory.
"""

import argparse
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import boto3
import yaml
from botocore.config import Config

from beside import keys_of
from servesync.demo.seaweed import Seaweed

QUIET_SECONDS = 20.0


def archive(number: int) -> bytes:
    """Pack a version that has a graph for serving, an asset, and no variables."""
    # SavedModel{meta_graphs: {meta_info_def: {tags: "serve"}, graph_def: {node: {...}}}}
    node = b"\x0a\x01x\x12\x0bPlaceholder"
    graph = b"\x0a" + bytes([len(node)]) + node
    meta = b"\x0a\x07\x22\x05serve" + b"\x12" + bytes([len(graph)]) + graph
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=1) as tar:
        files = {"saved_model.pb": b"\x08\x01\x12" + bytes([len(meta)]) + meta, "assets/a": b"%d" % number}
        for name, data in files.items():
            member = tarfile.TarInfo(f"{number:07}/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return packed.getvalue()


def fill(server: Seaweed, models: int, versions: int) -> None:
    """Upload everything."""
    client = boto3.client(
        "s3",
        endpoint_url=server.endpoint_url,
        region_name="us-east-1",
        aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
        config=Config(s3={"addressing_style": "path"}, max_pool_connections=16),
    )
    client.create_bucket(Bucket="many")
    bodies = {number: archive(number) for number in range(1, versions + 1)}
    with ThreadPoolExecutor(16) as pool:
        wanted = [(m, v) for m in range(models) for v in bodies]
        list(
            pool.map(
                lambda which: client.put_object(
                    Bucket="many", Key=f"m{which[0]:04}/{which[1]}.tar.gz", Body=bodies[which[1]]
                ),
                wanted,
            )
        )


def processor_seconds(pid: int) -> float:
    """Return the processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def lines(log: Path) -> list[dict[str, object]]:
    """Return the events so far."""
    return [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]


def measure(agent: "subprocess.Popen[bytes]", log: Path, models: int) -> str:
    """Wait until all models are in place, then look on for a while; return the figures, in words."""
    begin = time.perf_counter()
    while sum(line["event"] == "version_installed" for line in lines(log)) < models:
        if agent.poll() is not None:
            raise SystemExit(log.read_text()[-2000:])
        time.sleep(0.2)
    all_seconds = time.perf_counter() - begin
    polls = sum(line["event"] == "poll_finished" for line in lines(log))
    used = processor_seconds(agent.pid)
    time.sleep(QUIET_SECONDS)
    quiet = [line for line in lines(log) if line["event"] == "poll_finished"][polls:]
    used = processor_seconds(agent.pid) - used
    peak = Path(f"/proc/{agent.pid}/status").read_text().split("VmHWM:")[1].split("kB")[0].strip()
    return (
        f"all in place after {all_seconds:.1f} s ({all_seconds / models * 1000:.0f} ms a model)\n"
        f"a poll with nothing to do: {quiet[-1]['requests']} requests, {used / len(quiet):.3f} s of a core\n"
        f"peak memory of the agent: {int(peak) / 1024:.0f} MiB"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("models", type=int, nargs="?", default=100)
    parser.add_argument("versions", type=int, nargs="?", default=50)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, Seaweed(Path(name, "seaweed")) as server:
        folder = Path(name)
        fill(server, asked.models, asked.versions)
        settings = {
            "store": {"url": "s3://many", "endpoint_url": server.endpoint_url, "region": "us-east-1"},
            "serving": {"models_dir": str(folder / "models"), "rest_url": None},
            "models": [{"name": "*"}],
            "poll": {"interval_seconds": 2, "jitter_seconds": 0},
            "log": {"level": "debug"},
        }
        (folder / "servesync.yaml").write_text(yaml.safe_dump(settings))
        command = [sys.executable, "-m", "servesync", "run", "-c", str(folder / "servesync.yaml")]
        log = folder / "log"
        with log.open("wb") as out:
            agent = subprocess.Popen(command, env=os.environ | keys_of(server), stdout=out, stderr=out)
        try:
            found = measure(agent, log, asked.models)
        finally:
            agent.terminate()
            agent.wait()
    print(f"{asked.models} models x {asked.versions} versions\n{found}")


if __name__ == "__main__":
    main()
