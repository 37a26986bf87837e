"""The commands: each calls one function of another package; an error becomes one message and an exit code."""

import gc
import sys
from collections import UserDict
from importlib import import_module
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup

from servesync import __version__
from servesync.errors import LockHeld, SettingsError, SyncError, internal_error
from servesync.library_messages import library_warnings_to_stderr
from servesync.redaction import traceback_of

DONE: Final = 0
UNEXPECTED: Final = 1
USAGE: Final = 2
LOCKED: Final = 4

COMMANDS: Final = {
    "run": "agent",
    "sync": "sync",
    "plan": "plan",
    "verify": "verify",
    "retry": "verify",
    "doctor": "doctor",
    "status": "status",
    "probe": "probe",
    "drain": "drain",
    "publish": "publish",
    "manifest": "publish",
    "promote": "moves",
    "rollback": "moves",
    "withdraw": "moves",
    "channels": "moves",
    "schema": "schema",
    "demo": "demo",
}
"""Each command, and the module of this package that defines the function of that name."""


class _Loaded(UserDict[str, Any]):
    """The commands by name; each is imported at its first use."""

    def __getitem__(self, name: str) -> Any:  # noqa: ANN401 (Typer does not export the type of a command)
        module = import_module(f"servesync.cli.{self.data[name]}")
        gc.freeze()  # what is imported stays: to look through it for garbage would take time and memory
        gc.enable()
        alone = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
        alone.command(name)(getattr(module, name))
        return typer.main.get_command(alone)


class Commands(TyperGroup):
    """Imports only the command that is called: a shell's completion need not wait for an S3 client."""

    def __init__(self, **attributes: Any) -> None:  # noqa: ANN401 (they are Typer's)
        """Take Typer's arguments, but replace its commands by those that are imported at first use."""
        super().__init__(**attributes)
        self.commands = _Loaded(COMMANDS)

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ANN401 (Typer does not export the type)
        """Return the names of all commands, in the order in which help shows them."""
        del ctx
        return list(COMMANDS)


app = typer.Typer(
    name="servesync",
    cls=Commands,
    help="Brings models from an S3 store into TensorFlow Serving safely.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    epilog="Exit codes: 0 done; 1 failed, and the message says why; 2 usage or settings; 3 a required "
    "version is not in place, or the doctor found something that fails; 4 another agent holds the lock.",
)


def run_command_line(arguments: list[str]) -> int:
    """Run one command and return its exit code; every error is one message on standard error."""
    try:
        return _run(arguments)
    finally:
        logs = sys.modules.get("servesync.logs")  # a command that logs nothing has not imported it
        if logs is not None:
            logs.drain()


def _run(arguments: list[str]) -> int:
    library_warnings_to_stderr()
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
    except Exception as error:  # noqa: BLE001 (Python's own traceback would quote what libraries say)
        _complain(internal_error(error))
        sys.stderr.write("\n".join(traceback_of(error)) + "\n")
        return UNEXPECTED
    return DONE


def _complain(error: SyncError) -> None:
    sys.stderr.write(f"servesync: {error.reason.value}: {error}\n")


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
