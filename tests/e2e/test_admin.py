"""Probes, status and POST /sync of a real agent, through an update, an outage and attacks."""

import contextlib
import os
import re
import signal
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from admin_client import AdminClient
from agent_box import AgentBox
from big_models import files_of, small_archive
from fixtures_store import Bucket
from http_stubs import door_before

Tree = dict[str, bytes]
ASKED = 25 if os.environ.get("LONG_TESTS") == "1" else 8
"""Probes under a flood; its two hundred clients work as hard as they can meanwhile."""


@pytest.fixture
def tree(real_models: Path) -> Tree:
    """The files of a good model."""
    return files_of(real_models / "plain_module")


@pytest.fixture
def admin(box: AgentBox) -> AdminClient:
    """The admin interface of the agent that the test starts."""
    return AdminClient.listen(box)


def test_the_probes_say_what_is_missing(
    box: AgentBox, bucket: Bucket, tree: Tree, admin: AdminClient
) -> None:
    """Nothing in the store: alive, but neither started nor ready; then a version comes."""
    with box.running():
        admin.await_listening()
        box.until(lambda: box.events("poll_finished"))
        assert admin.ask("/livez").json == {"ok": True, "missing": []}
        for probe in ("/startupz", "/readyz"):
            answer = admin.ask(probe)
            assert answer.status == 503
            assert answer.json["missing"] == ["m: no proven version on disk"]

        bucket.put("prod/m/1.tar.gz", small_archive(tree, 1))
        box.until(lambda: admin.ask("/readyz").status == 200, "ready")
        assert admin.ask("/startupz").status == 200


def test_an_outage_of_the_store_fails_no_probe(
    box: AgentBox, bucket: Bucket, tree: Tree, admin: AdminClient
) -> None:
    """It is a trouble in /status, with its reason, and in the metrics; what is served stays."""
    bucket.put("prod/m/1.tar.gz", small_archive(tree, 1))
    with door_before(box.endpoint_url) as (url, door):
        box.endpoint_url = url
        with box.running():
            box.until(lambda: box.numbers() == ["1"])
            door.state = "denied"
            box.until(lambda: admin.status()["troubles"], "the trouble to show")

            status = admin.status()
            assert [item["about"] for item in status["troubles"]] == ["store"]
            assert status["troubles"][0]["reason"] == "store_denied"
            box.until(lambda: _last_poll_is_past(admin.status()), "an age of the last poll")
            shown = "".join(admin.ask(path).text for path in ("/", "/status", "/metrics", "/readyz"))
            assert box.secret_key not in shown
            assert box.access_key not in shown
            assert [admin.ask(probe).status for probe in ("/livez", "/startupz", "/readyz")] == [200] * 3
            assert (admin.metric("servesync_polls_total", outcome="store_denied") or 0) >= 1
            requests = admin.metric("servesync_s3_requests_total", operation="list", outcome="refused")
            assert (requests or 0) >= 1


def test_the_status_tells_all_of_a_version(
    box: AgentBox, bucket: Bucket, tree: Tree, admin: AdminClient
) -> None:
    """Role, why, disk, server, identity, times, bytes; and the events that led there."""
    box.models = [{"name": "m", "versions": {"latest": 1}}, {"name": "optional", "required": False}]
    bucket.put("prod/m/1.tar.gz", small_archive(tree, 1))
    bucket.put("prod/m/2.tar.gz", small_archive(tree, 2))
    bucket.put("prod/m/3.tar.gz", b"this is no archive")
    with box.running():
        box.until(lambda: box.events("version_refused") and box.numbers() == ["2"])
        box.until(lambda: admin.status()["models"].get("m", {}).get("in_place"))
        status = admin.status()

    assert status["schema_version"] == 1
    model = status["models"]["m"]
    assert model["policy"] == "latest: 1"
    assert model["wanted"] == [2]
    assert model["in_store"] == 3
    two, three = model["versions"]["2"], model["versions"]["3"]
    assert two["role"] == "serving"
    assert two["on_disk"] == "good"
    assert two["server"] is None
    assert two["bytes"] == sum(map(len, tree.values()))
    assert status["started_at"][:4] == two["installed_at"][:4] == two["published_at"][:4]
    assert len(two["identity"]) == 64
    assert three["role"] == "held"
    assert "archive_format" in three["why"]
    assert status["models"]["optional"]["versions"] == {}


def test_the_status_tells_of_the_agent(box: AgentBox, bucket: Bucket, tree: Tree, admin: AdminClient) -> None:
    """The last events, the newest first; the disk, what the store costs, and the server, if there is one."""
    bucket.put("prod/m/1.tar.gz", small_archive(tree, 1))
    bucket.put("prod/m/3.tar.gz", b"this is no archive")
    with box.running():
        box.until(lambda: box.numbers() == ["1"])
        box.overrides["log"] = {"level": "error"}
        box.write_settings()
        box.until(lambda: "settings_reloaded" in _names(admin), "the settings to be taken")
        status = admin.status()

    names = [event["event"] for event in status["events"]]
    assert box.events("settings_reloaded") == [], "the log has no such lines any more"
    assert names.index("version_installed") < names.index("version_refused") < names.index("agent_started")
    refused = next(event for event in status["events"] if event["event"] == "version_refused")
    assert refused["reason"] == "archive_format"
    assert status["disk"]["free_bytes"] > 0
    assert status["memory"] == {"budget_bytes": None, "estimate_bytes": 0}
    assert status["cost"]["list_requests"] >= 1
    assert status["server"]["url"] is None


def test_the_progress_of_a_download_shows(
    box: AgentBox, bucket: Bucket, tree: Tree, admin: AdminClient
) -> None:
    """While the deciding thread is busy with one version, everything can be asked."""
    bucket.put("prod/m/1.tar.gz", small_archive(tree | {"assets/big.bin": os.urandom(20 << 20)}, 1))
    box.overrides["fetch"] = {"max_bytes_per_second": 1 << 20}
    with box.running():

        def done() -> int:
            return (admin.status()["activity"] or {}).get("done_bytes") or 0

        box.until(lambda: done() > 1 << 20, "the download to get on")
        before = done()
        activity = admin.status()["activity"]
        box.until(lambda: done() > before, "further")
        assert (activity["stage"], activity["model"], activity["version"]) == ("fetch", "m", 1)
        assert activity["total_bytes"] > 20 << 20
        assert admin.ask("/livez").status == 200
        assert admin.ask("/startupz").status == 503
        assert (admin.metric("servesync_fetched_bytes_total") or 0) > 1 << 20


def test_sync_wakes_the_agent(box: AgentBox, bucket: Bucket, tree: Tree, admin: AdminClient) -> None:
    """From this machine without more; an hour's interval does not matter then."""
    box.overrides["poll"] = {"interval_seconds": 3600}
    with box.running():
        box.until(lambda: box.events("poll_finished"))
        bucket.put("prod/m/1.tar.gz", small_archive(tree, 1))
        assert admin.ask("/sync").status == 405
        assert admin.ask("/sync", "POST").status == 202
        box.until(lambda: box.numbers() == ["1"], "version 1")


def test_sync_is_not_for_everybody(box: AgentBox, bucket: Bucket, admin: AdminClient, tmp_path: Path) -> None:
    """Not for pages of other sites, nor through a proxy, nor with a wrong token."""
    token = tmp_path / "token"
    token.write_text("correct-horse-battery\n")
    AdminClient.listen(box, token_file=str(token))
    with box.running():
        refused = {
            "origin": {"Origin": "https://evil.example"},
            "fetch metadata": {"Sec_Fetch_Site": "cross-site"},
            "same site is another site": {"Sec_Fetch_Site": "same-site"},
            "null origin": {"Origin": "null"},
            "form": {"Content_Type": "application/x-www-form-urlencoded"},
            "text": {"Content_Type": "text/plain"},
            "proxy": {"X_Forwarded_For": "10.0.0.1"},
            "wrong token": {"Authorization": "Bearer wrong-horse-battery"},
            "no scheme": {"Authorization": "correct-horse-battery"},
        }
        found = {name: admin.ask("/sync", "POST", **headers).status for name, headers in refused.items()}
        assert list(found.values()) == [403, 403, 403, 403, 415, 415, 401, 401, 401]
        good = {"Authorization": "Bearer correct-horse-battery", "X_Forwarded_For": "10.0.0.1"}
        assert admin.ask("/sync", "POST", **good).status == 202
        token.write_text("short")
        assert admin.ask("/sync", "POST", **good).status == 401
        assert admin.ask("/sync", "POST", Authorization="Bearer short").status == 401
        assert admin.ask("/sync", "POST", body="x" * 2000, Content_Type="application/json").status == 413


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("localhost:1234", 200),
        ("10.1.2.3:9494", 200),
        ("[::1]:9494", 200),
        ("models.internal", 200),
        ("evil.example", 421),
        ("localhost.evil.example", 421),
        ("", 421),
        ("a b", 421),
    ],
)
def test_the_host_must_be_known(box: AgentBox, bucket: Bucket, host: str, status: int) -> None:
    """A page that rebinds its own name to this machine gets nothing."""
    admin = AdminClient.listen(box, allowed_hosts=["models.internal"])
    with box.running():
        assert admin.ask("/status", Host=host).status == status


def test_every_answer_has_the_headers(box: AgentBox, bucket: Bucket, admin: AdminClient) -> None:
    """HEAD and errors as well."""
    with box.running():
        for path, method, status in (
            ("/status", "GET", 200),
            ("/livez", "HEAD", 200),
            ("/nothing", "GET", 404),
            ("/status", "DELETE", 405),
            ("/status", "TRACE", 405),
        ):
            answer = admin.ask(path, method)
            assert answer.status == status
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["cache-control"] == "no-store"
            assert "default-src 'none'" in answer.headers["content-security-policy"]
            assert answer.headers["connection"] == "close"
            assert "server" not in answer.headers
        assert admin.ask("/livez", "HEAD").text == ""


def test_slow_and_many_connections_end_by_themselves(
    box: AgentBox, bucket: Bucket, admin: AdminClient
) -> None:
    """A flood of silent connections is cut off, and afterwards the probes answer as ever."""
    with box.running():
        address = admin.address
        held = [socket.create_connection(address) for _ in range(70)]
        held[0].sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
        for connection in held:
            connection.settimeout(30)
        for connection in held:
            with contextlib.suppress(ConnectionResetError):
                assert connection.recv(1) == b""
            connection.close()
        assert admin.ask("/livez").status == 200


def _last_poll_is_past(status: dict[str, Any]) -> bool:
    return bool(status["store"]["last_good_poll_at"] < status["now"])


CLIENTS = 100
"""More than the agent has connections for at once (`MOST_CONNECTIONS`)."""


@pytest.mark.parametrize("end", [b"X-Slow: ", b"\r\n"])
def test_no_flood_shuts_out_the_probes(end: bytes, box: AgentBox, bucket: Bucket, admin: AdminClient) -> None:
    """Clients with half or whole requests come again whenever they can; the kubelet is answered each time."""
    ended = threading.Event()
    cut_off: list[socket.socket] = []

    def requests() -> None:
        while not ended.is_set():
            with contextlib.suppress(OSError), socket.create_connection(address, 30) as connection:
                connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n" + end)
                connection.recv(1)
                cut_off.append(connection)

    with box.running():
        address = admin.address
        clients = [threading.Thread(target=requests, daemon=True) for _ in range(CLIENTS)]
        for client in clients:
            client.start()
        box.until(lambda: len(cut_off) > CLIENTS, "the first clients to come again")
        answers = [status_of(admin) for _ in range(ASKED)]
        ended.set()
    for client in clients:
        client.join()

    assert answers == [200] * ASKED


def status_of(admin: AdminClient) -> int | str:
    """Ask `/livez` as a kubelet does; return the status, or why there was none."""
    try:
        return admin.ask("/livez").status
    except OSError as error:
        return repr(error)


def test_a_port_that_is_taken_stops_nothing(box: AgentBox, bucket: Bucket, tree: Tree) -> None:
    """The agent says so, works, and stops as it should; another port in the settings is taken at once."""
    bucket.put("prod/m/1.tar.gz", small_archive(tree, 1))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        box.overrides["admin"] = {"port": taken.getsockname()[1]}
        with box.running() as process:
            box.until(lambda: box.numbers() == ["1"] and box.events("admin_unavailable"))
            assert box.events("admin_unavailable")[0]["reason"] == "admin_unavailable"
            assert "in use" in box.events("admin_unavailable")[0]["because"]

            admin = AdminClient.listen(box)
            box.write_settings()
            admin.await_listening()
            box.until(lambda: admin.ask("/readyz").status == 200, "ready")
            box.overrides["admin"] = {"port": None}
            box.write_settings()
            box.until(lambda: len(box.events("settings_reloaded")) == 2)
            box.until(lambda: _refuses(admin.address), "the port to be closed")
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 0


def test_it_stops_promptly_while_being_asked(box: AgentBox, bucket: Bucket, admin: AdminClient) -> None:
    """An open connection does not hold up the end."""
    with box.running() as process, socket.create_connection(admin.address):
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    assert box.events("agent_stopped")[0]["in_time"]


def test_no_thread_but_the_main_one_takes_a_signal(box: AgentBox, admin: AdminClient) -> None:
    """The main thread reads signals between other work; a thread that let one in would end the process."""
    with box.running() as process:
        admin.await_listening()
        tasks = Path("/proc", str(process.pid), "task")
        statuses = {task.name: (task / "status").read_text() for task in tasks.iterdir()}
    others = {number: text for number, text in statuses.items() if number != str(process.pid)}
    assert len(others) >= 2
    for text in others.values():
        found = re.search(r"^SigBlk:\s*([0-9a-f]+)$", text, re.MULTILINE)
        assert found
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
            assert int(found[1], 16) >> (number - 1) & 1, text


def _refuses(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address).close()
    except ConnectionRefusedError:
        return True
    return False


def _names(admin: AdminClient) -> list[str]:
    return [event["event"] for event in admin.status()["events"]]
