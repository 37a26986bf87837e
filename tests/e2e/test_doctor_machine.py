"""The doctor finds what is wrong with the disk, the lock and the model server, and leaves no trace."""

import errno
import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import as_nobody
import forked
import model_server_stub
from agent_box import AgentBox, digests_on_disk
from big_models import files_of, small_archive
from doctor_box import Ward, assert_says, failures
from fixtures_store import Bucket
from forked_server import ModelServer
from servesync import disk
from servesync.doctor import Finding
from servesync.doctor.probes import PROBE

SERVER_UID = 65533
BETWEEN_SECONDS = 0.5
"""A doctor who is asked again and again costs a processor a fifth of a second each time."""

AVAILABLE = ("AVAILABLE", "OK", "")
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="mount and other users need root")


@pytest.fixture
def ward(box: AgentBox, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Ward:
    """An agent in good health."""
    return Ward(box, bucket, monkeypatch)


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[None]:
    """Have something mounted on a folder; skip where that is not allowed."""
    done = subprocess.run(["mount", *options, str(folder)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"mount: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


# -- the models directory ----------------------------------------------------------------------------------


def test_a_models_directory_that_is_a_link(ward: Ward) -> None:
    """The directory behind it is named."""
    ward.box.models_dir.rmdir()
    (ward.box.folder / "real").mkdir()
    ward.box.models_dir.symlink_to("real")

    assert_says(ward.examined(), "disk.models_dir", "fail", "symbolic link", str(ward.box.folder / "real"))


def test_a_models_directory_that_is_a_file(ward: Ward) -> None:
    """It is no directory."""
    ward.box.models_dir.rmdir()
    ward.box.models_dir.touch()

    assert_says(ward.examined(), "disk.models_dir", "fail", "no directory")


def test_a_models_directory_that_is_not_there_yet(ward: Ward) -> None:
    """The agent makes it; but a volume may be missing."""
    ward.box.models_dir.rmdir()

    assert_says(ward.examined(), "disk.models_dir", "warn", "volume")


def test_a_models_directory_below_nothing(ward: Ward) -> None:
    """The agent makes one directory, not two."""
    ward.set("serving", models_dir=str(ward.box.folder / "volume" / "models"))

    assert_says(ward.examined(), "disk.models_dir", "fail", str(ward.box.folder / "volume"))


def test_a_directory_that_is_swept(ward: Ward) -> None:
    """Things in /tmp vanish."""
    ward.set("serving", models_dir="/tmp/servesync-doctor-is-never-made")

    assert_says(ward.examined(), "disk.models_dir", "warn", "/tmp", "swept")


@root_only
def test_a_read_only_mount(ward: Ward) -> None:
    """Nothing can be written there."""
    with mounted(ward.box.models_dir, "-t", "tmpfs", "-o", "ro", "none"):
        assert_says(ward.examined(), "disk.write", "fail", "Read-only", "remount it writable")


@root_only
def test_a_disk_in_memory(ward: Ward) -> None:
    """It works, and has its price."""
    with mounted(ward.box.models_dir, "-t", "tmpfs", "none"):
        findings = ward.examined()

    assert_says(findings, "disk.filesystem", "warn", "tmpfs", "count as memory")
    assert_says(findings, "disk.rename", "ok")


@root_only
def test_a_disk_that_is_too_small(ward: Ward) -> None:
    """Space and inodes are both told."""
    with mounted(ward.box.models_dir, "-t", "tmpfs", "-o", "size=8m,nr_inodes=200", "none"):
        ward.set("limits", disk_reserve_bytes=1 << 30)
        findings = ward.examined()

        assert_says(findings, "disk.space", "fail", "limits.disk_reserve_bytes", "no version fits")
        assert_says(findings, "disk.inodes", "warn", "inodes are free")

        ward.set("limits", disk_reserve_bytes=0)
        ward.bucket.put("prod/m/2.tar.gz", bytes(9 << 20))
        assert_says(ward.examined(), "disk.space", "fail", "the largest release has 9 MB packed")


@root_only
def test_no_inode_left(ward: Ward) -> None:
    """Space alone is not enough."""
    with mounted(ward.box.models_dir, "-t", "tmpfs", "-o", "nr_inodes=2", "none"):
        (ward.box.models_dir / "last").touch()

        assert_says(ward.examined(), "disk.inodes", "fail", "no inode is free")


@root_only
def test_a_layer_of_a_container(ward: Ward) -> None:
    """An overlay is gone with its container."""
    for name in ("lower", "upper", "work"):
        (ward.box.folder / name).mkdir()
    layers = ",".join(f"{name}dir={ward.box.folder / name}" for name in ("lower", "upper", "work"))
    with mounted(ward.box.models_dir, "-t", "overlay", "-o", layers, "overlay"):
        assert_says(ward.examined(), "disk.filesystem", "warn", "overlay", "mount a volume")


@pytest.mark.parametrize(
    ("effect", "number", "check", "words"),
    [
        ("sync_file", errno.EIO, "disk.sync", ["durable", "local filesystem"]),
        ("sync_dir", errno.EINVAL, "disk.sync", ["durable", "local filesystem"]),
        (
            "rename_noreplace",
            errno.EINVAL,
            "disk.rename",
            ["this filesystem cannot rename without replacing"],
        ),
        ("exchange", errno.EINVAL, "disk.rename", ["this filesystem cannot exchange", "ext4, xfs, btrfs"]),
    ],
)
def test_a_filesystem_that_cannot(effect: str, number: int, check: str, words: list[str], ward: Ward) -> None:
    """As NFS or a FUSE file system would answer; nothing is left of the attempt."""

    def refuse(*paths: Path) -> None:
        raise OSError(number, os.strerror(number), str(paths[0]))

    ward.monkeypatch.setattr(disk, effect, refuse)

    assert_says(ward.examined(), check, "fail", *words)
    assert list(ward.box.models_dir.iterdir()) == []


@root_only
def test_a_shelf_on_another_filesystem(ward: Ward) -> None:
    """A volume for each model: renames cannot work."""
    ward.box.shelf.mkdir()
    with mounted(ward.box.shelf, "-t", "tmpfs", "none"):
        assert_says(ward.examined(), "disk.rename", "fail", "another filesystem", "none below it")


@root_only
def test_a_shelf_that_is_bind_mounted(ward: Ward) -> None:
    """The same filesystem by its number, and yet no rename goes across."""
    ward.box.shelf.mkdir()
    (ward.box.folder / "elsewhere").mkdir()
    with mounted(ward.box.shelf, "--bind", str(ward.box.folder / "elsewhere")):
        assert ward.box.shelf.stat().st_dev == ward.box.models_dir.stat().st_dev
        assert_says(ward.examined(), "disk.rename", "fail", str(ward.box.shelf))


def test_names_that_the_server_takes_for_versions(ward: Ward) -> None:
    """A link, a file, a zero in front: all count for the server."""
    ward.box.shelf.mkdir()
    (ward.box.shelf / "0000007").mkdir()
    (ward.box.shelf / "9").touch()
    (ward.box.shelf / "3").mkdir()
    findings = ward.examined()

    assert_says(findings, "disk.shelf", "fail", "0000007", "9", "move them")
    assert_says(findings, "disk.shelf", "warn", "not put there by servesync: 3")


@root_only
@pytest.mark.skipif(not shutil.which("setpriv"), reason="no setpriv here")
def test_a_user_that_may_not_write(ward: Ward) -> None:
    """The user is named; the command's exit code says that something fails."""
    done = as_nobody.run(ward.box, "doctor", "--json")

    said = {item["id"]: item for item in json.loads(done.stdout)["findings"]}
    assert done.returncode == 3
    assert said["disk.write"]["level"] == "fail"
    assert f"uid {as_nobody.UID}" in said["disk.write"]["text"]
    assert "write permission" in said["disk.write"]["advice"]


@root_only
def test_a_workspace_of_another_user(ward: Ward) -> None:
    """What root can do says nothing about the agent."""
    ward.box.workspace.mkdir()
    os.chown(ward.box.workspace, 1234, 1234)

    assert_says(ward.examined(), "disk.owner", "warn", "uid 1234", "as the agent's user")


# -- the lock ----------------------------------------------------------------------------------------------


def test_another_agent_at_work(ward: Ward) -> None:
    """Its pid and its settings are told."""
    with ward.box.running() as agent:
        ward.box.until(lambda: ward.box.events("poll_finished"), "a poll")
        own = ward.examined()
        other = ward.box.folder / "other.yaml"
        other.write_text(ward.box.write_settings().read_text())
        findings = ward.examined_at(other)

    assert_says(own, "lock.holder", "ok", f"pid {agent.pid}")
    assert_says(findings, "lock.holder", "warn", f"pid {agent.pid}", "servesync.yaml", "serving.models_dir")


def test_the_doctor_takes_no_lock(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent that starts in the same instant must not find the lock held."""
    ward.box.workspace.mkdir()
    (ward.box.workspace / "lock").touch()

    def held(*_: object) -> None:
        raise AssertionError("a lock was taken")

    monkeypatch.setattr(fcntl, "flock", held)
    monkeypatch.setattr(fcntl, "lockf", held)

    assert_says(ward.examined(), "lock.holder", "ok", "no agent is at work")


def test_no_trace_beside_a_running_agent(ward: Ward, real_models: Path) -> None:
    """Ten doctors while an agent works: nothing is left, nothing is disturbed."""
    tree = files_of(real_models / "plain_module")
    ward.bucket.put("prod/m/1.tar.gz", small_archive(tree, 1))
    ward.set("poll", interval_seconds=1, jitter_seconds=0)
    with ward.box.running() as agent:
        ward.box.until(lambda: ward.box.numbers() == ["1"], "version 1")
        for number in range(10):
            if number == 5:
                ward.bucket.put("prod/m/2.tar.gz", small_archive(tree, 2))
            assert failures(ward.examined()) == []
        ward.box.until(lambda: ward.box.numbers() == ["2"], "version 2")
        assert agent.poll() is None
    everything = [path.name for path in ward.box.models_dir.rglob("*")]
    assert [name for name in everything if "doctor" in name] == []
    levels = {line["level"] for line in ward.box.events()}
    assert levels <= {"info", "debug"}, ward.box.log.read_text()


def test_an_idle_machine_stays_as_it_is(ward: Ward) -> None:
    """Nothing is made, not even the workspace."""
    ward.box.shelf.mkdir()
    (ward.box.shelf / "1").mkdir()
    (ward.box.shelf / "1" / "saved_model.pb").write_bytes(b"x")
    before = digests_on_disk(ward.box.models_dir)
    ward.examined()

    assert digests_on_disk(ward.box.models_dir) == before
    assert [path.name for path in ward.box.models_dir.iterdir()] == ["m"]


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that any user may enter; pytest closes its own at every start of another run."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


# -- the server --------------------------------------------------------------------------------------------


@contextmanager
def server(
    ward: Ward, answers: dict[str, dict[str, tuple[str, str, str]]], *flags: str, uid: int = 0
) -> Iterator[None]:
    """Run something that looks like a model server, and have the settings name it."""
    port = ModelServer.free_port()
    python = sys.executable if uid == 0 else "/usr/bin/python3"
    if not Path(python).exists():
        pytest.skip("no /usr/bin/python3 here that another user may run")
    script = shutil.copy(model_server_stub.__file__, ward.box.folder / "stub.py")
    command = ["tensorflow_model_server", str(script), str(port), str(uid), json.dumps(answers), *flags]
    ward.set("serving", rest_url=f"http://127.0.0.1:{port}")
    with subprocess.Popen(command, executable=python, stdout=subprocess.PIPE) as process:
        assert process.stdout
        try:
            assert process.stdout.readline() == b"listening\n"
            yield
        finally:
            process.kill()


def on_the_shelf(ward: Ward, *versions: int) -> None:
    """Put directories on the shelf that have been there for long."""
    for version in versions:
        folder = ward.box.shelf / str(version)
        folder.mkdir(parents=True)
        (folder / "saved_model.pb").write_bytes(b"x")


def until_told(ward: Ward, check: str, *, is_told: bool = True) -> list[Finding]:
    """Ask the doctor until it says something of a check: what is new on the shelf is given some time.

    `is_told` False: until it says nothing of it any more.
    """
    found: list[Finding] = []

    def told() -> bool:
        time.sleep(BETWEEN_SECONDS)
        found[:] = ward.examined()
        return is_told is (check in {item.check.value for item in found})

    ward.box.until(told, check)
    return found


def test_a_server_that_fits(ward: Ward) -> None:
    """Every check of it is good."""
    on_the_shelf(ward, 1)
    flags = ("--max_num_load_retries=0", "--model_config_file=/etc/models.config")
    with server(ward, {"m": {"1": AVAILABLE}}, *flags):
        findings = ward.examined()

    for check in ("server.answer", "server.model", "server.flags", "disk.readable"):
        assert_says(findings, check, "ok")


def test_no_server_and_nothing_on_the_shelf(ward: Ward) -> None:
    """That is how it begins."""
    ward.set("serving", rest_url="http://127.0.0.1:9")

    assert_says(ward.examined(), "server.answer", "warn", "no version is on the shelf yet")


def test_no_server_though_there_is_something_to_serve(ward: Ward) -> None:
    """Then it should answer."""
    on_the_shelf(ward, 1)
    ward.set("serving", rest_url="http://127.0.0.1:9")

    assert_says(ward.examined(), "server.answer", "fail", "--rest_api_port")


def test_something_else_at_the_port(ward: Ward) -> None:
    """The store is no model server."""
    ward.set("serving", rest_url=ward.box.endpoint_url)

    assert_says(ward.examined(), "server.answer", "fail", "REST port", "another service")


def test_https_where_the_server_speaks_none(ward: Ward) -> None:
    """The scheme is wrong."""
    with server(ward, {}):
        ward.set("serving", rest_url=ward.box.overrides["serving"]["rest_url"].replace("http", "https"))

        assert_says(ward.examined(), "server.answer", "fail", "write http://")


def test_a_model_that_the_server_does_not_know(ward: Ward) -> None:
    """It has to be told."""
    on_the_shelf(ward, 1)
    with server(ward, {"other": {"1": AVAILABLE}}):
        assert_says(
            ward.examined(), "server.model", "fail", "knows no m", "models.config", str(ward.box.shelf)
        )


def test_a_server_that_scans_another_directory(ward: Ward) -> None:
    """It serves what is not on the shelf."""
    on_the_shelf(ward, 1)
    with server(ward, {"m": {"5": AVAILABLE}}):
        assert_says(ward.examined(), "server.base_path", "fail", "serves 5", f"is not {ward.box.shelf}")


def test_a_server_that_keeps_to_latest(ward: Ward) -> None:
    """The settings say all."""
    on_the_shelf(ward, 1, 2)
    with server(ward, {"m": {"2": AVAILABLE, "1": ("END", "OK", "")}}):
        findings = until_told(ward, "server.policy")
        assert_says(findings, "server.policy", "fail", "leaves out 1", "all {}", "version_policy: latest")

        ward.set("serving", version_policy="latest")
        assert "server.policy" not in {item.check.value for item in ward.examined()}


def test_a_server_that_scans_a_copy(ward: Ward) -> None:
    """A version above all that it serves: that is no matter of policy."""
    on_the_shelf(ward, 1, 2)
    with server(ward, {"m": {"1": AVAILABLE}}):
        findings = until_told(ward, "server.base_path")

    assert_says(findings, "server.base_path", "fail", "has not seen 2", "no copy of it")
    assert "server.policy" not in {item.check.value for item in findings}


def test_a_version_that_the_server_refused(ward: Ward) -> None:
    """With the server's own words."""
    on_the_shelf(ward, 1, 2)
    with server(ward, {"m": {"2": ("END", "NOT_FOUND", "Op type not registered"), "1": AVAILABLE}}):
        assert_says(
            ward.examined(), "server.version", "fail", "m 2", "Op type not registered", "higher number"
        )


@pytest.mark.parametrize(
    ("flag", "check", "level", "words"),
    [
        ("--file_system_poll_wait_seconds=0", "server.flags", "fail", ["never scans", "set it to 1"]),
        ("--file_system_poll_wait_seconds=60", "server.flags", "warn", ["1 is the usual"]),
        ("--port=8500", "server.flags", "warn", ["tries a version that it cannot load 6 times", "=0"]),
        ("--model_name=n", "server.model", "fail", ["--model_name=n", "--model_name=m"]),
        ("--model_name=m", "server.base_path", "fail", ["/elsewhere", "--model_base_path="]),
        ("--model_name=m", "server.policy", "warn", ["means the policy latest", "models.config"]),
    ],
)
def test_flags_of_the_server(flag: str, check: str, level: str, words: list[str], ward: Ward) -> None:
    """Its command line is read where it can be seen."""
    on_the_shelf(ward, 1)
    base_path = ["--model_base_path=/elsewhere"] if flag.startswith("--model_name") else []
    with server(ward, {"m": {"1": AVAILABLE}}, flag, *base_path):
        assert_says(ward.examined(), check, level, *words)


def test_a_server_that_has_the_directory_elsewhere(ward: Ward) -> None:
    """The base paths that the agent would write are compared with what the server sees there."""
    on_the_shelf(ward, 1)
    elsewhere = ward.box.folder / "elsewhere"
    elsewhere.mkdir()
    config = ward.box.models_dir / "models.config"
    ward.set("serving", config_file=str(config), server_models_dir=str(elsewhere))
    with server(ward, {"m": {}}, "--max_num_load_retries=0"):
        findings = ward.examined()
        assert_says(findings, "server.base_path", "fail", str(elsewhere), "set serving.server_models_dir")
        assert_says(findings, "server.model", "fail", f"with the base path {elsewhere / 'm'}")

        elsewhere.rmdir()
        elsewhere.symlink_to(ward.box.models_dir)
        assert "server.base_path" not in {item.check.value for item in ward.examined()}


@root_only
@pytest.mark.parametrize(
    ("close", "path"),
    [
        (lambda box: box.models_dir.chmod(0o700), "models"),
        (lambda box: (box.shelf / "1").chmod(0o700), "models/m/1"),
        (lambda box: (box.shelf / "1" / "saved_model.pb").chmod(0o600), "models/m/1/saved_model.pb"),
    ],
)
def test_a_server_that_cannot_read(
    close: Callable[[AgentBox], None], path: str, ward: Ward, open_folder: Path
) -> None:
    """Its user is found by its port, and every step of the way is looked at."""
    ward.box.folder = open_folder
    on_the_shelf(ward, 1)
    with server(ward, {"m": {"1": AVAILABLE}}, uid=SERVER_UID):
        assert_says(ward.examined(), "disk.readable", "ok", f"uid {SERVER_UID}")
        close(ward.box)
        words = (f"uid {SERVER_UID}", str(ward.box.folder / path), "chmod o+r")

        assert_says(ward.examined(), "disk.readable", "fail", *words)


def test_a_server_that_is_not_to_be_seen(ward: Ward) -> None:
    """Only a warning: its user may be of the group."""
    on_the_shelf(ward, 1)
    ward.box.models_dir.chmod(0o750)

    assert_says(ward.examined(), "disk.readable", "warn", "mode 750", "fsGroup")


def test_with_a_server_that_scans_the_shelf(ward: Ward, real_models: Path) -> None:
    """The stand-in, or a real one: first with the policy latest, then with all."""
    for version in (1, 2):
        shutil.copytree(real_models / "plain_module", ward.box.shelf / str(version))
    config = ward.box.folder / "models.config"
    model = f'name: "m" base_path: "{ward.box.shelf}" model_platform: "tensorflow"'
    config.write_text(f"model_config_list {{ config {{ {model} }} }}")
    with ModelServer(config, ward.box.folder / "server.log") as running:
        ward.set("serving", rest_url=running.url)
        running.wait_ready(60)
        findings = until_told(ward, "server.policy")
        assert_says(findings, "server.policy", "fail", "leaves out 1", "serves 2")
        assert_says(findings, "server.answer", "ok")

        config.write_text(f"model_config_list {{ config {{ {model} model_version_policy {{ all {{}} }} }} }}")
        running.restart()
        running.wait_ready(60)
        until_told(ward, "server.policy", is_told=False)
        assert_says(ward.examined(), "server.model", "ok", "serves 1, 2")


# -- the command -------------------------------------------------------------------------------------------


def test_the_command(ward: Ward) -> None:
    """Plain lines when nobody watches, one JSON object with --json, and an exit code for scripts."""
    healthy = ward.box.call("doctor")
    ward.set("store", url=f"s3://{ward.bucket.name}/pord")
    failing = ward.box.call("doctor", "--json")
    ward.set("poll", interval_seconds=0)
    unusable = ward.box.call("doctor")

    assert (healthy.returncode, failing.returncode, unusable.returncode) == (0, 3, 2)
    assert "\x1b" not in healthy.stdout
    assert "ok    store.list" in healthy.stdout
    assert healthy.stdout.splitlines()[-1].endswith("0 fail")
    found = json.loads(failing.stdout)
    assert found["exit_code"] == 3
    assert (
        found["counts"]["fail"] == len([item for item in found["findings"] if item["level"] == "fail"]) == 1
    )
    assert "fail  settings.file" in unusable.stdout
    secret = ward.bucket.server.secret_key
    assert all(secret not in done.stdout + done.stderr for done in (healthy, failing, unusable))


def test_on_a_terminal(ward: Ward) -> None:
    """In colour; what a server says cannot steer the terminal."""
    on_the_shelf(ward, 1)
    with server(ward, {"m": {"1": ("END", "INTERNAL", "bad\x1b[2J\nfail  all of it")}}):
        colours = ward.box.environment() | {"FORCE_COLOR": "1"}
        done = forked.call(ward.box.command("doctor"), colours, 120)

    assert "\x1b[1;31mfail\x1b[0m  server.version" in done.stdout
    assert "\x1b[2J" not in done.stdout
    assert "bad [2J fail  all of it" in done.stdout


def test_what_a_killed_doctor_left(ward: Ward) -> None:
    """The next one removes it, an hour later; what is younger may be another doctor's."""
    ward.box.workspace.mkdir()
    left = ward.box.workspace / f"{PROBE}0123"
    left.mkdir()
    ward.examined()
    assert left.exists()

    ward.monkeypatch.setattr("time.time", lambda: left.stat().st_ctime + 3601)
    ward.examined()
    assert not left.exists()
