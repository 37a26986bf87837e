"""What the agent needs of the world: a store, a model server, clocks, jobs, and the server's memory.

The real ones talk to S3, HTTP, the system's clocks, threads and /proc. A simulation gives others.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from servesync.domain.methods import Method
from servesync.domain.versions import Model, Version
from servesync.jobs import Jobs
from servesync.planning.facts import Served
from servesync.serving import Limit
from servesync.serving.models_config import ModelsConfig
from servesync.store import StorePort


class Clock(Protocol):
    """Time, as one agent sees it."""

    def monotonic(self) -> float:
        """Return seconds that never go back; only differences mean something."""

    def wall(self) -> float:
        """Return the seconds since 1970 (UTC)."""


class ServerPort(Protocol):
    """The model server; asked by jobs only."""

    def status(self, model: Model, should_stop: Callable[[], bool] | None = None) -> Mapping[Version, Served]:
        """Return what the server says of every version of `model` that it has seen.

        `should_stop`: asked now and then; once it says so, the answer is not waited for.

        Raises:
            ServerDown: there was no connection.
            ServerError: no answer, or one that is not a status.
        """

    def ask(
        self,
        model: Model,
        version: Version,
        request: tuple[Method, bytes],
        seconds: float,
        should_stop: Callable[[], bool],
    ) -> tuple[int, bytes]:
        """Send a request, by a method and with a body, to one version; return the HTTP status and the body.

        The status is 0 if no whole answer came within `seconds`, or `should_stop` said so. A body of more
        than 4 MiB is cut.

        Raises:
            ServerDown: there was no connection.
            ServerError: the connection broke.
        """

    def close(self) -> None:
        """Close all connections."""


class ReloadPort(Protocol):
    """The interface at which the model server takes a new configuration; used by jobs only."""

    def reload(self, config: ModelsConfig, seconds: float, should_stop: Callable[[], bool]) -> None:
        """Give the server a configuration that counts at once; returns when its new models are loaded.

        Raises:
            ServerError: the server refuses the configuration, or has not answered in time.
        """

    def close(self) -> None:
        """Close the connection."""


class FootprintPort(Protocol):
    """The server's process, as far as it can be seen from here; nothing of this ever fails."""

    def limit(self) -> Limit:
        """Return the lowest memory limit that the server is under."""

    def used_bytes(self) -> int | None:
        """Return what the server holds now; None if that cannot be seen."""

    def started_at(self) -> float | None:
        """Return when the server's process started, in seconds since 1970; None if that cannot be seen."""


@dataclass(frozen=True, slots=True)
class Ports:
    """One agent's surroundings. `server` None: none is configured, and installation is the last step.

    `reload` None: the server reads its configuration from the file only.
    """

    store: StorePort
    server: ServerPort | None
    clock: Clock
    jobs: Jobs
    footprint: FootprintPort
    reload: ReloadPort | None = None


class SystemClock:
    """The clocks of this machine."""

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        return time.monotonic()

    def wall(self) -> float:
        """Return the seconds since 1970 (UTC)."""
        return time.time()
