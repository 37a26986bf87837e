"""The doctor says whether new versions are held against the server's memory, and warns of odd figures."""

import pytest

from agent_box import AgentBox
from doctor_box import Ward, assert_says
from fixtures_store import Bucket


@pytest.fixture
def ward(box: AgentBox, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Ward:
    """An agent in good health."""
    return Ward(box, bucket, monkeypatch)


def test_whether_the_memory_guard_compares_anything(ward: Ward) -> None:
    """Where no limit is visible and none is set, versions come unasked: that is worth a warning."""
    assert_says(ward.examined(), "server.memory", "warn", "no server to ask", "memory.limit_bytes")

    ward.set("serving", rest_url="http://server:8501")
    assert_says(ward.examined(), "server.memory", "warn", "not visible from here", "memory.limit_bytes")

    ward.set("memory", limit_bytes=1 << 30)
    assert_says(ward.examined(), "server.memory", "ok", "805306368 bytes", "memory.limit_bytes")

    ward.set("memory", limit_bytes=256 << 20)
    assert_says(ward.examined(), "server.memory", "fail", "leaves nothing", "memory.headroom_bytes")


def test_a_budget_beyond_what_the_server_may_use(ward: Ward) -> None:
    """A limit that was lowered later, for example."""
    cgroup = ward.box.folder / "cgroup"
    cgroup.mkdir()
    (cgroup / "cgroup.procs").touch()
    (cgroup / "memory.max").write_text("max\n")
    ward.set("memory", cgroup=str(cgroup))
    assert_says(ward.examined(), "server.memory", "warn", "has no memory limit", "memory.limit_bytes")

    (cgroup / "memory.max").write_text(f"{1 << 30}\n")
    assert_says(ward.examined(), "server.memory", "ok", str(cgroup))

    for name in ("limit_bytes", "budget_bytes"):
        ward.set("memory", **{name: 2 << 30})
        assert_says(ward.examined(), "server.memory", "warn", f"memory.{name} is 2147483648", "null")
