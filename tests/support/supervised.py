"""A model server under a supervisor that starts it again a second after each end, as systemd does."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from forked_server import ModelServer

RESTART_SECONDS = 1.0
POLL_SECONDS = 0.1


class Supervised:
    """Counts the server's ends, and for how long it has not served version after version."""

    def __init__(self, server: ModelServer, model: str) -> None:
        self.ends = 0
        self.seconds_without_answer = 0.0
        self._server = server
        self._url = f"{server.url}/v1/models/{model}"
        self._stop = threading.Event()
        self._running = threading.Event()

    @property
    def cost(self) -> str:
        """Return what it has cost so far, for the message of an assertion."""
        return f"the server ended {self.ends} times, and {self.seconds_without_answer:.1f} s went without it"

    def kill(self) -> None:
        """End the server as an operator who restarts it."""
        self._running.wait(60)
        self._server.kill()

    @contextmanager
    def running(self) -> Iterator["Supervised"]:
        """Keep the server running, and ask it all the time."""
        threads = [threading.Thread(target=work) for work in (self._supervise, self._ask_on)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            self._server.kill()
            for thread in threads:
                thread.join()

    def _supervise(self) -> None:
        """Start the server from this thread only: it dies with the thread that started it."""
        while not self._stop.is_set():
            self._server.start()
            self._running.set()
            self._server.wait(3600)
            if not self._stop.is_set():
                self.ends += 1
                self._stop.wait(RESTART_SECONDS)

    def _ask_on(self) -> None:
        with httpx.Client(timeout=2, trust_env=False) as http:
            last = time.monotonic()
            while not self._stop.wait(POLL_SECONDS):
                try:
                    is_up = "AVAILABLE" in http.get(self._url).text
                except httpx.HTTPError:
                    is_up = False
                now = time.monotonic()
                self.seconds_without_answer += 0.0 if is_up else now - last
                last = now
