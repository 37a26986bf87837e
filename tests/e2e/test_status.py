"""`servesync status` against real agents, none, and things that are none."""

import http.server
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import forked
from admin_client import AdminClient
from agent_box import AgentBox
from big_models import files_of, small_archive
from fixtures_store import Bucket
from said_server import UP, said_server


def status(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command."""
    command = [sys.executable, "-m", "servesync", "status", *arguments]
    return forked.call(command, os.environ, 60)


def test_tables_and_exit_codes(box: AgentBox, bucket: Bucket, real_models: Path) -> None:
    """3 until everything required is in place and served, 0 from then on; refused versions with why."""
    admin = AdminClient.listen(box)
    tree = files_of(real_models / "plain_module")
    with box.running():
        box.until(lambda: box.events("poll_finished"))
        admin.await_listening()
        before = status("--url", admin.url)
        assert before.returncode == 3
        assert "not in place" in before.stdout

        bucket.put("prod/m/1.tar.gz", small_archive(tree, 1))
        bucket.put("prod/m/2.tar.gz", b"[red]no archive[/]")
        box.until(lambda: admin.status()["models"]["m"]["in_place"])
        after = status("--url", admin.url)
        machine = status("--url", f"{admin.url}/status", "--json")

        plan = box.call("plan").stdout

    assert "nothing can be done for 2: see above" in plan
    assert [line for line in plan.splitlines() if line.startswith("2 ") and "no archive" in line], plan
    assert "…" not in after.stdout
    assert after.returncode == 0, after.stdout + after.stderr
    for word in (
        "serving",
        "held",
        "archive_format",
        "not configured",
        "version_installed",
        "s ago",
        " from store",
    ):
        assert word in after.stdout
    assert machine.returncode == 0
    assert json.loads(machine.stdout)["models"]["m"]["wanted"] == [1]


def test_no_agent_is_said_plainly() -> None:
    """One message with what to check, and exit code 1."""
    done = status("--url", "http://127.0.0.1:1")
    assert done.returncode == 1
    assert done.stdout == ""
    assert "no agent answers at http://127.0.0.1:1/status" in done.stderr
    assert "or -c with its settings" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_serves_while_something_else_is_wanted(box: AgentBox, bucket: Bucket, real_models: Path) -> None:
    """A pin that leads to a refused version takes nothing away, and the heading says so."""
    bucket.put("prod/m/1.tar.gz", small_archive(files_of(real_models / "plain_module"), 1))
    bucket.put("prod/m/2.tar.gz", b"no archive")
    with said_server() as server:
        box.overrides = {"serving": {"rest_url": server.url}}
        admin = AdminClient.listen(box)
        box.models = [{"name": "m", "versions": {"pin": [1]}}]
        with box.running() as process:
            box.until(lambda: box.numbers() == ["1"])
            server.versions = {1: UP}
            box.until(lambda: box.events("version_available"))
            box.models = [{"name": "m", "versions": {"pin": [2]}}]
            box.write_settings()
            process.send_signal(signal.SIGHUP)
            box.until(lambda: box.events("version_refused"))
            box.until(lambda: not admin.status()["models"]["m"]["in_place"])
            shown = status("--url", admin.url)

    assert shown.returncode == 3
    assert "m (pin: [2], required): not in place, not served as wanted (1 goes on serving)" in shown.stdout
    assert "version_refused m 2 " in shown.stdout
    assert box.numbers() == ["1"]


def test_settings_say_where_the_agent_is(box: AgentBox) -> None:
    """Its address and port; what listens nowhere is named."""
    box.overrides["admin"] = {"host": "127.0.0.2", "port": 19}
    there = status("-c", str(box.write_settings()))
    assert "no agent answers at http://127.0.0.2:19/status" in there.stderr

    box.overrides["admin"] = {"port": None}
    nowhere = status("-c", str(box.write_settings()))
    assert nowhere.returncode == 2
    assert "admin.port is None: give --url" in nowhere.stderr


def test_a_plan_names_the_channel_that_it_waits_for(box: AgentBox, bucket: Bucket) -> None:
    """Where nothing can be done until somebody promotes."""
    bucket.put("prod/m/1.tar.gz", b"anything")
    box.models = [{"name": "m", "versions": {"channel": "prod"}}]
    done = box.call("plan")
    assert "nothing, until the channel prod has a position: `servesync promote m VERSION " in done.stdout


def test_something_else_on_the_port_is_named() -> None:
    """A web server of another kind is no agent."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        done = status("--url", f"http://127.0.0.1:{server.server_address[1]}")
    finally:
        server.shutdown()
        server.server_close()
    assert done.returncode == 1
    assert "is no agent's admin interface: HTTP 501" in done.stderr


@pytest.mark.parametrize(
    ("code", "body"),
    [
        (200, b"It works!"),
        (200, b'{"status": "UP"}'),
        (200, b'{"ok": false, "missing": []}'),
        (503, b'{"ok": true, "missing": []}'),
        (404, b'{"ok": true, "missing": []}'),
        (200, b"[" * 100_000),
    ],
)
def test_a_probe_takes_no_yes_from_others(code: int, body: bytes, tmp_path: Path) -> None:
    """Something else that has the port must not make the agent look healthy."""

    class Other(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(code)
            self.end_headers()
            self.wfile.write(body)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Other)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    file = tmp_path / "servesync.yaml"
    file.write_text(
        "store: {url: s3://acme/prod, region: us-east-1}\nserving: {models_dir: /models, rest_url: null}\n"
        f"models: [{{name: m}}]\nadmin: {{port: {server.server_address[1]}}}\n"
    )
    try:
        command = [sys.executable, "-m", "servesync", "probe", "livez", "-c", str(file)]
        done = forked.call(command, os.environ, 60)
    finally:
        server.shutdown()
        server.server_close()

    assert done.returncode == 1
    assert f"is no agent's probe: HTTP {code}" in done.stderr
    assert len(done.stderr) < 1000
