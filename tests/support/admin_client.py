"""Asks a running agent's admin interface, as kubelets, scrapers, browsers and attackers do."""

import http.client
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from agent_box import AgentBox


@dataclass(frozen=True)
class Answer:
    """One answer, read to its end."""

    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.text)


class AdminClient:
    """The admin interface of the agent in a box; `listen` must have been called before it was started."""

    def __init__(self, box: AgentBox) -> None:
        self._box = box
        self.url = ""

    @staticmethod
    def listen(box: AgentBox, **more: object) -> "AdminClient":
        """Let the agent take a free port."""
        box.overrides.setdefault("admin", {}).update({"port": 0, **more})
        return AdminClient(box)

    def await_listening(self) -> None:
        """Wait until it can be asked."""
        self._box.until(lambda: self._box.events("admin_listening"), "admin_listening")
        self.url = self._box.events("admin_listening")[-1]["url"]

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        if not self.url:
            self.await_listening()
        parts = urlsplit(self.url)
        assert parts.hostname
        assert parts.port
        return parts.hostname, parts.port

    def ask(self, path: str, method: str = "GET", *, body: str | None = None, **headers: str) -> Answer:
        """Return the answer to one request; underscores in header names stand for dashes."""
        connection = http.client.HTTPConnection(*self.address, timeout=20)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            connection.request(method, path, body, named)
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, found, answer.read().decode())
        finally:
            connection.close()

    def status(self) -> Any:
        """Return `/status`."""
        return self.ask("/status").json

    def metric(self, name: str, **labels: str) -> float | None:
        """Return one sample of `/metrics`; None if there is none."""
        for line in self.ask("/metrics").text.splitlines():
            found = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line)
            if found and found[1] == name and dict(re.findall(r'(\w+)="([^"]*)"', found[2] or "")) == labels:
                return float(found[3])
        return None
