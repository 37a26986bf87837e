"""A client of a model server, and how long it waits while something else works on the machine."""

import http.client
import json
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Self
from urllib.parse import urlsplit

from beside import export_models
from measured import Run
from servesync.demo.server import ModelServer

IDLE_SECONDS: Final = 10.0
ASK_EVERY_SECONDS: Final = 0.02
ANSWER_SECONDS: Final = 30.0


class Neighbour:
    """While entered, a model server serves a small model; the stand-in, if the real one is not on PATH."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "neighbour"
        config = self._folder / "models.config"
        self._server = ModelServer(config, self._folder / "server.log")
        if not config.exists():
            self._folder.mkdir()
            export_models(self._folder / "exported")
            shutil.copytree(self._folder / "exported/2", self._folder / "shelf/1")
            config.write_text(
                f'model_config_list {{ config {{ name: "m" base_path: "{self._folder / "shelf"}" '
                'model_platform: "tensorflow" } }\n'
            )

    def __enter__(self) -> Self:
        """Start the server, and ask it once."""
        self._server.start()
        self._server.wait_ready(120)
        _Asking(self._server.url).ask()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the server."""
        self._server.kill()

    def idle(self) -> dict[str, float]:
        """Return what a client sees while nothing else is done."""
        with _Asking(self._server.url) as asking:
            time.sleep(IDLE_SECONDS)
        return asking.figures(IDLE_SECONDS)

    def during(self, work: Callable[[], Run]) -> dict[str, float]:
        """Return what a client sees while `work` is done."""
        with _Asking(self._server.url) as asking:
            seconds = work().seconds
        return asking.figures(seconds)


class _Asking:
    """Asks at fixed times, from its own thread; a late answer makes the next ones late, and that counts."""

    def __init__(self, url: str) -> None:
        self._address = urlsplit(url).netloc
        self._http = http.client.HTTPConnection(self._address, timeout=ANSWER_SECONDS)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._go_on, daemon=True)
        self._milliseconds: list[float] = []
        self._failures = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(ANSWER_SECONDS + 1)
        self._http.close()

    def ask(self) -> bool:
        """Ask once; return whether there was an answer."""
        body = json.dumps({"instances": [[1.0]]})
        try:
            self._http.request("POST", "/v1/models/m:predict", body, {"Content-Type": "application/json"})
            answer = self._http.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException):
            self._http.close()
            return False
        return answer.status == http.HTTPStatus.OK

    def figures(self, seconds: float) -> dict[str, float]:
        """Return what was seen."""
        found = sorted(self._milliseconds) or [float("nan")]
        return {
            "seconds": seconds,
            "p50_ms": found[len(found) // 2],
            "p99_ms": found[len(found) * 99 // 100],
            "longest_ms": found[-1],
            "asked": float(len(self._milliseconds) + self._failures),
            "failures": float(self._failures),
        }

    def _go_on(self) -> None:
        due = time.monotonic()
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            if self.ask():
                self._milliseconds.append((time.monotonic() - due) * 1000)
            else:
                self._failures += 1
            due += ASK_EVERY_SECONDS
