"""Starts a model server on loopback: the real tensorflow_model_server if it is on PATH, else the stand-in."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, Final, Self

from servesync.demo.seaweed import ServerDidNotStart, die_with_parent

PROGRAM: Final = "tensorflow_model_server"
FLAGS: Final = (
    "--max_num_load_retries=0",
    "--num_load_threads=2",
    "--num_unload_threads=1",
    "--file_system_poll_wait_seconds=1",
)
"""The flags that servesync recommends for a server on the shelf."""


class ModelServer:
    """A model server that runs while entered, and dies with the thread that started it.

    Its port opens only after a first version is loaded: `wait_ready` waits for that.
    """

    def __init__(
        self,
        config_file: Path,
        log: Path,
        *,
        port: int | None = None,
        grpc_port: int | None = None,
        flags: tuple[str, ...] = FLAGS,
        only_standin: bool = False,
    ) -> None:
        self._config_file = config_file
        self._log = log
        self._flags = flags
        self._real = None if only_standin else shutil.which(PROGRAM)
        self._port = port or self.free_port()
        self._grpc_port = grpc_port or self.free_port(other_than=self._port)
        self._process: subprocess.Popen[bytes] | None = None

    @staticmethod
    def free_port(*, other_than: int = 0) -> int:
        """Return a port on loopback that is free now."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        return port if port != other_than else ModelServer.free_port(other_than=other_than)

    @property
    def is_standin(self) -> bool:
        """Whether this is the stand-in and not the real server."""
        return self._real is None

    @property
    def url(self) -> str:
        """Where its REST interface listens."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def grpc_target(self) -> str:
        """Where its gRPC interface listens."""
        return f"127.0.0.1:{self._grpc_port}"

    def __enter__(self) -> Self:
        """Start the process."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the process."""
        self.kill()

    def start(self) -> None:
        """Start the process, with default signals."""
        program = [self._real] if self._real else [sys.executable, "-m", "servesync.demo.standin"]
        command = [
            *program,
            f"--rest_api_port={self._port}",
            f"--port={self._grpc_port}",  # the real server refuses to start without one
            f"--model_config_file={self._config_file}",
            *self._flags,
        ]
        quiet = {"TF_CPP_MIN_LOG_LEVEL": "2"}
        with self._log.open("ab") as log:
            self._process = self.spawn(command, log, os.environ | quiet)

    def spawn(
        self, command: list[str], log: IO[bytes], environment: dict[str, str]
    ) -> "subprocess.Popen[bytes]":
        """Start a command line, in a process that dies with this thread."""
        return subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            env=environment,
            preexec_fn=die_with_parent,  # noqa: PLW1509 (it only makes system calls)
        )

    def stop(self) -> int:
        """End the process with SIGTERM, on which the real server dies at once; return its exit code."""
        return self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the process with SIGKILL; does nothing if it is not running."""
        if self._process is not None:
            self._end(signal.SIGKILL)

    def restart(self) -> None:
        """End the process and start it again on the same port, with the configuration file as it is now."""
        self.kill()
        self.start()

    def wait(self, seconds: float) -> int:
        """Wait for the process to end by itself; return its exit code.

        Raises:
            subprocess.TimeoutExpired: the process still runs.
        """
        return self._started().wait(seconds)

    def output(self) -> str:
        """Return the output of the server so far."""
        return self._log.read_text(errors="replace")

    def wait_ready(self, seconds: float) -> None:
        """Wait until the server's port is open.

        Raises:
            ServerDidNotStart: the process ended, or the port did not open in time.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self._started().poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self._port)) == 0:
                    return
            time.sleep(0.05)
        raise ServerDidNotStart(f"the model server did not get ready:\n{self.output()[-2000:]}")

    def _end(self, how: signal.Signals) -> int:
        process = self._started()
        process.send_signal(how)
        return process.wait()

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise ServerDidNotStart("the model server was never started")
        return self._process
