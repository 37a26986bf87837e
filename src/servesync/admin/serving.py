"""Binds the port and runs the application on uvicorn, with a bound on connections and on the life of each.

uvicorn itself bounds neither how long a request may take to arrive nor how many connections stay silent.
One request a connection, and an end to each after some seconds whatever it does, bound both. A new connection
is always taken: where there are too many, one of the others ends, so that nobody can shut out the probes.
"""

import asyncio
import socket
from typing import Any, Final

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

MOST_CONNECTIONS: Final = 64
MOST_WAITING: Final = 1024
MOST_AT_ONCE: Final = 8
CONNECTION_SECONDS: Final = 10.0
HEADER_SECONDS: Final = 2.0
MOST_HEADER_BYTES: Final = 16 << 10
GRACE_SECONDS: Final = 1


class BoundedProtocol(H11Protocol):
    """HTTP/1.1 as uvicorn has it, for one short connection."""

    _is_dropped = False
    _since = 0.0
    _timers: tuple[asyncio.TimerHandle, ...] = ()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection for some seconds; if there are too many, end another one."""
        super().connection_made(transport)
        self._since = self.loop.time()
        self._timers = (
            self.loop.call_later(HEADER_SECONDS, self._drop_if_incomplete),
            self.loop.call_later(CONNECTION_SECONDS, self._drop),
        )
        others = [one for one in self.connections if isinstance(one, BoundedProtocol) and one is not self]
        held = [one for one in others if not one._is_dropped]  # noqa: SLF001 (of this class)
        if len(held) >= MOST_CONNECTIONS:
            _least_useful(held)._drop()  # noqa: SLF001

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        for timer in self._timers:
            timer.cancel()
        super().connection_lost(exc)

    @property
    def _has_request(self) -> bool:
        """Whether the headers of a request have come; uvicorn makes its `cycle` then."""
        return self.cycle is not None

    def _drop_if_incomplete(self) -> None:
        if not self._has_request:
            self._drop()

    def _drop(self) -> None:
        self._is_dropped = True
        self.transport.abort()


def _least_useful(held: list[BoundedProtocol]) -> BoundedProtocol:
    """Return the one to drop: the oldest half request, else the oldest that waits for its answer.

    The newest may not have been read yet, so that nothing can be said of them.
    """
    held.sort(key=lambda one: one._since)  # noqa: SLF001 (of this module)
    read = held[: -3 * MOST_AT_ONCE]
    return next((one for one in read if not one._has_request), held[0])  # noqa: SLF001


def bind(host: str, port: int) -> socket.socket:
    """Return a listening socket; `::` takes IPv4, too, whatever the machine's default is.

    Raises:
        OSError: the port is taken, or the address is not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    both = host == "::" and socket.has_dualstack_ipv6()
    bound = socket.create_server((host, port), family=family, backlog=MOST_WAITING, dualstack_ipv6=both)
    bound.setblocking(False)
    return bound


class _Server(uvicorn.Server):
    """Takes few connections at a time, so that the request of each is read before many newer ones end it."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to answer; asyncio takes as many at once as it lets wait, so more may wait from here on."""
        await super().startup(sockets)
        for one in sockets or ():
            one.listen(MOST_WAITING)


class Running:
    """The application on a bound socket; `run` returns after `stop`, which any thread may call."""

    def __init__(self, app: ASGIApp, bound: socket.socket) -> None:
        self._bound = bound
        config: Any = uvicorn.Config  # its annotation of `http` has no room for a class's own type
        self._server = _Server(
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
                backlog=MOST_AT_ONCE,
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
