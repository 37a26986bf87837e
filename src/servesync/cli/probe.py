"""`servesync probe`: sends one probe to the running agent, for health checks that run a command.

It runs every few seconds for as long as a container lives, so it imports little.
"""

import json
from http.client import HTTPConnection, HTTPException
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

import typer

from servesync.cli.options import AgentConfig, admin_url
from servesync.errors import Reason, ServerError, SettingsError
from servesync.settings_file import environment_overrides, load_admin, load_settings

SECONDS: Final = 4.0
"""Shorter than the time limit of the shipped health checks."""
MOST_BYTES: Final = 64 << 10
NO: Final = 1
GOOD: Final = 200
BAD: Final = 503

Name = Literal["livez", "startupz", "readyz"]


def probe(
    name: Annotated[Name, typer.Argument(help="Which probe: docs/admin.md says what each means.")],
    *,
    config: AgentConfig,
) -> None:
    """Send a probe to the running agent, for health checks that run a command.

    Exit code 0: yes; 1: no, and the message says why, or no agent answers; 2: the settings cannot be used.
    """
    environment = environment_overrides()
    admin = load_admin(config, environment)
    url = admin_url(admin)
    if url is None:
        text = f"{config}: admin.port is {admin.port}: set a port, so that the agent can be probed"
        raise SettingsError(Reason.SETTINGS_INVALID, text)
    try:
        missing = ask(url, name)
    except ServerError:
        load_settings(config, environment)  # a mistake in the file may be why; report that instead
        raise
    for line in missing:
        typer.echo(ascii(line)[1:-1])
    if missing:
        raise typer.Exit(NO)


def ask(url: str, name: Name) -> list[str]:
    """Return why the probe of the agent at `url` fails; an empty list if it passes.

    Raises:
        ServerError: there is no agent, or something else answers.
    """
    parts = urlsplit(url)
    connection = HTTPConnection(parts.hostname or "", parts.port, timeout=SECONDS)
    try:
        connection.request("GET", f"/{name}", headers={"Connection": "close"})
        with connection.getresponse() as answer:  # which has taken over the socket
            code, body = answer.status, answer.read(MOST_BYTES)
    except (OSError, HTTPException) as error:
        text = f"no agent answers at {url}/{name} ({str(error) or type(error).__name__})"
        raise ServerError(Reason.ADMIN_UNAVAILABLE, text) from error
    finally:
        connection.close()
    try:
        report = json.loads(body)
        missing = [str(line) for line in report["missing"]]
        consistent = report["ok"] is (not missing) and code == (BAD if missing else GOOD)
    except (ValueError, RecursionError, TypeError, KeyError):
        consistent = False
    if not consistent:
        text = f"{url}/{name} is no agent's probe: HTTP {code}, {body[:100]!a}"
        raise ServerError(Reason.ADMIN_UNAVAILABLE, text)
    return missing
