"""What whoever starts or pauses the agent does to its process: stops, frozen containers, ignored signals."""

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from agent_box import AgentBox
from big_models import files_of, small_archive
from fixtures_store import Bucket

GRACE_SECONDS = 10
PAUSE_SECONDS = 0.8


@pytest.fixture
def tree(real_models: Path) -> dict[str, bytes]:
    """The files of a good model."""
    return files_of(real_models / "plain_module")


def stopped_by_signal(process: "subprocess.Popen[bytes]") -> None:
    """Stop a process as Ctrl-Z does, for longer than it waits for anything, and let it go on."""
    process.send_signal(signal.SIGSTOP)
    time.sleep(PAUSE_SECONDS)
    process.send_signal(signal.SIGCONT)


def frozen(process: "subprocess.Popen[bytes]") -> None:
    """Freeze a process as `docker pause` does, in a cgroup (v2) of its own, and thaw it."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    roots = [Path(line.split()[4]) for line in lines if " - cgroup2 " in line]
    if not roots or os.geteuid() != 0 or not os.access(roots[0], os.W_OK):
        pytest.skip("no cgroup v2 here that may be written, and so no freezer")
    group = roots[0] / f"servesync-test-{process.pid}"
    group.mkdir()
    try:
        (group / "cgroup.procs").write_text(str(process.pid))
        (group / "cgroup.freeze").write_text("1")
        time.sleep(PAUSE_SECONDS)
        (group / "cgroup.freeze").write_text("0")
    finally:
        if process.poll() is None:
            (roots[0] / "cgroup.procs").write_text(str(process.pid))
        group.rmdir()


@pytest.mark.parametrize("pause", [stopped_by_signal, frozen])
def test_a_pause_does_not_end_it(
    pause: "Callable[[subprocess.Popen[bytes]], None]", box: AgentBox, bucket: Bucket, tree: dict[str, bytes]
) -> None:
    """It works on afterwards, and heeds signals: what a pause leaves behind is none."""
    box.overrides = {"poll": {"interval_seconds": 3600}}
    with box.running() as process:
        box.until(lambda: box.events("poll_finished"))
        pause(process)
        bucket.put("prod/m/1.tar.gz", small_archive(tree, 1))
        process.send_signal(signal.SIGUSR1)
        box.until(lambda: box.numbers() == ["1"] or process.poll() is not None, "version 1")
        process.terminate()
        assert process.wait(GRACE_SECONDS) == 0

    assert box.events("agent_stopped")[0]["because"] == "SIGTERM"
    assert box.numbers() == ["1"]
    assert box.events("settings_reloaded") == []


AT_IMPORT = """
import os, signal, sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "servesync.cli":
            os.kill(os.getpid(), signal.SIGHUP)

sys.meta_path.insert(0, Finder())
"""


def test_a_signal_while_it_starts_is_taken_later(
    box: AgentBox, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`systemctl reload` right after a restart must not end it: most of its start is importing."""
    (box.folder / "sitecustomize.py").write_text(AT_IMPORT)
    monkeypatch.setenv("PYTHONPATH", str(box.folder))
    with box.running() as process:
        reloaded = lambda: box.events("settings_reloaded") or process.poll() is not None  # noqa: E731
        box.until(reloaded, "settings_reloaded")

    assert [event["changed"] for event in box.events("settings_reloaded")] == [[]]


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1])
def test_no_signal_keeps_out_the_one_that_stops(
    number: signal.Signals, box: AgentBox, bucket: Bucket
) -> None:
    """The kernel hands out the lowest number first, and somebody may send those again and again."""
    with box.running() as process:
        box.until(lambda: box.events("poll_finished"))
        process.terminate()
        while process.poll() is None:
            process.send_signal(number)
            time.sleep(0.02)

    assert box.events("agent_stopped")[0]["because"] == "SIGTERM"


def called_under(number: signal.Signals, command: list[str], environment: dict[str, str]) -> tuple[int, str]:
    """Run a command that is to ignore a signal, and send it all the while; return how it ended."""
    ignoring = f"trap '' {number.name.removeprefix('SIG')}; echo; exec \"$@\""
    with subprocess.Popen(
        ["/bin/sh", "-c", ignoring, "sh", *command],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        assert process.stdout
        assert process.stdout.read(1) == b"\n"  # from now on it is ignored
        while process.poll() is None:
            process.send_signal(number)
            time.sleep(0.005)
        return process.returncode, process.stdout.read().decode()


def test_what_nohup_ignores_stays_ignored(box: AgentBox, bucket: Bucket, real_models: Path) -> None:
    """A publisher outlives the terminal, and a pass in a script's background the Ctrl-C of its foreground."""
    where = ["--model", "m", "--version", "1"]
    command = box.command("publish", str(real_models / "plain_module"), *where)

    assert called_under(signal.SIGHUP, command, box.environment())[0] == 0
    ended, said = called_under(signal.SIGINT, box.command("sync"), box.environment())

    assert ended == 0, said
    assert "nothing left to do" in said
    assert box.numbers() == ["1"]


def test_a_pass_that_hangs_ends_in_time(box: AgentBox) -> None:
    """A store that takes connections and never answers holds up no init container for longer than it may."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        box.endpoint_url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        done = box.call("sync", "--timeout", "4")

    ended = [json.loads(line) for line in done.stdout.splitlines() if '"agent_stopped"' in line]
    assert done.returncode == 3
    assert [line["because"] for line in ended] == ["--timeout"]
    assert "not in place: m (--timeout); `servesync plan` says why" in done.stderr


WRITES_THAT_HANG = """
import os, sys, threading, time

write = os.write

def hang(handle, data):
    if threading.current_thread().name.startswith("unpack-write"):
        time.sleep(60)
    return write(handle, data)

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "servesync.unpack.tree_writer":
            os.write = hang

sys.meta_path.insert(0, Finder())
"""


def test_a_disk_that_hangs_holds_up_no_end(
    box: AgentBox, bucket: Bucket, tree: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a thread still does in the kernel is left behind, also by a pass whose time is over."""
    (box.folder / "sitecustomize.py").write_text(WRITES_THAT_HANG)
    monkeypatch.setenv("PYTHONPATH", str(box.folder))
    bucket.put("prod/m/1.tar.gz", small_archive(tree, 1))
    staged = lambda: list((box.workspace / "staging").rglob("saved_model.pb"))  # noqa: E731
    with box.running() as process:
        box.until(staged, "a file in staging")
        process.terminate()
        assert process.wait(GRACE_SECONDS) == 0

    assert [event["in_time"] for event in box.events("agent_stopped")] == [False]
    done = box.call("sync", "--timeout", "5", timeout=30)
    assert done.returncode == 3
    assert "not in place: m (--timeout)" in done.stderr
