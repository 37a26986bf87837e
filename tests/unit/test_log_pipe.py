"""The log on a pipe that somebody else made non-blocking: slow readers lose nothing."""

import fcntl
import os
import threading
import time

from servesync.logs import configure, drain, get_logger


def test_a_non_blocking_pipe_loses_no_line() -> None:
    """A shell or a supervisor may share O_NONBLOCK with us; a full pipe is then waited for, not given up."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    found = bytearray()

    def read_late() -> None:
        time.sleep(0.2)
        while piece := os.read(reading, 65536):
            found.extend(piece)

    reader = threading.Thread(target=read_late)
    reader.start()
    with os.fdopen(writing, "w") as stream:
        configure("info", "json", stream)
        for number in range(300):
            get_logger().info("line", number=number, padding="x" * 100)
        drain(20)
    reader.join()
    os.close(reading)
    configure("info", "json")

    assert found.count(b"\n") == 300
