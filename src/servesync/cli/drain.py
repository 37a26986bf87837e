"""`servesync drain`: before the model server is stopped; for preStop and ExecStop."""

import time
from http.client import HTTPConnection, HTTPException
from typing import Annotated, Final
from urllib.parse import urlsplit

import typer

from servesync.admin.token import read_token
from servesync.cli.options import OptionalAgentConfig, admin_url
from servesync.errors import SettingsError
from servesync.serving.draining import await_idle, look_at
from servesync.serving.rest import ModelServer
from servesync.settings import Admin
from servesync.settings_file import environment_overrides, load_admin, load_rest_url

SECONDS: Final = 4.0
ANSWER_SECONDS: Final = 2.0
ACCEPTED: Final = 202
PORTS: Final = {"http": 80, "https": 443}


def drain(
    timeout: Annotated[
        float, typer.Option(min=0, help="Wait for the server this many seconds at most.")
    ] = 20.0,
    *,
    notice: Annotated[
        float,
        typer.Option(min=0, help="Before that, wait until balancers have noticed: so many seconds."),
    ] = 0.0,
    grpc_port: Annotated[int, typer.Option(help="The server's --port; 0: none.")] = 8500,
    config: OptionalAgentConfig = None,
) -> None:
    """Let requests go elsewhere, and wait until the model server has answered those it has.

    The agent's /readyz turns 503. Exit code 0 in all cases but 2: usage; the output says how it ended.
    """
    environment = environment_overrides()
    typer.echo(announce(load_admin(config, environment)))
    time.sleep(notice)
    url = load_rest_url(config, environment)
    ports = {port for port in (grpc_port, _port(url)) if port}
    server = ModelServer(url, ANSWER_SECONDS) if url else None
    typer.echo(await_idle(lambda: look_at(server, ports), timeout))


def _port(url: str | None) -> int | None:
    parts = urlsplit(url or "")
    return parts.port or PORTS.get(parts.scheme)


def announce(admin: Admin) -> str:
    """Tell the running agent, and return what came of it: the agent may have been stopped first."""
    url = admin_url(admin)
    if url is None:
        return f"admin.port is {admin.port}: the agent cannot be told, and its /readyz stays as it is"
    parts = urlsplit(url)
    connection = HTTPConnection(parts.hostname or "", parts.port, timeout=SECONDS)
    headers = {"Connection": "close"}
    try:
        if admin.token_file is not None:
            headers["Authorization"] = f"Bearer {read_token(admin.token_file).decode('latin-1')}"
        connection.request("POST", "/drain", headers=headers)
        with connection.getresponse() as answer:
            code = answer.status
    except (OSError, HTTPException) as error:
        return f"no agent answers at {url} ({str(error) or type(error).__name__}); the server is waited for"
    except SettingsError as error:
        return f"the agent was not told: {error}; the server is waited for"
    finally:
        connection.close()
    if code != ACCEPTED:
        return f"the agent at {url} did not take it: HTTP {code}; the server is waited for"
    return f"draining: /readyz of the agent at {url} answers 503"
