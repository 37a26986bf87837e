"""The commands for one version: `verify`, `retry`."""

from pathlib import Path
from typing import Annotated

import typer

from servesync.cli.options import ConfigFile
from servesync.runtime.clear_refusal import clear_refusal
from servesync.runtime.verify_command import verify_command
from servesync.settings import Level
from servesync.settings_file import environment_overrides, load_settings


def verify(
    path: Annotated[Path, typer.Argument(help="A version's directory, or an archive of one.")],
    level: Annotated[Level, typer.Option(help="How much is verified; see verify.level.")] = "checksum",
    config: Annotated[
        Path | None,
        typer.Option(
            "-c", "--config", help="A settings file; its limits and verify.load apply.", dir_okay=False
        ),
    ] = None,
) -> None:
    """Verify a directory or an archive on disk as the agent would before installing it."""
    if config is None:
        proof = verify_command(path, level)
    else:
        settings = load_settings(config, environment_overrides())
        proof = verify_command(path, level, settings.limits, settings.verify.load)
    typer.echo(f"{path}: good ({proof})")


def retry(
    model: Annotated[str, typer.Argument(help="The model.")],
    version: Annotated[str, typer.Argument(help="The version that was refused or quarantined.")],
    config: ConfigFile,
) -> None:
    """Let this instance try a refused version again, once the cause is fixed."""
    typer.echo(clear_refusal(load_settings(config, environment_overrides()), model, version))
