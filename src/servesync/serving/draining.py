"""Whether the model server still works for somebody: its count of requests, and who is connected to it.

A request counts when it ends, so one that takes long does not show: the time that must pass without any more
is taken from the server's own histogram of how long requests have taken.
"""

import re
import time
from collections import defaultdict
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from servesync.errors import ServerDown, ServerError
from servesync.serving.rest import PAGE, ModelServer

FLAG: Final = f'--monitoring_config_file, prometheus_config {{ enable: true, path: "{PAGE}" }}'
LEAST_SECONDS: Final = 1.0
PAUSE_SECONDS: Final = 0.2
MICROSECONDS: Final = 1e6
ESTABLISHED, LISTENING = "01", "0A"
"""States of a socket in /proc/net/tcp."""
_PREFIX: Final = ":tensorflow:serving:request_"
_COUNT: Final = re.compile(_PREFIX + r"(?:count|latency_count)\{.*\} (?P<count>\d+)")
_BUCKET: Final = re.compile(_PREFIX + r'latency_bucket\{(?P<labels>.*),le="(?P<le>[^"]+)"\} (?P<count>\d+)')


@dataclass(frozen=True, slots=True)
class Page:
    """How many requests the server has ended, and no request has taken longer than `slowest_seconds`."""

    ended: int
    slowest_seconds: float


@dataclass(frozen=True, slots=True)
class Look:
    """One look. `page` None: it cannot be read. `connections` None: the server is not seen from here."""

    page: Page | None
    connections: int | None
    is_down: bool = False

    @property
    def ended(self) -> int | None:
        """How many requests the server has ended."""
        return self.page.ended if self.page else None


def read_page(text: str) -> Page:
    """Return what the server's page for Prometheus says of its requests, over all models."""
    ended = 0
    buckets: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for line in text.splitlines():
        if found := _COUNT.fullmatch(line):
            ended += int(found["count"])
        elif found := _BUCKET.fullmatch(line):
            buckets[found["labels"]].append((int(found["count"]), float(found["le"])))
    slowest = [
        min(limit for count, limit in series if count == most)
        for series in buckets.values()
        if (most := max(series)[0])
    ]
    return Page(ended, max(slowest, default=0.0) / MICROSECONDS)


def connections_to(ports: Collection[int], folder: Path = Path("/proc/self/net")) -> int | None:
    """Return how many connections to these ports are open; None if nobody here listens on any of them."""
    states: list[str] = []
    for name in ("tcp", "tcp6"):
        file = folder / name
        rows = [line.split() for line in file.read_text().splitlines()[1:]] if file.exists() else []
        states += [row[3] for row in rows if int(row[1].rpartition(":")[2], 16) in ports]
    return states.count(ESTABLISHED) if LISTENING in states else None


def look_at(server: ModelServer | None, ports: Collection[int]) -> Look:
    """Return how the server stands; the connection that reads the page is not counted."""
    connections = connections_to(ports)
    if server is None:
        return Look(None, connections, is_down=connections is None)
    try:
        text = server.page()
    except ServerDown:
        return Look(None, connections, is_down=connections is None)
    except ServerError:
        text = None
    finally:
        server.close()
    page = read_page(text) if text is not None else None
    return Look(page, connections)


def await_idle(
    look: Callable[[], Look],
    seconds: float,
    now: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> str:
    """Wait until the server works for nobody any more, `seconds` at most; return in words how that ended."""
    end = now() + seconds
    before, since = look(), now()
    while not before.is_down and now() < end:
        pause(min(PAUSE_SECONDS, max(0.0, end - now())))
        seen = look()
        if seen.ended != before.ended:
            since = now()
        elif seen.connections == before.connections == 0:
            return "no load: no connection to the server is open, and no request has ended meanwhile"
        quiet = max(LEAST_SECONDS, seen.page.slowest_seconds) if seen.page else float("inf")
        if now() - since >= quiet:
            return f"drained: no request has ended for {quiet:.1f} s, longer than any has taken"
        before = seen
    if before.is_down:
        return "the server does not listen"
    advice = (
        "" if before.page else f"; with this flag of the server it would not be waited for so long: {FLAG}"
    )
    return f"the time is over ({seconds:g} s), and the server may still be at work{advice}"
