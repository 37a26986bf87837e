"""What was measured: kept as JSON, so that cases may be measured one by one, and compared in pairs."""

import json
import os
import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import servesync

Rows = dict[str, list[dict[str, float]]]
"""By what was run: the figures of each round."""


@dataclass
class Result:
    """One case. `links`: the rows of each way to the store. `failed`: what ended badly, and how."""

    megabytes: int
    date: str = ""
    commit: str = ""
    machine: str = ""
    tools: dict[str, str] = field(default_factory=dict)
    links: dict[str, Rows] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def rounds(self) -> int:
        """The most rounds that anything was run."""
        counts = [len(found) for rows in self.links.values() for found in rows.values()]
        return max(counts, default=0)


@dataclass(frozen=True)
class Spread:
    """Median, least and most of several rounds."""

    median: float
    least: float
    most: float

    def words(self, digits: int = 1) -> str:
        """Return the median, and the range behind it if there were several rounds."""
        if self.least == self.most:
            return f"{self.median:.{digits}f}"
        return f"{self.median:.{digits}f} ({self.least:.{digits}f} to {self.most:.{digits}f})"


def spread(values: Sequence[float]) -> Spread:
    """Return the spread of at least one value."""
    return Spread(statistics.median(values), min(values), max(values))


def figure(rows: Rows, name: str, what: str) -> list[float]:
    """Return one figure of each round; nothing if there is none."""
    return [found[what] for found in rows.get(name, ()) if what in found]


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> Spread | None:
    """Return the spread of the rounds' ratios; None if there is no pair. What failed has fewer rounds."""
    pairs = [one / other for one, other in zip(ours, theirs, strict=False) if other]
    return spread(pairs) if pairs else None


def new_result(megabytes: int, tools: dict[str, str]) -> Result:
    """Return an empty result of this machine, now."""
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return Result(megabytes, now, _commit(), _machine(), tools)


def joined(old: Result | None, new: Result) -> Result:
    """Return the new result, with the ways that only the old one has, if the two can be compared."""
    if old is None or any(
        getattr(old, what) != getattr(new, what) for what in ("megabytes", "commit", "machine", "tools")
    ):
        return new
    return replace(new, links=old.links | new.links)


def load(path: Path) -> dict[str, Result]:
    """Return the results that were kept, by case; none if there is no such file."""
    if not path.exists():
        return {}
    return {case: Result(**kept) for case, kept in json.loads(path.read_text()).items()}


def save(path: Path, results: dict[str, Result]) -> None:
    """Keep results, in a form in which changes can be read."""
    text = json.dumps({case: asdict(result) for case, result in results.items()}, indent=1)
    aside = path.with_suffix(".new")
    aside.write_text(text + "\n")
    aside.replace(path)


def _commit() -> str:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return servesync.__version__
    return f"{servesync.__version__} at {done.stdout.strip()}"


def _machine() -> str:
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    processor = names[0].partition(":")[2].strip() if names else "unknown processor"
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    cores = len(os.sched_getaffinity(0))
    return f"{processor}, {cores} cores, {memory:.0f} GiB of memory, Linux {os.uname().release}"
