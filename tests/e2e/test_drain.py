"""`servesync drain` before a model server is stopped, with a real agent and requests that take long."""

import http.client
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import forked
from admin_client import AdminClient
from agent_box import AgentBox, tar_gz_of
from fixtures_store import Bucket
from forked_server import ModelServer
from served_scene import files_of

MONITORING = "prometheus_config { enable: true }"
HELD_SECONDS = 5.0
"""How long a request takes that fills the server's histogram: those after it are waited for that long."""
LATER_SECONDS = 1.0
"""How much later a request ends than the command would if it did not wait for it."""


class SlowRequest:
    """A request that ends when the test says so: the model writes to a pipe, which waits for a reader."""

    def __init__(self, server: ModelServer, pipe: Path) -> None:
        os.mkfifo(pipe)
        self._pipe = pipe
        self.status = 0
        """Of the answer; 0 if there is none."""
        parts = urlsplit(server.url)
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
        body = {"signature_name": "write", "inputs": {"path": str(pipe)}}
        self._connection.request("POST", "/v1/models/m:predict", json.dumps(body))
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        try:
            with self._connection.getresponse() as answer:
                self.status = answer.status
        except (OSError, http.client.HTTPException):
            pass
        self._connection.close()

    def end(self) -> int:
        """Let the server answer, if it still lives; return the status of the answer."""
        handle = os.open(self._pipe, os.O_RDONLY | os.O_NONBLOCK)
        self._thread.join(60)
        os.close(handle)
        return self.status


@pytest.fixture
def server(box: AgentBox) -> Iterator[ModelServer]:
    """A server that shows its metrics, started by the test."""
    (box.folder / "monitoring.config").write_text(MONITORING)
    flag = f"--monitoring_config_file={box.folder / 'monitoring.config'}"
    server = ModelServer(box.folder / "models.config", box.folder / "server.log", flags=(flag,))
    yield server
    server.kill()


@pytest.fixture
def admin(box: AgentBox, server: ModelServer) -> AdminClient:
    """The agent's admin interface, on a port that stands in the settings."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = str(box.folder / "models.config")
    box.overrides["serving"] = {"rest_url": server.url, "config_file": config, "smoke": "off"}
    return AdminClient.listen(box, port=port)


@pytest.fixture
def serving(
    box: AgentBox, bucket: Bucket, real_models: Path, server: ModelServer, admin: AdminClient
) -> Iterator[None]:
    """Agent and server are at work, and the server has answered one request that took long."""
    bucket.put("prod/m/1.tar.gz", tar_gz_of(files_of(real_models / "on_request"), "1"))
    with box.running():
        box.until((box.folder / "models.config").exists, "models.config")
        server.start()
        server.wait_ready(120)
        box.until(lambda: admin.ask("/readyz").status == 200, "ready")
        first = SlowRequest(server, box.folder / "first")
        time.sleep(HELD_SECONDS)
        assert first.end() == 200
        yield


@pytest.mark.usefixtures("serving")
def test_a_drained_server_loses_no_request(box: AgentBox, server: ModelServer, admin: AdminClient) -> None:
    """Without load the command returns at once; with it, the server is stopped right after it returns."""
    idle = box.call("drain", "--timeout", "60", "--grpc-port", "0")
    assert idle.returncode == 0, idle.stderr
    assert "no load: no connection to the server is open" in idle.stdout
    _check_draining(admin)
    assert admin.ask("/drain", "DELETE").status == 202
    assert admin.ask("/readyz").status == 200

    requests = [SlowRequest(server, box.folder / name) for name in ("second", "third")]
    command = box.command("drain", "--timeout", "60", "--grpc-port", "0")
    draining = forked.start(command, box.environment())
    stopper = threading.Thread(target=lambda: (draining.wait(), server.stop()), daemon=True)
    stopper.start()
    box.until(lambda: len(box.events("draining")) == 2, "the agent to be told again")
    for request in requests:
        time.sleep(LATER_SECONDS)
        assert request.end() == 200
    stopper.join(120)

    assert draining.returncode == 0
    assert "the server does not listen" in box.call("drain").stdout
    assert len(box.events("draining")) == 2  # it was draining already
    assert len(box.events("draining_ended")) == 1


def _check_draining(admin: AdminClient) -> None:
    """Only `/readyz` has turned, and what is asked by others changes nothing."""
    answer = admin.ask("/readyz")
    assert answer.status == 503
    assert [line[:14] for line in answer.json["missing"]] == ["draining since"]
    assert [admin.ask(probe).status for probe in ("/livez", "/startupz")] == [200, 200]
    assert admin.status()["draining_since_at"]
    assert admin.ask("/drain").status == 405
    assert admin.ask("/drain", "DELETE", Origin="http://elsewhere.example").status == 403
    assert admin.ask("/readyz").status == 503


def test_without_an_agent_the_server_is_looked_at(box: AgentBox, admin: AdminClient) -> None:
    """In a preStop hook the agent may be gone first."""
    done = box.call("drain")

    assert (admin.url, done.returncode) == ("", 0)
    assert "no agent answers" in done.stdout
    assert "the server does not listen" in done.stdout
