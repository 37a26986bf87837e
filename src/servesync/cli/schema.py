"""`servesync schema`: the settings described, for editors, readers and those who begin with a file."""

import json
from typing import Annotated

import typer

from servesync.settings_schema import example, json_schema, markdown


def schema(
    *,
    as_markdown: Annotated[
        bool, typer.Option("--markdown", help="A page for readers, as docs/settings.md.")
    ] = False,
    as_example: Annotated[
        bool, typer.Option("--example", help="A settings file with every key, its default and what it is.")
    ] = False,
) -> None:
    """Print the JSON Schema of the settings file, for editors; see docs/settings.md."""
    if as_markdown and as_example:
        raise typer.BadParameter("--markdown and --example are two things: ask for one")
    if as_markdown:
        typer.echo(markdown(), nl=False)
    elif as_example:
        typer.echo(example(), nl=False)
    else:
        typer.echo(json.dumps(json_schema(), indent=2, ensure_ascii=False))
