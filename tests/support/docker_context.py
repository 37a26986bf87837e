"""What `docker build` would see: what the ignore file lets in, and what a stage copies of it."""

import re
import shutil
from pathlib import Path
from typing import Final

import pytest

from deploy_files import DOCKER
from settings_texts import ROOT

DOCKERFILE: Final = DOCKER / "Dockerfile"


def instructions(stage: str) -> list[tuple[str, str]]:
    """Return the instructions of one stage of the Dockerfile, each as its name and its arguments."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if not line.lstrip().startswith("#")]
    whole = re.sub(r"\\\n", " ", "\n".join(lines))
    found = [(name, rest.strip()) for name, rest in re.findall(r"^([A-Z]+)\s+(.*)$", whole, re.MULTILINE)]
    begin = next(
        i for i, (name, rest) in enumerate(found) if name == "FROM" and rest.endswith(f" AS {stage}")
    )
    ends = (i for i, (name, _) in enumerate(found) if name == "FROM" and i > begin)
    return found[begin : next(ends, len(found))]


def let_in() -> set[str]:
    """Return every path of the build context, by Docker's own reading of the ignore file."""
    lines = (DOCKER / "Dockerfile.dockerignore").read_text().splitlines()
    patterns = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    docker = pytest.importorskip("docker.utils.build", reason="no docker here (pip install docker)")
    found: set[str] = docker.exclude_paths(str(ROOT), patterns, dockerfile=str(DOCKERFILE.relative_to(ROOT)))
    return found


def copied(stage: str, into: Path) -> Path:
    """Do what the `COPY`s of a stage do, with `into` for `/`; return the stage's working directory.

    Raises:
        FileNotFoundError: something is copied that the context does not hold, for which Docker fails, too.
    """
    context, work = let_in(), into
    for name, rest in instructions(stage):
        if name == "WORKDIR":
            work = into / rest.strip("/")
            work.mkdir(parents=True)
        if name == "COPY" and not rest.startswith("--from="):
            *sources, target = rest.split()
            for source in sources:
                _copy(source, into / target.strip("/") if target.startswith("/") else work / target, context)
    return work


def _copy(pattern: str, target: Path, context: set[str]) -> None:
    """Copy files, and the content of folders; links stay links."""
    names = [
        str(path.relative_to(ROOT)) for path in ROOT.glob(pattern) if str(path.relative_to(ROOT)) in context
    ]
    if not names:
        raise FileNotFoundError(f"COPY {pattern}: not in the build context")
    for name in names:
        if (ROOT / name).is_dir():
            inside = sorted(path for path in context if path.startswith(f"{name}/"))
            for path in inside:
                _put(ROOT / path, target / Path(path).relative_to(name))
        else:
            _put(ROOT / name, target / Path(name).name)


def _put(source: Path, target: Path) -> None:
    if source.is_dir() and not source.is_symlink():
        target.mkdir(parents=True, exist_ok=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target, follow_symlinks=False)
