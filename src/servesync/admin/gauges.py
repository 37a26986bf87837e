"""The gauges: read from `AgentStatus` at each scrape, so that a series ends with its subject."""

from collections.abc import Callable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from servesync.admin.agent_status import AgentStatus
from servesync.admin.snapshot import ModelStatus, Snapshot
from servesync.domain.versions import Version
from servesync.planning.facts import Role, ServerState

MOST_MODELS: Final = 1000

Family = GaugeMetricFamily | CounterMetricFamily
Number = float | None


class Gauges(Collector):
    """The last snapshot as metrics. Reading them never makes the deciding thread wait."""

    def __init__(self, agent_status: AgentStatus, lines_dropped: Callable[[], int]) -> None:
        self._agent_status = agent_status
        self._lines_dropped = lines_dropped

    def collect(self) -> Iterator[Family]:
        """Yield every family; what is not known has no sample."""
        agent_status = self._agent_status
        yield CounterMetricFamily(
            "servesync_log_lines_dropped",
            "Lines of the log that were given up because nobody read it.",
            self._lines_dropped(),
        )
        yield _gauge(
            "servesync_loop_alive", "1 while the deciding thread turns, as /livez.", agent_status.is_alive
        )
        yield _gauge(
            "servesync_loop_turned_timestamp_seconds",
            "When the deciding thread last gave a sign; it may sleep until the next poll.",
            agent_status.turned_at,
        )
        yield _gauge(
            "servesync_transfers_running",
            "Versions that are on their way to the shelf now.",
            len(agent_status.transfers),
        )
        seen = agent_status.snapshot
        if seen is not None:
            yield from _of_agent(seen)
            yield from _of_models(seen)

    def describe(self) -> Iterator[Family]:
        """Yield nothing in advance: which families exist depends on the snapshot."""
        return iter(())


def register(agent_status: AgentStatus, lines_dropped: Callable[[], int]) -> CollectorRegistry:
    """Return the registry of one agent, gauges included."""
    registry = agent_status.metrics.registry
    registry.register(Gauges(agent_status, lines_dropped))
    return registry


def _gauge(name: str, text: str, value: Number) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text)
    if value is not None:
        family.add_metric([], value)
    return family


def _of_agent(seen: Snapshot) -> Iterator[Family]:
    disk, memory = seen.disk, seen.memory
    answers = seen.server.answers if seen.server.url else None
    for name, text, value in (
        ("poll_interval_seconds", "poll.interval_seconds of the settings.", seen.poll_interval_seconds),
        ("last_poll_timestamp_seconds", "When the store was last asked.", seen.store.last_poll_at),
        (
            "last_good_poll_timestamp_seconds",
            "When the store was last listed completely.",
            seen.store.last_good_poll_at,
        ),
        (
            "settings_in_force",
            "1 if the settings on the disk are those in force, 0 if they are not.",
            seen.settings_trouble is None,
        ),
        ("server_answering", "1 if the model server answers, 0 if it does not.", answers),
        ("disk_free_bytes", "Free bytes of the models' filesystem.", disk.free_bytes if disk else None),
        ("disk_size_bytes", "Size of the models' filesystem.", disk.size_bytes if disk else None),
        (
            "disk_reserve_bytes",
            "limits.disk_reserve_bytes: what is to stay free.",
            disk.reserve_bytes if disk else None,
        ),
        (
            "memory_estimate_bytes",
            "Estimated memory of all loaded versions.",
            memory.estimate_bytes if memory else None,
        ),
        (
            "memory_budget_bytes",
            "The budget that the estimate is held to.",
            memory.budget_bytes if memory else None,
        ),
    ):
        yield _gauge(f"servesync_{name}", text, value)


def _of_models(seen: Snapshot) -> Iterator[Family]:
    models = sorted(seen.models.items())[:MOST_MODELS]
    states = GaugeMetricFamily(
        "servesync_versions",
        "Versions of a model by state (as `servesync plan` shows it).",
        labels=["model", "state"],
    )
    for model, item in models:
        for role in Role:
            more = item.more_versions if role is Role.NOT_WANTED else 0
            count = sum(version.role is role for version in item.versions.values()) + more
            states.add_metric([model, role.value], count)
    yield states
    for name, text, value in _PER_MODEL:
        family = GaugeMetricFamily(f"servesync_model_{name}", text, labels=["model"])
        for model, item in models:
            found = value(item)
            if found is not None:
                family.add_metric([model], found)
        yield family


def _available(item: ModelStatus) -> list[Version]:
    return [version for version, one in item.versions.items() if one.server is ServerState.AVAILABLE]


def _published(item: ModelStatus) -> Number:
    newest = item.versions.get(max(item.wanted)) if item.wanted else None
    return newest.published_at if newest else None


_PER_MODEL: Final[tuple[tuple[str, str, Callable[[ModelStatus], Number]], ...]] = (
    ("required", "1 if the model is required.", lambda item: item.required),
    ("in_place", "1 if every wanted version is complete on the shelf.", lambda item: item.in_place),
    ("served", "1 if the server serves every wanted version.", lambda item: item.served),
    ("proven_versions", "Versions on the shelf as they were proven.", lambda item: len(item.proven)),
    (
        "available_versions",
        "Versions that the server says are AVAILABLE.",
        lambda item: len(_available(item)),
    ),
    ("store_versions", "Versions that the store offers.", lambda item: item.in_store),
    (
        "newest_wanted_version",
        "The highest version that policy asks for.",
        lambda item: max(item.wanted, default=None),
    ),
    (
        "newest_available_version",
        "The highest version that the server says is AVAILABLE.",
        lambda item: max(_available(item), default=None),
    ),
    (
        "oldest_available_version",
        "The lowest version that the server says is AVAILABLE.",
        lambda item: min(_available(item), default=None),
    ),
    (
        "held_newest_version",
        "The newest version, if it is above all that are wanted and something keeps it away.",
        lambda item: item.held_newest.version if item.held_newest else None,
    ),
    (
        "newest_published_timestamp_seconds",
        "When the store got the highest version that policy asks for.",
        _published,
    ),
)
