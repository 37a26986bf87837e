"""`servesync status`: shows the running agent's report, as tables for people or as its own JSON."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import httpx
import typer
from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape
from rich.table import Table

from servesync.admin.ages import age
from servesync.admin.report import running
from servesync.cli.options import OptionalAgentConfig, admin_url
from servesync.cli.terminal import STYLES, console, state_of
from servesync.errors import Reason, ServerError, SettingsError
from servesync.settings_file import environment_overrides, load_settings

DEFAULT_URL: Final = "http://127.0.0.1:9494"
NOT_SERVED: Final = 3
SECONDS: Final = 10.0
MOST_BYTES: Final = 64 << 20
SHOWN_EVENTS: Final = 8

Json = Mapping[str, Any]


def status(
    url: Annotated[
        str | None, typer.Option(help=f"The agent's admin interface: {DEFAULT_URL} if not given.")
    ] = None,
    *,
    config: OptionalAgentConfig = None,
    as_json: Annotated[bool, typer.Option("--json", help="The agent's own JSON, for programs.")] = False,
) -> None:
    """Show what the running agent reports. Exit code 3: a required model is not in place or not served."""
    report = fetch_status(url or _url_of(config))
    if as_json:
        typer.echo(json.dumps(report, indent=2))
    else:
        show_status(report, console())
    required = [model for model in report["models"].values() if model["required"]]
    if report["looked_at"] is None or not all(model["in_place"] and model["served"] for model in required):
        raise typer.Exit(NOT_SERVED)


def _url_of(config: Path | None) -> str:
    """Return the URL of an agent with these settings; raise `SettingsError` if it does not listen."""
    if config is None:
        return DEFAULT_URL
    admin = load_settings(config, environment_overrides()).admin
    url = admin_url(admin)
    if url is None:
        text = f"{config}: admin.port is {admin.port}: give --url, or ask the agent's log (admin_listening)"
        raise SettingsError(Reason.SETTINGS_INVALID, text)
    return url


def fetch_status(url: str) -> Json:
    """Return `/status` of the agent at `url`.

    Raises:
        ServerError: there is no agent, or something else answers.
    """
    where = f"{url.rstrip('/').removesuffix('/status')}/status"
    try:
        with (
            httpx.Client(timeout=SECONDS, trust_env=False) as client,
            client.stream("GET", where, headers={"Accept-Encoding": "identity"}) as answer,
        ):
            body = bytearray()
            for piece in answer.iter_raw():
                body += piece
                if len(body) > MOST_BYTES:
                    raise _no_agent(where, f"it answers with more than {MOST_BYTES} bytes")
            code = answer.status_code
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        cause = str(error) or type(error).__name__
        text = (
            f"no agent answers at {where} ({cause}): is `servesync run` at work there? Give --url, or -c "
            "with its settings"
        )
        raise ServerError(Reason.ADMIN_UNAVAILABLE, text) from error
    if code != httpx.codes.OK:
        raise _no_agent(where, f"HTTP {code}: {body[:200].decode(errors='replace')!a}")
    return _parsed(where, bytes(body))


def _parsed(where: str, body: bytes) -> Json:
    try:
        report = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise _no_agent(where, "no JSON") from error
    if not isinstance(report, dict) or report.get("schema_version") != 1:
        raise _no_agent(where, "its status is of a version that this servesync does not know")
    return report


def _no_agent(where: str, what: str) -> ServerError:
    return ServerError(Reason.ADMIN_UNAVAILABLE, f"{where} is no agent's admin interface: {what}")


def show_status(report: Json, console: Console) -> None:
    """Print tables of everything, troubles first."""
    store, server = report["store"] or {}, report["server"] or {}
    console.print(f"servesync {report['servesync']}, pid {report['pid']}, since {report['started_at']}")
    if not report["alive"]:
        console.print("[red]the deciding thread does not respond[/]")
    if report.get("draining_since_at"):
        console.print(f"[yellow]draining[/] since {report['draining_since_at']}: not ready")
    for trouble in report["troubles"]:
        console.print(f"[red]{trouble['about']}: {trouble['reason']}[/]: {escape(trouble['text'])}")
    console.print(
        f"store   {store.get('url')}, last good poll {_ago(store.get('last_good_poll_at'), report)}"
    )
    console.print(f"server  {_server(server)}")
    for line in [*_sources(report), *_activities(report)]:
        console.print(line)
    for name, model in report["models"].items():
        console.print(_model_table(name, model, report))
        if model["more_versions"]:
            console.print(f"and {model['more_versions']} more versions in the store that are not wanted")
    for event in report["events"][:SHOWN_EVENTS]:
        style = STYLES.get(event["level"], "")
        words = dict.fromkeys(
            str(event[key]) for key in ("event", "model", "version", "reason") if key in event
        )
        line = " ".join(words)
        text = f"{event['timestamp'][:19]}Z {line}  {event.get('because', '')}"
        console.print(escape(text), style=style, overflow="ellipsis", no_wrap=True)


def _sources(report: Json) -> list[str]:
    """Return from where the bytes of releases came; agents from before do not say it."""
    came = {name: size for name, size in report.get("bytes_by_source", {}).items() if size}
    named = ", ".join(f"{_size(size)} from {name}" for name, size in came.items())
    return [f"bytes   {named}"] if came else []


def _activities(report: Json) -> list[str]:
    return [f"now     {line}" for line in [*map(_activity, running(report))] or ["waiting"]]


def _model_table(name: str, model: Json, report: Json) -> Table:
    need = "required" if model["required"] else "optional"
    place = "in place" if model["in_place"] else "[red]not in place[/]"
    answering = [number for number, version in model["versions"].items() if version["server"] == "AVAILABLE"]
    meanwhile = f" ({', '.join(answering)} goes on serving)" if answering else ""
    served = "served" if model["served"] else f"[yellow]not served as wanted[/]{meanwhile}"
    title = f"{name} ({model['policy']}, {need}): {place}, {served}"
    table = Table(title=title, title_justify="left", show_edge=False, pad_edge=False)
    for column in ("version", "state", "disk", "server", "size", "installed", "why"):
        table.add_column(column, overflow="fold")
    for number, version in model["versions"].items():
        table.add_row(
            number,
            state_of(version["role"]),
            version["on_disk"],
            version["server"] or "-",
            _size(version["bytes"]),
            _ago(version["installed_at"], report),
            escape(version["why"]),
        )
    return table


def _server(server: Json) -> str:
    if not server or server["url"] is None:
        return "not configured"
    answers = {True: "answers", False: "[red]does not answer[/]", None: "not asked yet"}[server["answers"]]
    return f"{server['url']} {answers}, version policy {server['policy']}"


def _activity(activity: Json) -> str:
    about = f"{activity['model']} {activity['version']}" if activity["model"] else "the store"
    if not activity["total_bytes"]:
        return f"{activity['stage']} {about}"
    percent = 100 * activity["done_bytes"] // activity["total_bytes"]
    return f"{activity['stage']} {about}: {percent} % of {_size(activity['total_bytes'])}"


def _size(count: int | None) -> str:
    return "-" if count is None else decimal(count)


def _ago(at: str | None, report: Json) -> str:
    return "-" if at is None else f"{age(at, report['now'])} ago"
