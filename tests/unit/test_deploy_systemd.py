"""The systemd units, by systemd's own tools, and held against what the agent really does."""

import re
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

import tools
from deploy_files import DEPLOY

SYSTEMD = DEPLOY / "systemd"
UNITS = ("servesync.service", "tensorflow-model-server.service")
MOST_EXPOSED = "20"
"""Of 100: systemd calls up to 20 `OK`, and most services that distributions ship are beyond 90."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A file system with the units and, as empty scripts, the programs that they start."""
    units = tmp_path / "etc/systemd/system"
    units.mkdir(parents=True)
    for name in UNITS:
        text = (SYSTEMD / name).read_text()
        for program in re.findall(r"^Exec\w+=(/\S+)", text, re.MULTILINE):
            place = tmp_path / program.removeprefix("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text("#!/bin/sh\n")
            place.chmod(0o755)
            text = text.replace(f"={program} ", f"={place} ")
        (units / name).write_text(text)
    return units


@pytest.mark.parametrize("name", UNITS)
def test_systemd_verifies_the_unit(name: str, root: Path) -> None:
    """No unknown key, no bad value, no dependency that is not there."""
    done = tools.run(tools.find("systemd-analyze"), "verify", "--man=no", root / name, cwd=root)

    assert done.returncode == 0, done.stderr
    assert [line for line in done.stderr.splitlines() if name in line] == []


@pytest.mark.parametrize("name", UNITS)
def test_systemd_finds_the_unit_confined(name: str, root: Path) -> None:
    """Its own measure of what a taken-over process could still do."""
    tool = tools.find("systemd-analyze")
    done = tools.run(tool, "security", "--offline=true", f"--threshold={MOST_EXPOSED}", root / name)

    assert done.returncode == 0, done.stdout + done.stderr


def setting(name: str, key: str) -> list[str]:
    """Return the values of a key of a unit."""
    return re.findall(rf"^{key}=(.*)$", (SYSTEMD / name).read_text(), re.MULTILINE)


def test_the_agent_writes_where_its_settings_say() -> None:
    """The one writable directory, its owner, and the user who reads it."""
    models = re.findall(r"models_dir: (\S+)", (SYSTEMD / "servesync.yaml").read_text())
    assert setting("servesync.service", "ReadWritePaths") == models
    assert setting("tensorflow-model-server.service", "ReadWritePaths") == []
    tmpfiles = (SYSTEMD / "servesync.tmpfiles.conf").read_text()
    assert f"d {models[0]} 0755 servesync servesync -" in tmpfiles
    users = re.findall(r"^u (\w+) ", (SYSTEMD / "servesync.sysusers.conf").read_text(), re.MULTILINE)
    assert [setting(unit, "User")[0] for unit in UNITS] == users


def test_the_server_waits_for_a_proven_version() -> None:
    """It is ordered behind the agent, waits for the endpoint, and lives on when the agent stops."""
    (wait,) = setting("tensorflow-model-server.service", "ExecStartPre")
    assert wait.endswith("http://127.0.0.1:9494/startupz")
    assert setting("tensorflow-model-server.service", "After")[0].startswith("servesync.service")
    assert setting("tensorflow-model-server.service", "Wants")[0].startswith("servesync.service")
    for key in ("Requires", "BindsTo", "PartOf"):
        assert setting("tensorflow-model-server.service", key) == []


def test_curl_waits_as_the_unit_asks(tmp_path: Path) -> None:
    """It asks again until the answer is yes."""
    asked: list[str] = []

    class Agent(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(503 if len(asked) == 1 else 200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    (wait,) = setting("tensorflow-model-server.service", "ExecStartPre")
    with HTTPServer(("127.0.0.1", 0), Agent) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        _, *options, url = wait.replace("--retry-delay 2", "--retry-delay 1").split()
        here = url.replace("9494", str(server.server_address[1]))
        done = tools.run(tools.find("curl"), *options, here, cwd=tmp_path)
        server.shutdown()

    assert done.returncode == 0, done.stderr
    assert asked == ["/startupz", "/startupz"]
