"""Options that several commands have, and the URL of the agent with given settings on this machine."""

from pathlib import Path
from typing import Annotated, Final

import typer

from servesync.settings import Admin

_ANY: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 (not bound, asked)

ConfigFile = Annotated[
    Path, typer.Option("--config", "-c", metavar="FILE", help="The settings file; see config.example.yaml.")
]
_of_agent: Final = typer.Option(
    "--config", "-c", metavar="FILE", help="Take admin.host and admin.port from these settings."
)
AgentConfig = Annotated[Path, _of_agent]
OptionalAgentConfig = Annotated[Path | None, _of_agent]


def admin_url(admin: Admin) -> str | None:
    """Return the agent's URL; None if it does not listen, or on a port that only its log shows."""
    if not admin.port:
        return None
    host = _ANY.get(admin.host, admin.host)
    return f"http://[{host}]:{admin.port}" if ":" in host else f"http://{host}:{admin.port}"
