"""The measuring itself: what `make bench` says must be what happened."""

import http.client
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

import page
from measured import Failed, run
from results import Result, joined, load, save
from slow_link import slow_link

ENVIRONMENT = {"PATH": "/usr/bin:/bin"}
RIVAL = "s5cmd cat | igzip -dc | tar x"
CELL = RIVAL.replace("|", r"\|")


def figures(seconds: float, peak_mb: float = 100.0) -> dict[str, float]:
    return {
        "seconds": seconds,
        "user_seconds": 1.0,
        "system_seconds": 0.5,
        "peak_mb": peak_mb,
        "others_mb": 7.0,
        "sent_mb": 55.0,
    }


def page_of(folder: Path, result: Result, case: str = "tar.gz") -> str:
    save(folder / "performance.json", {case: result})
    page.write(folder)
    return (folder / "performance.md").read_text()


def test_the_page_compares_the_runs_of_one_round(tmp_path: Path) -> None:
    """A machine that is slow for a round is slow for both: the ratio is that of the pairs."""
    rows = {
        "servesync sync": [figures(1.0), figures(9.0), figures(3.0)],
        RIVAL: [figures(2.0), figures(10.0), figures(30.0)],
    }
    text = page_of(tmp_path, Result(60, links={"https": rows}))

    (line,) = [line for line in text.splitlines() if line.startswith(r"| s5cmd cat \|")]
    assert "| 10.0 (2.0 to 30.0) | 0.50 (0.10 to 0.90) | 1.5 | 100 | 55 |" in line
    assert f"| tar.gz, https: time against `{CELL}` | 0.70 | 0.50 (0.10 to 0.90) | met |" in text
    assert "| `sync`: most memory in any run, MB | 160 | 100 | met |" in text
    assert (tmp_path / "performance.svg").read_text().count("<rect") == 3


def test_the_page_says_what_was_missed_left_out_and_failed(tmp_path: Path) -> None:
    """Nothing is made to look better than it was."""
    rows = {"servesync sync": [figures(3.0, 161.0)], RIVAL: [figures(2.0)]}
    result = Result(60, links={"http": rows}, left_out=["rclone"], failed={"s5cmd cp": "HTTP: no such key"})
    text = page_of(tmp_path, result)

    assert "| 0.70 | 1.50 | **missed** |" in text
    assert "| 160 | 161 | **missed** |" in text
    assert "`rclone`" in text
    assert "s5cmd cp (`HTTP: no such key`)" in text


def test_a_case_that_is_measured_again_leaves_the_others(tmp_path: Path) -> None:
    """The long run can be made in pieces."""
    rows = {"servesync sync": [figures(1.0)]}
    page_of(tmp_path, Result(60, links={"http": rows}))
    kept = load(tmp_path / "performance.json")
    save(tmp_path / "performance.json", kept | {"frames": Result(70, links={"http": rows})})
    page.write(tmp_path)

    text = (tmp_path / "performance.md").read_text()
    assert "60 MB unpacked" in text
    assert "70 MB unpacked" in text


def test_ways_that_were_measured_apart_are_joined_if_they_can_be_compared() -> None:
    """One commit over HTTP and another over HTTPS make no pair."""
    rows = {"servesync sync": [figures(1.0)]}
    old = Result(60, commit="one", links={"http": rows, "https": rows})
    new = Result(60, commit="one", links={"https": {}})

    assert joined(old, new).links == {"http": rows, "https": {}}
    assert joined(Result(60, commit="other", links=old.links), new).links == {"https": {}}
    assert joined(None, new) == new


def test_the_page_in_the_repository_is_that_of_its_figures(tmp_path: Path) -> None:
    """Nobody edits it by hand."""
    docs = Path(__file__).parents[2] / "docs"
    (tmp_path / "performance.json").write_bytes((docs / "performance.json").read_bytes())
    page.write(tmp_path)

    assert (tmp_path / "performance.md").read_text() == (docs / "performance.md").read_text()


def test_a_run_counts_memory_of_children_apart(tmp_path: Path) -> None:
    """What a child holds is not the agent's."""
    child = "import time; held = bytearray(200_000_000); time.sleep(1)"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    found = run([sys.executable, "-c", code], folder=tmp_path, environment=ENVIRONMENT)

    assert found.others_mb > 200
    assert found.peak_mb < 100


def test_a_run_that_fails_says_why(tmp_path: Path) -> None:
    """The end of its output is in the error."""
    with pytest.raises(Failed, match="status 3: no such bucket"):
        run(["sh", "-c", "echo no such bucket >&2; exit 3"], folder=tmp_path, environment=ENVIRONMENT)


def test_a_run_that_does_not_end_is_killed_with_its_children(tmp_path: Path) -> None:
    """A measurement is bounded in time, and leaves nothing running."""
    line = "sleep 1234 & echo $! > child; wait"
    with pytest.raises(Failed, match="in time"):
        run(["sh", "-c", line], folder=tmp_path, environment=ENVIRONMENT, timeout_seconds=0.5)

    child = int((tmp_path / "child").read_text())
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE


def test_a_run_is_killed_when_asked_for(tmp_path: Path) -> None:
    """`kill_when` ends it, and that is no failure; a run that ends before is one."""
    begun = tmp_path / "begun"
    killed = ["sh", "-c", "touch begun; sleep 1234"]
    run(killed, folder=tmp_path, environment=ENVIRONMENT, kill_when=begun.exists)

    with pytest.raises(Failed, match="before"):
        run(["true"], folder=tmp_path, environment=ENVIRONMENT, kill_when=lambda: False)


class Echo(BaseHTTPRequestHandler):
    """Sends back what it gets, on a connection that is kept."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Send it back."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_a_slow_link_changes_no_byte() -> None:
    """Several requests on one connection, larger than any buffer on the way."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with slow_link(server.server_port, 50e6, 0.001) as url:
            client = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
            for number in range(3):
                body = json.dumps([number] * 1_000_000).encode()
                client.request("POST", "/", body)
                assert client.getresponse().read() == body
            client.close()
    finally:
        server.shutdown()
        server.server_close()
