"""Writes docs/performance.md: the aims, and a table for each case and way to the store.

`bench/run.py` does so after each case; `python bench/page.py` makes the page anew from docs/performance.json.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from aims import aims
from cases import CASES, IDLE, Case
from plot import draw
from results import Result, Rows, figure, load, ratios, spread

TEXT: Final = (Path(__file__).parent / "page.md").read_text()
"""The words of the page; the figures stand in place of the two comments."""


def write(folder: Path) -> None:
    """Write the page and the plot anew from the figures in `folder`."""
    results = load(folder / "performance.json")
    known = {case: results[case] for case in CASES if case in results}
    drawn = draw(folder / "performance.svg", known)
    plot = "![Seconds of each run](performance.svg)\n" if drawn else ""
    tables = [part for case, result in known.items() for part in _case(CASES[case], result)]
    text = TEXT.replace("<!-- aims -->", "\n".join([*_aims(known), plot]))
    (folder / "performance.md").write_text(
        text.replace("<!-- cases -->", "\n".join([*tables, *_machines(known)]))
    )


def _aims(results: dict[str, Result]) -> Iterator[str]:
    found = list(aims(results))
    if found:
        yield "## What was aimed at\n\n| what | at most | measured | |\n|---|---|---|---|"
        yield "\n".join(
            f"| {_cell(aim.what)} | {aim.at_most:.{aim.digits}f} | {aim.found.words(aim.digits)} "
            f"| {'met' if aim.is_met else '**missed**'} |"
            for aim in found
        )
        yield ""


def _case(case: Case, result: Result) -> Iterator[str]:
    doc = (case.turn.__doc__ or "").strip()
    size = f"{result.megabytes} MB unpacked, " if case.ours else ""
    yield f"## {case.title}\n\n{doc} {size}{result.rounds} rounds, {result.date}.\n"
    for link, rows in result.links.items():
        if case.ours == IDLE:
            yield from _waits(rows)
        else:
            yield from _table(link, case.ours, rows)
    for name in result.left_out:
        yield f"Left out, since this machine has no `{name}`: what needs it.\n"
    for name, text in result.failed.items():
        yield f"Failed, and left out from then on: {name} (`{text}`).\n"


def _machines(results: dict[str, Result]) -> Iterator[str]:
    """Say where the cases were measured, and with which versions."""
    found: dict[str, list[str]] = {}
    for case, result in results.items():
        versions = "".join(f"\n  - {name}: `{version}`" for name, version in result.tools.items())
        found.setdefault(f"{result.machine}; servesync {result.commit}{versions}\n", []).append(case)
    if found:
        yield "## Machine and versions\n"
    for words, cases in found.items():
        yield f"- {', '.join(cases)}: {words}"


def _table(link: str, ours: str, rows: Rows) -> Iterator[str]:
    against = f"`{ours}` against it" if ours else ""
    yield f"| {link} | seconds | {against} | CPU s | memory MB | sent MB |\n|---|---|---|---|---|---|"
    for name, rounds in rows.items():
        seconds = spread(figure(rows, name, "seconds"))
        ratio = ratios(figure(rows, ours, "seconds"), figure(rows, name, "seconds")) if name != ours else None
        sent = spread(figure(rows, name, "sent_mb")).median
        cpu = spread([found["user_seconds"] + found["system_seconds"] for found in rounds])
        yield (
            f"| {_cell(name)} | {seconds.words()} | {ratio.words(2) if ratio else ''} "
            f"| {cpu.median:.1f} | {_memory(name, rounds)} | {sent:.0f} |"
        )
    yield ""


def _cell(name: str) -> str:
    return name.replace("|", r"\|")


def _memory(name: str, rounds: list[dict[str, float]]) -> str:
    own = max(found["peak_mb"] for found in rounds)
    others = max(found["others_mb"] for found in rounds)
    if name.startswith("servesync"):
        return f"{own:.0f}" + (f" + {others:.0f}" if others else "")
    return f"{max(own, others):.0f}"


def _waits(rows: Rows) -> Iterator[str]:
    yield "| meanwhile | seconds | p50 ms | p99 ms | p99 against idle | longest ms | without an answer |"
    yield "|---|---|---|---|---|---|---|"
    idle = figure(rows, IDLE, "p99_ms")
    for name, rounds in rows.items():
        words = [
            spread(figure(rows, name, what)).words() for what in ("seconds", "p50_ms", "p99_ms", "longest_ms")
        ]
        ratio = ratios(figure(rows, name, "p99_ms"), idle) if name != IDLE else None
        lost = sum(found["failures"] for found in rounds)
        asked = sum(found["asked"] for found in rounds)
        yield (
            f"| {_cell(name)} | {words[0]} | {words[1]} | {words[2]} "
            f"| {ratio.words() if ratio else ''} | {words[3]} | {lost:.0f} of {asked:.0f} |"
        )
    yield ""


if __name__ == "__main__":
    write(Path(__file__).parents[1] / "docs")
