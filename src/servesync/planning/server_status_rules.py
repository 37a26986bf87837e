"""What happens to a version on the shelf that the server has refused, or has not tried.

The server never tries a name again that has not been gone for a scan. Under policy `all` a version that is
taken off for longer than that, and put back, is tried anew; under `latest` a number that failed is dead until
a higher one comes, so there it only leaves.
"""

from typing import Final

from servesync.domain.versions import Version
from servesync.errors import Reason
from servesync.planning.actions import Quarantine, Retry
from servesync.planning.facts import Served, ServerPolicy, ServerState
from servesync.planning.facts_index import FactsIndex
from servesync.planning.server_ends import MOST_TRIES, step_aside

MAY_PASS: Final = frozenset(
    {"RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED", "UNAVAILABLE", "ABORTED", "CANCELLED"}
)
"""Codes of absl::Status that say more of the moment than of the version."""

NOTICE_SECONDS: Final = 10.0


def refusal(index: FactsIndex, version: Version) -> Quarantine | Retry | None:
    """Return the order to take a good version off the shelf, if the server gives a reason for that.

    Time counts only while the server answers and shows the version: a server that is down, restarting or
    not configured for it refuses nothing. What a silent server means is decided in `server_ends`.
    """
    served = index.says(version)
    item = index.good.get(version)
    if item is None:
        return None
    if index.is_silent:
        return step_aside(index, version)
    if served is None:
        return None
    if served.stale:
        return _stale_status(index, version, served)
    if served.failed:
        return _failure(index, version, served)
    trial = (index.server.trials or {}).get(version)
    if trial is not None and version in index.on_trial:
        return Quarantine(version, f"{trial.text}{_way_back(index)}", Reason.SMOKE_FAILED)
    waited = index.server.waited_seconds.get(version, 0.0)
    ended = served.state in {ServerState.AVAILABLE, ServerState.END}
    if not item.confirmed and not ended and waited >= index.server.load_timeout_seconds:
        text = (
            f"still {served.state.value} after {waited:.0f} s (serving.load_timeout_seconds is "
            f"{index.server.load_timeout_seconds:.0f}){_way_back(index)}"
        )
        return Quarantine(version, text, Reason.SERVER_LOAD_TIMEOUT)
    return None


def _stale_status(index: FactsIndex, version: Version, served: Served) -> Quarantine | Retry | None:
    """Return the order that makes the server look again, once it has had time to scan and has not."""
    tries = index.good[version].tries
    waited = index.server.waited_seconds.get(version, 0.0)
    if index.server.policy is ServerPolicy.LATEST or waited < 2 * index.server.scan_seconds + NOTICE_SECONDS:
        return None
    if tries < MOST_TRIES:
        what = f"{served.error_code}: {served.message}" if served.error_code != "OK" else "END"
        return Retry(version, f"the server still reports the status of older bytes of this number ({what})")
    return _failure(index, version, served) if served.error_code != "OK" else None


def _failure(index: FactsIndex, version: Version, served: Served) -> Quarantine | Retry | None:
    text = f"the server ended it with {served.error_code}: {served.message}"
    item = index.good[version]
    if index.server.policy is ServerPolicy.ALL and item.tries < MOST_TRIES:
        if item.confirmed:
            return Retry(version, f"{text}; it has served this version before")
        if served.error_code in MAY_PASS:
            return Retry(version, f"{text}, which may pass")
    if item.confirmed and index.server.policy is ServerPolicy.LATEST:
        return None
    tried = f" (and so {item.tries} times before)" if item.tries else ""
    return Quarantine(version, f"{text}{tried}{_way_back(index)}", Reason.SERVER_REFUSED)


def _way_back(index: FactsIndex) -> str:
    if index.server.policy is ServerPolicy.LATEST:
        return "; a server with policy latest never tries this number again: publish a higher one"
    return ""
