"""servesync measured against what a user would take instead: `make bench`, or `bench/run.py [--cases ...]`.

Runs servesync and its rivals in turn, several rounds, and writes docs/performance.md, .json and .svg. What is
not asked for stays there as it was. All servers and folders are removed again, whatever happens.
"""

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

import page
from aims import NAMED
from cases import CASES
from measured import Failed
from results import Result, joined, load, new_result, save
from rig import Rig, RigDidNotStart, rig_in
from rivals import FOLDERS, TOOLS, Tools
from scene import Scene, Wanted

DOCS = Path(__file__).parents[1] / "docs"
LINKS = ("http", "https", "slow")
DISK_FACTOR = 8
"""A size takes so many times its bytes on the disk, with the store's copies and what is unpacked."""


def asked_for(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--links", nargs="+", choices=LINKS, default=list(LINKS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size-mb", type=int, default=1200, help="of every case but `sizes`")
    parser.add_argument("--sizes", type=int, nargs="+", default=[300, 1200, 4000], help="MB; of `sizes`")
    parser.add_argument("--few", action="store_true", help="only the rivals that the aims name")
    parser.add_argument("--minutes", type=float, default=180.0, help="no new round begins after them")
    parser.add_argument("--timeout", type=float, default=900.0, help="seconds that one run may take")
    parser.add_argument("--out", type=Path, default=DOCS, help="the folder of the page")
    return parser.parse_args(arguments)


def measure(case: str, scene: Scene, asked: argparse.Namespace, deadline: float) -> Result:
    """Run one case, round by round, over every way that is asked for.

    A round that fails for servesync itself ends the case; what was measured before it is kept.
    """
    result = new_result(asked.size_mb, scene.tools.versions())
    links = [link for link in CASES[case].links if link in asked.links]
    scene.failed = result.failed
    try:
        for number in range(asked.rounds):
            for link in links:
                if time.monotonic() > deadline:
                    return result
                rows = result.links.setdefault(link, {})
                for name, figures in CASES[case].turn(scene, scene.rig.links[link]):
                    rows.setdefault(name, []).append(figures)
                    print(f"{case} {number + 1} {link}: {name}: {figures['seconds']:.2f} s", flush=True)
    except Failed as failure:
        scene.note("servesync", str(failure))
    finally:
        result.left_out = sorted(scene.tools.left_out)
        result.links = {link: rows for link, rows in result.links.items() if rows}
    return result


def run_all(asked: argparse.Namespace, folder: Path, rig: Rig) -> bool:
    """Run every case that is asked for, and write the page after each; return whether servesync did well."""
    deadline = time.monotonic() + asked.minutes * 60
    tools = Tools(os.environ["PATH"])
    only = frozenset(NAMED) if asked.few else None
    scene = Scene(folder, rig, tools, Wanted(asked.size_mb, tuple(asked.sizes), asked.timeout, only))
    figures = asked.out / "performance.json"
    good = True
    for case in asked.cases:
        if time.monotonic() > deadline:
            print(f"no time left for {case}", file=sys.stderr)
            continue
        tools.left_out.clear()
        result = measure(case, scene, asked, deadline)
        good = good and "servesync" not in result.failed
        if result.links:
            kept = load(figures)
            save(figures, kept | {case: joined(kept.get(case), result)})
            page.write(asked.out)
    return good


def end(number: int, _frame: FrameType | None) -> None:
    """Let SIGTERM and SIGHUP end the program as Ctrl-C does, so that it tidies up."""
    raise SystemExit(128 + number)


def main() -> None:
    """Measure, and write the page."""
    asked = asked_for(sys.argv[1:])
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)
    os.environ["PATH"] = os.pathsep.join(
        [*(str(TOOLS / folder) for folder in FOLDERS), os.environ["PATH"], str(Path(sys.executable).parent)]
    )
    asked.out.mkdir(parents=True, exist_ok=True)
    largest = max([asked.size_mb, *(asked.sizes if "sizes" in asked.cases else ())])
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="servesync-bench-") as name:
        os.environ["TMPDIR"] = name  # where servers put what they forget
        free_mb = shutil.disk_usage(name).free / 1e6
        if free_mb < largest * DISK_FACTOR:
            sys.exit(
                f"{largest * DISK_FACTOR} MB must be free below {tempfile.gettempdir()}; TMPDIR names another"
            )
        try:
            with rig_in(Path(name)) as rig:
                good = run_all(asked, Path(name), rig)
        except RigDidNotStart as failure:
            sys.exit(str(failure))
    print(f"{(time.monotonic() - began) / 60:.1f} minutes; see {asked.out / 'performance.md'}")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
