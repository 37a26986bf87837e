"""The command `sync`."""

from typing import Annotated

import typer

from servesync.cli.options import ConfigFile
from servesync.cli.working import settings_of
from servesync.runtime.one_pass import NOT_IN_PLACE, complain, one_pass


def sync(
    config: ConfigFile,
    timeout: Annotated[float, typer.Option(min=1, help="Give up after this many seconds.")] = 3600.0,
    *,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 3 if an older version stands in for a newest one.")
    ] = False,
) -> None:
    """Do one pass, then exit: for init containers and cron."""
    result = one_pass(settings_of(config), timeout)
    for model, (version, why) in result.passed_over.items():
        typer.echo(f"servesync: {model} {version} is passed over: {why}", err=True)
    if result.missing:
        complain(result.missing, result.because)
    if result.missing or (strict and result.passed_over):
        raise typer.Exit(NOT_IN_PLACE)
