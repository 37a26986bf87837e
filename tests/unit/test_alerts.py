"""The alert rules: each fires when it is provoked, none in a healthy run, and all name metrics that exist."""

import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from servesync.admin.gauges import register
from servesync.errors import Reason
from status_box import full_status

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy/prometheus/alerts.yml"
DASHBOARD = ROOT / "deploy/grafana/dashboard.json"
WHERE: Final = 'instance="a", job="servesync"'
MODEL: Final = f'{WHERE}, model="m"'
MINUTES: Final = 120

Series = Mapping[str, str]

HEALTHY: Final[Series] = {
    f"up{{{WHERE}}}": "1x120",
    f"process_start_time_seconds{{{WHERE}}}": "-3600x120",
    f"servesync_build_info{{{WHERE}}}": "1x120",
    f"servesync_loop_alive{{{WHERE}}}": "1x120",
    f"servesync_last_good_poll_timestamp_seconds{{{WHERE}}}": "0+60x120",
    f"servesync_poll_interval_seconds{{{WHERE}}}": "10x120",
    f"servesync_model_required{{{MODEL}}}": "1x120",
    f"servesync_model_proven_versions{{{MODEL}}}": "2x120",
    f"servesync_model_served{{{MODEL}}}": "1x50 0x2 1x66",
    f"servesync_model_in_place{{{MODEL}}}": "1x50 0x5 1x63",
    f"servesync_model_newest_available_version{{{MODEL}}}": "7x50 8x69",
    'servesync_model_newest_available_version{instance="b", job="servesync", model="m"}': "7x51 8x68",
    f'servesync_refusals_total{{{WHERE}, reason="archive_format"}}': "3x120",
    f"servesync_server_answering{{{WHERE}}}": "1x40 0x2 1x76",
    f'servesync_failures_total{{{WHERE}, reason="store_throttled"}}': "0x40 1x79",
    f"servesync_disk_free_bytes{{{WHERE}}}": "500x120",
    f"servesync_disk_reserve_bytes{{{WHERE}}}": "100x120",
    f"servesync_disk_size_bytes{{{WHERE}}}": "1000x120",
    f"servesync_memory_estimate_bytes{{{WHERE}}}": "300x120",
    f"servesync_memory_budget_bytes{{{WHERE}}}": "500x120",
    f'servesync_publish_to_available_seconds_bucket{{{WHERE}, le="60"}}': "0+1x120",
    f'servesync_publish_to_available_seconds_bucket{{{WHERE}, le="3600"}}': "0+1x120",
    f'servesync_publish_to_available_seconds_bucket{{{WHERE}, le="+Inf"}}': "0+1x120",
    f'servesync_settings_reloads_total{{{WHERE}, outcome="rejected"}}': "0x120",
    f'servesync_settings_reloads_total{{{WHERE}, outcome="applied"}}': "0+1x120",
    f"servesync_settings_in_force{{{WHERE}}}": "1x40 0x10 1x69",
    f"servesync_model_held_newest_version{{{MODEL}}}": "_x40 8x5 _x75",
    f"servesync_log_lines_dropped_total{{{WHERE}}}": "0x120",
}
"""Two hours, a sample a minute: an update in the middle, a restart of the server, a passing failure."""


def one(name: str, more: str = "") -> str:
    """Return the name of a series of the agent `a`."""
    return f"{name}{{{WHERE}{more}}}"


def of_model(name: str) -> str:
    """Return the name of a series of its model."""
    return f"{name}{{{MODEL}}}"


PROVOKED: Final[Mapping[str, Series]] = {
    "ServesyncDown": {one("up"): "1x60 0x60"},
    "ServesyncStuck": {one("servesync_loop_alive"): "1x60 0x60"},
    "ServesyncStoreNotRead": {one("servesync_last_good_poll_timestamp_seconds"): "0+60x60 3600x60"},
    "ServesyncStoreNeverRead": {one("servesync_last_good_poll_timestamp_seconds"): "_x120"},
    "ServesyncModelNotOnDisk": {of_model("servesync_model_proven_versions"): "0x120"},
    "ServesyncModelNotServed": {of_model("servesync_model_served"): "1x60 0x60"},
    "ServesyncModelBehind": {of_model("servesync_model_in_place"): "1x60 0x60"},
    "ServesyncVersionRefused": {one("servesync_refusals_total", ', reason="content_differs"'): "_x110 1x10"},
    "ServesyncNewestVersionHeld": {
        of_model("servesync_model_held_newest_version"): "_x60 9x3 _x5 9x3 _x5 9x3 _x5 9x40"
    },
    "ServesyncServerSilent": {one("servesync_server_answering"): "1x60 0x60"},
    "ServesyncFailing": {one("servesync_failures_total", ', reason="store_throttled"'): "0+1x120"},
    "ServesyncDiskShort": {one("servesync_disk_free_bytes"): "500x60 140x60"},
    "ServesyncMemoryShort": {one("servesync_memory_estimate_bytes"): "300x60 490x60"},
    "ServesyncSlowUpdates": {
        one("servesync_publish_to_available_seconds_bucket", ', le="60"'): "0x120",
    },
    "ServesyncFleetDisagrees": {of_model("servesync_model_newest_available_version"): "7x120"},
    "ServesyncSettingsRejected": {
        one("servesync_settings_reloads_total", ', outcome="rejected"'): "0x110 1x10"
    },
    "ServesyncSettingsNotInForce": {one("servesync_settings_in_force"): "1x60 0x60"},
    "ServesyncLogLost": {one("servesync_log_lines_dropped_total"): "0x110 5x10"},
}


@pytest.fixture(scope="module")
def promtool() -> str:
    """Prometheus's own tool."""
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("no promtool here (Debian's package prometheus)")
    return found


def names_of_alerts() -> set[str]:
    """Return the name of every rule."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return {rule["alert"] for group in groups for rule in group["rules"]}


def scenario(changes: Series, minutes: list[int], firing: set[str]) -> dict[str, Any]:
    """Return a test for promtool: at these minutes exactly these alerts are firing."""
    samples = [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in sorted(firing)]
    return {
        "interval": "1m",
        "input_series": [
            {"series": name, "values": values} for name, values in {**HEALTHY, **changes}.items()
        ],
        "promql_expr_test": [
            {
                "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
                "eval_time": f"{minute}m",
                "exp_samples": samples,
            }
            for minute in minutes
        ],
    }


def run(promtool: str, tmp_path: Path, tests: list[dict[str, Any]]) -> subprocess.CompletedProcess[str]:
    """Let promtool run tests of the rules."""
    file = tmp_path / "tests.yml"
    file.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": tests}))
    return subprocess.run([promtool, "test", "rules", str(file)], capture_output=True, text=True, check=False)


def test_the_rules_are_sound(promtool: str) -> None:
    """As Prometheus would load them."""
    done = subprocess.run(
        [promtool, "check", "rules", str(RULES)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_none_fires_in_a_healthy_run(promtool: str, tmp_path: Path) -> None:
    """At no minute of two hours."""
    done = run(promtool, tmp_path, [scenario({}, list(range(0, MINUTES, 2)), set())])
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_fires_when_provoked(promtool: str, tmp_path: Path) -> None:
    """That one, and no other; every rule has its provocation."""
    assert set(PROVOKED) == names_of_alerts()
    tests = [scenario(changes, [MINUTES - 1], {name}) for name, changes in PROVOKED.items()]
    done = run(promtool, tmp_path, tests)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_job_of_another_name_is_missed_as_well(promtool: str, tmp_path: Path) -> None:
    """In a cluster one job scrapes all pods; what never was an agent is none of ours."""
    others = {
        'up{instance="c", job="pods"}': "1x60 0x60",
        'servesync_build_info{instance="c", job="pods"}': "1x60 stale",
        'up{instance="d", job="pods"}': "1x60 0x60",
    }
    done = run(promtool, tmp_path, [scenario(others, [MINUTES - 1], {"ServesyncDown"})])
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("kind", ["new", "seen before", "again"])
def test_what_was_withdrawn_is_refused_on_purpose(kind: str, promtool: str, tmp_path: Path) -> None:
    """Every new agent refuses it anew: nobody is to be woken by that, nor when the withdrawal is fresh."""
    withdrawn = one("servesync_refusals_total", f', reason="{Reason.VERSION_WITHDRAWN.value}"')
    changes = {
        "new": {
            one("process_start_time_seconds"): "0x120",
            one("servesync_refusals_total", ', reason="archive_format"'): "_x120",
            withdrawn: "1x120",
        },
        "seen before": {withdrawn: "_x60 1x60"},
        "again": {withdrawn: "1x60 2x60"},
    }[kind]
    done = run(promtool, tmp_path, [scenario(changes, list(range(0, MINUTES, 2)), set())])
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_names_what_helps() -> None:
    """A section of the runbook, at an address that one replacement makes that of the reader's own copy."""
    step = re.search(
        r"sed 's#(\S+)#\S+#' deploy/prometheus/alerts.yml", (ROOT / "deploy/README.md").read_text()
    )
    assert step is not None
    headings = re.findall(r"^## (.*)$", (ROOT / "docs/runbook.md").read_text(), re.MULTILINE)
    sections = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    groups = yaml.safe_load(RULES.read_text())["groups"]
    for rule in (rule for group in groups for rule in group["rules"]):
        place, _, section = rule["annotations"]["runbook_url"].partition("#")
        assert place == f"{step[1]}/runbook.md"
        assert section in sections, rule["alert"]


def exposed() -> set[str]:
    """Return the names of all metrics and samples that an agent shows."""
    families = register(full_status(), lambda: 0).collect()
    return {
        name for family in families for name in (family.name, *(sample.name for sample in family.samples))
    }


@pytest.mark.parametrize("path", [RULES, DASHBOARD], ids=["alerts", "dashboard"])
def test_they_name_metrics_that_exist(path: Path) -> None:
    """A renamed metric would silence them without a word."""
    named = set(re.findall(r"\b(?:servesync_[a-z0-9_]+|process_[a-z_]+)\b", path.read_text()))
    assert named
    assert named <= exposed()


def test_the_dashboard_is_one() -> None:
    """JSON with panels that have titles, queries, and a place each."""
    found = json.loads(DASHBOARD.read_text())
    panels = [panel for panel in found["panels"] if panel["type"] != "row"]
    assert len(panels) >= 10
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        assert panel["title"]
        assert panel["gridPos"]["w"] <= 24
        assert all(target["expr"] for target in panel["targets"])


def test_the_dashboard_finds_agents_under_a_job_of_any_name(promtool: str, tmp_path: Path) -> None:
    """As the alerts do: by what an agent shows, in a cluster's job for all pods, and of agents only."""
    queries = {
        panel["title"]: target["expr"].replace("$instance", ".*").replace("$model", ".*")
        for panel in json.loads(DASHBOARD.read_text())["panels"]
        for target in panel.get("targets", [])
    }
    assert not any(re.search(r"\bjob\s*[=!]", query) for query in queries.values())
    agent, other = 'instance="c", job="pods"', 'instance="d", job="pods"'
    memory = "process_resident_memory_bytes"
    test = {
        "interval": "1m",
        "input_series": [
            {"series": f"{memory}{{{agent}}}", "values": "100x5"},
            {"series": f"servesync_build_info{{{agent}}}", "values": "1x5"},
            {"series": f"{memory}{{{other}}}", "values": "200x5"},
        ],
        "promql_expr_test": [
            {
                "expr": queries["Memory of the agent"],
                "eval_time": "3m",
                "exp_samples": [{"labels": f"{memory}{{{agent}}}", "value": 100}],
            }
        ],
    }
    done = run(promtool, tmp_path, [test])
    assert done.returncode == 0, done.stdout + done.stderr
