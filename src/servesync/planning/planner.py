"""The planner: facts in, actions with a reason out; the same facts always give the same answer.

The rules, in the order in which they are asked:

1. What the server serves for the first time is confirmed. What it refused leaves the shelf: for good, or, if
   the cause may pass or the server has not tried these bytes at all, until it has seen them gone. What
   never served leaves, too, if the server ends while it has it to load: until that has answered for a while.
   Where nothing ever served, such versions take turns. What is withdrawn and never served leaves at once.
2. One unconfirmed version at a time: while an answering server is about to judge one, nothing else is
   installed. A server that is silent, or that ignores a version, does not keep wanted ones away, but no
   more than two that are neither wanted nor confirmed pile up meanwhile.
3. A damaged version that is wanted is repaired; a wanted one that is missing is put back from the reserve
   or installed, highest first.
4. Only when every wanted version is in place and served does an unwanted one leave: a withdrawn one first,
   then the lowest; never one that a label points to, or may still point to in the server. A withdrawn
   version is never wanted. Under `latest`, where newer ones than it serve in full number, it leaves although
   still newer ones are to come: versions that come faster than they load do not pile up. The one exception
   is asked for by `memory.when_short: retire_first`: it leaves before its successor, proven, comes. If that
   does not come then, and nothing serves, it comes back, whatever policy wants.

Absence is never an order: a version that the listing no longer names stays for as long as policy would
keep it. What servesync did not put there is never touched. What is being read again counts as what policy
wants of its number, and neither comes anew nor leaves meanwhile, unless it is withdrawn.
"""

from collections.abc import Iterator
from collections.abc import Set as AbstractSet

from servesync.domain.versions import Version
from servesync.planning.explain import READ_AGAIN, verdicts
from servesync.planning.facts import (
    Action,
    Condition,
    Confirm,
    Facts,
    Install,
    Latest,
    ModelPlan,
    Prune,
    Repair,
    Restore,
    ServerPolicy,
    ServerState,
    Wait,
)
from servesync.planning.facts_index import View
from servesync.planning.server_ends import what_next
from servesync.planning.server_status_rules import refusal


def plan(facts: Facts) -> ModelPlan:
    """Return what to do now for one model, first things first, and why every version is where it is."""
    view = View(facts)
    actions = tuple(_actions(view))
    return ModelPlan(
        model=facts.model,
        wanted=view.wanted,
        actions=actions,
        verdicts=verdicts(view, actions),
        in_place=view.in_place,
        served=bool(view.wanted)
        and all(view.is_served(version) or view.serves_unproven(version) for version in view.wanted),
    )


def _actions(view: View) -> Iterator[Action]:
    judged = tuple(_judgements(view))
    yield from judged
    pruned = {action.version for action in judged if isinstance(action, Prune)}
    doubtful = [v for v in view.in_doubt() if v not in pruned and not refusal(view, v)]
    for version in doubtful:
        yield Wait(version, _waiting_for(view, version), overdue=view.is_overdue(version))
    leaving = () if doubtful else tuple(_departures(view, {action.version for action in judged}))
    overtaken = not _is_complete(view)
    if overtaken:
        yield from leaving
    if not doubtful or _may_others_come(view, doubtful):
        yield from _arrivals(view)
    if not overtaken:
        yield from leaving


def _may_others_come(view: View, doubtful: list[Version]) -> bool:
    """Whether waiting for a judgement on `doubtful` must not keep other versions away."""
    if not view.is_silent and not all(view.is_overdue(version) for version in doubtful):
        return False
    piled_up = [v for v in view.unwanted & view.good.keys() if not view.good[v].confirmed]
    return len(piled_up) <= 1


def _judgements(view: View) -> Iterator[Action]:
    stays = set(view.facts.shelf)
    for version in sorted(view.owned):
        if _is_withdrawn_unserved(view, version) and not _empties_the_shelf(view, stays, version):
            stays.remove(version)
            yield Prune(version, "withdrawn, and the server never served it")
    for version, item in sorted(view.good.items()):
        if version not in stays or not view.is_expected(version):
            continue
        verdict = refusal(view, version)
        if verdict and not _empties_the_shelf(view, stays, version):
            stays.remove(version)
            yield verdict
        elif view.is_served(version) and (not item.confirmed or item.tries):
            yield Confirm(version, "the server says AVAILABLE")


def _is_withdrawn_unserved(view: View, version: Version) -> bool:
    """Whether a version may leave whatever becomes of others: nobody has it, and nobody is to have it."""
    if version not in view.facts.withdrawn or view.owned[version].confirmed or not view.server.asked:
        return False
    return not _is_available(view, version) and not _is_loading(view, version)


def _empties_the_shelf(view: View, stays: AbstractSet[Version], version: Version) -> bool:
    """Whether taking a version off would make the server unload another one, which it still serves."""
    others = [served for number, served in (view.server.versions or {}).items() if number != version]
    return stays == {version} and any(served.state is ServerState.AVAILABLE for served in others)


def _waiting_for(view: View, version: Version) -> str:
    if version in view.checking:
        return READ_AGAIN
    if view.server.versions is None:
        return f"on the shelf; the server does not answer yet{what_next(view, version)}"
    served = view.says(version)
    if served is None and view.is_overdue(version):
        return (
            f"on the shelf; the server has answered for {view.server.waited_seconds[version]:.0f} s without "
            "listing it: is it configured for this model, and does it scan this directory?"
        )
    if served is None:
        return "on the shelf; the server has not seen it yet"
    return f"on the shelf; the server says {served.state.value}"


def _arrivals(view: View) -> Iterator[Action]:
    """Yield at most one version to bring.

    No name appears while a server with policy latest may be starting: it would drop its first load and exit.
    """
    may_exit = view.server.policy is ServerPolicy.LATEST and view.server.may_be_starting
    names_stay = view.is_silent and may_exit and bool(view.facts.shelf)
    fetchable = view.fetchable & view.wanted
    damaged = {
        version
        for version in fetchable & (view.owned.keys() - view.good.keys() - view.checking.keys())
        if view.offered[version] == view.owned[version].identity
    }
    missing = (fetchable | view.ready & view.wanted) - view.owned.keys() - view.parked
    if damaged:
        version = max(damaged)
        yield Repair(version, "damaged on the shelf; the store has it")
    elif names_stay:
        return
    elif missing and (max(missing) in view.ready or not view.retired):
        version = max(missing)
        yield (
            _restore(view, version)
            if version in view.ready
            else Install(version, _why_install(view, version))
        )
    elif view.retired:
        yield _restore(view, max(view.retired))


def _why_install(view: View, version: Version) -> str:
    item = view.facts.shelf.get(version)
    if item is None:
        return f"wanted by policy ({view.policy}) and not on the shelf{_aside(view, version)}"
    unrecorded = item.condition is Condition.UNRECORDED
    what = "its record cannot be read" if unrecorded else "not put there by servesync"
    return f"on the shelf, but {what}: compared with the store's before it counts"


def _aside(view: View, version: Version) -> str:
    short = view.facts.memory
    if short is None or short.version != version:
        return ""
    leave = f"then {', '.join(map(str, short.retire))} will leave for it" if short.retire else "then it waits"
    return f"; proven and set aside first, {leave}: {short.text}"


def _restore(view: View, version: Version) -> Restore | Prune | Wait:
    """Return the order to put a version back, or what makes room for it in the server's memory first."""
    short = view.facts.memory
    if short is None or short.version != version:
        if version in view.retired:
            successor = view.facts.retired[version]
            text = f"it made room in the server's memory for {successor}, which has not come; nothing serves"
            return Restore(version, text)
        again = version in view.returning
        because = "taken off for a moment, for the server to try it again" if again else "in the reserve"
        return Restore(version, f"wanted by policy ({view.policy}), and {because}")
    if short.retire:
        text = f"retired first (memory.when_short), for {version}, which is proven and ready: {short.text}"
        return Prune(short.retire[0], text)
    return Wait(version, f"in the reserve; the server is still unloading what has left: {short.text}")


def _departures(view: View, judged: AbstractSet[Version]) -> Iterator[Action]:
    """Yield the lowest unwanted version that is not needed any more, whatever becomes of what is to come."""
    if view.facts.offered is None or view.pins_missing or view.channels_unknown:
        return
    if not view.wanted or not view.unwanted:
        return
    if view.is_silent:
        return
    free = view.unwanted - view.facts.labelled
    free -= view.checking.keys() - view.facts.withdrawn
    leaving = {v for v in free if v not in judged and not _is_loading(view, v)}
    if not _is_complete(view):
        leaving = {v for v in leaving if _is_overtaken(view, v)}
    if not leaving:
        return
    gone = leaving & view.facts.withdrawn
    version = min(gone or leaving)
    others = (view.wanted | view.unwanted) - {version}
    falls_back = view.server.policy is ServerPolicy.LATEST and version == max(view.facts.shelf)
    answering = {version} if falls_back else others  # it loads the next one before it lets the highest go
    if not view.server.asked or any(_is_available(view, other) for other in answering | others):
        because = "withdrawn" if gone else f"not wanted by policy ({view.policy})"
        serves = "what policy wants" if _is_complete(view) else "enough of what is newer"
        yield Prune(version, f"{because}; {serves} serves")


def _is_complete(view: View) -> bool:
    return all(view.is_served(version) for version in view.wanted)


def _is_overtaken(view: View, version: Version) -> bool:
    """Whether policy would not want a version even if nothing of what is still to come did come."""
    policy = view.facts.policy
    newer = [v for v in view.candidates if v > version and view.is_served(v)]
    return isinstance(policy, Latest) and len(newer) >= policy.count


def _is_available(view: View, version: Version) -> bool:
    served = view.says(version)
    return served is not None and served.state is ServerState.AVAILABLE


def _is_loading(view: View, version: Version) -> bool:
    """Whether the server is reading the directory: it walks it again after the load, so it must stay."""
    served = view.says(version)
    return served is not None and served.state in {ServerState.START, ServerState.LOADING}
