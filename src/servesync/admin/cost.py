"""What the requests to the store would cost at Amazon's list prices: an estimate, with its assumptions."""

from dataclasses import dataclass
from typing import Final

from prometheus_client import Counter

from servesync.admin.agent_status import AgentStatus
from servesync.settings import Prices

MONTH_SECONDS: Final = 30 * 86_400
GB: Final = 1e9


@dataclass(frozen=True, slots=True)
class Cost:
    """Requests and bytes since the start, what they cost in US dollars, and what a month of polling does."""

    list_requests: int
    read_requests: int
    fetched_bytes: int
    since_start_usd: float
    month_of_polling_usd: float | None
    list_usd_per_1000: float
    read_usd_per_1000: float
    transfer_usd_per_gb: float


def cost_of(agent_status: AgentStatus, prices: Prices) -> Cost:
    """Return the estimate."""
    lists, reads = (
        _requests(agent_status, "list"),
        _requests(agent_status, "get") + _requests(agent_status, "head"),
    )
    fetched = total(agent_status.metrics.source_bytes, source="store")
    since_start = (
        lists / 1000 * prices.list_usd_per_1000
        + reads / 1000 * prices.read_usd_per_1000
        + fetched / GB * prices.transfer_usd_per_gb
    )
    seen = agent_status.snapshot
    month = None
    if seen is not None and seen.store.requests is not None:
        polls = MONTH_SECONDS / seen.poll_interval_seconds
        month = polls * seen.store.requests / 1000 * prices.list_usd_per_1000
    return Cost(
        list_requests=lists,
        read_requests=reads,
        fetched_bytes=fetched,
        since_start_usd=round(since_start, 6),
        month_of_polling_usd=None if month is None else round(month, 4),
        **prices.model_dump(),
    )


def _requests(agent_status: AgentStatus, operation: str) -> int:
    return total(agent_status.metrics.s3_requests, operation=operation)


def total(counter: Counter, **labels: str) -> int:
    """Return the sum of a counter over all series with these labels."""
    samples = [sample for family in counter.collect() for sample in family.samples]
    return int(
        sum(
            sample.value
            for sample in samples
            if sample.name.endswith("_total") and labels.items() <= sample.labels.items()
        )
    )
