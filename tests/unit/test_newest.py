"""Which newest versions are said to be held, and when that is worth telling."""

from collections.abc import Mapping

import pytest

from servesync.admin import HeldVersion
from servesync.agent.held_watch import INCOMPLETE_SECONDS, HeldWatch
from servesync.domain.versions import Model, Version
from servesync.errors import Reason
from servesync.planning.facts import (
    Condition,
    Everything,
    Facts,
    Follow,
    Hold,
    Latest,
    Pin,
    Policy,
    Served,
    Server,
    ServerState,
    Shelved,
)
from servesync.planning.memory import Budget, Remedy, Shortage
from servesync.planning.newest import held_newest
from servesync.planning.planner import plan

M = Model("m")
UP = Server(versions={Version(7): Served(ServerState.AVAILABLE)})
AMBIGUOUS = Hold(Reason.RELEASE_AMBIGUOUS, "two archives")
REFUSED = Hold(Reason.ARCHIVE_CORRUPT, "bad")
WITHDRAWN = Hold(Reason.VERSION_WITHDRAWN, "wrong data")
RESET = Hold(Reason.TRANSFER_BROKEN, "reset", passing=True)
SHORT = Hold(Reason.MEMORY_SHORT, "3 GB are missing")
HERE = Hold(Reason.VERSION_FOREIGN, "' 9' takes the number")
UNREADABLE = Hold(Reason.RECORD_UNREADABLE, "no permission")
UPLOADING = Hold(Reason.RELEASE_INCOMPLETE, "no manifest yet")


def facts(
    held: Mapping[int, Hold],
    offered: set[int],
    policy: Policy = Latest(1),  # noqa: B008 (frozen)
    shelf: tuple[int, ...] = (7,),
    withdrawn: tuple[int, ...] = (),
    channels: Mapping[str, int] | None = None,
) -> Facts:
    """Return what is known of a model of which, unless told otherwise, version 7 is served."""
    return Facts(
        model=M,
        policy=policy,
        offered={Version(number): "id" for number in offered},
        held={Version(number): hold for number, hold in held.items()},
        shelf={Version(n): Shelved(Condition.GOOD, confirmed=True, identity="id") for n in shelf},
        server=UP,
        withdrawn=frozenset(Version(number) for number in withdrawn),
        channels={name: Version(number) for name, number in (channels or {}).items()},
    )


def newest(known: Facts) -> tuple[int, Hold] | None:
    """Return the answer to what is known."""
    return held_newest(plan(known), known)


@pytest.mark.parametrize("hold", [REFUSED, SHORT, UPLOADING])
def test_a_version_that_the_store_offers(hold: Hold) -> None:
    """Above the one that serves, and held: for whatever reason."""
    assert newest(facts({8: hold}, {7, 8})) == (8, hold)


def test_a_version_that_the_store_only_names() -> None:
    """An ambiguous number is no offer; it is the newest all the same."""
    assert newest(facts({9: AMBIGUOUS}, {7})) == (9, AMBIGUOUS)
    assert newest(facts({9: AMBIGUOUS, 8: REFUSED}, {7, 8})) == (9, AMBIGUOUS)


@pytest.mark.parametrize("shelf", [(), (7,)])
def test_with_and_without_a_version_that_serves(shelf: tuple[int, ...]) -> None:
    """Where nothing is there at all, the newest is held none the less."""
    offered = {8, *shelf}
    assert newest(facts({8: REFUSED}, offered, shelf=shelf)) == (8, REFUSED)


@pytest.mark.parametrize(
    ("held", "offered"),
    [
        ({}, {7, 8}),
        ({6: REFUSED}, {6, 7}),
        ({8: REFUSED}, {7, 8, 9}),
        ({8: RESET}, {7, 8}),
        ({8: REFUSED, 9: RESET}, {7, 8, 9}),
        ({9: HERE}, {7}),
        ({9: UNREADABLE}, {7}),
    ],
    ids=[
        "to be brought",
        "older",
        "a newer one is good",
        "passing",
        "newer passing",
        "strange",
        "unreadable",
    ],
)
def test_nothing_is_held(held: dict[int, Hold], offered: set[int]) -> None:
    """Older ones, what passes by itself, and what is on this machine alone are not meant."""
    assert newest(facts(held, offered)) is None


def test_what_passes_by_itself_is_no_trouble_on_an_empty_shelf_either() -> None:
    """Nothing is wanted there while it passes; an older version that is held does not count as the newest."""
    assert newest(facts({8: RESET}, {8}, shelf=())) is None
    assert newest(facts({8: RESET, 7: REFUSED}, {7, 8}, shelf=())) is None


def test_a_foreign_number_that_the_store_has_is_meant() -> None:
    """Something on the shelf keeps the store's newest version away."""
    assert newest(facts({9: HERE}, {7, 9})) == (9, HERE)


def test_a_withdrawn_version_is_held_on_purpose() -> None:
    """It is passed over, however it is known; the next lower one counts as the newest then."""
    assert newest(facts({8: WITHDRAWN}, {7, 8}, withdrawn=(8,))) is None
    assert newest(facts({8: WITHDRAWN}, {7, 8})) is None
    assert newest(facts({8: REFUSED}, {7, 8}, withdrawn=(8,))) is None
    assert newest(facts({8: REFUSED, 9: WITHDRAWN}, {7, 8, 9}, withdrawn=(9,))) == (8, REFUSED)


def test_only_what_policy_would_want_is_meant() -> None:
    """A pin and a channel want no other than theirs; `all` wants every one."""
    held, offered = {8: REFUSED, 9: REFUSED}, {7, 8, 9}
    assert newest(facts(held, offered, Pin(frozenset({Version(7)})))) is None
    assert newest(facts(held, offered, Pin(frozenset({Version(7), Version(8)})))) == (8, REFUSED)
    assert newest(facts(held, offered, Follow(("stable",)), channels={"stable": 7})) is None
    assert newest(facts(held, offered, Follow(("stable",)), channels={"stable": 8})) == (8, REFUSED)
    assert newest(facts(held, offered, Everything())) == (9, REFUSED)


def shortage(way: Remedy) -> Shortage:
    """Return what keeps version 8 out of the server's memory."""
    return Shortage(Version(8), way, 5, 5, Budget(7, "a limit"), ())


def test_a_shortage_that_the_facts_do_not_know() -> None:
    """A plan over all models tells what does not fit; what makes room by itself holds nothing."""
    known = facts({}, {7, 8})
    wanted = plan(facts({8: SHORT}, {7, 8}))
    found = held_newest(wanted, known, [shortage(Remedy.REFUSED)])
    assert found is not None
    assert (found[0], found[1].reason) == (8, Reason.MEMORY_SHORT)
    assert held_newest(wanted, known, [shortage(Remedy.UNLOADING)]) is None


def test_an_upload_has_its_time() -> None:
    """What is incomplete is told after a quarter of an hour, everything else at once."""
    watch, later = HeldWatch(), INCOMPLETE_SECONDS
    eight = Version(8), UPLOADING
    assert watch.observe(M, (Version(8), REFUSED), 0) == HeldVersion(REFUSED.reason, "bad", Version(8))
    assert watch.observe(M, eight, 100) is None
    assert watch.observe(M, eight, 99 + later) is None
    assert watch.observe(M, eight, 100 + later) == HeldVersion(
        UPLOADING.reason, "no manifest yet", Version(8)
    )
    assert watch.observe(M, (Version(9), UPLOADING), 100 + later) is None, "another upload"
    assert watch.observe(M, None, 101 + later) is None
    assert watch.observe(M, (Version(9), UPLOADING), 101 + 2 * later) is None, "it was complete meanwhile"


def test_a_model_that_is_gone_is_forgotten() -> None:
    """It begins anew when it comes back."""
    watch = HeldWatch()
    watch.observe(M, (Version(8), UPLOADING), 0)
    watch.keep(frozenset({M}))
    assert watch.observe(M, (Version(8), UPLOADING), INCOMPLETE_SECONDS) is not None
    watch.keep(frozenset())
    assert watch.observe(M, (Version(8), UPLOADING), INCOMPLETE_SECONDS) is None
