"""Where an agent with given settings is asked on its own machine."""

from typing import Final

from servesync.settings import Admin

_ANY: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 (not bound, asked)


def admin_url(admin: Admin) -> str | None:
    """Return the URL; None if the agent answers nowhere, or on a port that only its log tells."""
    if not admin.port:
        return None
    host = _ANY.get(admin.host, admin.host)
    return f"http://[{host}]:{admin.port}" if ":" in host else f"http://{host}:{admin.port}"
