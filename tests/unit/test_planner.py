"""The planner as a table: a situation in, actions and verdicts out."""

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servesync.domain.versions import Model, Version
from servesync.errors import Reason
from servesync.planning.actions import Confirm, Install, Prune, Quarantine, Repair, Restore, Retry, Wait
from servesync.planning.facts import (
    Condition,
    Everything,
    Facts,
    Follow,
    Hold,
    Latest,
    Pin,
    Policy,
    Role,
    Served,
    Server,
    ServerPolicy,
    ServerState,
    Shelved,
)
from servesync.planning.planner import plan

UP = Served(ServerState.AVAILABLE)
LOADING = Served(ServerState.LOADING)
FAILED = Served(ServerState.END, "DATA_LOSS", "cut shard")
NO_MEMORY = Served(ServerState.END, "RESOURCE_EXHAUSTED", "out of memory")
OLD_NEWS = Served(ServerState.END, "DATA_LOSS", "x", stale=True)
STABLE = Follow(("stable",))
ENDED = Served(ServerState.END)


@dataclass(frozen=True)
class Case:
    """One situation.

    `shelf`: number -> g(ood), c(onfirmed), t(ried 3 times), T (both), d(amaged), e (damaged, other bytes in
    the store), f(oreign), u(nrecorded), k (being checked), K (the same, confirmed).
    """

    name: str
    policy: Policy
    store: set[int] | None
    shelf: dict[int, str]
    server: dict[int, Served] | None
    expect: list[tuple[type, int]]
    held: set[int] = field(default_factory=set)
    asked: bool = True
    told: ServerPolicy = ServerPolicy.ALL
    waited: dict[int, float] = field(default_factory=dict)
    unreachable: dict[int, float] = field(default_factory=dict)
    starting: bool = True
    reserve: set[int] = field(default_factory=set)
    returning: set[int] = field(default_factory=set)
    cooling_down: set[int] = field(default_factory=set)
    channels: dict[str, int] = field(default_factory=dict)
    gone: set[int] = field(default_factory=set)
    passing: set[int] = field(default_factory=set)
    labelled: set[int] = field(default_factory=set)
    serves: int = 1


def facts_of(case: Case) -> Facts:
    """Spell a case out for the planner."""
    kinds = {
        "g": Shelved(Condition.GOOD, confirmed=False, identity="id"),
        "c": Shelved(Condition.GOOD, confirmed=True, identity="id"),
        "t": Shelved(Condition.GOOD, confirmed=False, identity="id", tries=3),
        "T": Shelved(Condition.GOOD, confirmed=True, identity="id", tries=3),
        "d": Shelved(Condition.DAMAGED, confirmed=True, identity="id"),
        "e": Shelved(Condition.DAMAGED, confirmed=True, identity="other"),
        "f": Shelved(Condition.FOREIGN),
        "u": Shelved(Condition.UNRECORDED),
        "k": Shelved(Condition.CHECKING, confirmed=False, identity="id"),
        "K": Shelved(Condition.CHECKING, confirmed=True, identity="id"),
    }
    return Facts(
        model=Model("m"),
        policy=case.policy,
        offered=None if case.store is None else {Version(n): "id" for n in case.store},
        held={Version(n): Hold(Reason.ARCHIVE_CORRUPT, "bad") for n in case.held}
        | {Version(n): Hold(Reason.TRANSFER_BROKEN, "reset", passing=True) for n in case.passing},
        shelf={Version(n): kinds[kind] for n, kind in case.shelf.items()},
        server=Server(
            asked=case.asked,
            policy=case.told,
            versions=None if case.server is None else {Version(n): s for n, s in case.server.items()},
            waited_seconds={Version(n): s for n, s in case.waited.items()},
            unreachable_seconds={Version(n): s for n, s in case.unreachable.items()},
            load_timeout_seconds=600,
            may_be_starting=case.starting,
            latest=case.serves,
        ),
        reserve={Version(n): "id" for n in case.reserve | case.returning},
        returning=versions(*case.returning),
        cooling_down=versions(*case.cooling_down),
        channels={name: Version(n) for name, n in case.channels.items()},
        withdrawn=versions(*case.gone),
        labelled=versions(*case.labelled),
    )


def versions(*numbers: int) -> frozenset[Version]:
    """Return version numbers as a policy holds them."""
    return frozenset(Version(n) for n in numbers)


CASES = [
    Case("what is being checked is not repaired", Latest(1), {1}, {1: "K"}, {1: UP}, []),
    Case("nor fetched anew where no server is asked", Latest(1), {1}, {1: "k"}, None, [], asked=False),
    Case("no older version comes for it", Latest(1), {1, 2}, {2: "K"}, {2: UP}, []),
    Case("nor from the reserve", Latest(1), {1, 2}, {2: "K"}, {2: UP}, [], reserve={1}),
    Case("nor when a pin names it", Pin(frozenset({Version(2)})), {1, 2}, {2: "K"}, {2: UP}, []),
    Case("a newer one comes", Latest(1), {1, 2}, {1: "K"}, {1: UP}, [(Install, 2)]),
    Case("nothing leaves for it", Latest(1), {1, 2}, {1: "c", 2: "K"}, {1: UP, 2: UP}, []),
    Case("it does not leave", Latest(1), {1, 2}, {1: "K", 2: "c"}, {1: UP, 2: UP}, []),
    Case("another one does", Latest(1), {1, 2, 3}, {1: "K", 2: "c", 3: "c"}, {1: UP, 3: UP}, [(Prune, 2)]),
    Case("withdrawn, it leaves", Latest(1), {1, 2}, {1: "c", 2: "K"}, {1: UP, 2: UP}, [(Prune, 2)], gone={2}),
    Case("it is not refused while it is checked", Latest(1), {1, 2}, {2: "K"}, {2: FAILED}, []),
    Case("nor if it never served", Latest(1), {1, 2}, {2: "k"}, {2: FAILED}, [(Wait, 2)]),
    Case("it is not confirmed meanwhile", Latest(1), {2}, {2: "k"}, {2: UP}, []),
    Case("nothing comes while it is loaded", Everything(), {1, 2}, {2: "k"}, {2: LOADING}, [(Wait, 2)]),
    Case("when it serves, others come", Everything(), {1, 2}, {2: "k"}, {2: UP}, [(Install, 1)]),
    Case(
        "a server that ignores it keeps nothing away",
        Everything(),
        {1, 2},
        {2: "k"},
        {},
        [(Wait, 2), (Install, 1)],
        waited={2: 600},
    ),
    Case(
        "a labelled version stays",
        Latest(1),
        {1, 2},
        {1: "c", 2: "c"},
        {1: UP, 2: UP},
        [],
        labelled={1},
    ),
    Case(
        "the lowest that has no label leaves",
        Latest(1),
        {1, 2, 3},
        {1: "c", 2: "c", 3: "c"},
        {1: UP, 2: UP, 3: UP},
        [(Prune, 2)],
        labelled={1},
    ),
    Case(
        "a server of the two highest judges both",
        Latest(2),
        {1, 2},
        {1: "g", 2: "c"},
        {1: LOADING, 2: UP},
        [(Wait, 1)],
        told=ServerPolicy.LATEST,
        serves=2,
    ),
    Case("nothing anywhere", Latest(1), set(), {}, {}, []),
    Case("the store was never listed", Latest(1), None, {}, {}, []),
    Case("first version, server down", Latest(1), {1}, {}, None, [(Install, 1)]),
    Case(
        "first version, server latest and down",
        Latest(1),
        {1},
        {},
        None,
        [(Install, 1)],
        told=ServerPolicy.LATEST,
    ),
    Case("the highest of many", Latest(1), {1, 2, 3}, {}, {}, [(Install, 3)]),
    Case("two wanted: the highest first", Latest(2), {1, 2, 3}, {}, {}, [(Install, 3)]),
    Case("then the second", Latest(2), {1, 2, 3}, {3: "c"}, {3: UP}, [(Install, 2)]),
    Case("just installed: wait", Latest(1), {1}, {1: "g"}, {}, [(Wait, 1)]),
    Case("loading: wait", Latest(1), {1}, {1: "g"}, {1: LOADING}, [(Wait, 1)]),
    Case("server down after installing: wait", Latest(1), {1}, {1: "g"}, None, [(Wait, 1)]),
    Case("available: confirm", Latest(1), {1}, {1: "g"}, {1: UP}, [(Confirm, 1)]),
    Case("all is well", Latest(1), {1}, {1: "c"}, {1: UP}, []),
    Case("a newer one", Latest(1), {1, 2}, {1: "c"}, {1: UP}, [(Install, 2)]),
    Case(
        "newer is loading: keep the old",
        Latest(1),
        {1, 2},
        {1: "c", 2: "g"},
        {1: UP, 2: LOADING},
        [(Wait, 2)],
    ),
    Case(
        "newer is up: confirm, then prune",
        Latest(1),
        {1, 2},
        {1: "c", 2: "g"},
        {1: UP, 2: UP},
        [(Confirm, 2), (Prune, 1)],
    ),
    Case(
        "prune the oldest first",
        Latest(1),
        {3},
        {1: "c", 2: "c", 3: "c"},
        {1: UP, 2: UP, 3: UP},
        [(Prune, 1)],
    ),
    Case("server down: prune nothing", Latest(1), {2}, {1: "c", 2: "c"}, None, []),
    Case("store never listed: prune nothing", Latest(1), None, {1: "c", 2: "c"}, {1: UP, 2: UP}, []),
    Case("the store was emptied", Latest(1), set(), {1: "c"}, {1: UP}, []),
    Case("the store was emptied, two served", Latest(2), set(), {1: "c", 2: "c"}, {1: UP, 2: UP}, []),
    Case("the served one vanished, an older is listed", Latest(1), {1}, {2: "c"}, {2: UP}, []),
    Case(
        "newer is up but the old still loads: leave it",
        Latest(1),
        {2},
        {1: "c", 2: "c"},
        {1: LOADING, 2: UP},
        [],
    ),
    Case(
        "the new one stopped serving: keep the old", Latest(1), {2}, {1: "c", 2: "c"}, {1: UP, 2: ENDED}, []
    ),
    Case(
        "newest is refused: next good one", Latest(1), {1, 2, 3}, {1: "c"}, {1: UP}, [(Install, 2)], held={3}
    ),
    Case("newest is refused and the next is there", Latest(1), {1, 2}, {1: "c"}, {1: UP}, [], held={2}),
    Case("only a refused one", Latest(1), {1}, {}, {}, [], held={1}),
    Case("the server refused it", Latest(1), {1, 2}, {1: "c", 2: "g"}, {1: UP, 2: FAILED}, [(Quarantine, 2)]),
    Case("the only one is refused by the server", Latest(1), {1}, {1: "g"}, {1: FAILED}, [(Quarantine, 1)]),
    Case(
        "an old failure is not news",
        Latest(1),
        {2},
        {1: "c", 2: "g"},
        {1: UP, 2: Served(ServerState.END, "DATA_LOSS", "x", stale=True)},
        [(Wait, 2)],
    ),
    Case("one that has served is tried again", Latest(1), {1}, {1: "c"}, {1: FAILED}, [(Retry, 1)]),
    Case("in vain: it leaves", Latest(1), {1}, {1: "T"}, {1: FAILED}, [(Quarantine, 1)]),
    Case(
        "a server with latest would not try it again: it stays",
        Latest(1),
        {1},
        {1: "T"},
        {1: FAILED},
        [],
        told=ServerPolicy.LATEST,
    ),
    Case(
        "want of memory may pass",
        Latest(1),
        {1, 2},
        {1: "c", 2: "g"},
        {1: UP, 2: NO_MEMORY},
        [(Retry, 2)],
    ),
    Case(
        "it did not pass",
        Latest(1),
        {1, 2},
        {1: "c", 2: "t"},
        {1: UP, 2: NO_MEMORY},
        [(Quarantine, 2)],
    ),
    Case(
        "it may pass, but a server with latest does not try it again",
        Latest(1),
        {1, 2},
        {1: "c", 2: "g"},
        {1: UP, 2: NO_MEMORY},
        [(Quarantine, 2)],
        told=ServerPolicy.LATEST,
    ),
    Case(
        "what is taken off to be tried again is waited for",
        Latest(1),
        {1, 2},
        {1: "c"},
        {1: UP, 2: NO_MEMORY},
        [],
        returning={2},
        cooling_down={2},
    ),
    Case(
        "and comes back after its rest",
        Latest(1),
        {1, 2},
        {1: "c"},
        {1: UP, 2: NO_MEMORY},
        [(Restore, 2)],
        returning={2},
    ),
    Case(
        "also to a silent server if there is no other: it may wait for a first version",
        Latest(1),
        {2},
        {},
        None,
        [(Restore, 2)],
        returning={2},
    ),
    Case("also if the store lost it", Latest(1), set(), {}, {}, [(Restore, 2)], returning={2}),
    Case(
        "what has come back and serves is confirmed anew",
        Latest(1),
        {1},
        {1: "T"},
        {1: UP},
        [(Confirm, 1)],
    ),
    Case(
        "the server never looked again: its eyes are opened",
        Latest(1),
        {2},
        {1: "c", 2: "g"},
        {1: UP, 2: OLD_NEWS},
        [(Retry, 2)],
        waited={2: 13},
    ),
    Case(
        "the same for bytes that have served",
        Latest(1),
        {1},
        {1: "c"},
        {1: OLD_NEWS},
        [(Retry, 1)],
        waited={1: 13},
    ),
    Case(
        "three times in vain: it is news",
        Latest(1),
        {2},
        {1: "c", 2: "t"},
        {1: UP, 2: OLD_NEWS},
        [(Quarantine, 2)],
        waited={2: 13},
    ),
    Case(
        "a server with latest is only waited for",
        Latest(1),
        {2},
        {1: "c", 2: "g"},
        {1: UP, 2: OLD_NEWS},
        [(Wait, 2)],
        waited={2: 13},
        told=ServerPolicy.LATEST,
    ),
    Case("a channel names what is wanted", STABLE, {1, 2, 3}, {}, {}, [(Install, 2)], channels={"stable": 2}),
    Case(
        "a channel that moved: bring the new, keep the old",
        STABLE,
        {1, 2},
        {1: "c"},
        {1: UP},
        [(Install, 2)],
        channels={"stable": 2},
    ),
    Case(
        "a channel that moved back: from the reserve, without the store",
        STABLE,
        None,
        {2: "c"},
        {2: UP},
        [(Restore, 1)],
        reserve={1},
        channels={"stable": 1},
    ),
    Case("a channel never seen: nothing leaves", STABLE, {1, 2}, {1: "c", 2: "c"}, {1: UP, 2: UP}, []),
    Case(
        "two channels, one never seen: nothing leaves",
        Follow(("stable", "canary")),
        {1, 2},
        {1: "c", 2: "c"},
        {1: UP, 2: UP},
        [],
        channels={"stable": 2},
    ),
    Case(
        "two channels, side by side",
        Follow(("stable", "canary")),
        {1, 2, 3},
        {1: "c", 2: "c", 3: "c"},
        {1: UP, 2: UP, 3: UP},
        [(Prune, 1)],
        channels={"stable": 2, "canary": 3},
    ),
    Case(
        "a channel that points to nothing: what serves stays",
        STABLE,
        {1},
        {1: "c"},
        {1: UP},
        [],
        channels={"stable": 9},
    ),
    Case("withdrawn: the next one comes", Latest(1), {1, 2}, {2: "c"}, {2: UP}, [(Install, 1)], gone={2}),
    Case(
        "withdrawn, and another one serves: it leaves",
        Latest(1),
        {1, 2},
        {1: "c", 2: "c"},
        {1: UP, 2: UP},
        [(Prune, 2)],
        gone={2},
    ),
    Case(
        "withdrawn leaves before older ones",
        Latest(1),
        {1, 2, 3},
        {1: "c", 2: "c", 3: "c"},
        {1: UP, 2: UP, 3: UP},
        [(Prune, 3)],
        gone={3},
    ),
    Case("withdrawn, and nothing else: it stays", Latest(1), {1}, {1: "c"}, {1: UP}, [], gone={1}),
    Case(
        "a pinned one of two is withdrawn",
        Pin(versions(1, 2)),
        {1, 2},
        {1: "c", 2: "c"},
        {1: UP, 2: UP},
        [(Prune, 2)],
        gone={2},
    ),
    Case(
        "withdrawn ones do not come back from the reserve",
        Latest(2),
        {1, 2},
        {1: "c"},
        {1: UP},
        [],
        reserve={2},
        gone={2},
        held={2},
    ),
    Case(
        "withdrawn, but the other one does not serve yet",
        Latest(1),
        {1, 2},
        {1: "g", 2: "c"},
        {1: LOADING, 2: UP},
        [(Wait, 1)],
        gone={2},
    ),
    Case(
        "refused and unwanted: it leaves once",
        Pin(versions(1)),
        {1, 3},
        {1: "c", 3: "g"},
        {1: UP, 3: FAILED},
        [(Quarantine, 3)],
    ),
    Case(
        "a damaged one that nobody can mend holds up nothing",
        Latest(1),
        {1},
        {2: "d"},
        {2: FAILED},
        [(Install, 1)],
    ),
    Case(
        "nor one that is something else in the store",
        Latest(1),
        {1, 2},
        {2: "e"},
        {2: FAILED},
        [(Install, 1)],
        held={2},
    ),
    Case(
        "but while it serves, it stays",
        Latest(1),
        {1},
        {2: "d"},
        {2: UP},
        [],
    ),
    Case(
        "it leaves when another one serves",
        Latest(1),
        {1},
        {1: "c", 2: "d"},
        {1: UP, 2: FAILED},
        [(Prune, 2)],
    ),
    Case(
        "a repair changes no name: it need not wait for a silent server",
        Latest(1),
        {1},
        {1: "d"},
        None,
        [(Repair, 1)],
        told=ServerPolicy.LATEST,
    ),
    Case("unloaded in good order is no failure", Latest(1), {1}, {1: "g"}, {1: ENDED}, [(Wait, 1)]),
    Case(
        "too late",
        Latest(1),
        {1, 2},
        {1: "c", 2: "g"},
        {1: UP, 2: LOADING},
        [(Quarantine, 2)],
        waited={2: 601},
    ),
    Case(
        "late, but never seen by the server",
        Latest(1),
        {2},
        {1: "c", 2: "g"},
        {1: UP},
        [(Wait, 2)],
        waited={2: 999},
    ),
    Case(
        "not yet late, and not listed: a newer one waits",
        Latest(1),
        {3},
        {1: "c", 2: "g"},
        {1: UP},
        [(Wait, 2)],
        waited={2: 599},
    ),
    Case(
        "late and not listed: it holds up nothing",
        Latest(1),
        {3},
        {1: "c", 2: "g"},
        {1: UP},
        [(Wait, 2), (Install, 3)],
        waited={2: 601},
    ),
    Case(
        "ended in good order and late: neither refused nor in the way",
        Latest(1),
        {3},
        {1: "c", 2: "g"},
        {1: UP, 2: ENDED},
        [(Wait, 2), (Install, 3)],
        waited={2: 601},
    ),
    Case(
        "a passing failure: the newest is waited for, no older one is brought",
        Latest(1),
        {1, 2, 3},
        {1: "c"},
        {1: UP},
        [],
        passing={3},
    ),
    Case(
        "a passing failure and nothing there: the next good one comes",
        Latest(1),
        {1, 2, 3},
        {},
        {},
        [(Install, 2)],
        passing={3},
    ),
    Case(
        "two refused, and the server would unload another one with both",
        Pin(versions(2, 3)),
        {2, 3},
        {2: "g", 3: "g"},
        {1: UP, 2: FAILED, 3: FAILED},
        [(Quarantine, 2)],
    ),
    Case(
        "refused, but the server would unload another one with it",
        Latest(1),
        {1, 2},
        {2: "g"},
        {1: UP, 2: FAILED},
        [],
        told=ServerPolicy.LATEST,
    ),
    Case(
        "and a newer one comes all the same",
        Latest(1),
        {3},
        {2: "g"},
        {1: UP, 2: FAILED},
        [(Install, 3)],
        told=ServerPolicy.LATEST,
    ),
    Case(
        "late, but the server is down", Latest(1), {2}, {1: "c", 2: "g"}, None, [(Wait, 2)], waited={2: 999}
    ),
    Case(
        "one at a time: no third while the second loads",
        Latest(1),
        {3},
        {1: "c", 2: "g"},
        {1: UP, 2: LOADING},
        [(Wait, 2)],
    ),
    Case(
        "a third may come once the second is up",
        Latest(1),
        {3},
        {1: "c", 2: "g"},
        {1: UP, 2: UP},
        [(Confirm, 2), (Prune, 1), (Install, 3)],
    ),
    Case(
        "latest: 2, and a fourth is still to come: the first is not needed any more",
        Latest(2),
        {4},
        {1: "c", 2: "c", 3: "c"},
        {1: UP, 2: UP, 3: UP},
        [(Prune, 1), (Install, 4)],
    ),
    Case(
        "latest: 2, and the second is not up again: the first stays",
        Latest(2),
        {4},
        {1: "c", 2: "c", 3: "c"},
        {1: UP, 2: LOADING, 3: UP},
        [(Install, 4)],
    ),
    Case(
        "a newer one keeps failing for a passing reason: what is below the one that serves leaves",
        Latest(1),
        {1, 2, 3},
        {1: "c", 2: "c"},
        {1: UP, 2: UP},
        [(Prune, 1)],
        passing={3},
    ),
    Case(
        "a pinned one is still to come: nothing leaves",
        Pin(versions(3)),
        {1, 2, 3},
        {1: "c", 2: "c"},
        {1: UP, 2: UP},
        [(Install, 3)],
    ),
    Case(
        "the server is silent for long with what never served: it steps aside",
        Latest(1),
        {1, 2},
        {1: "c", 2: "g"},
        None,
        [(Retry, 2)],
        unreachable={1: 601, 2: 601},
    ),
    Case(
        "the server is silent, but not for long",
        Latest(1),
        {1, 2},
        {1: "c", 2: "g"},
        None,
        [(Wait, 2)],
        unreachable={1: 700, 2: 599},
    ),
    Case(
        "silent for long, and nothing there has ever served: one is left alone",
        Latest(2),
        {1, 2},
        {1: "g", 2: "g"},
        None,
        [(Retry, 2), (Wait, 1)],
        unreachable={1: 601, 2: 601},
    ),
    Case(
        "silent for long: what has served before stays",
        Latest(2),
        {1, 2},
        {1: "c", 2: "c"},
        None,
        [],
        unreachable={1: 601, 2: 601},
    ),
    Case(
        "it came up without this one three times",
        Latest(1),
        {1, 2},
        {1: "c", 2: "t"},
        None,
        [(Quarantine, 2)],
        unreachable={1: 601, 2: 601},
    ),
    Case(
        "what stepped aside waits for the server",
        Latest(1),
        {1, 2},
        {1: "c"},
        None,
        [],
        returning={2},
    ),
    Case(
        "what stepped aside comes back when the server answers",
        Latest(1),
        {1, 2},
        {1: "c"},
        {1: UP},
        [(Restore, 2)],
        returning={2},
    ),
    Case(
        "what stepped aside comes back to a silent server if nothing else has served",
        Latest(1),
        {2},
        {},
        None,
        [(Restore, 2)],
        returning={2},
    ),
    Case(
        "a pin, too, steps aside",
        Pin(versions(2)),
        {1, 2},
        {1: "c", 2: "g"},
        None,
        [(Retry, 2)],
        unreachable={1: 601, 2: 601},
    ),
    Case(
        "server down: the second wanted one comes, too",
        Latest(2),
        {1, 2},
        {2: "g"},
        None,
        [(Wait, 2), (Install, 1)],
    ),
    Case(
        "server down for long: a newer one comes once",
        Latest(1),
        {2},
        {1: "g"},
        None,
        [(Wait, 1), (Install, 2)],
    ),
    Case(
        "server down for very long: they do not pile up",
        Latest(1),
        {3},
        {1: "g", 2: "g"},
        None,
        [(Wait, 1), (Wait, 2)],
    ),
    Case(
        "a server of policy latest that is down for good",
        Latest(1),
        {2},
        {1: "c"},
        None,
        [(Install, 2)],
        told=ServerPolicy.LATEST,
        starting=False,
    ),
    Case("server down, old confirmed: bring the new", Latest(1), {2}, {1: "c"}, None, [(Install, 2)]),
    Case(
        "a starting server of policy latest is left alone",
        Latest(1),
        {2},
        {1: "c"},
        None,
        [],
        told=ServerPolicy.LATEST,
    ),
    Case("damaged and in the store", Latest(1), {1}, {1: "d"}, {1: UP}, [(Repair, 1)]),
    Case("damaged and gone from the store", Latest(1), set(), {1: "d"}, {1: UP}, []),
    Case("damaged and refused", Latest(1), {1}, {1: "d"}, {1: UP}, [], held={1}),
    Case(
        "a damaged newer one does not cost the older",
        Latest(1),
        {2},
        {1: "c", 2: "d"},
        {1: UP, 2: UP},
        [(Repair, 2)],
    ),
    Case("a damaged unwanted one goes", Latest(1), {2}, {1: "d", 2: "c"}, {1: UP, 2: UP}, [(Prune, 1)]),
    Case("removed by hand: back it comes", Latest(2), {1, 2}, {1: "c"}, {1: UP}, [(Install, 2)]),
    Case("foreign and not in the store: left alone", Latest(1), {2}, {9: "f", 2: "c"}, {9: UP, 2: UP}, []),
    Case("foreign does not count as the latest", Latest(1), {2}, {9: "f"}, {9: UP}, [(Install, 2)]),
    Case("foreign and in the store: compare", Latest(1), {9}, {9: "f"}, {9: UP}, [(Install, 9)]),
    Case("no older one comes for an unreadable record", Latest(1), {2}, {9: "u"}, {9: UP}, []),
    Case("nor when no server answers", Latest(1), {2}, {9: "u"}, None, []),
    Case("an unreadable record, in the store: compare", Latest(1), {9}, {9: "u"}, {9: UP}, [(Install, 9)]),
    Case("compared only when that may be", Latest(1), {9}, {9: "u"}, {9: UP}, [], held={9}),
    Case("a bad one with an unreadable record", Latest(1), {2}, {9: "u"}, {9: FAILED}, [(Install, 2)]),
    Case("what has an unreadable record is not pruned", Latest(1), {9}, {1: "u", 9: "c"}, {1: UP, 9: UP}, []),
    Case("nor is another for it", Latest(1), {1}, {1: "c", 9: "u"}, {1: UP, 9: UP}, []),
    Case("foreign is never pruned", Latest(1), {9}, {1: "f", 9: "c"}, {1: UP, 9: UP}, []),
    Case("pin an older one: bring it", Pin(versions(1)), {1, 2}, {2: "c"}, {2: UP}, [(Install, 1)]),
    Case(
        "pin: older loads, newer stays",
        Pin(versions(1)),
        {1, 2},
        {1: "g", 2: "c"},
        {1: LOADING, 2: UP},
        [(Wait, 1)],
    ),
    Case(
        "pin: older is up, newer goes",
        Pin(versions(1)),
        {1, 2},
        {1: "g", 2: "c"},
        {1: UP, 2: UP},
        [(Confirm, 1), (Prune, 2)],
    ),
    Case("pin of what nobody has", Pin(versions(7)), {1, 2}, {2: "c"}, {2: UP}, []),
    Case(
        "pin of two, one missing: prune nothing",
        Pin(versions(1, 7)),
        {1, 2},
        {1: "c", 2: "c"},
        {1: UP, 2: UP},
        [],
    ),
    Case(
        "pin under a server with latest: the newer must go first",
        Pin(versions(1)),
        {1, 2},
        {1: "c", 2: "c"},
        {2: UP},
        [(Prune, 2)],
        told=ServerPolicy.LATEST,
    ),
    Case(
        "under latest an older wanted one is not waited for",
        Latest(2),
        {1, 2},
        {1: "g", 2: "c"},
        {2: UP},
        [],
        told=ServerPolicy.LATEST,
    ),
    Case("all: everything, highest first", Everything(), {1, 2, 3}, {3: "c"}, {3: UP}, [(Install, 2)]),
    Case("all: nothing leaves", Everything(), {3}, {1: "c", 2: "c", 3: "c"}, {1: UP, 2: UP, 3: UP}, []),
    Case("no server to ask: bring", Latest(1), {1, 2}, {1: "g"}, None, [(Install, 2)], asked=False),
    Case(
        "no server to ask: installed is done",
        Latest(1),
        {2},
        {1: "g", 2: "g"},
        None,
        [(Prune, 1)],
        asked=False,
    ),
    Case(
        "rollback from the reserve",
        Pin(versions(1)),
        {1, 2},
        {2: "c"},
        {2: UP},
        [(Restore, 1)],
        reserve={1},
    ),
    Case(
        "rollback from the reserve, the store is off",
        Pin(versions(1)),
        None,
        {2: "c"},
        {2: UP},
        [(Restore, 1)],
        reserve={1},
    ),
    Case(
        "what is gone from the store comes back for a pin only",
        Latest(2),
        {2},
        {2: "c"},
        {2: UP},
        [],
        reserve={1},
    ),
    Case(
        "a wish for more is met from the reserve",
        Latest(2),
        {1, 2},
        {2: "c"},
        {2: UP},
        [(Restore, 1)],
        reserve={1},
    ),
    Case(
        "the reserve is no reason to go back",
        Latest(1),
        {1, 2},
        {2: "c"},
        {2: UP},
        [],
        reserve={1},
    ),
    Case("no server to ask: all is well", Latest(1), {2}, {2: "g"}, None, [], asked=False),
    Case("number zero counts", Latest(1), {0}, {}, {}, [(Install, 0)]),
    Case("the largest number counts", Latest(1), {1, 2**63 - 1}, {1: "c"}, {1: UP}, [(Install, 2**63 - 1)]),
    Case("fewer in the store than wanted", Latest(5), {1, 2}, {1: "c", 2: "c"}, {1: UP, 2: UP}, []),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_situation(case: Case) -> None:
    """The planner answers each situation with exactly these actions, in this order."""
    found = plan(facts_of(case))

    assert case.expect == [(type(action), action.version) for action in found.actions]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_version_has_a_reason_in_words(case: Case) -> None:
    """Whatever the store, the shelf or the policy names gets a verdict with a reason."""
    found = plan(facts_of(case))

    named = set(case.store or ()) | set(case.shelf) | case.held
    assert named <= set(found.verdicts)
    assert all(verdict.why for verdict in found.verdicts.values())


def test_a_changed_release_under_an_installed_number_is_named_not_taken() -> None:
    """Versions are immutable: other bytes under the same number change nothing, and plan says so."""
    case = Case("", Latest(1), {1}, {1: "c"}, {1: UP}, [])
    facts = facts_of(case)
    changed = Facts(facts.model, facts.policy, {Version(1): "other"}, facts.held, facts.shelf, facts.server)

    found = plan(changed)

    assert found.actions == ()
    assert "immutable" in found.verdicts[Version(1)].why


def test_a_damaged_version_is_repaired_only_with_the_same_release() -> None:
    """The server holds the old bytes in memory: others under the same number would be a mix."""
    facts = facts_of(Case("", Latest(1), {1}, {1: "d"}, {1: UP}, []))
    changed = Facts(facts.model, facts.policy, {Version(1): "other"}, facts.held, facts.shelf, facts.server)

    found = plan(changed)

    assert found.actions == ()
    assert "something else under this number" in found.verdicts[Version(1)].why


def test_a_withdrawn_version_that_a_label_holds_says_so() -> None:
    """Everything that policy wants serves, and yet it stays: the person who withdrew it must be told why."""
    case = Case("", Follow(("s", "c")), {7, 8}, {7: "c", 8: "c"}, {7: UP, 8: UP}, [], gone={7})
    case = replace(case, channels={"s": 7, "c": 8})

    free, held = (plan(facts_of(replace(case, labelled=labelled))) for labelled in (set(), {7, 8}))

    assert [type(action) for action in free.actions] == [Prune]
    assert held.actions == ()
    assert "move the label" in held.verdicts[Version(7)].why


def test_a_foreign_version_that_the_store_has_is_to_be_left() -> None:
    """Whoever migrates serves from it: it is about to be taken over."""
    settling = Hold(Reason.RELEASE_INCOMPLETE, "20 s were left")
    facts = facts_of(Case("", Latest(1), {1}, {1: "f", 2: "f"}, {1: UP, 2: UP}, []))
    verdicts = plan(replace(facts, held={Version(1): settling})).verdicts

    assert "leave it: servesync compares it with the store's, and takes it over" in verdicts[Version(1)].why
    assert "20 s were left" in verdicts[Version(1)].why
    assert "remove it by hand" in verdicts[Version(2)].why


def test_a_missing_pin_is_named() -> None:
    """A pin that neither store nor shelf has shows up in the plan."""
    found = plan(facts_of(Case("", Pin(versions(7)), {1}, {}, {}, [])))

    assert found.verdicts[Version(7)].role is Role.MISSING


@pytest.mark.parametrize(
    ("case", "in_place"),
    [
        (Case("nothing", Latest(1), {1}, {}, {}, []), False),
        (Case("it is there", Latest(1), {1}, {1: "g"}, None, []), True),
        (Case("one of two", Latest(2), {1, 2}, {2: "g"}, None, []), False),
        (Case("damaged", Latest(1), {1}, {1: "d"}, {}, []), False),
        (Case("its record cannot be read", Latest(1), set(), {1: "u"}, {1: UP}, []), True),
        (Case("a pin whose record cannot be read", Pin(versions(1)), {1}, {1: "u"}, {1: UP}, []), True),
        (Case("that, and the server refused it", Latest(1), {1}, {1: "u"}, {1: FAILED}, []), False),
        (Case("one passes, one is there", Latest(1), {1, 2}, {1: "g"}, {}, [], passing={2}), True),
        (Case("one passes, none is there", Latest(1), {2}, {}, {}, [], passing={2}), False),
        (Case("one passes, one is missing", Latest(3), {1, 2, 3}, {1: "g"}, {}, [], passing={3}), False),
        (Case("damaged and its repair passes", Latest(1), {1}, {1: "d"}, {}, [], passing={1}), False),
        (Case("a pin nobody has", Pin(versions(1, 7)), {1}, {1: "g"}, {}, []), False),
        (Case("all pins", Pin(versions(1)), {1, 2}, {1: "g"}, {}, []), True),
        (Case("one stepped aside", Latest(1), {1, 2}, {1: "c"}, None, [], returning={2}), True),
        (Case("a pin stepped aside", Pin(versions(2)), {2}, {1: "c"}, None, [], returning={2}), True),
        (Case("one is tried again", Latest(1), {1, 2}, {1: "c"}, {1: UP}, [], returning={2}), False),
    ],
    ids=lambda value: value.name if isinstance(value, Case) else "",
)
def test_in_place(case: Case, *, in_place: bool) -> None:
    """What `sync` ends with 0 for: all that is wanted, as far as it can be had; every single pin."""
    assert plan(facts_of(case)).in_place is in_place


@pytest.mark.parametrize(("state", "served"), [(UP, True), (LOADING, False)])
def test_what_serves_is_served_whether_its_record_can_be_read_or_not(state: Served, *, served: bool) -> None:
    """Nobody is called for a version that answers; but nothing leaves for it either."""
    found = plan(facts_of(Case("", Latest(1), {9}, {1: "c", 9: "u"}, {1: UP, 9: state}, [], held={9})))

    assert found.served is served
    assert not any(isinstance(action, Prune) for action in found.actions)


def any_case() -> st.SearchStrategy[Case]:
    """Situations of every kind, likely or not."""
    numbers = st.integers(0, 6)
    states = st.sampled_from(
        [UP, LOADING, FAILED, ENDED, Served(ServerState.START), Served(ServerState.UNLOADING)]
    )
    policies = st.one_of(
        st.builds(Latest, st.integers(1, 4)),
        st.builds(Pin, st.frozensets(numbers.map(Version), min_size=1, max_size=3)),
        st.just(Everything()),
    )
    return st.builds(
        Case,
        name=st.just(""),
        policy=policies,
        store=st.none() | st.sets(numbers),
        shelf=st.dictionaries(numbers, st.sampled_from("gcdfu")),
        server=st.none() | st.dictionaries(numbers, states),
        expect=st.just([]),
        held=st.sets(numbers, max_size=3),
        asked=st.booleans(),
        told=st.sampled_from(ServerPolicy),
        waited=st.dictionaries(numbers, st.floats(0, 1000)),
        unreachable=st.dictionaries(numbers, st.floats(0, 1000)),
        starting=st.booleans(),
        reserve=st.sets(numbers, max_size=2),
        passing=st.sets(numbers, max_size=2),
    )


@given(any_case())
def test_what_serves_is_never_given_up(case: Case) -> None:
    """A prune needs proof: ours and unwanted, all that is wanted is good, and something serves."""
    found = plan(facts_of(case))

    for action in found.actions:
        if isinstance(action, Prune):
            assert case.shelf[action.version] in "gcd"
            assert action.version not in found.wanted
            assert case.store is not None
            assert found.wanted
            good = {Version(number) for number, state in case.shelf.items() if state in "gc"}
            newer = {version for version in good if version > action.version}
            count = case.policy.count if isinstance(case.policy, Latest) else len(good) + 1
            assert found.wanted <= good or len(newer) >= count
            if case.asked:
                assert case.server is not None
                assert case.server.get(action.version) not in (LOADING, Served(ServerState.START))
                assert any(served == UP for served in case.server.values())


@given(any_case())
def test_a_quarantine_hits_only_what_never_served(case: Case) -> None:
    """Only a version that was never available, and that an answering server shows, is taken off."""
    for action in plan(facts_of(case)).actions:
        if isinstance(action, Quarantine):
            assert case.shelf[action.version] == "g"
            assert case.server is not None
            assert case.server[action.version] is not UP


@given(any_case())
def test_at_most_one_version_arrives_and_only_from_the_store(case: Case) -> None:
    """What is brought is offered and not held; nothing is brought while a server judges another."""
    actions = plan(facts_of(case)).actions
    brought = [action for action in actions if isinstance(action, Install | Repair | Restore)]

    assert len(brought) <= 1
    for action in brought:
        if isinstance(action, Restore):
            assert action.version in case.reserve
            assert action.version not in case.shelf
            continue
        assert action.version in (case.store or ())
        assert action.version not in case.held
        assert action.version not in case.passing
        waits = [other for other in actions if isinstance(other, Wait)]
        assert case.server is None or all(wait.overdue for wait in waits)


@given(any_case())
def test_the_same_facts_give_the_same_plan(case: Case) -> None:
    """The planner has no memory."""
    assert plan(facts_of(case)) == plan(facts_of(case))


@pytest.mark.parametrize(
    ("kind", "asked", "in_place", "served"),
    [
        ("k", True, False, False),
        ("K", True, True, True),
        ("K", False, True, True),
        ("k", False, False, False),
    ],
)
def test_what_is_being_checked_is_in_place_if_it_has_served(
    kind: str, *, asked: bool, in_place: bool, served: bool
) -> None:
    """A touch of its files is no outage; what a crash left may be one. The verdict says what goes on."""
    found = plan(facts_of(Case("", Latest(1), {1}, {1: kind}, {1: UP}, [], asked=asked)))

    assert (found.in_place, found.served) == (in_place, served)
    verdict = found.verdicts[Version(1)]
    assert verdict.role is Role.WAITING
    assert "being read again" in verdict.why
