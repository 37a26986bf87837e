"""Nothing half-written is ever visible, and no archive is ever on the disk."""

import json
import subprocess
import sys
import time
from pathlib import Path

import watch_shelf
from agent_box import AgentBox
from big_models import LONG, make_archive
from fixtures_store import Bucket

UPDATES, MEGABYTES = (20, 300) if LONG else (5, 24)
SYNC_MEGABYTES = 1200 if LONG else 200  # more than may be held
MAX_RSS_MIB = 200 * 1000 * 1000 / (1 << 20)


def test_a_watcher_never_sees_half_a_version(box: AgentBox, bucket: Bucket, real_models: Path) -> None:
    """Polled every millisecond during many updates, every number is whole, to the byte."""
    expected, out = box.folder / "expected.json", box.folder / "seen.json"
    expected.write_text("{}")
    script = [sys.executable, str(watch_shelf.__file__), str(box.shelf), str(expected), str(out)]
    known: dict[str, dict[str, tuple[int, str]]] = {}
    with box.running(), subprocess.Popen(script) as watcher:
        for version in range(1, UPDATES + 1):
            made = make_archive(
                real_models / "plain_module", box.folder, version, MEGABYTES, plain=version % 2 == 0
            )
            known[str(version)] = made.files
            aside = expected.with_suffix(".new")
            aside.write_text(json.dumps(known))
            aside.replace(expected)
            bucket.client.upload_file(str(made.archive), bucket.name, f"prod/m/{made.archive.name}")
            made.archive.unlink()
            box.until(lambda version=version: box.numbers() == [str(version)], f"version {version}", 120)  # type: ignore[misc]
        expected.unlink()
        watcher.wait(60)
    seen = json.loads(out.read_text())

    assert seen["violations"] == []
    assert seen["hashed"] == sorted(known)
    assert seen["sightings"] > UPDATES * 10
    if LONG:
        print(f"{seen['sightings']} looks at a version in {seen['rounds']} rounds")  # noqa: T201


def test_memory_stays_small_and_no_archive_touches_the_disk(
    box: AgentBox, bucket: Bucket, real_models: Path
) -> None:
    """`sync` of a large tar.gz: peak RSS under 200 MB, and no file is ever named like the archive."""
    made = make_archive(real_models / "plain_module", box.folder, 1, SYNC_MEGABYTES)
    bucket.client.upload_file(str(made.archive), bucket.name, "prod/m/1.tar.gz")
    made.archive.unlink()
    peak = 0
    archives: set[str] = set()

    with subprocess.Popen(box.command("sync"), env=box.environment(), stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            peak = max(peak, _high_water_mark(process.pid))
            archives |= _archives(box.models_dir) | _archives(Path(f"/proc/{process.pid}/fd"))
            time.sleep(0.05)

    assert process.returncode == 0
    assert box.numbers() == ["1"]
    assert archives == set()
    assert 0 < peak / 1024 < MAX_RSS_MIB, f"peak RSS {peak / 1024:.0f} MiB"
    if LONG:
        print(f"peak RSS {peak / 1024:.0f} MiB for {SYNC_MEGABYTES} MiB")  # noqa: T201


def _high_water_mark(pid: int) -> int:
    """Return the most memory that a process has held, in KiB; 0 once it is gone."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith("VmHWM")), 0)


def _archives(folder: Path) -> set[str]:
    """Return the names below a folder (or behind open descriptors) that look like the archive."""
    found = set()
    try:
        paths = [str(path.readlink()) if path.is_symlink() else str(path) for path in folder.rglob("*")]
    except OSError:
        return set()
    for path in paths:
        if path.endswith((".tar.gz", ".tgz", ".tar", ".gz", ".tar.zst", ".part")) and ".venv" not in path:
            found.add(path)
    return found
