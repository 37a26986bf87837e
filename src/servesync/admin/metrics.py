"""The instruments that are counted up as things happen; `docs/metrics.md` describes each.

A registry of our own: two agents in one process do not share it. No label takes a word from outside: stages,
operations, outcomes and reasons come from lists in the code, models from the settings.
"""

import platform
from enum import StrEnum
from functools import partial
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram, Info, ProcessCollector

from servesync import __version__

STAGE_BUCKETS: Final = (0.01, 0.05, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800)
DELAY_BUCKETS: Final = (1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600)
CYCLE_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60)
SOURCES: Final = ("staging", "version", "cache", "mirror", "store")
"""From where the bytes of a release come, the cheapest first."""


class Stage(StrEnum):
    """The stages of a version's journey that take time."""

    LIST = "list"
    FETCH = "fetch"
    VERIFY = "verify"
    INSTALL = "install"
    CONFIRM = "confirm"


class Metrics:
    """All counters and histograms of one agent, with their registry."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        build = Info(
            "servesync_build", "The version of servesync, and of the Python that runs it.", registry=registry
        )
        build.info({"version": __version__, "python": platform.python_version()})
        counter = partial(Counter, namespace="servesync", registry=registry)
        histogram = partial(Histogram, namespace="servesync", registry=registry)
        self.polls = counter(
            "polls", "Listings of the store, by outcome: ok, or the reason why there was none.", ["outcome"]
        )
        self.s3_requests = counter(
            "s3_requests", "Requests sent to the store, repeated ones included.", ["operation", "outcome"]
        )
        self.fetched_bytes = counter("fetched_bytes", "Stored bytes of releases that were unpacked.")
        self.source_bytes = counter(
            "source_bytes",
            "Stored bytes of releases by where they came from; what was read again counts again.",
            ["source"],
        )
        self.stage_seconds = histogram(
            "stage_duration_seconds",
            "Duration of the stages of a version's journey that came to a good end.",
            ["stage"],
            buckets=STAGE_BUCKETS,
        )
        self.cycle_seconds = histogram(
            "cycle_seconds",
            "Duration of one cycle of the deciding thread, which waits for nothing.",
            buckets=CYCLE_BUCKETS,
        )
        self.actions = counter(
            "actions", "What was done to versions on this instance.", ["action", "outcome"]
        )
        self.refusals = counter(
            "refusals", "Versions refused before installation, or by the model server after it.", ["reason"]
        )
        self.failures = counter(
            "failures", "Steps that failed in a way that may pass, each time that they did.", ["reason"]
        )
        self.publish_to_available = histogram(
            "publish_to_available_seconds",
            "From the time at which the store has a version to AVAILABLE on the model server.",
            buckets=DELAY_BUCKETS,
        )
        self.reloads = counter("settings_reloads", "Readings of a changed settings file.", ["outcome"])
        self._start_at_zero()

    def took(self, stage: Stage, seconds: float) -> None:
        """Note how long a stage took."""
        self.stage_seconds.labels(stage.value).observe(seconds)

    def _start_at_zero(self) -> None:
        """Show the series that every agent will have: `increase()` needs a first value."""
        for stage in Stage:
            self.stage_seconds.labels(stage.value)
        for outcome in ("applied", "unchanged", "rejected"):
            self.reloads.labels(outcome)
        for source in SOURCES:
            self.source_bytes.labels(source)
        self.polls.labels("ok")
