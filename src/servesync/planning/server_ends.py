"""What happens to a version that never served while the server does not answer: it may be the cause.

A version that makes the server abort while it loads also ends the versions that the server serves, and does
so at each start while it lies on the shelf. An aborted server cannot say why. So the planner takes such a
version off the shelf (a rename), and the server comes up without it. The version comes back when the server
has answered for a while. If the server ended for another reason, the version is only late.
"""

from typing import Final

from servesync.domain.versions import Version
from servesync.errors import Reason
from servesync.planning.actions import Quarantine, Retry
from servesync.planning.facts import Ends
from servesync.planning.facts_index import STABLE_SECONDS, FactsIndex

MOST_TRIES: Final = 3
"""How often a version is taken off to be tried again before it leaves for good."""

MOST_ENDS: Final = 3
"""With so many ends of the server while it had a version to load, that leaves for good."""

FAILED_STARTS: Final = 2
"""So many starts of the server fail before an unproven version gives way to one that is no better known."""

MOST_FAILED_STARTS: Final = 32

_COMES_BACK: Final = (
    f"it comes back when the server has answered for {STABLE_SECONDS:.0f} s without interruption"
)


def step_aside(index: FactsIndex, version: Version) -> Quarantine | Retry | None:
    """Return the order to take a good version off the shelf of a silent server, if it may be the cause.

    Return None if the server only fell silent: it may still serve.
    """
    if index.good[version].confirmed:
        return None
    ends = _ends(index, version)
    if ends.now and _lives_without(index):
        return _after_end(index, version, ends)
    if index.has_served:
        return _after_silence(index, version)
    return _in_turn(index, version, ends)


def what_next(index: FactsIndex, version: Version) -> str:
    """Return, in words, when a version that waits for a silent server steps aside, if it does."""
    after = f"{index.server.load_timeout_seconds:.0f} s without a server (serving.load_timeout_seconds)"
    if index.has_served:
        return f" (it steps aside if the server ends at its start, or after {after})"
    rivals = _rivals(index, version) - {version}
    others = rivals or index.others_than(version)
    if not others:
        return (
            " (if the server ends at every start, this version may be the cause: see the server's log; "
            "there is no other to try: publish a higher number, and withdraw this one)"
        )
    if rivals and version == _first(index):
        return ""
    starts = _failed_starts(index, version)
    seen = f", of which {_ends(index, version).now} were seen" if _ends(index, version).now else ""
    return (
        f" (it steps aside for {', '.join(map(str, sorted(others)))} after {starts} failed starts{seen}, or "
        f"after {after})"
    )


def _ends(index: FactsIndex, version: Version) -> Ends:
    return index.server.ends.get(version, Ends())


def _lives_without(index: FactsIndex) -> bool:
    """Whether the server is known to come up without a version that it never served."""
    return index.has_served or index.server.has_answered


def _after_end(index: FactsIndex, version: Version, ends: Ends) -> Quarantine | Retry:
    """Take off the version that the server was to load when it ended; for good after `MOST_ENDS` such ends.

    A server that has not answered since its last end says nothing new about the version.
    """
    item = index.good[version]
    seen = f"the server ended {_times(ends.ever)} while it had this version to load, and has never served it"
    if item.tries:
        seen += f" (taken off {_times(item.tries)} before)"
    if ends.had_answered and max(ends.ever, item.tries + 1) >= MOST_ENDS:
        return Quarantine(version, seen, Reason.SERVER_REFUSED)
    return Retry(version, f"{seen}: {_COMES_BACK}")


def _after_silence(index: FactsIndex, version: Version) -> Quarantine | Retry | None:
    """Take off a version if nothing has listened for long: the server may end unseen at each start."""
    tries = index.good[version].tries
    if not _is_long_unreachable(index, version):
        return None
    waited = index.server.unreachable_seconds[version]
    limit = f"serving.load_timeout_seconds is {index.server.load_timeout_seconds:.0f}"
    text = (
        f"no server has listened for {waited:.0f} s with it on the shelf ({limit}), and none ever served it"
    )
    if tries < MOST_TRIES:
        return Retry(version, f"{text}: {_COMES_BACK}")
    return Quarantine(version, f"{text}; it came up without it {tries} times before", Reason.SERVER_REFUSED)


def _in_turn(index: FactsIndex, version: Version, ends: Ends) -> Retry | None:
    """Let versions take turns where none ever served: the server may start with another one.

    Of several versions on the shelf, the first stays and the others leave. No version is refused: the server
    may fail for a reason that has nothing to do with them.
    """
    is_due = ends.now >= _failed_starts(index, version) or _is_long_unreachable(index, version)
    others = _rivals(index, version) - {version}
    if not is_due or (others and version == _first(index)):
        return None
    others = others or index.others_than(version)
    if not others:
        return None
    if ends.now:
        seen = f"the server ended {_times(ends.now)} with it on the shelf, and has not come up"
    else:
        seen = f"no server has listened for {index.server.unreachable_seconds[version]:.0f} s"
    return Retry(
        version,
        f"{seen}, and nothing here ever served: {', '.join(map(str, sorted(others)))} is tried without it; "
        f"{_COMES_BACK}",
    )


def _failed_starts(index: FactsIndex, version: Version) -> int:
    """Return after how many failed starts it is another one's turn; each round takes twice as long."""
    return min(MOST_FAILED_STARTS, FAILED_STARTS << min(index.good[version].tries, 8))


def _is_long_unreachable(index: FactsIndex, version: Version) -> bool:
    waited = index.server.unreachable_seconds.get(version, 0.0)
    return waited >= index.server.load_timeout_seconds


def _rivals(index: FactsIndex, version: Version) -> frozenset[Version]:
    """Return the versions of which one may be why the server does not come up; `version` is one of them."""
    return frozenset(v for v, item in index.good.items() if index.is_expected(v) and not item.confirmed) | {
        version
    }


def _first(index: FactsIndex) -> Version:
    """Return the version that stays alone when the others step aside: tried least, then lowest."""
    rivals = [v for v, item in index.good.items() if index.is_expected(v) and not item.confirmed]
    return min(rivals, key=lambda v: (index.good[v].tries, v))


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
