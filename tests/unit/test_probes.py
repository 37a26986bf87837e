"""What the probes answer, and when: precise about what is missing, patient with what takes long."""

import threading
from collections.abc import Mapping
from dataclasses import replace

import pytest

from servesync.admin import AgentStatus, OnDisk, Stage
from servesync.admin.probes import livez, readyz, startupz
from servesync.domain.versions import Model, Version
from servesync.planning.facts import Role, Served, ServerState
from status_box import OUTAGE, snapshot, version

AVAILABLE = Served(ServerState.AVAILABLE)
LOADING = Served(ServerState.LOADING)


def says(versions: dict[int, Served] | str) -> "Server":
    """Return a server that says this."""
    return Server(versions)


class Server:
    """Answers as told, and counts."""

    def __init__(self, versions: dict[int, Served] | str) -> None:
        self._versions = versions
        self.asked = 0

    def __call__(self, model: Model, /) -> Mapping[Version, Served] | str:
        """Answer."""
        self.asked += 1
        if isinstance(self._versions, str):
            return self._versions
        return {Version(number): served for number, served in self._versions.items()}


class Clock:
    """A monotonic clock that a test turns."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr("time.monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Time stands still until the test moves it."""
    return Clock(monkeypatch)


def test_alive_at_work_asleep_and_not_when_silent(clock: Clock) -> None:
    """A day's sleep is no silence, a thread that does not wake from it is; so is a step without an end."""
    agent_status = AgentStatus(stuck_after_seconds=600)
    assert livez(agent_status).good
    agent_status.sleeping(86_400)
    clock.now += 86_400
    assert livez(agent_status).good
    clock.now += 599
    assert livez(agent_status).good
    clock.now += 2
    assert not livez(agent_status).good
    agent_status.awake()
    assert livez(agent_status).good
    for _ in range(5):
        clock.now += 599
        agent_status.heartbeat()
        assert livez(agent_status).good
    clock.now += 601
    assert "no sign for 601 s (stuck after 600)" in livez(agent_status).missing[0]
    agent_status.heartbeat()
    assert livez(agent_status).good


def test_busy_jobs_hide_no_thread_that_hangs(clock: Clock) -> None:
    """Whatever transfers and requests do beside it: of the deciding thread they say nothing."""
    agent_status = AgentStatus(stuck_after_seconds=600)
    turned_at = agent_status.turned_at
    for number in range(10):
        clock.now += 60.1
        with agent_status.stage(Stage.FETCH, Model("m"), Version(number), 1000) as count:
            count(1000)
            agent_status.count_request("get", "ok")
        agent_status.note({"level": "info", "event": "fetch_progress"})
    assert not livez(agent_status).good
    assert agent_status.turned_at == turned_at


def test_a_sleep_that_ends_early_is_not_waited_for(clock: Clock) -> None:
    """Woken from a day's sleep after a second, and stuck then: found out after ten minutes, not a day."""
    agent_status = AgentStatus(stuck_after_seconds=600)
    agent_status.sleeping(86_400)
    clock.now += 1
    agent_status.awake()
    clock.now += 601
    assert not livez(agent_status).good


def test_started_once_every_required_model_is_proven() -> None:
    """Before the first look nothing is known; foreign and damaged versions prove nothing."""
    assert not startupz(None).good
    assert not startupz(snapshot()).good
    assert startupz(snapshot(required=False)).good
    for on_disk in (OnDisk.FOREIGN, OnDisk.DAMAGED, OnDisk.RESERVED, OnDisk.ABSENT):
        assert not startupz(snapshot({1: version(Role.KEPT, on_disk)})).good
    assert startupz(snapshot({1: version(Role.KEPT)}, store_trouble=OUTAGE)).good
    assert startupz(snapshot({1: version(Role.HELD, OnDisk.UNRECORDED)})).good
    assert startupz(snapshot({1: version(Role.WAITING, OnDisk.CHECKING)})).good


def test_ready_once_the_server_serves_a_proven_version() -> None:
    """The server is asked now: what the last look saw may be old."""
    seen = snapshot({1: version(), 2: version(Role.WAITING), 3: version(Role.FOREIGN, OnDisk.FOREIGN)})
    assert readyz(seen, says({1: AVAILABLE, 2: LOADING})).good
    for on_disk in (OnDisk.UNRECORDED, OnDisk.CHECKING):
        assert readyz(snapshot({1: version(Role.HELD, on_disk)}), says({1: AVAILABLE})).good
    assert readyz(seen, says({1: Served(ServerState.END), 2: AVAILABLE})).good
    for wrong in ({}, {1: LOADING}, {3: AVAILABLE}, {1: Served(ServerState.END)}, {9: AVAILABLE}):
        assert not readyz(seen, says(wrong)).good
    assert readyz(seen, says({1: LOADING})).missing == ("m: the server serves no proven version (1 LOADING)",)
    assert "is it running?" in readyz(seen, says("is it running?")).missing[0]


def test_ready_only_with_a_version_that_has_answered() -> None:
    """AVAILABLE is not enough for a version that is still to be tried."""
    new = replace(version(Role.WAITING), untried=True)

    verdict = readyz(snapshot({2: new}), says({2: AVAILABLE}))

    assert verdict.missing == ("m: the server serves no proven version (2 AVAILABLE, still on trial)",)
    assert readyz(snapshot({1: version(), 2: new}), says({1: AVAILABLE, 2: AVAILABLE})).good


def test_a_server_is_asked_only_if_that_can_help() -> None:
    """Not before a version is there, and not where there is none."""
    server = says({})
    assert not readyz(None, server).good
    assert not readyz(snapshot(), server).good
    assert readyz(snapshot({1: version()}, server_url=None), server).good
    assert server.asked == 0


def test_events_are_kept_whatever_happens_at_once() -> None:
    """Many threads note, one reads; the last hundred stay, the newest first."""
    agent_status = AgentStatus()

    def write(name: str) -> None:
        for number in range(500):
            agent_status.note({"level": "info", "event": name, "because": "x" * 5000, "repeats": number})

    threads = [threading.Thread(target=write, args=(f"e{index}",)) for index in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert len(agent_status.events()) <= 100
    agent_status.note({"level": "debug", "event": "no"})
    agent_status.note({"level": "info", "event": "poll_finished"})
    agent_status.note({"level": "info", "event": "last", "secret": "s3cret"})
    found = agent_status.events()
    assert len(found) == 100
    assert found[0] == {"level": "info", "event": "last"}
    assert len(str(found[1]["because"])) == 600
