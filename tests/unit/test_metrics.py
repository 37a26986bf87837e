"""The metrics: documented, named by the rules, counted where they should be, bounded."""

import re
import shutil
import subprocess
import threading
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import generate_latest

from board_box import M, full_board, snapshot, version, with_held_newest
from servesync.admin import Board, Stage, Trouble
from servesync.admin.gauges import MOST_MODELS, Gauges, register
from servesync.admin.snapshot import as_json
from servesync.domain.versions import Model, Version
from servesync.errors import Reason
from servesync.planning.facts import Role

DOCS = Path(__file__).parents[2] / "docs"
Row = tuple[str, str, frozenset[str]]


def documented() -> set[Row]:
    """Return name, type and labels of every row of the table."""
    text = (DOCS / "metrics.md").read_text()
    rows = re.findall(r"^\| `(servesync_\w+)` \| (\w+) \| ([^|]*)\|", text, re.MULTILINE)
    return {(name, kind, frozenset(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}


def exposed(board: Board) -> set[Row]:
    """Return the same of everything that a full board shows."""
    found = set()
    for family in register(board, lambda: 0).collect():
        if family.name.startswith("process_"):
            continue
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
        kind = "gauge" if family.type == "info" else family.type
        found.add((family.name + suffix, kind, frozenset(labels)))
    return found


def test_every_metric_is_documented() -> None:
    """`docs/metrics.md` has one row for each metric, with its type and labels, and no other."""
    assert exposed(full_board()) == documented()


def test_the_names_keep_the_rules() -> None:
    """Prometheus's own linter has nothing to say."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("no promtool here (Debian's package prometheus)")
    text = generate_latest(register(full_board(), lambda: 0))
    done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def value(board: Board, name: str, **labels: str) -> float | None:
    """Return one sample."""
    return board.metrics.registry.get_sample_value(name, labels)


def test_two_boards_do_not_meet() -> None:
    """No registry is shared, so nothing of another agent's shows."""
    one, other = full_board(), Board()
    assert value(one, "servesync_failures_total", reason="disk_full") == 1
    assert value(other, "servesync_failures_total", reason="disk_full") is None


def test_a_stage_counts_only_if_it_ends_well() -> None:
    """A broken transfer says nothing about how long a whole one takes; its bytes were read all the same."""
    board = Board()

    def broken() -> None:
        with board.stage(Stage.FETCH, M, Version(1), 100) as count:
            count(60)
            raise OSError("broken")

    with pytest.raises(OSError, match="broken"):
        broken()
    assert board.activities == ()
    assert value(board, "servesync_stage_duration_seconds_count", stage="fetch") == 0
    assert value(board, "servesync_fetched_bytes_total") == 60
    with board.stage(Stage.FETCH, M, Version(1), 100) as count:
        count(60)
        count(100)
        assert as_json(board.activities)[0]["done_bytes"] == 100
    assert value(board, "servesync_stage_duration_seconds_count", stage="fetch") == 1
    assert value(board, "servesync_fetched_bytes_total") == 160


def test_many_are_at_work_at_once() -> None:
    """Each is shown from its beginning to its end; every byte is counted once, whoever counts beside it."""
    board = Board()
    register(board, lambda: 0)
    shown, go_on = threading.Barrier(9, timeout=60), threading.Barrier(9, timeout=60)

    def transfer(number: int) -> None:
        with board.stage(Stage.FETCH, M, Version(number), 1000) as count:
            for done in range(10, 510, 10):
                count(done)
            shown.wait()
            go_on.wait()
            for done in range(510, 1010, 10):
                count(done)

    threads = [threading.Thread(target=transfer, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    shown.wait()
    found = board.activities
    running = value(board, "servesync_transfers_running")
    go_on.wait()
    for thread in threads:
        thread.join()

    assert sorted(item.version or 0 for item in found) == list(range(8))
    assert {item.done_bytes for item in found} == {500}
    assert running == 8
    assert board.activities == ()
    assert value(board, "servesync_transfers_running") == 0
    assert value(board, "servesync_fetched_bytes_total") == 8 * 1000
    assert value(board, "servesync_stage_duration_seconds_count", stage="fetch") == 8


def test_the_oldest_comes_first_whatever_ends_before_it() -> None:
    """A listing is no transfer; progress moves nobody; the end of one takes nobody else away."""
    board = Board()
    with board.stage(Stage.LIST), ExitStack() as first, ExitStack() as second:
        count = first.enter_context(board.stage(Stage.FETCH, M, Version(1), 10))
        second.enter_context(board.stage(Stage.VERIFY, M, Version(2)))
        count(5)
        assert [item.stage for item in board.activities] == [Stage.LIST, Stage.FETCH, Stage.VERIFY]
        assert [item.version for item in board.transfers] == [1, 2]
        first.close()
        count(10)  # too late: it is not shown any more
        assert [item.stage for item in board.activities] == [Stage.LIST, Stage.VERIFY]
        assert value(board, "servesync_fetched_bytes_total") == 5
    assert board.activities == ()


def test_cycles_are_measured() -> None:
    """How long the deciding thread took, and how often."""
    board = Board()
    board.cycled(0.004)
    board.cycled(3)
    assert value(board, "servesync_cycle_seconds_count") == 2
    assert value(board, "servesync_cycle_seconds_bucket", le="1.0") == 1


def test_settings_and_newest_versions_have_a_gauge() -> None:
    """1 while the settings on the disk are in force; the number of a newest version while it is held."""
    board = Board()
    register(board, lambda: 0)
    board.publish(snapshot({1: version()}))
    assert value(board, "servesync_settings_in_force") == 1
    assert value(board, "servesync_model_held_newest_version", model="m") is None
    trouble = Trouble(Reason.SETTINGS_INVALID, "line 3")
    board.publish(replace(with_held_newest(snapshot({1: version()})), settings_trouble=trouble))
    assert value(board, "servesync_settings_in_force") == 0
    assert value(board, "servesync_model_held_newest_version", model="m") == 2


def test_the_delay_counts_only_what_was_published_meanwhile() -> None:
    """What an agent finds at its start was published long ago; a store's clock may be ahead."""
    board = Board()
    board.available(M, Version(1), board.started_at - 60)
    board.available(M, Version(2), None)
    assert value(board, "servesync_publish_to_available_seconds_count") == 0
    board.available(M, Version(3), time.time() + 5)
    assert value(board, "servesync_publish_to_available_seconds_count") == 1
    assert value(board, "servesync_publish_to_available_seconds_sum") == 0


def test_series_go_with_what_they_tell_of() -> None:
    """A version that is gone, a server that is not asked any more: no old number stays."""
    board = Board()
    register(board, lambda: 7)
    assert value(board, "servesync_log_lines_dropped_total") == 7
    assert value(board, "servesync_versions", model="m", state="serving") is None
    board.publish(snapshot({1: version(), 2: version(Role.TO_INSTALL)}))
    assert value(board, "servesync_versions", model="m", state="serving") == 1
    assert value(board, "servesync_model_newest_available_version", model="m") == 1
    assert value(board, "servesync_server_answering") == 1
    board.publish(snapshot({2: version(Role.TO_INSTALL)}, server_url=None))
    assert value(board, "servesync_versions", model="m", state="serving") == 0
    assert value(board, "servesync_model_newest_available_version", model="m") is None
    assert value(board, "servesync_server_answering") is None


def test_models_are_bounded() -> None:
    """However many are found, the number of series has an end."""
    board = Board()
    seen = snapshot()
    (one,) = seen.models.values()
    board.publish(replace(seen, models={Model(f"m{number}"): one for number in range(MOST_MODELS + 50)}))
    families = {family.name: family for family in Gauges(board, lambda: 0).collect()}
    assert len(families["servesync_versions"].samples) == MOST_MODELS * len(Role)
    assert len(families["servesync_model_required"].samples) == MOST_MODELS


def test_reasons_are_the_only_words() -> None:
    """Labels take members of the enumeration, not texts."""
    board = Board()
    board.polled(Reason.STORE_DENIED)
    assert value(board, "servesync_polls_total", outcome="store_denied") == 1
    assert value(board, "servesync_polls_total", outcome="ok") == 0
