"""Reading memory cgroups: made-up trees of both versions, and where it may be made, a real one."""

import os
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from servesync.serving import ServerFootprint
from servesync.serving.cgroup import anonymous_bytes, cgroup_of, memory_limit

MIB = 1 << 20
HUGE = "9223372036854771712"


def tree(root: Path, limits: dict[str, str], name: str = "memory.max") -> Path:
    """Make nested cgroups: path -> content of the limit's file; return the last one."""
    folder = root
    for path, text in limits.items():
        folder = root / path
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "cgroup.procs").write_text("")
        if text:
            (folder / name).write_text(f"{text}\n")
    return folder


@pytest.mark.parametrize(
    ("limits", "expect"),
    [
        ({"c": "", "c/pod": "max", "c/pod/server": "1000"}, 1000),
        ({"c": "", "c/pod": "800", "c/pod/server": "1000"}, 800),
        ({"c": "", "c/pod": "1200", "c/pod/server": "max"}, 1200),
        ({"c": "", "c/pod": "max", "c/pod/server": "max"}, None),
        ({"c": ""}, None),
        ({"c": "500", "c/pod": "", "c/pod/server": ""}, 500),
    ],
)
def test_the_lowest_limit_on_the_way_up(tmp_path: Path, limits: dict[str, str], expect: int | None) -> None:
    """Version 2; the root has no file, and neither has a level at which memory is not counted."""
    assert memory_limit(tree(tmp_path, limits)) == expect


@pytest.mark.parametrize(
    ("limits", "expect"),
    [({"m": HUGE, "m/a": HUGE}, None), ({"m": HUGE, "m/a": "4096"}, 4096), ({"m": "64", "m/a": HUGE}, 64)],
)
def test_version_1_has_a_huge_number_for_no_limit(
    tmp_path: Path, limits: dict[str, str], expect: int | None
) -> None:
    """The largest number of pages."""
    assert memory_limit(tree(tmp_path, limits, "memory.limit_in_bytes")) == expect


def test_a_folder_that_is_no_cgroup(tmp_path: Path) -> None:
    """A wrong setting is named, and is no limit."""
    with pytest.raises(FileNotFoundError, match="no cgroup"):
        memory_limit(tmp_path)

    limit = ServerFootprint(None, tmp_path).limit()

    assert limit.bytes is None
    assert str(tmp_path) in limit.source
    assert ServerFootprint(None, tmp_path).used_bytes() is None


@pytest.mark.parametrize(("stat", "expect"), [("anon 17\nfile 4\n", 17), ("rss 3\ntotal_rss 9\n", 9)])
def test_what_the_processes_hold(tmp_path: Path, stat: str, expect: int) -> None:
    """Cached files do not count, in both versions."""
    (tmp_path / "memory.stat").write_text(stat)

    assert anonymous_bytes(tmp_path) == expect


def proc(root: Path, cgroup: str, mountinfo: str) -> Path:
    """Make a /proc with one process, 7."""
    for name, text in (("7/cgroup", cgroup), ("self/mountinfo", mountinfo)):
        path = root / "proc" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root / "proc"


@pytest.mark.parametrize(
    ("cgroup", "mount", "expect"),
    [
        ("0::/pod/server\n", "30 20 0:27 / {} rw shared:4 - cgroup2 cgroup2 rw,nsdelegate\n", "pod/server"),
        ("0::/pod/server\n", "30 20 0:27 /pod {} rw - cgroup2 cgroup2 rw\n", "server"),
        ("0::/../other\n", "30 20 0:27 / {} rw - cgroup2 cgroup2 rw\n", None),
        ("0::/gone\n", "30 20 0:27 / {} rw - cgroup2 cgroup2 rw\n", None),
        ("4:memory:/pod/server\n0::/\n", "30 20 0:27 / {} rw - cgroup cgroup rw,memory\n", "pod/server"),
        ("4:cpu,memory:/pod\n", "30 20 0:27 / {} rw - cgroup none rw,cpu,memory\n", "pod"),
        ("4:cpu:/pod\n", "30 20 0:27 / {} rw - cgroup none rw,cpu\n", None),
    ],
)
def test_where_a_process_is_counted(tmp_path: Path, cgroup: str, mount: str, expect: str | None) -> None:
    """Both versions, a subtree that is mounted, and what lies outside of what can be seen."""
    root = tmp_path / "fs"
    (root / "pod/server").mkdir(parents=True)
    (root / "server").mkdir()

    found = cgroup_of(7, proc(tmp_path, cgroup, mount.format(root)))

    assert found == (root / expect if expect else None)


LISTENER = """
import os, socket, sys
if sys.argv[1]:
    open(sys.argv[1] + "/cgroup.procs", "w").write(str(os.getpid()))
block = bytearray(os.urandom(1 << 20)) * 64
server = socket.socket()
server.bind(("127.0.0.1", 0))
server.listen()
print(server.getsockname()[1], flush=True)
sys.stdin.read()
"""


@pytest.fixture
def cgroup() -> Iterator[Path]:
    """Make a cgroup with a limit of 300 MiB."""
    for base, name in (("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")):
        folder = Path(base, f"servesync-test-{uuid.uuid4().hex[:8]}")
        try:
            folder.mkdir()
        except OSError:
            continue
        try:
            (folder / name).write_text(str(300 * MIB))
        except OSError:
            folder.rmdir()
            continue
        yield folder
        folder.rmdir()
        return
    pytest.skip("no memory cgroup can be made here (it needs root and a writable /sys/fs/cgroup)")


def listening(folder: Path | None) -> "subprocess.Popen[str]":
    """Start a process that holds 64 MiB and listens, in a cgroup."""
    return subprocess.Popen(
        [sys.executable, "-c", LISTENER, str(folder or "")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_real_server_in_a_real_cgroup(cgroup: Path) -> None:
    """Found by its port; its limit and what it holds are read; also by the cgroup's name alone."""
    with listening(cgroup) as server:
        assert server.stdout
        port = int(server.stdout.readline())
        seen = ServerFootprint(f"http://127.0.0.1:{port}")
        limit, used = seen.limit(), seen.used_bytes()
        named = ServerFootprint(None, cgroup)
        named_limit, named_used = named.limit(), named.used_bytes()
        server.kill()

    assert limit.bytes == named_limit.bytes == 300 * MIB
    assert str(cgroup) in limit.source
    assert used is not None
    assert 64 * MIB < used < 150 * MIB
    assert named_used is not None
    assert 64 * MIB < named_used < 150 * MIB


def test_what_a_server_holds_is_seen_without_a_limit() -> None:
    """A process of the same user on the same machine."""
    with listening(None) as server:
        assert server.stdout
        port = int(server.stdout.readline())
        used = ServerFootprint(f"http://localhost:{port}").used_bytes()
        server.kill()

    assert used is not None
    assert 64 * MIB < used < 150 * MIB


def test_nobody_listens() -> None:
    """Unknown is an answer; it says why."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
        seen = ServerFootprint(url)

        assert seen.limit().bytes is None
        assert url in seen.limit().source
        assert seen.used_bytes() is None


@pytest.mark.skipif(
    os.geteuid() != 0, reason="another user's process is looked at as nobody, which needs root"
)
def test_a_server_of_another_user_is_unknown_and_no_error() -> None:
    """Without the right to look into it, nothing is known."""
    with listening(None) as server:
        assert server.stdout
        port = int(server.stdout.readline())
        look = (
            "import os; from servesync.serving import ServerFootprint; "
            "os.setgroups([]); os.setgid(65534); os.setuid(65534); "
            f"seen = ServerFootprint('http://127.0.0.1:{port}'); "
            "print(seen.limit().bytes, seen.used_bytes())"
        )
        done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
        server.kill()

    assert done.stdout.split() == ["None", "None"]
