"""A real Prometheus scrapes a real agent through an update, and answers every question of the dashboard."""

import json
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from admin_client import AdminClient
from agent_box import AgentBox
from big_models import files_of, small_archive
from fixtures_store import Bucket
from servesync.publishing import Request, publish_tree, withdraw
from servesync.settings import Store

ROOT = Path(__file__).parents[2]


class Prometheus:
    """One server, asked over its API."""

    def __init__(self, url: str) -> None:
        self.url = url

    def ask(self, query: str) -> list[Any]:
        """Return the result of an instant query; a query that it cannot answer fails the test."""
        answer = httpx.get(f"{self.url}/api/v1/query", params={"query": query}, trust_env=False)
        if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE:
            answer.raise_for_status()  # it is still starting
        found = answer.json()
        assert found["status"] == "success", (query, found)
        return list(found["data"]["result"])

    def value(self, query: str) -> float | None:
        """Return the only value of a query; None if there is none."""
        found = self.ask(query)
        assert len(found) <= 1, (query, found)
        return float(found[0]["value"][1]) if found else None

    def firing(self) -> set[str]:
        """Return the names of the alerts that are firing."""
        return {item["metric"]["alertname"] for item in self.ask('ALERTS{alertstate="firing"}')}


@contextmanager
def scraping(folder: Path, target: str) -> Iterator[Prometheus]:
    """Run a Prometheus that scrapes `target` ten times a second, with the alert rules loaded."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("no prometheus here (Debian's package prometheus)")
    config = folder / "prometheus.yml"
    settings = {
        "global": {"scrape_interval": "100ms", "evaluation_interval": "200ms"},
        "rule_files": [str(ROOT / "deploy/prometheus/alerts.yml")],
        "scrape_configs": [{"job_name": "servesync", "static_configs": [{"targets": [target]}]}],
    }
    config.write_text(yaml.safe_dump(settings))
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [
        program,
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address={address}",
        "--log.level=error",
    ]
    process = subprocess.Popen(command)
    try:
        yield Prometheus(f"http://{address}")
    finally:
        process.terminate()
        process.wait(30)


def questions_of_the_dashboard() -> list[str]:
    """Return every query, for all instances and models."""
    found = json.loads((ROOT / "deploy/grafana/dashboard.json").read_text())
    queries = [target["expr"] for panel in found["panels"] for target in panel["targets"]]
    return [re.sub(r"\$\w+", ".*", query) for query in queries]


def test_an_update_shows(tmp_path: Path, box: AgentBox, bucket: Bucket, real_models: Path) -> None:
    """Version 1, version 2, and a bad version 3: counted, shown, and the one alert that it deserves.

    Version 9 was withdrawn before this agent began: it refuses that, as everybody has, and nobody is woken.
    """
    tree = files_of(real_models / "plain_module")
    admin = AdminClient.listen(box)
    bucket.put("prod/m/1.tar.gz", small_archive(tree, 1))
    _withdraw_a_version(bucket, real_models / "plain_module", 9)
    with box.running():
        host, port = admin.address
        with scraping(tmp_path, f"{host}:{port}") as prometheus:
            newest = "servesync_model_newest_wanted_version"
            box.until(lambda: _answers(prometheus), "prometheus to start")
            box.until(lambda: prometheus.value(newest) == 1, "version 1")
            assert prometheus.firing() == set()
            bucket.put("prod/m/2.tar.gz", small_archive(tree, 2))
            box.until(lambda: prometheus.value(newest) == 2, "version 2")
            pruned = 'servesync_actions_total{action="prune",outcome="done"}'
            box.until(lambda: prometheus.value(pruned) == 1, "its end")
            refused = 'servesync_refusals_total{reason="version_withdrawn"}'
            assert (prometheus.value(refused) or 0) >= 1
            assert prometheus.value("servesync_model_in_place") == 1
            assert prometheus.value("servesync_publish_to_available_seconds_count") == 1
            assert prometheus.value('servesync_stage_duration_seconds_count{stage="fetch"}') == 2
            assert (prometheus.value("time() - servesync_last_good_poll_timestamp_seconds") or 0) < 60
            assert prometheus.firing() == set()

            bucket.put("prod/m/3.tar.gz", b"no archive")
            box.until(lambda: prometheus.firing() == {"ServesyncVersionRefused"}, "the alert")
            for query in questions_of_the_dashboard():
                prometheus.ask(query)
            rules = httpx.get(f"{prometheus.url}/api/v1/rules", trust_env=False).json()["data"]["groups"]
            assert {rule["health"] for group in rules for rule in group["rules"]} == {"ok"}


def _withdraw_a_version(bucket: Bucket, model: Path, version: int) -> None:
    server = bucket.server
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_ACCESS_KEY_ID", server.access_key)
        environment.setenv("AWS_SECRET_ACCESS_KEY", server.secret_key)
        store = Store(url=f"s3://{bucket.name}/prod", endpoint_url=server.endpoint_url, region="us-east-1")
        publish_tree(model, store, Request("m", version))
        withdraw(store, ("m", str(version)), "me", "wrong data")


def _answers(prometheus: Prometheus) -> bool:
    try:
        return bool(prometheus.ask("up"))
    except httpx.HTTPError:
        return False
