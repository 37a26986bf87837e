"""Programs that some tests need: those of the virtual environment first, then those on PATH."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest


def find(*names: str) -> str:
    """Return the first of some programs; skip the test, naming them, if there is none."""
    for name in names:
        beside = Path(sys.executable).parent / name
        found = str(beside) if beside.exists() else shutil.which(name)
        if found:
            return found
    pytest.skip(f"no {' or '.join(names)} here")


def run(*command: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a checker to its end."""
    return subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, check=False, timeout=120, cwd=cwd
    )
