"""The commands that say which version instances serve: `promote`, `rollback`, `withdraw`, `channels`."""

import json
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from servesync import publishing
from servesync.cli.store_options import StoreOptions, with_store_options
from servesync.cli.terminal import console
from servesync.domain.channel import Channel, Move
from servesync.errors import Reason, SettingsError, readable

ModelName = Annotated[str, typer.Argument(help="The model.", metavar="MODEL")]
VersionNumber = Annotated[str, typer.Argument(help="The version's number.", metavar="VERSION")]
ChannelName = Annotated[str, typer.Option("--channel", metavar="NAME", help="The channel to move.")]
Why = Annotated[str, typer.Option("--why", metavar="TEXT", help="Recorded with the move.")]
Who = Annotated[
    str | None, typer.Option("--who", metavar="NAME", help="Recorded with the move; user@host if not given.")
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object instead of text.")]


@with_store_options
def promote(  # noqa: PLR0913 (each is an option)
    model: ModelName,
    version: VersionNumber,
    *,
    channel: ChannelName,
    why: Why = "",
    who: Who = None,
    after: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=0, help="For a channel that was lost or restored: a sequence that was seen."
        ),
    ] = None,
    at: StoreOptions,
    as_json: Json = False,
) -> None:
    """Move a channel to a version: every instance that follows it serves that version next."""
    where = at.store_settings()
    done = publishing.promote(where, (model, version, channel), who or publishing.default_who(), why, after)
    _tell(done, as_json=as_json)


@with_store_options
def rollback(  # noqa: PLR0913 (each is an option)
    model: ModelName,
    *,
    channel: ChannelName,
    to: Annotated[
        str | None,
        typer.Option("--to", metavar="VERSION", help="Go back to this, not to the version before."),
    ] = None,
    why: Why = "",
    who: Who = None,
    at: StoreOptions,
    as_json: Json = False,
) -> None:
    """Move a channel back to the version before."""
    where = at.store_settings()
    done = publishing.rollback(where, (model, channel), to, who or publishing.default_who(), why)
    _tell(done, as_json=as_json)


@with_store_options
def withdraw(  # noqa: PLR0913 (each is an option)
    model: ModelName,
    version: VersionNumber,
    *,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; every instance logs it.")],
    who: Who = None,
    removed: Annotated[
        bool, typer.Option("--removed", help="The store has lost the version, but instances may have it.")
    ] = False,
    at: StoreOptions,
    as_json: Json = False,
) -> None:
    """Take a version out everywhere; no instance gives up the last version that it can serve."""
    if not reason.strip():
        raise SettingsError(Reason.SETTINGS_INVALID, "--reason: say why; every instance logs it")
    where = at.store_settings()
    author = who or publishing.default_who()
    done = publishing.withdraw(where, (model, version), author, reason, removed=removed)
    if as_json:
        typer.echo(
            json.dumps(done.withdrawal.model_dump(mode="json", by_alias=True) | {"written": done.fresh})
        )
        return
    withdrawal = done.withdrawal
    state = "withdrawn" if done.fresh else "was withdrawn already"
    because = readable(f"{withdrawal.who}: {withdrawal.reason}")
    typer.echo(f"{withdrawal.model} {withdrawal.version}: {state} ({withdrawal.time}, {because})")
    typer.echo(f"  s3://{where.bucket}/{done.key}")


@with_store_options
def channels(model: ModelName, *, at: StoreOptions, as_json: Json = False) -> None:
    """List the channels of a model, and their earlier versions."""
    by_name = publishing.channels(at.store_settings(), model)
    if as_json:
        shown = {
            name: channel.model_dump(mode="json", by_alias=True)
            if isinstance(channel, Channel)
            else {"reason": channel.reason.value, "text": str(channel)}
            for name, channel in by_name.items()
        }
        typer.echo(json.dumps(shown, indent=2))
        return
    if not by_name:
        typer.echo(f"{model} has no channel; `servesync promote {model} VERSION --channel NAME` makes one")
        return
    table = Table(show_edge=False, pad_edge=False)
    for title in ("channel", "version", "seq.", "since (UTC)", "who", "why"):
        table.add_column(title, overflow="fold")
    for name, channel in by_name.items():
        if not isinstance(channel, Channel):
            table.add_row(name, "?", "", "", "", escape(str(channel)))
            continue
        table.add_row(name, *_cells(channel.now), style="bold")
        for move in channel.past:
            table.add_row("", *_cells(move), style="dim")
    console().print(table)


def _cells(move: Move) -> tuple[str, ...]:
    kind = "rollback" if move.kind == "rollback" else ""
    why = ": ".join(text for text in (kind, move.why) if text)
    who, why = (escape(readable(text)) for text in (move.who, why))
    return str(move.version), str(move.sequence), move.time, who, why


def _tell(done: publishing.MoveDone, *, as_json: bool) -> None:
    channel = done.now
    if as_json:
        plain: dict[str, Any] = channel.model_dump(mode="json", by_alias=True)
        typer.echo(json.dumps(plain | {"was": done.was, "written": done.changed, "note": done.note}))
        return
    if done.note:
        typer.echo(f"note: {done.note}", err=True)
    name = f"{channel.model}, channel {channel.channel}"
    if not done.changed:
        typer.echo(f"{name}: at {channel.now.version} already; nothing was written")
        return
    was = "new" if done.was is None else f"was {done.was}"
    typer.echo(f"{name}: at {channel.now.version} now ({was}; sequence {channel.now.sequence})")
