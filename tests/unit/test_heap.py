"""What a job on gigabytes has freed does not stay with the agent."""

import json
import os
import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="malloc is another one here")

FREED = """
import json
from pathlib import Path
from servesync import heap
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
pieces = [b"x" * (150 << 10) for _ in range(400)]
kept = pieces[::50]
del pieces
held = resident()
heap.give_back()
print(json.dumps(held - resident()))
"""


def answer(script: str) -> int:
    """Return what a script of Python prints, in an environment that leaves malloc as it is."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    command = [sys.executable, "-c", script]
    return int(json.loads(subprocess.run(command, env=plain, check=True, capture_output=True).stdout))


def test_what_is_free_goes_back() -> None:
    """Also from below something that is still in use."""
    assert answer(FREED) > 50 << 20
