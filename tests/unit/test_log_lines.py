"""Whatever speaks in the agent's process, the log stays one JSON object a line."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

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


LEVELS = """
import sys
from servesync.logs import configure, drain, get_logger

configure("debug", sys.argv[1])
for level in ("debug", "info", "warning", "error"):
    getattr(get_logger(), level)("it_happened", said="two\\nlines")
try:
    1 / 0
except ZeroDivisionError:
    get_logger().exception("it_happened", said="a traceback")
drain()
"""


def lines_of(style: str, output: Path, *, in_journal: bool) -> list[str]:
    """Return what a process writes whose output is, or is not, what `JOURNAL_STREAM` names."""
    with output.open("wb") as stream:
        status = os.fstat(stream.fileno())
        named = f"{status.st_dev}:{status.st_ino if in_journal else status.st_ino + 1}"
        environment = {**os.environ, "JOURNAL_STREAM": named}
        subprocess.run([sys.executable, "-c", LEVELS, style], stdout=stream, env=environment, check=True)
    return output.read_text().splitlines()


def test_the_journal_learns_each_priority(tmp_path: Path) -> None:
    """`journalctl -p warning` shows warnings; the journal takes the prefix off, and the rest is JSON."""
    lines = lines_of("json", tmp_path / "log", in_journal=True)

    found = [(line[:3], json.loads(line[3:])["level"]) for line in lines]
    expected = [("<7>", "debug"), ("<6>", "info"), ("<4>", "warning"), ("<3>", "error"), ("<3>", "error")]
    assert found == expected


def test_every_line_for_people_has_its_priority(tmp_path: Path) -> None:
    """A traceback has many lines; the journal takes each for an entry of its own."""
    lines = lines_of("console", tmp_path / "log", in_journal=True)

    assert len(lines) > 5
    assert [line for line in lines if not re.match(r"<[3467]>", line)] == []


@pytest.mark.parametrize("style", ["json", "console"])
def test_elsewhere_no_line_has_a_priority(style: str, tmp_path: Path) -> None:
    """A service's child inherits the variable; a file or a pipe that it writes to is not the journal."""
    lines = lines_of(style, tmp_path / "log", in_journal=False)

    assert lines
    assert [line for line in lines if line.startswith("<")] == []


HOSTILE = """
import sys
from servesync.logs import configure, drain, get_logger

configure("info", sys.argv[1])
get_logger().info("it_happened", who="\\x9b2Jevil", why="\\u202etxt.exe", words=["\\x1b[2J"])
try:
    raise ValueError("\\x9b2J")
except ValueError:
    get_logger().exception("it_happened", said="a traceback")
drain()
"""


@pytest.mark.parametrize("style", ["json", "console"])
def test_nothing_in_a_line_is_for_the_terminal(style: str) -> None:
    """Some texts come from whoever may write to the bucket: who moved a channel, and why."""
    done = subprocess.run(
        [sys.executable, "-c", HOSTILE, style], capture_output=True, text=True, encoding="utf-8", check=True
    )

    assert "evil" in done.stdout
    assert "in <module>" in done.stdout
    assert [line for line in done.stdout.splitlines() if not line.isprintable()] == []
