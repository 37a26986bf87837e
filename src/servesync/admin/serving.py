"""Binds the port and runs the application on uvicorn, with a bound on connections and on the life of each.

uvicorn itself bounds neither how long a request may take to arrive nor how many connections stay silent.
One request a connection, and an end to each after some seconds whatever it does, bound both.
"""

import asyncio
import socket
from typing import Any, Final

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

MOST_CONNECTIONS: Final = 64
CONNECTION_SECONDS: Final = 10.0
MOST_HEADER_BYTES: Final = 16 << 10
GRACE_SECONDS: Final = 1


class BoundedProtocol(H11Protocol):
    """HTTP/1.1 as uvicorn has it, for one short connection."""

    _end: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, if there are not too many, for a while."""
        super().connection_made(transport)
        if len(self.connections) > MOST_CONNECTIONS:
            transport.abort()
            return
        self._end = self.loop.call_later(CONNECTION_SECONDS, transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        if self._end is not None:
            self._end.cancel()
        super().connection_lost(exc)


def bind(host: str, port: int) -> socket.socket:
    """Return a listening socket.

    Raises:
        OSError: the port is taken, or the address is not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.create_server((host, port), family=family, backlog=MOST_CONNECTIONS)
    bound.setblocking(False)
    return bound


class Running:
    """The application on a bound socket; `run` returns after `stop`, which any thread may call."""

    def __init__(self, app: ASGIApp, bound: socket.socket) -> None:
        self._bound = bound
        config: Any = uvicorn.Config  # its annotation of `http` has no room for a class's own type
        self._server = uvicorn.Server(
            config(
                app,
                http=BoundedProtocol,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                h11_max_incomplete_event_size=MOST_HEADER_BYTES,
                backlog=MOST_CONNECTIONS,
                timeout_graceful_shutdown=GRACE_SECONDS,
            )
        )

    @property
    def url(self) -> str:
        """Where it can be asked."""
        host, port = self._bound.getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def run(self) -> None:
        """Answer until stopped; in a thread of its own, uvicorn then leaves signals alone."""
        try:
            asyncio.run(self._server.serve(sockets=[self._bound]))
        finally:
            self._bound.close()

    def stop(self) -> None:
        """Let `run` return soon."""
        self._server.should_exit = True
