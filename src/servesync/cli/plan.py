"""The command `plan`."""

import json
from typing import Annotated, Final

import typer

from servesync.cli import show
from servesync.cli.options import ConfigFile
from servesync.cli.terminal import console
from servesync.runtime.one_pass import take_snapshot
from servesync.settings_file import environment_overrides, load_settings

STORE_FAILED: Final = 1


def plan(
    config: ConfigFile,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of tables.")] = False,
) -> None:
    """Show what sync would do, and why for every version; changes nothing."""
    seen = take_snapshot(load_settings(config, environment_overrides()))
    if as_json:
        typer.echo(json.dumps(show.as_json(seen), indent=2))
    else:
        show.show(seen, console())
    if seen.store_error:
        raise typer.Exit(STORE_FAILED)
