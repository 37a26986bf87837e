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

from servesync.admin import AgentStatus, Stage, Trouble
from servesync.admin.gauges import MOST_MODELS, Gauges, register
from servesync.admin.snapshot import as_json
from servesync.domain.versions import Model, Version
from servesync.errors import Reason
from servesync.planning.facts import Role
from status_box import M, full_status, snapshot, version, with_held_newest

DOCS = Path(__file__).parents[2] / "docs"
Row = tuple[str, str, frozenset[str]]


def documented() -> set[Row]:
    """Return name, type and labels of every row of the table."""
    text = (DOCS / "metrics.md").read_text()
    rows = re.findall(r"^\| `(servesync_\w+)` \| (\w+) \| ([^|]*)\|", text, re.MULTILINE)
    return {(name, kind, frozenset(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}


def exposed(agent_status: AgentStatus) -> set[Row]:
    """Return the same of everything that a full `AgentStatus` shows."""
    found = set()
    for family in register(agent_status, lambda: 0).collect():
        if family.name.startswith("process_"):
            continue
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
        kind = "gauge" if family.type == "info" else family.type
        found.add((family.name + suffix, kind, frozenset(labels)))
    return found


def test_every_metric_is_documented() -> None:
    """`docs/metrics.md` has one row for each metric, with its type and labels, and no other."""
    assert exposed(full_status()) == documented()


def test_the_names_keep_the_rules() -> None:
    """Prometheus's own linter has nothing to say."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("no promtool here (Debian's package prometheus)")
    text = generate_latest(register(full_status(), lambda: 0))
    done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def value(agent_status: AgentStatus, name: str, **labels: str) -> float | None:
    """Return one sample."""
    return agent_status.metrics.registry.get_sample_value(name, labels)


def test_two_agents_share_no_metrics() -> None:
    """No registry is shared, so nothing of another agent's shows."""
    one, other = full_status(), AgentStatus()
    assert value(one, "servesync_failures_total", reason="disk_full") == 1
    assert value(other, "servesync_failures_total", reason="disk_full") is None


def test_a_stage_counts_only_if_it_ends_well() -> None:
    """A broken transfer says nothing about how long a whole one takes; its bytes were read all the same."""
    agent_status = AgentStatus()

    def broken() -> None:
        with agent_status.stage(Stage.FETCH, M, Version(1), 100) as count:
            count(60)
            raise OSError("broken")

    with pytest.raises(OSError, match="broken"):
        broken()
    assert agent_status.activities == ()
    assert value(agent_status, "servesync_stage_duration_seconds_count", stage="fetch") == 0
    assert value(agent_status, "servesync_fetched_bytes_total") == 60
    with agent_status.stage(Stage.FETCH, M, Version(1), 100) as count:
        count(60)
        count(100)
        assert as_json(agent_status.activities)[0]["done_bytes"] == 100
    assert value(agent_status, "servesync_stage_duration_seconds_count", stage="fetch") == 1
    assert value(agent_status, "servesync_fetched_bytes_total") == 160


def test_many_are_at_work_at_once() -> None:
    """Each is shown from its beginning to its end; every byte is counted once, whoever counts beside it."""
    agent_status = AgentStatus()
    register(agent_status, lambda: 0)
    shown, go_on = threading.Barrier(9, timeout=60), threading.Barrier(9, timeout=60)

    def transfer(number: int) -> None:
        with agent_status.stage(Stage.FETCH, M, Version(number), 1000) as count:
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
    found = agent_status.activities
    running = value(agent_status, "servesync_transfers_running")
    go_on.wait()
    for thread in threads:
        thread.join()

    assert sorted(item.version or 0 for item in found) == list(range(8))
    assert {item.done_bytes for item in found} == {500}
    assert running == 8
    assert agent_status.activities == ()
    assert value(agent_status, "servesync_transfers_running") == 0
    assert value(agent_status, "servesync_fetched_bytes_total") == 8 * 1000
    assert value(agent_status, "servesync_stage_duration_seconds_count", stage="fetch") == 8


def test_the_oldest_comes_first_whatever_ends_before_it() -> None:
    """A listing is no transfer; progress moves nobody; the end of one takes nobody else away."""
    agent_status = AgentStatus()
    with agent_status.stage(Stage.LIST), ExitStack() as first, ExitStack() as second:
        count = first.enter_context(agent_status.stage(Stage.FETCH, M, Version(1), 10))
        second.enter_context(agent_status.stage(Stage.VERIFY, M, Version(2)))
        count(5)
        assert [item.stage for item in agent_status.activities] == [Stage.LIST, Stage.FETCH, Stage.VERIFY]
        assert [item.version for item in agent_status.transfers] == [1, 2]
        first.close()
        count(10)  # too late: it is not shown any more
        assert [item.stage for item in agent_status.activities] == [Stage.LIST, Stage.VERIFY]
        assert value(agent_status, "servesync_fetched_bytes_total") == 5
    assert agent_status.activities == ()


def test_cycles_are_measured() -> None:
    """How long the deciding thread took, and how often."""
    agent_status = AgentStatus()
    agent_status.metrics.cycle_seconds.observe(0.004)
    agent_status.metrics.cycle_seconds.observe(3)
    assert value(agent_status, "servesync_cycle_seconds_count") == 2
    assert value(agent_status, "servesync_cycle_seconds_bucket", le="1.0") == 1


def test_settings_and_newest_versions_have_a_gauge() -> None:
    """1 while the settings on the disk are in force; the number of a newest version while it is held."""
    agent_status = AgentStatus()
    register(agent_status, lambda: 0)
    agent_status.publish(snapshot({1: version()}))
    assert value(agent_status, "servesync_settings_in_force") == 1
    assert value(agent_status, "servesync_model_held_newest_version", model="m") is None
    trouble = Trouble(Reason.SETTINGS_INVALID, "line 3")
    agent_status.publish(replace(with_held_newest(snapshot({1: version()})), settings_trouble=trouble))
    assert value(agent_status, "servesync_settings_in_force") == 0
    assert value(agent_status, "servesync_model_held_newest_version", model="m") == 2


def test_the_delay_counts_only_what_was_published_meanwhile() -> None:
    """What an agent finds at its start was published long ago; a store's clock may be ahead."""
    agent_status = AgentStatus()
    agent_status.available(M, Version(1), agent_status.started_at - 60)
    agent_status.available(M, Version(2), None)
    assert value(agent_status, "servesync_publish_to_available_seconds_count") == 0
    agent_status.available(M, Version(3), time.time() + 5)
    assert value(agent_status, "servesync_publish_to_available_seconds_count") == 1
    assert value(agent_status, "servesync_publish_to_available_seconds_sum") == 0


def test_series_go_with_what_they_tell_of() -> None:
    """A version that is gone, a server that is not asked any more: no old number stays."""
    agent_status = AgentStatus()
    register(agent_status, lambda: 7)
    assert value(agent_status, "servesync_log_lines_dropped_total") == 7
    assert value(agent_status, "servesync_versions", model="m", state="serving") is None
    agent_status.publish(snapshot({1: version(), 2: version(Role.TO_INSTALL)}))
    assert value(agent_status, "servesync_versions", model="m", state="serving") == 1
    assert value(agent_status, "servesync_model_newest_available_version", model="m") == 1
    assert value(agent_status, "servesync_server_answering") == 1
    agent_status.publish(snapshot({2: version(Role.TO_INSTALL)}, server_url=None))
    assert value(agent_status, "servesync_versions", model="m", state="serving") == 0
    assert value(agent_status, "servesync_model_newest_available_version", model="m") is None
    assert value(agent_status, "servesync_server_answering") is None


def test_models_are_bounded() -> None:
    """However many are found, the number of series has an end."""
    agent_status = AgentStatus()
    seen = snapshot()
    (one,) = seen.models.values()
    agent_status.publish(
        replace(seen, models={Model(f"m{number}"): one for number in range(MOST_MODELS + 50)})
    )
    families = {family.name: family for family in Gauges(agent_status, lambda: 0).collect()}
    assert len(families["servesync_versions"].samples) == MOST_MODELS * len(Role)
    assert len(families["servesync_model_required"].samples) == MOST_MODELS


def test_reasons_are_the_only_words() -> None:
    """Labels take members of the enumeration, not texts."""
    agent_status = AgentStatus()
    agent_status.polled(Reason.STORE_DENIED)
    assert value(agent_status, "servesync_polls_total", outcome="store_denied") == 1
    assert value(agent_status, "servesync_polls_total", outcome="ok") == 0
