"""When a version that could not be brought is tried again, in made-up time."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from servesync.domain.versions import Model, Version
from servesync.errors import Reason, ReleaseRefused, SettingsError, StoreError, TransferError
from servesync.install import Workspace
from servesync.runtime.clear_refusal import clear_refusal
from servesync.settings import Settings
from servesync.transfer.attempts import Attempts, lift

M, V = Model("m"), Version(1)
ERROR = TransferError(Reason.TRANSFER_BROKEN, "connection reset")
DAMAGED = ReleaseRefused(Reason.ARCHIVE_CORRUPT, "the gzip stream is damaged")
NOON = datetime(2026, 1, 2, 12, 0, 0, tzinfo=UTC).timestamp()
PAUSES = [10.0, 60.0, 360.0, 2160.0]


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A prepared models directory with the one model `m`."""
    workspace = Workspace(tmp_path / "models")
    workspace.claim()
    workspace.prepare([M])
    return workspace


def record(workspace: Workspace) -> Path:
    """Return where the record of the version lies, if there is one."""
    return workspace.attempts(M) / "1.json"


def damaged(attempts: Attempts, times: int, at: float = 0.0) -> list[float | None]:
    """Let the version come damaged so often, each time when its pause is over; return the pauses."""
    pauses = []
    for _ in range(times):
        pause = attempts.in_transit((M, V), "id", DAMAGED, at, NOON + at)
        pauses.append(pause)
        at += pause or 0.0
    return pauses


def test_pauses_double_up_to_five_minutes() -> None:
    """A failing version is tried less and less often, but never given up."""
    attempts = Attempts()

    pauses = [attempts.failed((M, V), "id", ERROR, float(i)) for i in range(9)]

    assert pauses == [5, 10, 20, 40, 80, 160, 300, 300, 300]


def test_a_failure_holds_one_identity_until_its_pause_is_over() -> None:
    """The same bytes wait; other bytes under the number are tried at once."""
    attempts = Attempts()
    attempts.failed((M, V), "id", ERROR, 100.0)

    assert list(attempts.holds(M, {V: "id"}, 104.0)) == [V]
    assert attempts.holds(M, {V: "id"}, 105.5) == {}
    assert attempts.holds(M, {V: "new"}, 104.0) == {}
    assert attempts.next_due(103.0) == 2.0


def test_a_failure_passes_until_it_has_come_five_times() -> None:
    """Then the next good version is due; another version's failure changes nothing about it."""
    attempts = Attempts()
    passing = []
    for number in range(6):
        attempts.failed((M, V), "id", ERROR, number * 1000.0)
        passing.append(attempts.holds(M, {V: "id"}, number * 1000.0)[V].passing)

    assert passing == [True, True, True, True, False, False]


def test_a_failing_store_gives_the_whole_model_a_moment() -> None:
    """The next version would meet the same; other models are not concerned."""
    attempts = Attempts()
    down = StoreError(Reason.STORE_UNREACHABLE, "refused")
    attempts.failed((M, V), "id", down, 0.0)
    other = Version(2)

    assert set(attempts.holds(M, {V: "id", other: "x"}, 4.0)) == {V, other}
    assert attempts.holds(M, {other: "x"}, 4.0)[other].passing
    assert attempts.holds(M, {other: "x"}, 5.5) == {}
    assert attempts.holds(Model("n"), {other: "x"}, 1.0) == {}


def test_the_pause_of_an_action_holds_for_that_action_only() -> None:
    """A failed prune is not tried again at once; it keeps no fetch away."""
    attempts = Attempts()
    attempts.failed((M, V), "Prune", ERROR, 100.0)

    assert attempts.paused(104.0) == [((M, V), "Prune")]
    assert attempts.paused(106.0) == []
    assert attempts.count((M, V), "Prune") == 1
    assert attempts.holds(M, {V: "id"}, 104.0) == {}


# -- what the way may have damaged -----------------------------------------------------------------------


@pytest.mark.parametrize("is_kept", [True, False])
def test_damage_is_read_again_four_times(workspace: Workspace, is_kept: bool) -> None:  # noqa: FBT001 (a case)
    """With growing pauses; then it is refused, with how often it was read, and over how long."""
    attempts = Attempts(workspace if is_kept else None)

    assert damaged(attempts, 5) == [*PAUSES, None]

    text = attempts.refusal_text((M, V), "id", DAMAGED, NOON + sum(PAUSES))
    assert "read 5 times over 43 minutes" in text
    assert "the gzip stream is damaged" in text


def test_the_hold_says_what_happened_and_when_the_next_try_is(workspace: Workspace) -> None:
    """For a minute it counts as passing, then the next good version is due."""
    attempts = Attempts(workspace)
    passing = []
    at = 0.0
    for pause in PAUSES:
        attempts.in_transit((M, V), "id", DAMAGED, at, NOON + at)
        hold = attempts.holds(M, {V: "id"}, at + 1.0, NOON + at + 1.0)[V]
        passing.append(hold.passing)
        at += pause
        assert hold.reason is Reason.ARCHIVE_CORRUPT
        assert datetime.fromtimestamp(NOON + at, UTC).strftime("%Y-%m-%dT%H:%M:%S+0000") in hold.text
        assert "the way" in hold.text
        assert attempts.next_due(at - 2.0) == 2.0
        assert attempts.holds(M, {V: "id"}, at, NOON + at) == {}

    assert passing == [True, True, False, False]


def test_a_restart_forgets_no_try(workspace: Workspace) -> None:
    """Neither how often it was read, nor when it is due."""
    damaged(Attempts(workspace), 3)
    at = NOON + PAUSES[0] + PAUSES[1]  # of the third reading

    after = Attempts(workspace)
    assert list(after.holds(M, {V: "id"}, 5.0, at + 100.0)) == [V]
    assert after.next_due(5.0) == 260.0
    assert after.in_transit((M, V), "id", DAMAGED, 300.0, at + 400.0) == PAUSES[3]


def test_another_process_reads_it_and_changes_nothing(workspace: Workspace) -> None:
    """`servesync plan` shows the hold."""
    damaged(Attempts(workspace), 1)
    before = record(workspace).stat()

    other = Attempts(workspace)

    assert "2026-01-02T12:00:10+0000" in other.holds(M, {V: "id"}, 0.0, NOON + 4.0)[V].text
    assert record(workspace).stat() == before


@pytest.mark.parametrize("set_back", [5.0, 3600.0, 86400.0 * 3650])
def test_a_clock_that_is_set_back_makes_no_pause_longer(workspace: Workspace, set_back: float) -> None:
    """The agent at work has its own clock; after a restart the pause is over, or what it was at most."""
    running = Attempts(workspace)
    damaged(running, 4)
    last = NOON + sum(PAUSES[:3])
    assert running.holds(M, {V: "id"}, sum(PAUSES), last + PAUSES[3] - set_back) == {}

    after = Attempts(workspace)
    after.holds(M, {V: "id"}, 0.0, last + 1.0 - set_back)
    assert (after.next_due(0.0) or 0.0) <= PAUSES[3]


def test_a_clock_that_is_set_forward_ends_a_pause(workspace: Workspace) -> None:
    """Rather too early than too late; in the agent at work its own clock counts."""
    running = Attempts(workspace)
    damaged(running, 1)

    assert list(running.holds(M, {V: "id"}, 9.0, NOON + 1e6)) == [V]
    assert Attempts(workspace).holds(M, {V: "id"}, 0.0, NOON + 1e6) == {}


def test_another_offer_starts_anew(workspace: Workspace) -> None:
    """Neither the pause nor the count of other bytes holds for it."""
    attempts = Attempts(workspace)
    damaged(attempts, 3)

    assert attempts.holds(M, {V: "new"}, 71.0, NOON + 71.0) == {}
    assert attempts.in_transit((M, V), "new", DAMAGED, 71.0, NOON + 71.0) == PAUSES[0]
    assert Attempts(workspace).holds(M, {V: "id"}, 0.0, NOON + 72.0) == {}


@pytest.mark.parametrize("end", [Attempts.succeeded, Attempts.forget])
def test_a_version_that_is_there_or_refused_has_no_record(workspace: Workspace, end: object) -> None:
    """It would hold the same number at a later time."""
    attempts = Attempts(workspace)
    damaged(attempts, 1)

    assert callable(end)
    end(attempts, (M, V))

    assert not record(workspace).exists()
    assert attempts.holds(M, {V: "id"}, 1.0, NOON + 1.0) == {}


@pytest.mark.parametrize(("offered", "stays"), [({V: "id"}, True), ({V: "new"}, False), ({}, False)])
def test_records_go_with_what_they_are_about(
    workspace: Workspace,
    offered: dict[Version, str],
    stays: bool,  # noqa: FBT001 (a case)
) -> None:
    """After a listing, what is offered otherwise, or no longer, needs none."""
    attempts = Attempts(workspace)
    damaged(attempts, 1)

    attempts.tidy(M, offered)

    assert record(workspace).exists() is stays


def test_ending_the_pauses_lets_it_be_read_at_once(workspace: Workspace) -> None:
    """How often it was read stays known."""
    attempts = Attempts(workspace)
    damaged(attempts, 2)

    attempts.end_pauses()

    assert attempts.holds(M, {V: "id"}, 12.0, NOON + 12.0) == {}
    assert attempts.next_due(12.0) is None
    assert attempts.in_transit((M, V), "id", DAMAGED, 12.0, NOON + 12.0) == PAUSES[2]


@pytest.mark.parametrize(
    "content", [b"", b"{", b'{"schema_version": 2}', b"\xff" * 9, b'{"offer": "id", "count": -1}']
)
def test_an_unreadable_record_counts_as_none(workspace: Workspace, content: bytes) -> None:
    """It holds nothing, and the next failure overwrites it."""
    damaged(Attempts(workspace), 2)
    record(workspace).write_bytes(content)

    after = Attempts(workspace)

    assert after.holds(M, {V: "id"}, 0.0, NOON) == {}
    assert after.in_transit((M, V), "id", DAMAGED, 0.0, NOON) == PAUSES[0]
    assert list(Attempts(workspace).holds(M, {V: "id"}, 0.0, NOON)) == [V]


def test_a_disk_that_takes_no_record_takes_no_pause_away(workspace: Workspace) -> None:
    """The agent at work counts on."""
    folder = workspace.root / "attempts"
    folder.rmdir()
    folder.touch()

    assert damaged(Attempts(workspace), 5) == [*PAUSES, None]


def test_retry_lets_it_be_read_at_once(workspace: Workspace) -> None:
    """In the agent at work, too, which sees that the record is gone; the tries begin anew."""
    settings = Settings.model_validate(
        {
            "store": {"url": "s3://bucket", "region": "us-east-1"},
            "serving": {"models_dir": str(workspace.models_dir), "rest_url": None},
            "models": [{"name": "m"}],
        }
    )
    attempts = Attempts(workspace)
    damaged(attempts, 3)

    cleared = clear_refusal(settings, "m", "1")
    assert "no longer put off (archive_corrupt: the gzip stream is damaged)" in cleared

    assert attempts.holds(M, {V: "id"}, 71.0, NOON + 71.0) == {}
    assert attempts.in_transit((M, V), "id", DAMAGED, 71.0, NOON + 71.0) == PAUSES[0]
    assert lift(workspace, M, Version(2)) == ""
    with pytest.raises(SettingsError, match="nor put off"):
        clear_refusal(settings, "m", "2")


def test_what_a_kill_left_goes_with_the_next_start(workspace: Workspace) -> None:
    """A record that was half written when the process died."""
    workspace.attempts(M).mkdir()
    left = workspace.attempts(M) / ".1.json.new"
    left.touch()

    assert workspace.clean() == []

    assert not left.exists()
    assert list(workspace.attempts(M).iterdir()) == []
