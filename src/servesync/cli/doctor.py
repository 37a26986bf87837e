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
    examined = examine(config.absolute(), environment_overrides(), show_keys)
    findings = list(examined) if as_json else list(_shown(examined, Console(highlight=False, soft_wrap=True)))
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
        "counts": {level.value: sum(finding.level is level for finding in findings) for level in Level},
        "findings": [
            {
                "id": finding.check.value,
                "level": finding.level.value,
                "subject": finding.subject,
                "text": finding.text,
                "advice": finding.advice,
            }
            for finding in findings
        ],
    }


def _shown(findings: Iterable[Finding], console: Console) -> Iterable[Finding]:
    """Print each finding when it comes and pass it on; at the end print their number by level."""
    counts = dict.fromkeys(Level, 0)
    for finding in findings:
        counts[finding.level] += 1
        style = _STYLES[finding.level]
        about = f"{finding.subject}: " if finding.subject else ""
        text = _on_one_line(about + finding.text)
        console.print(f"[{style}]{finding.level.value:<4}[/]  {finding.check.value:<{_ID_WIDTH}} {text}")
        if finding.advice:
            console.print(f"      {'':<{_ID_WIDTH}} [dim]->[/] {_on_one_line(finding.advice)}")
        yield finding
    console.print(", ".join(f"{count} {level.value}" for level, count in counts.items()))


def _on_one_line(text: str) -> str:
    """Return foreign text without line feeds and control characters, which a terminal would obey."""
    return escape("".join(character if character.isprintable() else " " for character in text))
