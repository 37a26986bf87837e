"""Whatever speaks in the agent's process, the log stays one JSON object a line."""

import json
import subprocess
import sys

SPEAKING = """
import logging, threading, warnings
from servesync.logs import configure, drain

configure("info", "json")
warnings.warn("an old way\\nof doing it", DeprecationWarning, stacklevel=1)
logging.getLogger("some.library").warning("it is %s", "so")
logging.getLogger("botocore").debug("a token")
logging.getLogger("watchdog.observers").error("called when the thread is inactive")
thread = threading.Thread(target=lambda: 1 / 0, name="worker")
thread.start()
thread.join()
drain()
"""


def test_warnings_libraries_and_threads_write_lines() -> None:
    """Nothing goes past the log to standard error."""
    done = subprocess.run(
        [sys.executable, "-W", "default", "-c", SPEAKING], capture_output=True, text=True, check=True
    )

    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.stderr == ""
    assert [line["library"] for line in lines] == ["py.warnings", "some.library", "python"]
    assert "an old way" in lines[0]["message"]
    assert "the thread worker ended: ZeroDivisionError" in lines[2]["message"]
    assert "1 / 0" not in lines[2]["message"]
    assert "ZeroDivisionError" in lines[2]["exception"]
