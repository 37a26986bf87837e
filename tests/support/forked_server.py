"""The model server of the tests: its stand-in is forked from a process that has imported TensorFlow."""

import subprocess
from typing import IO

import forked
from servesync.demo import server
from servesync.demo.seaweed import die_with_parent


class ModelServer(server.ModelServer):
    """As the demo's, but the stand-in starts at once, and dies with the tests' process."""

    def spawn(
        self, command: list[str], log: IO[bytes], environment: dict[str, str]
    ) -> "subprocess.Popen[bytes]":
        """Have the stand-in forked; start a real server."""
        if not self.is_standin:
            return super().spawn(command, log, environment)
        return forked.start(command, environment, stdout=log, stderr=log, preexec_fn=die_with_parent)
