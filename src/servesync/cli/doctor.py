"""`servesync doctor`: shows each finding of the doctor at once on a line, or all in one JSON object."""

import json
from collections.abc import Iterable
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.markup import escape

from servesync.cli.options import ConfigFile
from servesync.doctor import Check, Finding, Level, examine
from servesync.settings_file import environment_overrides

ALL_WELL: Final = 0
BAD_SETTINGS: Final = 2
SOMETHING_FAILS: Final = 3
_STYLES: Final = {Level.OK: "green", Level.WARN: "yellow", Level.FAIL: "bold red"}
_ID_WIDTH: Final = 22


def doctor(
    config: ConfigFile,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of lines.")] = False,
    show_keys: Annotated[
        int, typer.Option(min=0, max=10_000, help="Name at most this many keys that are no release.")
    ] = 10,
) -> None:
    """Examine settings, credentials, store, disk, lock and server; say what to do. Changes nothing.

    Exit code 0: nothing fails, there may be warnings; 2: the settings cannot be used; 3: something fails.
    """
    found = examine(config.absolute(), environment_overrides(), show_keys)
    findings = list(found) if as_json else list(_shown(found, Console(highlight=False, soft_wrap=True)))
    code = exit_code(findings)
    if as_json:
        typer.echo(json.dumps(as_object(findings, code), indent=2))
    raise typer.Exit(code)


def exit_code(findings: Iterable[Finding]) -> int:
    """Return the command's exit code for these findings."""
    failed = {finding.check for finding in findings if finding.level is Level.FAIL}
    if Check.SETTINGS_FILE in failed:
        return BAD_SETTINGS
    return SOMETHING_FAILS if failed else ALL_WELL


def as_object(findings: list[Finding], code: int) -> dict[str, object]:
    """Return what `--json` prints."""
    return {
        "exit_code": code,
        "counts": {level.value: sum(item.level is level for item in findings) for level in Level},
        "findings": [
            {
                "id": item.check.value,
                "level": item.level.value,
                "subject": item.subject,
                "text": item.text,
                "advice": item.advice,
            }
            for item in findings
        ],
    }


def _shown(found: Iterable[Finding], console: Console) -> Iterable[Finding]:
    """Print each finding when it comes and pass it on; at the end print their number by level."""
    counts = dict.fromkeys(Level, 0)
    for item in found:
        counts[item.level] += 1
        style = _STYLES[item.level]
        about = f"{item.subject}: " if item.subject else ""
        text = _on_one_line(about + item.text)
        console.print(f"[{style}]{item.level.value:<4}[/]  {item.check.value:<{_ID_WIDTH}} {text}")
        if item.advice:
            console.print(f"      {'':<{_ID_WIDTH}} [dim]->[/] {_on_one_line(item.advice)}")
        yield item
    console.print(", ".join(f"{count} {level.value}" for level, count in counts.items()))


def _on_one_line(text: str) -> str:
    """Return foreign text without line feeds and control characters, which a terminal would obey."""
    return escape("".join(character if character.isprintable() else " " for character in text))
