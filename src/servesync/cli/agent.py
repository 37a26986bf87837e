"""The commands that do an agent's work: `run`, `sync`, `plan`, `verify`, `retry`."""

import json
from pathlib import Path
from typing import Annotated, Final

import typer

from servesync.cli import show
from servesync.cli.options import ConfigFile
from servesync.cli.terminal import console
from servesync.logs import Event, configure, get_logger
from servesync.runtime.clear_refusal import clear_refusal
from servesync.runtime.one_pass import NOT_IN_PLACE, complain, one_pass, take_snapshot
from servesync.runtime.process import run_daemon
from servesync.runtime.verify_command import verify_command
from servesync.settings import Level, Settings
from servesync.settings_file import environment_overrides, load_settings, service_variables

STORE_FAILED: Final = 1


def run(config: ConfigFile) -> None:
    """Run the agent until SIGTERM or SIGINT. SIGHUP reloads the settings, SIGUSR1 syncs now."""
    run_daemon(config.absolute(), _load(config), environment_overrides())


def sync(
    config: ConfigFile,
    timeout: Annotated[float, typer.Option(min=1, help="Give up after this many seconds.")] = 3600.0,
    *,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 3 if an older version stands in for a newest one.")
    ] = False,
) -> None:
    """Do one pass, then exit: for init containers and cron."""
    result = one_pass(_load(config), timeout)
    for model, (version, why) in result.passed_over.items():
        typer.echo(f"servesync: {model} {version} is passed over: {why}", err=True)
    if result.missing:
        complain(result.missing, result.because)
    if result.missing or (strict and result.passed_over):
        raise typer.Exit(NOT_IN_PLACE)


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


def _load(config: Path) -> Settings:
    environment = environment_overrides()
    settings = load_settings(config, environment)
    configure(settings.log.level, settings.log.format)
    skipped = service_variables(environment)
    if skipped:
        text = "Kubernetes made them of a Service: set enableServiceLinks: false in the pod, or rename that"
        get_logger().warning(Event.VARIABLES_SKIPPED, variables=skipped, because=text)
    return settings
