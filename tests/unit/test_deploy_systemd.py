"""The systemd units, by systemd's own tools, and held against what the agent really does."""

import re
import shlex
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

import tools
from deploy_files import DEPLOY, SYSTEMD, unit_values
from servesync.demo.standin.monitoring import read_monitoring
from servesync.serving.rest import PAGE

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


def test_the_agent_writes_where_its_settings_say() -> None:
    """The one writable directory, its owner, and the user who reads it."""
    models = re.findall(r"models_dir: (\S+)", (SYSTEMD / "servesync.yaml").read_text())
    assert unit_values("servesync.service", "ReadWritePaths") == models
    assert unit_values("tensorflow-model-server.service", "ReadWritePaths") == []
    tmpfiles = (SYSTEMD / "servesync.tmpfiles.conf").read_text()
    assert f"d {models[0]} 0755 servesync servesync -" in tmpfiles
    users = re.findall(r"^u (\w+) ", (SYSTEMD / "servesync.sysusers.conf").read_text(), re.MULTILINE)
    assert [unit_values(unit, "User")[0] for unit in UNITS] == users


def test_no_unit_holds_up_the_boot() -> None:
    """Nothing waits before a unit counts as started: not for the store, nor for a network or a clock.

    A unit that is wanted by multi-user.target is waited for until its start is over.
    """
    for unit in UNITS:
        assert unit_values(unit, "Type") == ["exec"]
        assert unit_values(unit, "ExecStartPre") == []
        order = " ".join(unit_values(unit, "After") + unit_values(unit, "Wants")).split()
        assert set(order) <= {"servesync.service", "network.target"}
        for key in ("Requires", "BindsTo", "PartOf"):
            assert unit_values(unit, key) == []
    assert unit_values("tensorflow-model-server.service", "After")[0].startswith("servesync.service")


def test_the_server_waits_for_a_proven_version(tmp_path: Path) -> None:
    """The unit's own command asks until the answer is yes, and then becomes the server, with its flags."""
    asked: list[str] = []

    class Agent(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(503 if len(asked) == 1 else 200)
            self.end_headers()

        def do_DELETE(self) -> None:
            asked.append(f"DELETE {self.path}")
            self.send_response(202)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    tools.find("curl")
    server_program = tmp_path / "tensorflow_model_server"
    server_program.write_text('#!/bin/sh\nprintf "%s\\n" "$$" "$@"\n')
    server_program.chmod(0o755)
    (start,) = unit_values("tensorflow-model-server.service", "ExecStart")
    with HTTPServer(("127.0.0.1", 0), Agent) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        here = start.replace("9494", str(server.server_address[1])).replace("sleep 2", "sleep 0.1")
        words = [word.replace("$$", "$") for word in shlex.split(here)]
        words[words.index("/usr/bin/tensorflow_model_server")] = str(server_program)
        process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        output, _ = process.communicate(timeout=60)
        server.shutdown()

    said, pid, *flags = output.splitlines()
    assert asked == ["/startupz", "/startupz", "DELETE /drain"]  # which the stop before has begun
    assert said.startswith("waits until servesync has proven")
    assert int(pid) == process.pid  # systemd watches and stops the server itself
    assert flags == words[words.index(str(server_program)) + 1 :]
    assert "--model_config_file=/srv/models/models.config" in flags


def test_a_stop_drains_first_and_has_the_time_for_it() -> None:
    """What takes longer is killed; the file with the flag that makes it short is put where it is read."""
    (command,) = unit_values("tensorflow-model-server.service", "ExecStop")
    (limit,) = unit_values("tensorflow-model-server.service", "TimeoutStopSec")
    seconds = {name: int(number) for name, number in re.findall(r"--(\w+)=(\d+)", command)}
    assert command.startswith("/opt/servesync/bin/servesync drain ")
    assert set(seconds) == {"notice", "timeout"}
    assert sum(seconds.values()) < int(limit)

    (start,) = unit_values("tensorflow-model-server.service", "ExecStart")
    (place,) = re.findall(r"--monitoring_config_file=(\S+)", start)
    steps = (DEPLOY / "README.md").read_text()
    assert f"install -D -m 0644 deploy/systemd/monitoring.config {place}\n" in steps


def test_the_monitoring_file_is_one_that_the_server_takes() -> None:
    """In both folders, and it is where the command reads."""
    found = {read_monitoring(path) for path in DEPLOY.rglob("monitoring.config")}

    assert found == {PAGE}


def test_keys_are_read_where_the_steps_put_them() -> None:
    """The agent's unit names the file, its user may read it, and the server's unit hides it."""
    (place,) = re.findall(
        r"^AWS_SHARED_CREDENTIALS_FILE=(.*)$", "\n".join(unit_values(UNITS[0], "Environment")), re.MULTILINE
    )
    steps = (DEPLOY / "README.md").read_text()

    assert f"install -m 0640 -g {unit_values(UNITS[0], 'Group')[0]} keys.ini {place}\n" in steps
    assert f"-{Path(place).parent}" in unit_values(UNITS[1], "InaccessiblePaths")[0].split()
