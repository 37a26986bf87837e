"""A booted Debian 12 in a folder: systemd is its process 1; its network is its own, or the host's."""

import ctypes
import os
import shutil
import socket
import socketserver
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

import tools
from settings_texts import ROOT

PACKAGES: Final = "systemd,systemd-sysv,dbus,ca-certificates,python3"
PATIENCE_SECONDS: Final = 120.0
CLEAN: Final = "env -i HOME=/root TERM=dumb PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
STANDIN: Final = """#!/bin/sh
export PYTHONPATH=/opt/servesync/lib/python3.11/site-packages:/opt/site
exec /usr/bin/python3 -m servesync.demo.standin "$@"
"""
_CLONE_NEWNET: Final = 0x40000000
_libc: Final = ctypes.CDLL(None, use_errno=True)


def until(happened: Callable[[], object], what: str) -> None:
    """Wait for something; fail, naming it, after two minutes."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not happened():
        if time.monotonic() > deadline:
            pytest.fail(f"waited in vain for {what}")
        time.sleep(0.5)


def install_debian(tree: Path) -> None:
    """Make a minimal Debian in `tree`, with the stand-in as its tensorflow_model_server."""
    if os.geteuid() != 0:
        pytest.skip("debootstrap needs root")
    if sys.version_info[:2] != (3, 11):
        pytest.skip(
            "the tool python3.11 is not what runs these tests: Debian 12 could not use its TensorFlow"
        )
    tools.find("systemd-nspawn")
    command = [tools.find("debootstrap"), "--variant=minbase", f"--include={PACKAGES}", "bookworm"]
    subprocess.run([*command, str(tree)], check=True, stdout=subprocess.DEVNULL)
    program = tree / "usr/bin/tensorflow_model_server"
    program.write_text(STANDIN)
    program.chmod(0o755)


@dataclass(frozen=True)
class Booted:
    """A machine that runs."""

    leader: int
    """Its process 1, as the host sees it."""

    def run(self, script: str) -> subprocess.CompletedProcess[str]:
        """Run a script of bash in the clone of the project; what it says on standard error comes along."""
        enter = ["nsenter", "-t", str(self.leader), "-m", "-p", "-u", "-i", "-n", "-C", "-r", "-w"]
        command = [*enter, *CLEAN.split(), "bash", "-c", f"cd /root/servesync && {script}"]
        return subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )

    def says(self, script: str) -> str:
        """Return what a script writes."""
        return self.run(script).stdout.strip()

    @contextmanager
    def door(self, port: int, to_port: int) -> Iterator[None]:
        """Let the machine reach, on a port of its loopback, a port of the host's."""

        class Pump(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                with socket.create_connection(("127.0.0.1", to_port)) as store:
                    back = threading.Thread(target=_pump, args=(store, self.request))
                    back.start()
                    _pump(self.request, store)
                    back.join()

        server = socketserver.ThreadingTCPServer(("127.0.0.1", port), Pump, bind_and_activate=False)
        server.daemon_threads = True
        server.socket.close()
        server.socket = self._listen(port)
        thread = threading.Thread(target=server.serve_forever, args=(0.1,))
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
            server.socket.close()

    def _listen(self, port: int) -> socket.socket:
        """Return a socket that listens in the machine's network: it stays where it was made."""
        made: list[socket.socket] = []

        def make() -> None:
            with Path(f"/proc/{self.leader}/ns/net").open() as network:
                if _libc.setns(network.fileno(), _CLONE_NEWNET) == 0:
                    made.append(socket.create_server(("127.0.0.1", port)))

        thread = threading.Thread(target=make)  # its network ends with it
        thread.start()
        thread.join()
        (listening,) = made
        return listening


def _pump(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass


@contextmanager
def booted(tree: Path, *, networked: bool) -> Iterator[Booted]:
    """Boot the machine, with the project as its clone; wait until it is up, and shut it down at the end."""
    pip = Path("/etc/pip.conf")
    command = [
        "systemd-nspawn",
        f"--directory={tree}",
        f"--machine=servesync-{os.getpid()}",
        "--boot",
        "--register=no",
        "--keep-unit",
        "--bind-ro=/etc/ssl/certs",
        f"--overlay={ROOT}::/root/servesync",
        f"--bind-ro={sysconfig.get_path('purelib')}:/opt/site",
        *([f"--bind-ro={pip}"] if pip.exists() else []),
        *([] if networked else ["--private-network"]),
    ]
    tools.find("nsenter")
    with (tree.parent / "boot.log").open("ab") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        until(lambda: children.read_text().strip(), "process 1")
        machine = Booted(int(children.read_text().split()[0]))
        until(lambda: machine.says("systemctl is-active multi-user.target") == "active", "multi-user.target")
        yield machine
        machine.run("systemctl poweroff")
        process.wait(PATIENCE_SECONDS)
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(tree / "run", ignore_errors=True)
        (tree / "run").mkdir()
