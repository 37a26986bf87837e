"""Why every version is where it is, in the words that `servesync plan` shows."""

from typing import Final

from servesync.domain.versions import ProvenBy, Version
from servesync.errors import Reason
from servesync.planning.actions import (
    Action,
    Confirm,
    Install,
    Prune,
    Quarantine,
    Repair,
    Restore,
    Retry,
    Try,
    Wait,
)
from servesync.planning.facts import Condition, Pin, Role, ServerState, Verdict
from servesync.planning.facts_index import STABLE_SECONDS, FactsIndex

_PROOFS: Final = {
    ProvenBy.MANIFEST: "proven by its manifest",
    ProvenBy.STORE_CHECKSUM: "proven by the store's checksum",
    ProvenBy.NOTHING: "unproven (neither a manifest nor a checksum of the store)",
}

READ_AGAIN: Final = (
    "its files may have changed since they were proven (their times differ, or the agent crashed just after "
    "the rename); it is being read again"
)


def explain(index: FactsIndex, actions: tuple[Action, ...]) -> dict[Version, Verdict]:
    """Return the role of every version that the store, the shelf or the policy names, and why it has it."""
    names = set(index.facts.shelf) | index.offered.keys() | set(index.facts.held) | set(index.facts.reserve)
    names |= index.named or frozenset()
    ordered = {action.version: action for action in reversed(actions)}
    return {version: _verdict(index, version, ordered.get(version)) for version in sorted(names)}


def _verdict(index: FactsIndex, version: Version, action: Action | None) -> Verdict:
    match action:
        case Install(because=why) | Restore(because=why):
            return Verdict(Role.TO_INSTALL, why)
        case Repair(because=why):
            return Verdict(Role.TO_REPAIR, why)
        case Prune(because=why) | Quarantine(because=why):
            return Verdict(Role.TO_PRUNE, why)
        case Wait(because=why) | Retry(because=why) | Try(because=why):
            return Verdict(Role.WAITING, why)
        case Confirm() | None:
            pass
    if version in index.good:
        return _verdict_on_shelf(index, version)
    if version in index.facts.shelf:
        return _verdict_on_unrecognized(index, version)
    return _verdict_in_store(index, version)


def _verdict_on_shelf(index: FactsIndex, version: Version) -> Verdict:
    if version in index.facts.withdrawn:
        hold = index.facts.held.get(version)
        why = f" ({hold.text})" if hold else ""
        until = "another version that policy wants serves"
        if version in index.facts.labelled:
            until += (
                ", and no label points to it any more, which the server must have read: move the label, or "
                "the channel that it follows"
            )
        return Verdict(Role.KEPT, f"withdrawn{why}; kept until {until}")
    note = f"; {_PROOFS[index.good[version].proven_by]}{_store_note(index, version)}"
    if version not in index.wanted:
        until = _kept_until(index, version)
        return Verdict(Role.KEPT, f"not wanted ({index.policy}), kept until {until}{note}")
    return _verdict_of_server(index, version, note)


def _verdict_of_server(index: FactsIndex, version: Version, note: str) -> Verdict:
    if not index.server.asked:
        return Verdict(Role.SERVING, f"wanted and on the shelf (no server to ask){note}")
    if not index.is_expected(version):
        return Verdict(
            Role.WAITING, f"on the shelf; a server with policy latest serves a higher number{note}"
        )
    served = index.says(version)
    if index.server.versions is None:
        return Verdict(Role.WAITING, f"wanted and on the shelf; the server does not answer{note}")
    if served is None:
        return Verdict(Role.WAITING, f"wanted and on the shelf; the server does not list it{note}")
    if served.state is ServerState.AVAILABLE:
        return Verdict(Role.SERVING, f"wanted, on the shelf, and the server says AVAILABLE{note}")
    detail = f" ({served.error_code}: {served.message})" if served.error_code != "OK" else ""
    return Verdict(
        Role.WAITING, f"wanted and on the shelf; the server says {served.state.value}{detail}{note}"
    )


def _store_note(index: FactsIndex, version: Version) -> str:
    offered = index.offered.get(version)
    if offered is None:
        listed = index.facts.offered is not None and version not in index.facts.held
        return "; the store no longer lists it, which removes nothing" if listed else ""
    if offered == index.good[version].identity:
        return ""
    return (
        "; the store now offers something else under this number: "
        "versions are immutable, publish it under a new one"
    )


def _kept_until(index: FactsIndex, version: Version) -> str:
    if version in index.facts.labelled:
        return "no label points to it, and the server has read that"
    if index.facts.offered is None:
        return "the store answers"
    if index.pins_missing:
        return f"every version that policy names is in place (missing: {sorted(index.pins_missing)})"
    if index.channels_unknown:
        return f"every channel has a position (not seen yet: {', '.join(index.channels_unknown)})"
    if index.server.asked and index.server.versions is None:
        return "the server answers"
    return "every wanted version serves"


def _verdict_on_unrecognized(index: FactsIndex, version: Version) -> Verdict:
    if version in index.checking:
        return Verdict(Role.WAITING, READ_AGAIN)
    hold = index.facts.held.get(version)
    why = f" ({hold.reason.value}: {hold.text})" if hold else ""
    if index.facts.shelf[version].condition is Condition.UNRECORDED:
        text = "on the shelf, but its record cannot be read: it is left as it is"
        return Verdict(Role.HELD, text + (why or "; servesync's log and /status say more"))
    if index.facts.shelf[version].condition is Condition.FOREIGN:
        undecided = hold is None or hold.passing or hold.reason is Reason.RELEASE_INCOMPLETE
        if undecided and version in index.offered:
            text = "not put there by servesync; leave it: servesync compares it with the store's, and"
            return Verdict(Role.FOREIGN, f"{text} takes it over if it is the same{why}")
        return Verdict(
            Role.FOREIGN,
            f"not put there by servesync, so left alone; remove it by hand if it is not wanted{why}",
        )
    if version in index.offered and index.offered[version] != index.owned[version].identity:
        text = (
            "damaged on the shelf, and the store now offers something else under this number: "
            "publish it under a new one"
        )
        return Verdict(Role.HELD, text + why)
    if version in index.offered:
        return Verdict(Role.HELD, f"damaged on the shelf; its repair waits{why}")
    return Verdict(Role.HELD, f"damaged on the shelf, and the store does not offer it: publish it again{why}")


def _why_parked(index: FactsIndex) -> str:
    text = f"taken off the shelf; it comes back when the server has answered for {STABLE_SECONDS:.0f} s"
    if not index.is_silent:
        return f"{text} (so far {index.server.answered_seconds:.0f} s)"
    others = ", ".join(map(str, sorted(index.stand_ins)))
    return f"{text}; until then {others} is tried" if others else text


def _verdict_in_store(index: FactsIndex, version: Version) -> Verdict:
    hold = index.facts.held.get(version)
    if version in index.parked and version in index.wanted:
        return Verdict(Role.WAITING, _why_parked(index))
    if version in index.returning and version in index.wanted:
        text = "off the shelf for the server to try it again; it comes back when the server has seen it gone"
        return Verdict(Role.WAITING, text)
    short = hold is not None and hold.reason is Reason.MEMORY_SHORT
    if version in index.facts.reserve and version not in index.wanted and not short:
        return Verdict(Role.RESERVED, f"not wanted ({index.policy}); in the reserve, ready to come back")
    if hold:
        return Verdict(Role.HELD, f"{hold.reason.value}: {hold.text}")
    if version not in index.offered:
        by = "pinned" if isinstance(index.facts.policy, Pin) else f"wanted by policy ({index.policy})"
        return Verdict(Role.MISSING, f"{by}, but neither in the store nor on the shelf")
    if version in index.wanted:
        return Verdict(Role.TO_INSTALL, f"wanted by policy ({index.policy}); its turn comes later")
    return Verdict(Role.NOT_WANTED, f"in the store; not wanted by policy ({index.policy})")
