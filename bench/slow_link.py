"""A link to a store on loopback on which each connection has a rate and a delay of its own.

The bytes go from socket to socket inside the kernel (`splice`), so that the link itself takes little of the
processor that the measured programs run on. It cannot be built of nginx: its `limit_rate` counts whole
seconds, and a ranged read of a few megabytes is over before it bites.
"""

import fcntl
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

PIPE_BYTES = 1 << 20
F_SETPIPE_SZ = 1031
CREDIT_SECONDS = 0.005
"""So much of the rate is made up for after a thread has slept too long."""


class _Link:
    """Passes connections on to a port on loopback."""

    def __init__(self, port: int, rate: float, delay_seconds: float) -> None:
        self._port = port
        self._rate = rate
        self._delay_seconds = delay_seconds
        self._ends: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """End all connections, and the threads with them."""
        with self._lock:
            ends = [self._listening, *self._ends]
        for end in ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client = self._listening.accept()[0]
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        """Pass on what the client asks, each piece after the delay; connecting costs one delay, too."""
        time.sleep(self._delay_seconds)
        with suppress(OSError), client, socket.create_connection(("127.0.0.1", self._port)) as store:
            for end in (client, store):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._ends |= {client, store}
            answers = threading.Thread(target=self._answer, args=(store, client), daemon=True)
            answers.start()
            try:
                while asked := client.recv(1 << 16):
                    time.sleep(self._delay_seconds)
                    store.sendall(asked)
                store.shutdown(socket.SHUT_WR)
            finally:
                answers.join()
                with self._lock:
                    self._ends -= {client, store}

    def _answer(self, store: socket.socket, client: socket.socket) -> None:
        """Pass on what the store answers, never faster than the rate."""
        out, into = os.pipe()
        due = time.monotonic()
        try:
            fcntl.fcntl(into, F_SETPIPE_SZ, PIPE_BYTES)
            with suppress(OSError):
                while count := os.splice(store.fileno(), into, PIPE_BYTES):
                    left = count
                    while left:
                        left -= os.splice(out, client.fileno(), left)
                    due = max(due, time.monotonic() - CREDIT_SECONDS) + count / self._rate
                    if (early := due - time.monotonic()) > CREDIT_SECONDS / 2:
                        time.sleep(early)
        finally:
            os.close(out)
            os.close(into)
            for end in (client, store):
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)


@contextmanager
def slow_link(port: int, rate: float, delay_seconds: float = 0.0) -> Iterator[str]:
    """Yield the URL of a link to a port on loopback; each of its connections gets `rate` bytes a second.

    A request, and a new connection, reach the other side `delay_seconds` later. How fast TCP opens its window
    on a long way is not imitated.
    """
    link = _Link(port, rate, delay_seconds)
    try:
        yield link.url
    finally:
        link.close()
