"""The planner: facts in, actions with a reason out; the same facts always give the same answer.

The rules, in the order in which they are asked:

1. A version that becomes AVAILABLE for the first time is tried with requests. If it answers them, it is
   confirmed; if not, it leaves the shelf for good. A version that the server refused leaves the shelf: for
   good, or, if the cause may pass or the server has not tried these bytes at all, until the server has seen
   it gone. A version that never served also leaves if the server ends before it has loaded it; it comes back
   when the server has answered for a while. Where no version ever served, such versions take turns. A
   withdrawn version that never served leaves at once.
2. One unconfirmed version at a time: while an answering server has still to load or refuse one, nothing else
   is installed. A server that is silent, or ignores a version, does not keep wanted versions away, but at
   most two versions pile up meanwhile that are neither wanted nor confirmed.
3. A damaged version that is wanted is repaired; a wanted one that is missing is put back from the reserve
   or installed, highest first.
4. Only when every wanted version is in place and served does an unwanted one leave: a withdrawn one first,
   then the lowest; never one that a label points to, or may still point to in the server. A withdrawn
   version is never wanted. Under `latest: N`, a version also leaves when N newer ones serve and still newer
   ones are to come, so that versions do not pile up that come faster than they load. With the setting
   `memory.when_short: retire_first`, a version leaves before its proven successor comes. If the successor
   does not come and nothing serves, the version comes back, whatever policy wants.

Absence is never an order: a version that the listing no longer names stays for as long as policy would
keep it. The planner never touches what servesync did not put there. A version that is being read again
counts as a good one: no other bytes come under its number, and it leaves only if it is withdrawn.
"""

from collections.abc import Iterator
from collections.abc import Set as AbstractSet

from servesync.domain.versions import Version
from servesync.planning.actions import Action, Confirm, Install, Prune, Repair, Restore, Try, Wait
from servesync.planning.explain import READ_AGAIN, explain
from servesync.planning.facts import Condition, Facts, Latest, ModelPlan, ServerPolicy, ServerState
from servesync.planning.facts_index import FactsIndex
from servesync.planning.server_ends import what_next
from servesync.planning.server_status_rules import refusal


def plan(facts: Facts) -> ModelPlan:
    """Return what to do now for one model, first things first, and why every version is where it is."""
    index = FactsIndex(facts)
    actions = tuple(_actions(index))
    return ModelPlan(
        model=facts.model,
        wanted=index.wanted,
        actions=actions,
        verdicts=explain(index, actions),
        in_place=index.in_place,
        served=bool(index.wanted)
        and all(index.is_served(version) or index.serves_unproven(version) for version in index.wanted),
    )


def _actions(index: FactsIndex) -> Iterator[Action]:
    verdicts = tuple(_server_verdicts(index))
    yield from verdicts
    pruned = {action.version for action in verdicts if isinstance(action, Prune)}
    unconfirmed = [v for v in index.unconfirmed() if v not in pruned and not refusal(index, v)]
    for version in unconfirmed:
        yield Wait(version, _waiting_for(index, version), overdue=index.is_overdue(version))
    leaving = () if unconfirmed else tuple(_departures(index, {action.version for action in verdicts}))
    overtaken = not _is_complete(index)
    if overtaken:
        yield from leaving
    if not unconfirmed or _may_others_come(index, unconfirmed):
        yield from _arrivals(index)
    if not overtaken:
        yield from leaving


def _may_others_come(index: FactsIndex, unconfirmed: list[Version]) -> bool:
    """Whether other versions may come although the server has not yet loaded or refused `unconfirmed`."""
    if not index.is_silent and not all(index.is_overdue(version) for version in unconfirmed):
        return False
    piled_up = [v for v in index.unwanted & index.good.keys() if not index.good[v].confirmed]
    return len(piled_up) <= 1


def _server_verdicts(index: FactsIndex) -> Iterator[Action]:
    stays = set(index.facts.shelf)
    for version in sorted(index.owned):
        if _is_withdrawn_unserved(index, version) and not _empties_the_shelf(index, stays, version):
            stays.remove(version)
            yield Prune(version, "withdrawn, and the server never served it")
    for version, item in sorted(index.good.items()):
        if version not in stays or not index.is_expected(version):
            continue
        verdict = refusal(index, version)
        if verdict and not _empties_the_shelf(index, stays, version):
            stays.remove(version)
            yield verdict
        elif index.is_served(version) and (not item.confirmed or item.tries):
            trial = (index.server.trials or {}).get(version)
            yield Confirm(version, f"the server says AVAILABLE{f'; {trial.text}' if trial else ''}")
        elif version in index.on_trial and version not in (index.server.trials or {}):
            others = [other for other in index.good if other != version and index.is_served(other)]
            yield Try(version, "AVAILABLE: its answers are tried", max(others, default=None))


def _is_withdrawn_unserved(index: FactsIndex, version: Version) -> bool:
    """Whether a version may leave at once: no client has it, and no client may get it."""
    if version not in index.facts.withdrawn or index.owned[version].confirmed or not index.server.asked:
        return False
    serves = index.is_available(version) and version not in index.on_trial
    return not serves and not index.is_loading(version)


def _empties_the_shelf(index: FactsIndex, stays: AbstractSet[Version], version: Version) -> bool:
    """Whether taking a version off would make the server unload another one, which it still serves."""
    others = [served for number, served in (index.server.versions or {}).items() if number != version]
    return stays == {version} and any(served.state is ServerState.AVAILABLE for served in others)


def _waiting_for(index: FactsIndex, version: Version) -> str:
    if version in index.checking:
        return READ_AGAIN
    if index.server.versions is None:
        return f"on the shelf; the server does not answer yet{what_next(index, version)}"
    served = index.says(version)
    if served is None and index.is_overdue(version):
        return (
            f"on the shelf; the server has answered for {index.server.waited_seconds[version]:.0f} s without "
            "listing it: is it configured for this model, and does it scan this directory?"
        )
    if served is None:
        return "on the shelf; the server has not seen it yet"
    if version in index.on_trial:
        return "on the shelf; the server says AVAILABLE, and its answers are being tried (serving.smoke)"
    return f"on the shelf; the server says {served.state.value}"


def _arrivals(index: FactsIndex) -> Iterator[Action]:
    """Yield at most one version to bring.

    No name appears while a server with policy latest may be starting: it would drop its first load and exit.
    """
    may_exit = index.server.policy is ServerPolicy.LATEST and index.server.may_be_starting
    names_stay = index.is_silent and may_exit and bool(index.facts.shelf)
    fetchable = index.fetchable & index.wanted
    damaged = {
        version
        for version in fetchable & (index.owned.keys() - index.good.keys() - index.checking.keys())
        if index.offered[version] == index.owned[version].identity
    }
    missing = (fetchable | index.restorable & index.wanted) - index.owned.keys() - index.parked
    if damaged:
        version = max(damaged)
        yield Repair(version, "damaged on the shelf; the store has it")
    elif names_stay:
        return
    elif missing and (max(missing) in index.restorable or not index.retired):
        version = max(missing)
        yield (
            _restore(index, version)
            if version in index.restorable
            else Install(version, _why_install(index, version))
        )
    elif index.retired:
        yield _restore(index, max(index.retired))


def _why_install(index: FactsIndex, version: Version) -> str:
    item = index.facts.shelf.get(version)
    if item is None:
        return f"wanted by policy ({index.policy}) and not on the shelf{_set_aside_first(index, version)}"
    unrecorded = item.condition is Condition.UNRECORDED
    what = "its record cannot be read" if unrecorded else "not put there by servesync"
    return f"on the shelf, but {what}: compared with the store's before it counts"


def _set_aside_first(index: FactsIndex, version: Version) -> str:
    short = index.facts.memory
    if short is None or short.version != version:
        return ""
    leave = f"then {', '.join(map(str, short.retire))} will leave for it" if short.retire else "then it waits"
    return f"; proven and set aside first, {leave}: {short.text}"


def _restore(index: FactsIndex, version: Version) -> Restore | Prune | Wait:
    """Return the order to put a version back, or what makes room for it in the server's memory first."""
    short = index.facts.memory
    if short is None or short.version != version:
        if version in index.retired:
            successor = index.facts.retired[version]
            text = f"it made room in the server's memory for {successor}, which has not come; nothing serves"
            return Restore(version, text)
        again = version in index.returning
        because = "taken off for a moment, for the server to try it again" if again else "in the reserve"
        return Restore(version, f"wanted by policy ({index.policy}), and {because}")
    if short.retire:
        text = f"retired first (memory.when_short), for {version}, which is proven and ready: {short.text}"
        return Prune(short.retire[0], text)
    return Wait(version, f"in the reserve; the server is still unloading what has left: {short.text}")


def _departures(index: FactsIndex, verdicts: AbstractSet[Version]) -> Iterator[Action]:
    """Yield the order to prune the lowest unwanted version, if the server can do without it."""
    if index.facts.offered is None or index.pins_missing or index.channels_unknown:
        return
    if not index.wanted or not index.unwanted:
        return
    if index.is_silent:
        return
    free = index.unwanted - index.facts.labelled
    free -= index.checking.keys() - index.facts.withdrawn
    leaving = {v for v in free if v not in verdicts and not index.is_loading(v)}
    if not _is_complete(index):
        leaving = {v for v in leaving if _is_overtaken(index, v)}
    if not leaving:
        return
    gone = leaving & index.facts.withdrawn
    version = min(gone or leaving)
    others = (index.wanted | index.unwanted) - {version}
    falls_back = index.server.policy is ServerPolicy.LATEST and version == max(index.facts.shelf)
    answering = {version} if falls_back else others  # it loads the next one before it lets the highest go
    if not index.server.asked or any(index.is_available(other) for other in answering | others):
        because = "withdrawn" if gone else f"not wanted by policy ({index.policy})"
        serves = "what policy wants" if _is_complete(index) else "enough of what is newer"
        yield Prune(version, f"{because}; {serves} serves")


def _is_complete(index: FactsIndex) -> bool:
    return all(index.is_served(version) for version in index.wanted)


def _is_overtaken(index: FactsIndex, version: Version) -> bool:
    """Whether policy would not want a version even if nothing of what is still to come did come."""
    policy = index.facts.policy
    newer = [v for v in index.candidates if v > version and index.is_served(v)]
    return isinstance(policy, Latest) and len(newer) >= policy.count
