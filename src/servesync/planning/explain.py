"""Why every version is where it is, in the words that `servesync plan` shows."""

from typing import Final

from servesync.domain.versions import ProvenBy, Version
from servesync.errors import Reason
from servesync.planning.facts import (
    Action,
    Condition,
    Confirm,
    Install,
    Pin,
    Prune,
    Quarantine,
    Repair,
    Restore,
    Retry,
    Role,
    ServerState,
    Verdict,
    Wait,
)
from servesync.planning.facts_index import SETTLED_SECONDS, View

_PROOFS: Final = {
    ProvenBy.MANIFEST: "proven by its manifest",
    ProvenBy.STORE_CHECKSUM: "proven by the store's checksum",
    ProvenBy.NOTHING: "unproven (neither a manifest nor a checksum of the store)",
}

READ_AGAIN: Final = (
    "its files have changed since they were proven (their times, or a crash came just after the rename); "
    "being read again"
)


def verdicts(view: View, actions: tuple[Action, ...]) -> dict[Version, Verdict]:
    """Return a verdict on every version that the store, the shelf or the policy names."""
    names = set(view.facts.shelf) | view.offered.keys() | set(view.facts.held) | set(view.facts.reserve)
    names |= view.named or frozenset()
    ordered = {action.version: action for action in reversed(actions)}
    return {version: _verdict(view, version, ordered.get(version)) for version in sorted(names)}


def _verdict(view: View, version: Version, action: Action | None) -> Verdict:
    match action:
        case Install(because=why) | Restore(because=why):
            return Verdict(Role.TO_INSTALL, why)
        case Repair(because=why):
            return Verdict(Role.TO_REPAIR, why)
        case Prune(because=why) | Quarantine(because=why):
            return Verdict(Role.TO_PRUNE, why)
        case Wait(because=why) | Retry(because=why):
            return Verdict(Role.WAITING, why)
        case Confirm() | None:
            pass
    if version in view.good:
        return _verdict_on_shelf(view, version)
    if version in view.facts.shelf:
        return _verdict_on_strange(view, version)
    return _verdict_in_store(view, version)


def _verdict_on_shelf(view: View, version: Version) -> Verdict:
    if version in view.facts.withdrawn:
        hold = view.facts.held.get(version)
        why = f" ({hold.text})" if hold else ""
        until = "another version that policy wants serves"
        if version in view.facts.labelled:
            until += (
                ", and no label points to it any more, which the server must have read: move the label, or "
                "the channel that it follows"
            )
        return Verdict(Role.KEPT, f"withdrawn{why}; kept until {until}")
    note = f"; {_PROOFS[view.good[version].proven_by]}{_store_note(view, version)}"
    if version not in view.wanted:
        until = _kept_until(view, version)
        return Verdict(Role.KEPT, f"not wanted ({view.policy}), kept until {until}{note}")
    return _verdict_of_server(view, version, note)


def _verdict_of_server(view: View, version: Version, note: str) -> Verdict:
    if not view.server.asked:
        return Verdict(Role.SERVING, f"wanted and on the shelf (no server to ask){note}")
    if not view.is_expected(version):
        return Verdict(
            Role.WAITING, f"on the shelf; a server with policy latest serves a higher number{note}"
        )
    served = view.says(version)
    if view.server.versions is None:
        return Verdict(Role.WAITING, f"wanted and on the shelf; the server does not answer{note}")
    if served is None:
        return Verdict(Role.WAITING, f"wanted and on the shelf; the server does not list it{note}")
    if served.state is ServerState.AVAILABLE:
        return Verdict(Role.SERVING, f"wanted, on the shelf, and the server says AVAILABLE{note}")
    detail = f" ({served.error_code}: {served.message})" if served.error_code != "OK" else ""
    return Verdict(
        Role.WAITING, f"wanted and on the shelf; the server says {served.state.value}{detail}{note}"
    )


def _store_note(view: View, version: Version) -> str:
    offered = view.offered.get(version)
    if offered is None:
        listed = view.facts.offered is not None and version not in view.facts.held
        return "; the store no longer lists it, which removes nothing" if listed else ""
    if offered == view.good[version].identity:
        return ""
    return (
        "; the store now offers something else under this number: "
        "versions are immutable, publish it under a new one"
    )


def _kept_until(view: View, version: Version) -> str:
    if version in view.facts.labelled:
        return "no label points to it, and the server has read that"
    if view.facts.offered is None:
        return "the store answers"
    if view.pins_missing:
        return f"every version that policy names is in place (missing: {sorted(view.pins_missing)})"
    if view.channels_unknown:
        return f"every channel has a position (not seen yet: {', '.join(view.channels_unknown)})"
    if view.server.asked and view.server.versions is None:
        return "the server answers"
    return "every wanted version serves"


def _verdict_on_strange(view: View, version: Version) -> Verdict:
    if version in view.checking:
        return Verdict(Role.WAITING, READ_AGAIN)
    hold = view.facts.held.get(version)
    why = f" ({hold.reason.value}: {hold.text})" if hold else ""
    if view.facts.shelf[version].condition is Condition.UNRECORDED:
        text = "on the shelf, but its record cannot be read: it is left as it is"
        return Verdict(Role.HELD, text + (why or "; servesync's log and /status say more"))
    if view.facts.shelf[version].condition is Condition.FOREIGN:
        undecided = hold is None or hold.passing or hold.reason is Reason.RELEASE_INCOMPLETE
        if undecided and version in view.offered:
            text = "not put there by servesync; the store has this number, too: leave it, it is compared, and"
            return Verdict(Role.FOREIGN, f"{text} taken over if it is the same{why}")
        return Verdict(
            Role.FOREIGN,
            f"not put there by servesync, so left alone; remove it by hand if it is not wanted{why}",
        )
    if version in view.offered and view.offered[version] != view.owned[version].identity:
        text = (
            "damaged on the shelf, and the store now offers something else under this number: "
            "publish it under a new one"
        )
        return Verdict(Role.HELD, text + why)
    if version in view.offered:
        return Verdict(Role.HELD, f"damaged on the shelf; its repair waits{why}")
    return Verdict(Role.HELD, f"damaged on the shelf, and the store does not offer it: publish it again{why}")


def _why_parked(view: View) -> str:
    text = f"taken off the shelf; it comes back when the server has answered for {SETTLED_SECONDS:.0f} s"
    if not view.is_silent:
        return f"{text} (so far {view.server.answered_seconds:.0f} s)"
    others = ", ".join(map(str, sorted(view.stand_ins)))
    return f"{text}; until then {others} is tried" if others else text


def _verdict_in_store(view: View, version: Version) -> Verdict:
    hold = view.facts.held.get(version)
    if version in view.parked and version in view.wanted:
        return Verdict(Role.WAITING, _why_parked(view))
    if version in view.returning and version in view.wanted:
        text = "taken off the shelf to be tried again; it comes back as soon as the server has seen it gone"
        return Verdict(Role.WAITING, text)
    short = hold is not None and hold.reason is Reason.MEMORY_SHORT
    if version in view.facts.reserve and version not in view.wanted and not short:
        return Verdict(Role.RESERVED, f"not wanted ({view.policy}); in the reserve, ready to come back")
    if hold:
        return Verdict(Role.HELD, f"{hold.reason.value}: {hold.text}")
    if version not in view.offered:
        by = "pinned" if isinstance(view.facts.policy, Pin) else f"wanted by policy ({view.policy})"
        return Verdict(Role.MISSING, f"{by}, but neither in the store nor on the shelf")
    if version in view.wanted:
        return Verdict(Role.TO_INSTALL, f"wanted by policy ({view.policy}); its turn comes later")
    return Verdict(Role.NOT_WANTED, f"in the store; not wanted by policy ({view.policy})")
