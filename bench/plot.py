"""Draws docs/performance.svg: the seconds of each run as bars, with the spread of the rounds."""

from pathlib import Path
from typing import Final
from xml.sax.saxutils import escape

from cases import CASES
from results import Result, Rows, figure, spread

DRAWN: Final = ("tar.gz", "frames", "head", "restart")
LINKS: Final = ("http", "https", "slow")
LABEL, BARS, ROW, GAP, TOP = 300, 200, 17, 34, 46
OURS, THEIRS = "#1a6fb5", "#b8bec6"


def draw(path: Path, results: dict[str, Result]) -> bool:
    """Draw the cases side by side over their ways to the store; return whether there was any."""
    cases = [case for case in DRAWN if case in results]
    if not cases:
        path.unlink(missing_ok=True)
        return False
    columns = [link for link in LINKS if any(link in results[case].links for case in cases)]
    width = LABEL + len(columns) * (BARS + 60) + 10
    shapes = [text(LABEL + number * (BARS + 60), 20, link, "bold") for number, link in enumerate(columns)]
    y = TOP
    for case in cases:
        result = results[case]
        names = list(dict.fromkeys(name for rows in result.links.values() for name in rows))
        shapes.append(text(8, y, f"{CASES[case].title}, {result.megabytes} MB: seconds", "bold"))
        for row, name in enumerate(names):
            shapes.append(text(8, y + 18 + row * ROW, name))
        for number, link in enumerate(columns):
            x = LABEL + number * (BARS + 60)
            shapes += panel(result.links.get(link, {}), names, x, y + 18)
        y += 18 + len(names) * ROW + GAP
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{y}" font-family="sans-serif" '
        f'font-size="11">\n<rect width="{width}" height="{y}" fill="white"/>\n'
        + "\n".join(shapes)
        + "\n</svg>\n"
    )
    return True


def panel(rows: Rows, names: list[str], x: int, y: int) -> list[str]:
    """Return the bars of one case over one way, the longest of them `BARS` wide."""
    found = {name: spread(figure(rows, name, "seconds")) for name in names if rows.get(name)}
    longest = max((one.most for one in found.values()), default=1.0)
    shapes = []
    for row, name in enumerate(names):
        if name in found:
            one, top = found[name], y + row * ROW - 9
            wide, least, most = (value / longest * BARS for value in (one.median, one.least, one.most))
            colour = OURS if name.startswith("servesync") else THEIRS
            shapes += [
                f'<rect x="{x}" y="{top}" width="{wide:.1f}" height="{ROW - 5}" fill="{colour}"/>',
                f'<path d="M{x + least:.1f} {top + 6}H{x + most:.1f}" stroke="#333" stroke-width="1"/>',
                text(round(x + most) + 5, y + row * ROW, f"{one.median:.1f}"),
            ]
    return shapes


def text(x: int, y: int, words: str, weight: str = "normal") -> str:
    """Return a line of text."""
    return f'<text x="{x}" y="{y}" font-weight="{weight}" fill="#111">{escape(words)}</text>'
