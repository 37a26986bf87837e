"""`servesync schema`: prints the JSON Schema of the settings, or an example file to begin with."""

import json
from typing import Annotated

import typer

from servesync.settings_schema import example, json_schema


def schema(
    *,
    as_example: Annotated[
        bool, typer.Option("--example", help="A settings file with every key, its default and its meaning.")
    ] = False,
) -> None:
    """Print the JSON Schema of the settings file, for editors; see docs/settings.md."""
    if as_example:
        typer.echo(example(), nl=False)
    else:
        typer.echo(json.dumps(json_schema(), indent=2, ensure_ascii=False))
