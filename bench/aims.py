"""What was aimed at: ratios of runs in turn, and memory; each with what was measured."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from cases import AGAIN, AGENTS, FULL, HEAD, KILLED, OURS, PUBLISHED, SYNC
from results import Result, Rows, Spread, figure, ratios, spread

IN_FLIGHT_MB: Final = 8 * 6.3
"""`fetch.connections` times `fetch.part_bytes`, by default."""

PEAK_MB: Final = 160.0
Results = dict[str, Result]


@dataclass(frozen=True)
class Met:
    """An aim: what, at most how much, and what came out."""

    what: str
    at_most: float
    found: Spread
    digits: int = 2

    @property
    def is_met(self) -> bool:
        """Whether the median is within the aim."""
        return self.found.median <= self.at_most


def aims(results: Results) -> Iterator[Met]:
    """Return every aim for which something was measured."""
    yield from _speed(results)
    yield from _less(results)
    yield from _tls(results)
    yield from _memory(results)


TIMES: Final = (
    ("tar.gz", "aws s3 cp, tar --gzip", 0.45, ("http", "https")),
    ("tar.gz", "s5cmd cat | igzip -dc | tar x", 0.7, ("http", "https")),
    ("frames", "s5cmd cat | zstd -dc | tar x", 0.6, ("http", "https")),
    ("frames", "download alone, s5cmd cat", 1.3, ("http", "https")),
    ("frames", "download alone, one connection (curl)", 0.2, ("slow",)),
)


NAMED: Final = {rival for _, rival, _, _ in TIMES} | {"tar --zstd | aws s3 cp -"}


def _speed(results: Results) -> Iterator[Met]:
    for case, rival, at_most, links in TIMES:
        for link in links:
            rows = _rows(results, case, link)
            found = ratios(figure(rows, SYNC, "seconds"), figure(rows, rival, "seconds"))
            if found:
                yield Met(f"{case}, {link}: time against `{rival}`", at_most, found)


def _less(results: Results) -> Iterator[Met]:
    """Only what changed, and only once."""
    for link in ("http", "https", "slow"):
        rows = _rows(results, "head", link)
        sent = ratios(figure(rows, HEAD, "sent_mb"), figure(rows, HEAD, "stored_mb"))
        if sent:
            yield Met(f"head, {link}: bytes against those of the release", 0.08, sent)
        time = ratios(figure(rows, HEAD, "seconds"), figure(rows, FULL, "seconds"))
        if time:
            yield Met(f"head, {link}: time against a full install", 0.3, time)
        again = figure(_rows(results, "restart", link), AGAIN, "twice_mb")
        if again:
            yield Met(f"restart, {link}: MB that were sent twice", IN_FLIGHT_MB, spread(again), digits=0)
    rows, last = _rows(results, "fleet", "http"), f"servesync, the {AGENTS[-1]} agent"
    all_sent = ratios(figure(rows, last, "all_mb"), figure(rows, last, "stored_mb"))
    if all_sent:
        yield Met("three agents with one cache: bytes against those of the release", 1.1, all_sent)


def _tls(results: Results) -> Iterator[Met]:
    for case in ("tar.gz", "frames"):
        plain, tls = (figure(_rows(results, case, link), SYNC, "seconds") for link in ("http", "https"))
        found = ratios(tls, plain)
        if found:
            yield Met(f"{case}: HTTPS against HTTP", 1.3, found)


def _memory(results: Results) -> Iterator[Met]:
    tests: tuple[tuple[str, Callable[[str], bool]], ...] = (
        ("sync", lambda name: name.startswith(OURS) and not name.startswith(PUBLISHED) and name != KILLED),
        ("publish", lambda name: name.startswith(PUBLISHED)),
    )
    for what, belongs in tests:
        peaks = [
            found["peak_mb"]
            for result in results.values()
            for rows in result.links.values()
            for name, rounds in rows.items()
            if belongs(name)
            for found in rounds
            if "peak_mb" in found
        ]
        if peaks:
            most = max(peaks)
            yield Met(f"`{what}`: most memory in any run, MB", PEAK_MB, Spread(most, most, most), digits=0)


def _rows(results: Results, case: str, link: str) -> Rows:
    return results[case].links.get(link, {}) if case in results else {}
