"""The commands: each one line of work on top of the daemon; errors become one message and an exit code."""

import json
import sys
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console

from servesync import __version__
from servesync.cli import doctor, moves, publish, schema, show, status
from servesync.daemon.build import build_observer
from servesync.daemon.once import sync_once
from servesync.daemon.process import run_daemon
from servesync.daemon.prove import prove
from servesync.daemon.retry import retry as lift_refusal
from servesync.errors import LockHeld, SettingsError, SyncError
from servesync.logs import configure, drain
from servesync.settings import Level, Settings
from servesync.settings_file import environment_overrides, load_settings

DONE: Final = 0
UNEXPECTED: Final = 1
USAGE: Final = 2
NOT_IN_PLACE: Final = 3
LOCKED: Final = 4

app = typer.Typer(
    name="servesync",
    help="Brings models from an S3 store into TensorFlow Serving safely.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    epilog="Exit codes: 0 done; 1 unexpected; 2 usage or settings; 3 a required version is not in place, or "
    "the doctor found something that fails; 4 another agent holds the lock.",
)

ConfigFile = Annotated[
    Path, typer.Option("--config", "-c", metavar="FILE", help="The settings file; see config.example.yaml.")
]


def run_command_line(arguments: list[str]) -> int:
    """Run one command and return its exit code; what a user can meet is one message on standard error."""
    try:
        return _run(arguments)
    finally:
        drain()


def _run(arguments: list[str]) -> int:
    try:
        app(arguments, prog_name="servesync")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else DONE
    except SettingsError as error:
        _complain(error)
        return USAGE
    except LockHeld as error:
        _complain(error)
        return LOCKED
    except SyncError as error:
        _complain(error)
        return UNEXPECTED
    return DONE


def _complain(error: SyncError) -> None:
    sys.stderr.write(f"servesync: {error.reason.value}: {error}\n")


def _load(config: Path) -> Settings:
    settings = load_settings(config, environment_overrides())
    configure(settings.log.level, settings.log.format)
    return settings


def _show_version(value: bool) -> None:  # noqa: FBT001 (the form that Typer calls)
    if value:
        typer.echo(f"servesync {__version__}")
        raise typer.Exit


@app.callback()
def main(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Brings models from an S3 store into TensorFlow Serving safely."""
    del version


@app.command()
def run(config: ConfigFile) -> None:
    """Run the agent until SIGTERM or SIGINT. SIGHUP reloads the settings, SIGUSR1 syncs now."""
    run_daemon(config.absolute(), _load(config), environment_overrides())


@app.command()
def sync(
    config: ConfigFile,
    timeout: Annotated[float, typer.Option(min=1, help="Give up after this many seconds.")] = 3600.0,
) -> None:
    """Do one pass, then exit: for init containers and cron."""
    result = sync_once(_load(config), timeout)
    if result.missing:
        names = ", ".join(result.missing)
        sys.stderr.write(f"servesync: not in place: {names} ({result.because}); `servesync plan` says why\n")
        raise typer.Exit(NOT_IN_PLACE)


@app.command()
def plan(
    config: ConfigFile,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of tables.")] = False,
) -> None:
    """Show what sync would do, and why for every version; changes nothing."""
    seen = build_observer(load_settings(config, environment_overrides())).look(ask_store=True)
    if as_json:
        typer.echo(json.dumps(show.as_json(seen), indent=2))
    else:
        show.show(seen, Console())
    if seen.store_error:
        raise typer.Exit(UNEXPECTED)


@app.command()
def verify(
    path: Annotated[Path, typer.Argument(help="A version's directory, or an archive of one.")],
    level: Annotated[Level, typer.Option(help="How much is proven; see verify.level.")] = "checksum",
    config: Annotated[
        Path | None,
        typer.Option("-c", "--config", help="A settings file, whose limits then count.", dir_okay=False),
    ] = None,
) -> None:
    """Prove a directory or an archive on disk as the agent would before installing it."""
    limits = load_settings(config, environment_overrides()).limits if config else None
    proof = prove(path, level, limits)
    typer.echo(f"{path}: good ({proof})")


@app.command()
def retry(
    model: Annotated[str, typer.Argument(help="The model.")],
    version: Annotated[str, typer.Argument(help="The version that was refused or quarantined.")],
    config: ConfigFile,
) -> None:
    """Let this instance try a refused version again, once its cause is mended."""
    typer.echo(lift_refusal(load_settings(config, environment_overrides()), model, version))


app.command("schema")(schema.schema)
app.command("doctor")(doctor.doctor)
app.command("status")(status.status)
app.command("publish")(publish.publish)
app.command("manifest")(publish.manifest)
app.command("promote")(moves.promote)
app.command("rollback")(moves.rollback)
app.command("withdraw")(moves.withdraw)
app.command("channels")(moves.channels)


@app.command()
def demo() -> None:
    """Show the whole journey on this machine: a real S3 server, real models, and a model server."""
    from servesync.demo.journey import run_demo  # noqa: PLC0415 (its parts come with the extra `demo`)

    raise typer.Exit(run_demo())
