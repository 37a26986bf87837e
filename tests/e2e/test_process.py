"""The process as its operator knows it: signals, exit codes, the lock, edits by hand."""

import contextlib
import json
import os
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest
import yaml

import archives
from agent_box import AgentBox, digests, digests_on_disk
from big_models import files_of, small_archive
from fixtures_store import Bucket

GRACE_SECONDS = 10


@pytest.fixture
def tree(real_models: Path) -> dict[str, bytes]:
    """The files of a good model."""
    return files_of(real_models / "plain_module")


def refused(box: AgentBox, version: int) -> list[str]:
    """Return the reasons for which a version was refused."""
    return [line["reason"] for line in box.events("version_refused") if line["version"] == version]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_while_idle(number: int, box: AgentBox, bucket: Bucket, tree: dict[str, bytes]) -> None:
    """Exit code 0, what was installed stays, and the lock is free again."""
    bucket.put("prod/m/1.tar.gz", small_archive(tree, 1))
    with box.running() as process:
        box.until(lambda: box.numbers() == ["1"])
        process.send_signal(number)
        assert process.wait(GRACE_SECONDS) == 0

    assert box.events("agent_stopped")[0]["because"] == signal.Signals(number).name
    assert box.numbers() == ["1"]
    assert box.call("sync").returncode == 0


def test_a_stop_in_the_middle_of_a_download(box: AgentBox, bucket: Bucket, tree: dict[str, bytes]) -> None:
    """Nothing of the half version is visible, and the next start is not disturbed by it."""
    big = tree | {"assets/weights.bin": os.urandom(20 << 20)}
    bucket.put("prod/m/1.tar.gz", small_archive(big, 1))
    box.overrides = {"fetch": {"max_bytes_per_second": 1 << 20}}
    with box.running() as process:
        box.until(lambda: [*(box.workspace / "staging").glob("*/tree/*")], "the download to begin")
        process.terminate()
        assert process.wait(GRACE_SECONDS) == 0
    assert box.numbers() == []

    box.overrides = {}
    assert box.call("sync").returncode == 0
    assert digests_on_disk(box.shelf / "1") == digests(big)
    assert box.leftovers() == []


def test_usr1_syncs_at_once(box: AgentBox, bucket: Bucket, tree: dict[str, bytes]) -> None:
    """An hour's interval does not matter then."""
    box.overrides = {"poll": {"interval_seconds": 3600}}
    with box.running() as process:
        box.until(lambda: box.events("poll_finished"))
        bucket.put("prod/m/1.tar.gz", small_archive(tree, 1))
        process.send_signal(signal.SIGUSR1)
        box.until(lambda: box.numbers() == ["1"], "version 1")


def test_settings_are_reloaded_or_kept(box: AgentBox, bucket: Bucket, tree: dict[str, bytes]) -> None:
    """A bad file is rejected with its mistake, a good one is taken; with and without a signal."""
    bucket.put("prod/m/1.tar.gz", small_archive(tree, 1))
    bucket.put("prod/other/5.tar.gz", small_archive(tree, 5))
    with box.running() as process:
        box.until(lambda: box.numbers() == ["1"])
        box.overrides = {"poll": {"intervall": 5}}
        box.write_settings()
        process.send_signal(signal.SIGHUP)
        box.until(lambda: box.events("settings_rejected"), "settings_rejected")
        assert "poll.intervall: unknown key" in box.events("settings_rejected")[0]["because"]
        assert process.poll() is None

        process.send_signal(signal.SIGHUP)
        box.until(lambda: len(box.events("settings_rejected")) > 1, "SIGHUP is answered each time")

        box.overrides = {}
        box.models.append({"name": "other"})
        box.write_settings()
        box.until(lambda: box.events("settings_reloaded"), "settings_reloaded, noticed without a signal")
        assert box.events("settings_reloaded")[0]["changed"] == ["models"]
        process.send_signal(signal.SIGHUP)
        box.until(lambda: len(box.events("settings_reloaded")) > 1, "SIGHUP without a change is answered")
        assert box.events("settings_reloaded")[1]["changed"] == []
        box.until((box.models_dir / "other/5").is_dir, "the new model")
        assert box.numbers() == ["1"]


def test_a_second_agent_exits_4_and_names_the_first(box: AgentBox, bucket: Bucket) -> None:
    """Whichever command it is."""
    with box.running() as process:
        box.until(lambda: box.events("poll_finished"))
        for command in ("run", "sync"):
            second = box.call(command)
            assert second.returncode == 4
            assert f"pid {process.pid}" in second.stderr
        assert box.call("plan").returncode == 0


def test_sync_says_what_is_not_in_place(box: AgentBox, bucket: Bucket, tree: dict[str, bytes]) -> None:
    """Exit code 3 for a required model without a version; 0 when it is there, or not required."""
    assert box.call("sync").returncode == 3
    box.models = [{"name": "m", "required": False}]
    assert box.call("sync").returncode == 0
    box.models = [{"name": "m"}]
    bucket.put("prod/m/1.tar.gz", small_archive(tree, 1))
    assert box.call("sync").returncode == 0


def test_mistakes_in_the_settings_exit_2(box: AgentBox) -> None:
    """File, line, key, and what is allowed; a missing file and a wrong option, too."""
    box.overrides = {"poll": {"interval_seconds": 0}}
    for command in ("run", "sync", "plan"):
        done = box.call(command)
        assert done.returncode == 2
        assert "poll.interval_seconds" in done.stderr
        assert "greater than or equal to 1" in done.stderr
    assert box.call("sync", "--no-such-option").returncode == 2


def test_plan_changes_nothing(box: AgentBox, bucket: Bucket, tree: dict[str, bytes]) -> None:
    """Not even the models directory is made; every version has its reason."""
    bucket.put("prod/m/1.tar.gz", small_archive(tree, 1))
    bucket.put("prod/m/2.tar.gz", small_archive(tree, 2))

    versions = box.plan()["models"]["m"]["versions"]

    assert not box.models_dir.exists()
    assert {number: item["state"] for number, item in versions.items()} == {
        "1": "not_wanted",
        "2": "to_install",
    }
    assert all(item["why"] for item in versions.values())


def test_a_version_removed_by_hand_comes_back(box: AgentBox, bucket: Bucket, tree: dict[str, bytes]) -> None:
    """The shelf is watched: an hour's poll interval does not matter."""
    box.overrides = {"poll": {"interval_seconds": 3600}}
    bucket.put("prod/m/1.tar.gz", small_archive(tree, 1))
    with box.running():
        box.until(lambda: box.events("version_installed"))
        shutil.rmtree(box.shelf / "1")
        box.until(lambda: box.events("version_restored"), "version_restored")

        assert digests_on_disk(box.shelf / "1") == digests(tree)


def test_a_folder_that_was_removed_is_watched_again(
    box: AgentBox, bucket: Bucket, tree: dict[str, bytes]
) -> None:
    """A model's folder that comes back is another one: what is removed from it is noticed at once, too."""
    box.overrides = {"poll": {"interval_seconds": 3600}}
    bucket.put("prod/m/1.tar.gz", small_archive(tree, 1))
    with box.running():
        box.until(lambda: box.events("version_installed"))
        shutil.rmtree(box.shelf)
        box.until(lambda: box.events("version_restored"), "the folder with its version")
        time.sleep(1)
        shutil.rmtree(box.shelf / "1")
        box.until(lambda: len(box.events("version_restored")) > 1, "the version in the new folder", 60)

    assert digests_on_disk(box.shelf / "1") == digests(tree)


def test_a_version_that_vanishes_piece_by_piece_comes_back(
    box: AgentBox, bucket: Bucket, tree: dict[str, bytes]
) -> None:
    """First damaged, then gone while its repair is under way: no pause is needed."""
    box.overrides = {"poll": {"interval_seconds": 3600}, "fetch": {"max_bytes_per_second": 4 << 20}}
    big = tree | {"assets/weights.bin": os.urandom(4 << 20)}
    bucket.put("prod/m/1.tar.gz", small_archive(big, 1))
    with box.running():
        box.until(lambda: box.events("version_installed"))
        (box.shelf / "1/saved_model.pb").unlink()
        box.until(lambda: box.events("version_damaged"))
        shutil.rmtree(box.shelf / "1")
        box.until(lambda: box.events("version_restored"), "version_restored")

    assert box.events("action_failed") == []
    assert digests_on_disk(box.shelf / "1") == digests(big)


def test_a_damaged_version_is_swapped_and_never_absent(
    box: AgentBox, bucket: Bucket, tree: dict[str, bytes]
) -> None:
    """During the repair the number is there at every look."""
    bucket.put("prod/m/1.tar.gz", small_archive(tree, 1))
    absent = []
    end = threading.Event()

    def watch() -> None:
        while not end.is_set():
            if "1" not in box.numbers():
                absent.append(time.monotonic())

    with box.running():
        box.until(lambda: box.events("version_installed"))
        watcher = threading.Thread(target=watch)
        watcher.start()
        (box.shelf / "1/saved_model.pb").write_bytes(b"broken by hand")
        box.until(lambda: box.events("version_restored"), "version_restored")
        end.set()
        watcher.join()

    assert absent == []
    assert box.events("version_damaged")
    assert digests_on_disk(box.shelf / "1") == digests(tree)


def test_bytes_that_the_disk_has_forgotten_are_found_and_repaired(
    box: AgentBox, bucket: Bucket, tree: dict[str, bytes]
) -> None:
    """No time stamp tells of it: the scrub reads the disk, and the version is swapped for a good one."""
    bucket.put("prod/m/1.tar.gz", small_archive(tree, 1))
    bucket.put("prod/m/2.tar.gz", small_archive(tree, 2))
    box.models = [{"name": "m", "versions": {"all": True}}]
    assert box.call("sync").returncode == 0
    file = box.shelf / "1/saved_model.pb"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    forge_stamp(box.workspace / "records/m/1.json", file)
    assert box.plan()["models"]["m"]["versions"]["1"]["state"] == "serving"

    box.overrides = {"scrub": {"interval_hours": 0.001}}
    time.sleep(3.7)
    with box.running():
        box.until(lambda: box.events("version_restored"), "version_restored")
        box.until(lambda: box.events("version_scrubbed"), "the other version, found good")

    assert box.events("version_doubted")[0]["version"] == 1
    assert digests_on_disk(box.shelf / "1") == digests(tree)


def forge_stamp(record: Path, file: Path) -> None:
    """Make a record believe that a file is as it was: the state in which a disk leaves what it forgets."""
    found = json.loads(record.read_text())
    status = file.stat()
    stamp = [status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]
    found["stamps"][file.name] = stamp
    record.write_text(json.dumps(found))


def test_a_directory_is_taken_once_it_has_settled(
    box: AgentBox, bucket: Bucket, tree: dict[str, bytes]
) -> None:
    """Objects of one directory, an empty one among them; before that, plan says what it waits for."""
    for name, data in (tree | {"assets/empty.txt": b""}).items():
        bucket.put(f"prod/m/7/{name}", data)
    waiting = box.plan()["models"]["m"]["versions"]["7"]
    assert "has not changed for" in waiting["why"]

    assert box.call("sync").returncode == 0
    assert digests_on_disk(box.shelf / "7") == digests(tree | {"assets/empty.txt": b""})


def test_a_hostile_archive_is_refused_once(box: AgentBox, bucket: Bucket, tree: dict[str, bytes]) -> None:
    """Refused with its reason, not fetched again while it stays, and taken when it has become good."""
    link = archives.link("0000002/l", "/etc/passwd")
    bucket.put("prod/m/1.tar.gz", small_archive(tree, 1))
    bucket.put("prod/m/2.tar.gz", archives.gz(archives.tar(link)))
    with box.running():
        box.until(lambda: refused(box, 2), "version_refused")
        box.until(lambda: box.numbers() == ["1"], "the next good one")
        polls = len(box.events())
        time.sleep(2.5)
        assert refused(box, 2) == ["archive_link"]
        assert len(box.events("version_fetched")) == 1, polls
    with box.running():
        box.until(lambda: len(box.events("agent_started")) == 2)
        time.sleep(1.5)
        assert refused(box, 2) == ["archive_link"]
        assert "archive_link" in box.plan()["models"]["m"]["versions"]["2"]["why"]

        bucket.put("prod/m/2.tar.gz", small_archive(tree, 2))
        box.until(lambda: box.numbers() == ["2"], "version 2")
        box.until(lambda: box.leftovers() == [], "the trash to be emptied")


def test_a_foreign_version_is_taken_over_if_it_is_the_same(
    box: AgentBox, bucket: Bucket, tree: dict[str, bytes], real_models: Path
) -> None:
    """Who comes from a home-made loop keeps what is there; other bytes are left alone and named."""
    shutil.copytree(real_models / "plain_module", box.shelf / "1")
    (box.shelf / "3").mkdir()
    for version in (1, 3):
        bucket.put(f"prod/m/{version}.tar.gz", small_archive(tree, version))
    box.models = [{"name": "m", "versions": {"all": True}}]

    box.call("sync")

    versions = box.plan()["models"]["m"]["versions"]
    assert versions["1"]["state"] == "serving"
    assert versions["3"]["state"] == "foreign"
    assert "version_foreign" in versions["3"]["why"]
    assert list((box.shelf / "3").iterdir()) == []


def test_a_name_that_the_server_takes_for_a_number_is_never_doubled(
    box: AgentBox, bucket: Bucket, tree: dict[str, bytes]
) -> None:
    """`0000001` and a file `2` are versions to the server: theirs are not fetched, and plan says why."""
    (box.shelf / "0000001").mkdir(parents=True)
    (box.shelf / "2").write_text("a file")
    box.models = [{"name": "m", "versions": {"all": True}}]
    for version in (1, 2, 3):
        bucket.put(f"prod/m/{version}.tar.gz", small_archive(tree, version))

    done = box.call("sync")

    assert done.returncode == 0, done.stderr
    assert box.numbers() == ["0000001", "2", "3"]
    assert done.stdout.count('"event": "version_fetched"') == 1
    versions = box.plan()["models"]["m"]["versions"]
    assert "0000001" in versions["1"]["why"]
    assert "move it away" in versions["2"]["why"]


def test_a_refusal_ends_with_what_caused_it(box: AgentBox, bucket: Bucket, tree: dict[str, bytes]) -> None:
    """A limit is raised, a foreign directory is moved away: the release is tried again."""
    bucket.put("prod/m/1.tar.gz", small_archive(tree, 1))
    box.overrides = {"limits": {"disk_reserve_bytes": 0, "max_members": 2}}
    assert box.call("sync").returncode == 3
    assert "archive_too_many_members" in box.plan()["models"]["m"]["versions"]["1"]["why"]

    box.overrides = {}
    (box.shelf / "1").mkdir()
    assert box.call("sync").returncode == 3
    assert box.plan()["models"]["m"]["versions"]["1"]["state"] == "foreign"

    (box.shelf / "1").rmdir()
    assert box.call("sync").returncode == 0
    assert digests_on_disk(box.shelf / "1") == digests(tree)


def test_a_half_uploaded_directory_is_taken_only_by_a_later_listing(
    box: AgentBox, bucket: Bucket, tree: dict[str, bytes]
) -> None:
    """The poll comes once an hour: the settling asks the store by itself, and a change starts it anew."""
    box.overrides = {"poll": {"interval_seconds": 3600}, "store": {"settle_seconds": 2}}
    names = sorted(tree)
    for name in names[:-1]:
        bucket.put(f"prod/m/7/{name}", tree[name])
    assert "saved_model.pb" in names[:-1]
    with box.running():
        box.until(lambda: box.events("poll_finished"), "the first listing")
        bucket.put(f"prod/m/7/{names[-1]}", tree[names[-1]])
        box.until(lambda: box.numbers() == ["7"], "version 7")

    assert digests_on_disk(box.shelf / "7") == digests(tree)


def test_sync_does_not_wait_for_a_directory_that_nobody_wants(
    box: AgentBox, bucket: Bucket, tree: dict[str, bytes]
) -> None:
    """An older one that settles for an hour changes nothing about the newest."""
    box.overrides = {"store": {"settle_seconds": 3600}}
    for name, data in tree.items():
        bucket.put(f"prod/m/1/{name}", data)
    bucket.put("prod/m/2.tar.gz", small_archive(tree, 2))

    assert box.call("sync", "--timeout", "30").returncode == 0
    assert box.numbers() == ["2"]


@pytest.mark.parametrize("policy", ["warn", "refuse", "allow"])
def test_a_graph_that_reads_files_is_named(
    policy: str, box: AgentBox, bucket: Bucket, unsafe_models: Path
) -> None:
    """Installed with a warning, refused, or taken without a word, as the settings say."""
    bucket.put("prod/m/1.tar.gz", small_archive(files_of(unsafe_models / "read_file"), 1))
    box.overrides = {"verify": {"unsafe_ops": policy}}

    done = box.call("sync")

    assert box.numbers() == ([] if policy == "refuse" else ["1"])
    assert ("ReadFile" in done.stdout) == (policy != "allow")
    assert ('"event": "unsafe_operations"' in done.stdout) == (policy == "warn")
    assert ('"reason": "unsafe_operations"' in done.stdout) == (policy == "refuse")


def with_golden(tree: dict[str, bytes], answer: float) -> dict[str, bytes]:
    """Return a model of 50 inputs that carries the request for zeros, and what it should answer."""
    request = {"inputs": {"x": [[0.0] * 50]}, "outputs": {"y": [[answer] * 20]}}
    golden = {"schema": "servesync.golden/1", "requests": [request]}
    return tree | {"assets.extra/servesync_golden.json": json.dumps(golden).encode()}


def test_a_version_is_tried_before_it_is_installed(
    box: AgentBox, bucket: Bucket, tree: dict[str, bytes]
) -> None:
    """With `load`, TensorFlow loads it and it answers its golden requests; a wrong answer keeps it out."""
    bucket.put("prod/m/1.tar.gz", small_archive(with_golden(tree, 0.0), 1))
    bucket.put("prod/m/2.tar.gz", small_archive(with_golden(tree, 7.0), 2))
    box.overrides = {"verify": {"level": "load"}}

    done = box.call("sync")

    assert done.returncode == 0, done.stderr
    assert box.numbers() == ["1"]
    assert '"golden_requests": 1' in done.stdout
    assert '"reason": "golden_differs"' in done.stdout


def test_signatures_are_those_that_clients_rely_on(
    box: AgentBox, bucket: Bucket, tree: dict[str, bytes], real_models: Path
) -> None:
    """Named in the settings, or as served now; another wish tries a refused version again."""
    other = files_of(real_models / "keras_export")
    bucket.put("prod/m/1.tar.gz", small_archive(tree, 1))
    bucket.put("prod/m/2.tar.gz", small_archive(other, 2))
    signature = {
        "inputs": {"x": {"dtype": "float32", "shape": [None, 50]}},
        "outputs": {"y": {"dtype": "float32"}},
    }
    box.models = [{"name": "m", "signatures": {"serving_default": signature}}]

    named = box.call("sync")
    assert '"reason": "signature_differs"' in named.stdout
    assert box.numbers() == ["1"]

    box.models = [{"name": "m", "signatures": "as_served"}]
    served = box.call("sync")
    assert '"reason": "signature_differs"' in served.stdout
    assert "as served now" in served.stdout
    assert box.numbers() == ["1"]

    box.models = [{"name": "m"}]
    assert box.call("sync").returncode == 0
    assert box.numbers() == ["2"]


def test_a_machine_without_tensorflow_says_so_at_once(box: AgentBox, tmp_path: Path) -> None:
    """Exit code 2, and what to install; the other levels do not need it."""
    import subprocess  # noqa: PLC0415

    hidden = tmp_path / "hidden/sitecustomize.py"
    hidden.parent.mkdir()
    hidden.write_text(
        "import importlib.util as u, functools\n"
        "find = u.find_spec\n"
        "u.find_spec = lambda name, *more: None if name == 'tensorflow' else find(name, *more)\n"
    )
    box.overrides = {"verify": {"level": "load"}}
    environment = box.environment() | {"PYTHONPATH": str(hidden.parent)}
    done = subprocess.run(
        box.command("run"), env=environment, capture_output=True, text=True, check=False, timeout=60
    )

    assert done.returncode == 2
    assert "servesync[tensorflow]" in done.stderr


def test_a_rollback_needs_no_store(box: AgentBox, bucket: Bucket, tree: dict[str, bytes]) -> None:
    """The old version lies ready: with the store out of reach, a pin brings it back, unfetched."""
    newer = tree | {"assets/more.txt": b"more"}
    bucket.put("prod/m/1.tar.gz", small_archive(tree, 1))
    assert box.call("sync").returncode == 0
    bucket.put("prod/m/2.tar.gz", small_archive(newer, 2))
    assert box.call("sync").returncode == 0
    assert box.numbers() == ["2"]
    assert box.plan()["models"]["m"]["versions"]["1"]["state"] == "reserved"

    box.endpoint_url = "http://127.0.0.1:9"
    box.models = [{"name": "m", "versions": {"pin": [1]}}]
    done = box.call("sync")

    assert "version_fetched" not in done.stdout
    assert '"event": "version_restored"' in done.stdout
    assert "1" in box.numbers()
    assert digests_on_disk(box.shelf / "1") == digests(tree)
    assert not (box.workspace / "reserve/m/1").exists()


def test_the_reserve_gives_way_to_a_new_version(
    box: AgentBox, bucket: Bucket, tree: dict[str, bytes]
) -> None:
    """And nothing is kept if the settings say so."""
    for version in (1, 2):
        bucket.put(f"prod/m/{version}.tar.gz", small_archive(tree, version))
        assert box.call("sync").returncode == 0
    assert (box.workspace / "reserve/m/1").exists()

    box.overrides = {"limits": {"disk_reserve_bytes": 1 << 42}}
    bucket.put("prod/m/3.tar.gz", small_archive(tree, 3))
    done = box.call("sync", "--timeout", "15")  # a full disk may pass: it is waited for
    assert done.returncode == 3
    assert '"event": "reserve_gave_way"' in done.stdout
    assert '"reason": "disk_full"' in done.stdout
    assert box.numbers() == ["2"]
    assert not (box.workspace / "reserve/m/1").exists()

    box.overrides = {"reserve": {"keep": 0}}
    assert box.call("sync").returncode == 0
    assert box.numbers() == ["3"]
    assert not (box.workspace / "reserve/m/2").exists()


def test_the_log_is_json_and_may_be_closed(box: AgentBox, bucket: Bucket, tree: dict[str, bytes]) -> None:
    """A log pipe that breaks does not end the agent."""
    import subprocess  # noqa: PLC0415

    with subprocess.Popen(box.command("run"), env=box.environment(), stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert b'"event": "agent_started"' in process.stdout.readline()
        process.stdout.close()
        bucket.put("prod/m/1.tar.gz", small_archive(tree, 1))
        box.until(lambda: box.numbers() == ["1"], "version 1, with nobody reading the log")
        process.terminate()
        assert process.wait(GRACE_SECONDS) == 0


def test_a_log_that_nobody_reads_stops_nothing(box: AgentBox, bucket: Bucket, tree: dict[str, bytes]) -> None:
    """The pipe is full: versions are brought all the same, and SIGTERM ends the agent in time."""
    import subprocess  # noqa: PLC0415

    box.overrides = {"log": {"level": "debug"}}
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, b"x" * 4096)
    os.set_blocking(writer, True)
    with subprocess.Popen(
        box.command("run"), env=box.environment(), stdout=writer, stderr=subprocess.DEVNULL
    ) as process:
        bucket.put("prod/m/1.tar.gz", small_archive(tree, 1))
        box.until(lambda: box.numbers() == ["1"], "version 1, though the log is stuck")
        process.terminate()
        assert process.wait(GRACE_SECONDS) == 0
    os.close(reader)
    os.close(writer)


def test_closed_standard_streams_do_no_harm(box: AgentBox, bucket: Bucket, tree: dict[str, bytes]) -> None:
    """Started with `<&- >&- 2>&-`, no file of ours becomes the standard output."""
    import subprocess  # noqa: PLC0415

    bucket.put("prod/m/1.tar.gz", small_archive(tree, 1))
    command = ["/bin/sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *box.command("sync")]
    assert subprocess.run(command, env=box.environment(), check=False, timeout=60).returncode == 0

    assert digests_on_disk(box.shelf / "1") == digests(tree)
    assert box.call("plan").returncode == 0


def test_secrets_are_in_no_output(box: AgentBox, bucket: Bucket, tree: dict[str, bytes]) -> None:
    """Key and secret are planted, the log is at debug, and the store refuses: no trace of them."""
    box.access_key, box.secret_key = "AKIACANARYCANARY0001", "canary/secret+canary"
    box.overrides = {"log": {"level": "debug"}}
    done = box.call("sync", "--timeout", "20")
    shown = done.stdout + done.stderr + box.call("plan").stdout + yaml.safe_dump(box.events())

    assert done.returncode == 3
    assert "canary/secret" not in shown
    assert "CANARYCANARY" not in shown
    assert "Signature=" not in shown


def test_a_terminal_gets_a_bar_and_a_pipe_gets_lines(
    box: AgentBox, bucket: Bucket, tree: dict[str, bytes]
) -> None:
    """The bar goes to the terminal on standard error, the log stays whole on standard output."""
    import pty  # noqa: PLC0415
    import subprocess  # noqa: PLC0415

    bucket.put("prod/m/1.tar.gz", small_archive(tree | {"assets/weights.bin": os.urandom(3 << 20)}, 1))
    box.overrides = {"fetch": {"max_bytes_per_second": 2 << 20}}
    master, slave = pty.openpty()
    environment = box.environment() | {"TERM": "xterm", "COLUMNS": "100"}
    with subprocess.Popen(
        box.command("sync"), env=environment, stdout=subprocess.PIPE, stderr=slave, text=True
    ) as process:
        os.close(slave)
        log, _ = process.communicate(timeout=60)
    shown = os.read(master, 1 << 16).decode(errors="replace")
    os.close(master)

    assert process.returncode == 0
    assert "m 1" in shown
    assert "MB/s" in shown
    assert all(line.startswith("{") for line in log.splitlines())
