"""What the agent knows of the server's past, in made-up time."""

from servesync.agent.server_watch import ServerWatch
from servesync.domain.versions import Model, Version
from servesync.errors import Reason, ServerDown, ServerError
from servesync.planning.facts import Condition, Ends, Served, Server, ServerState, Shelved

M, OTHER, V, W = Model("m"), Model("other"), Version(1), Version(2)
UP = Served(ServerState.AVAILABLE)
LOADING = Served(ServerState.LOADING)
NEW = Shelved(Condition.GOOD, identity="id")
OLD = Shelved(Condition.GOOD, identity="id", confirmed=True)
SHELF = {V: NEW}
BOTH = {V: OLD, W: NEW}
DOWN = ServerDown(Reason.SERVER_UNREACHABLE, "refused")
HANGS = ServerError(Reason.SERVER_UNREACHABLE, "no answer")


def test_time_counts_only_between_two_answers() -> None:
    """A server that is down makes no version late."""
    watch = ServerWatch()
    watch.record_status(M, {V: LOADING}, SHELF, 0.0)
    watch.record_status(M, {V: LOADING}, SHELF, 3.0)
    watch.record_status(M, DOWN, SHELF, 50.0)
    watch.record_status(M, {V: LOADING}, SHELF, 100.0)
    watch.record_status(M, {V: LOADING}, SHELF, 102.0)

    assert watch.waited_for(M) == {V: 5.0}


def test_a_suspended_agent_makes_no_version_late() -> None:
    """Of a long silence between two looks at most ten seconds count."""
    watch = ServerWatch()
    watch.record_status(M, {V: LOADING}, SHELF, 0.0)
    watch.record_status(M, {V: LOADING}, SHELF, 3600.0)

    assert watch.waited_for(M) == {V: 10.0}


def test_time_counts_for_a_version_that_the_server_does_not_list() -> None:
    """It may not be configured for the model at all; a version that is up waits for nothing."""
    watch = ServerWatch()
    watch.record_status(M, {}, SHELF, 0.0)
    watch.record_status(M, {}, SHELF, 4.0)
    assert watch.waited_for(M) == {V: 4.0}

    watch.record_status(M, {V: Served(ServerState.AVAILABLE)}, SHELF, 5.0)
    assert watch.waited_for(M) == {}


def test_a_silence_is_measured_until_the_next_answer() -> None:
    """By it the agent tells a server that starts from one that is gone."""
    watch = ServerWatch()
    watch.record_status(M, HANGS, SHELF, 10.0)
    watch.record_status(M, HANGS, SHELF, 70.0)
    assert watch.silent_seconds(M, 80.0) == 70.0

    watch.record_status(M, {}, SHELF, 90.0)
    assert watch.silent_seconds(M, 95.0) == 0.0


def test_a_number_that_was_taken_off_rests() -> None:
    """The server must miss it at a scan; then it may come again."""
    watch = ServerWatch()
    watch.taken_off((M, V), 100.0, 5.0)

    assert set(watch.cooling_down(M, 104.0)) == {V}
    assert watch.next_due(104.0) == 1.0
    assert watch.next_due(105.5) is None
    assert not watch.cooling_down(M, 105.5)


def test_a_new_version_has_all_its_time() -> None:
    """What was waited for under the same number before does not count."""
    watch = ServerWatch()
    watch.record_status(M, {V: LOADING}, SHELF, 0.0)
    watch.record_status(M, {V: LOADING}, SHELF, 3.0)
    watch.installed((M, V))
    watch.record_status(M, {V: LOADING}, SHELF, 4.0)

    assert watch.waited_for(M) == {V: 1.0}


def test_time_counts_while_nothing_listens() -> None:
    """Apart, between two looks; a server that hangs may be serving, so its time does not count."""
    watch = ServerWatch()
    for now, said in ((0.0, DOWN), (3.0, DOWN), (4.0, HANGS), (6.0, DOWN), (8.0, DOWN), (3600.0, DOWN)):
        watch.record_status(M, said, SHELF, now)
    assert watch.unreachable_seconds(M) == {V: 3.0 + 2.0 + 10.0}

    watch.record_status(M, {}, SHELF, 3601.0)
    assert watch.unreachable_seconds(M) == {}


def test_a_server_that_answered_and_is_refused_has_ended() -> None:
    """Once, however often it is refused; only what never served may be why."""
    watch = ServerWatch()
    watch.record_status(M, {V: UP, W: LOADING}, BOTH, 0.0)
    watch.record_status(M, DOWN, BOTH, 1.0)
    watch.record_status(M, DOWN, BOTH, 2.0)

    assert watch.ends(M) == {W: Ends(1, 1, had_answered=True)}


def test_an_answer_that_breaks_off_is_no_end_yet() -> None:
    """A busy server times out; the refused connection after it is what counts."""
    watch = ServerWatch()
    watch.record_status(M, {V: UP}, BOTH, 0.0)
    watch.record_status(M, HANGS, BOTH, 1.0)
    watch.record_status(M, {V: UP}, BOTH, 2.0)
    watch.record_status(M, HANGS, BOTH, 3.0)
    assert watch.ends(M) == {}

    watch.record_status(M, DOWN, BOTH, 4.0)
    assert watch.ends(M)[W].now == 1


def test_a_port_that_closes_again_while_the_server_starts_is_an_end() -> None:
    """It accepted, and never answered: so it does not prove that the server can live without the version."""
    watch = ServerWatch()
    for now, said in enumerate((DOWN, HANGS, DOWN, DOWN, HANGS, DOWN)):
        watch.record_status(M, said, SHELF, float(now))

    assert watch.ends(M) == {V: Ends(2, 2, had_answered=False)}


def test_starts_that_fail_are_seen_by_the_process() -> None:
    """It goes, or is another one; nothing is counted twice, nor before one was seen."""
    watch = ServerWatch()
    for now, started_at in enumerate((None, None, 10.0, 10.0, None, None, 12.0, 14.0, 14.0)):
        watch.record_status(M, DOWN, SHELF, float(now), started_at)

    assert watch.ends(M) == {V: Ends(2, 2, had_answered=False)}


def test_an_end_that_shows_twice_counts_once() -> None:
    """First the connection is refused, then the process is gone; or the other way round."""
    for late in (10.0, None):
        watch = ServerWatch()
        watch.record_status(M, {V: UP}, BOTH, 0.0, 10.0)
        watch.record_status(M, DOWN, BOTH, 1.0, late)
        watch.record_status(M, DOWN, BOTH, 2.0, None)
        watch.record_status(M, DOWN, BOTH, 3.0, 12.0)
        watch.record_status(M, {V: UP}, BOTH, 4.0, 12.0)

        assert watch.ends(M) == {W: Ends(1, 1, had_answered=True)}


def test_a_restart_between_two_answers_is_an_end() -> None:
    """Also if no look fell into the gap. A process that cannot be seen for once has not ended."""
    watch = ServerWatch()
    for now, started_at in enumerate((10.0, None, 10.0, 12.0)):
        watch.record_status(M, {V: UP}, BOTH, float(now), started_at)

    assert watch.ends(M) == {W: Ends(1, 1, had_answered=True)}
    assert watch.answered_seconds(3.0) == 0.0


def test_one_end_counts_for_each_model() -> None:
    """The server is one process; whichever model was asked when it was gone."""
    watch = ServerWatch()
    for model in (M, OTHER):
        watch.record_status(model, {V: UP}, BOTH, 0.0)
    for now in (1.0, 2.0):
        for model in (M, OTHER):
            watch.record_status(model, DOWN, BOTH, now)

    assert watch.ends(M) == watch.ends(OTHER) == {W: Ends(1, 1, had_answered=True)}


def test_what_came_between_two_looks_is_a_suspect() -> None:
    """A version may end the server before anybody has asked again."""
    watch = ServerWatch()
    watch.record_status(M, {V: UP}, {V: OLD}, 0.0)
    watch.installed((M, W))
    watch.record_status(M, DOWN, BOTH, 1.0)

    assert watch.ends(M)[W].now == 1


def test_what_serves_is_no_suspect() -> None:
    """And with its first AVAILABLE all is forgotten."""
    watch = ServerWatch()
    watch.record_status(M, {V: UP, W: LOADING}, BOTH, 0.0)
    watch.record_status(M, DOWN, BOTH, 1.0)
    watch.record_status(M, {V: UP, W: UP}, BOTH, 2.0)
    watch.record_status(M, DOWN, BOTH, 3.0)

    assert watch.ends(M) == {}


def test_what_the_server_passes_over_is_no_suspect() -> None:
    """It is not configured for it: its restarts have nothing to do with it."""
    watch = ServerWatch()
    for now in range(0, 50, 5):
        watch.record_status(M, {}, SHELF, float(now))
    watch.record_status(M, DOWN, SHELF, 51.0)

    assert watch.ends(M) == {}


def test_what_comes_back_is_counted_anew_and_not_forgotten() -> None:
    """`now` begins again, `ever` goes on, for the same bytes."""
    watch = ServerWatch()
    watch.record_status(M, {V: UP}, BOTH, 0.0)
    watch.record_status(M, DOWN, BOTH, 1.0)
    watch.taken_off((M, W), 1.0, 5.0)
    watch.record_status(M, {V: UP}, {V: OLD}, 2.0)
    watch.installed((M, W))
    assert watch.ends(M) == {W: Ends(0, 1, had_answered=True)}

    watch.record_status(M, DOWN, BOTH, 20.0)
    assert watch.ends(M) == {W: Ends(1, 2, had_answered=True)}

    watch.record_status(M, {V: UP}, BOTH, 21.0)
    watch.record_status(M, DOWN, {V: OLD, W: Shelved(Condition.GOOD, identity="other")}, 22.0)
    assert watch.ends(M) == {W: Ends(1, 1, had_answered=True)}


def test_who_left_is_held_responsible() -> None:
    """The ends that it may have caused are no longer counted for those that stay."""
    watch = ServerWatch()
    both = {V: NEW, W: NEW}
    watch.record_status(M, HANGS, both, 0.0)
    watch.record_status(M, DOWN, both, 1.0)
    watch.taken_off((M, W), 1.0, 5.0)

    assert watch.ends(M) == {W: Ends(0, 1)}


def test_how_long_it_has_answered_counts_from_its_last_end() -> None:
    """And the agent is told when that is long enough for a version to come back."""
    watch = ServerWatch()
    watch.record_status(M, {V: UP}, BOTH, 0.0)
    assert watch.answered_seconds(50.0) == 50.0
    watch.record_status(M, DOWN, BOTH, 60.0)
    assert watch.answered_seconds(60.0) == 0.0
    assert watch.next_due(60.0) is None
    watch.record_status(M, {V: UP}, BOTH, 64.0)
    watch.record_status(M, {V: UP}, BOTH, 66.0)

    assert watch.answered_seconds(66.0) == 2.0
    assert watch.next_due(66.0) == 8.0
    assert watch.next_due(75.0) is None


def test_the_planner_is_told_everything() -> None:
    """What the settings say of the server stays as it is."""
    watch = ServerWatch()
    watch.record_status(M, {V: UP}, BOTH, 0.0)
    watch.record_status(M, DOWN, BOTH, 1.0)
    watch.record_status(M, DOWN, BOTH, 3.0)
    told = watch.facts(M, 3.0, Server(load_timeout_seconds=7))

    assert told == Server(
        load_timeout_seconds=7,
        unreachable_seconds={V: 2.0, W: 2.0},
        waited_seconds={W: 0.0},
        ends={W: Ends(1, 1, had_answered=True)},
        has_answered=True,
        answered_seconds=0.0,
    )
