"""What the agent remembers between looks, in made-up time."""

from servesync.agent.memory import Repeats, ServerMemory
from servesync.plan.facts import Served, ServerState
from servesync.plan.versions import Model, Version

M, V = Model("m"), Version(1)
LOADING = Served(ServerState.LOADING)
FAILED = Served(ServerState.END, "DATA_LOSS", "bad")


def test_time_counts_only_between_two_answers() -> None:
    """A server that is down makes no version late."""
    memory = ServerMemory()
    memory.saw(M, {V: LOADING}, 0.0)
    memory.saw(M, {V: LOADING}, 3.0)
    memory.saw(M, None, 50.0)
    memory.saw(M, {V: LOADING}, 100.0)
    memory.saw(M, {V: LOADING}, 102.0)

    assert memory.waited_for(M) == {V: 5.0}


def test_a_suspended_agent_makes_no_version_late() -> None:
    """Of a long silence between two looks at most ten seconds count."""
    memory = ServerMemory()
    memory.saw(M, {V: LOADING}, 0.0)
    memory.saw(M, {V: LOADING}, 3600.0)

    assert memory.waited_for(M) == {V: 10.0}


def test_time_counts_for_a_version_that_the_server_does_not_list() -> None:
    """It may not be configured for the model at all; a version that is up waits for nothing."""
    memory = ServerMemory()
    memory.saw(M, {}, 0.0, [V])
    memory.saw(M, {}, 4.0, [V])
    assert memory.waited_for(M) == {V: 4.0}

    memory.saw(M, {V: Served(ServerState.AVAILABLE)}, 5.0, [V])
    assert memory.waited_for(M) == {}


def test_a_silence_is_measured_until_the_next_answer() -> None:
    """By it the agent tells a server that starts from one that is gone."""
    memory = ServerMemory()
    memory.saw(M, None, 10.0)
    memory.saw(M, None, 70.0)
    assert memory.silent_seconds(M, 80.0) == 70.0

    memory.saw(M, {}, 90.0)
    assert memory.silent_seconds(M, 95.0) == 0.0


def test_a_number_that_was_taken_off_rests() -> None:
    """The server must miss it at a scan; then it may come again."""
    memory = ServerMemory()
    memory.taken_off((M, V), 100.0, 5.0)

    assert set(memory.resting(M, 104.0)) == {V}
    assert memory.next_due(104.0) == 1.0
    assert memory.next_due(105.5) is None
    assert not memory.resting(M, 105.5)


def test_a_new_version_has_all_its_time() -> None:
    """What was waited for under the same number before does not count."""
    memory = ServerMemory()
    memory.saw(M, {V: LOADING}, 0.0)
    memory.saw(M, {V: LOADING}, 3.0)
    memory.installed((M, V))
    memory.saw(M, {V: LOADING}, 4.0)

    assert memory.waited_for(M) == {V: 1.0}


def test_identical_messages_thin_out() -> None:
    """The 1st, 2nd, 4th and 8th time is said, until it is over."""
    repeats = Repeats()

    assert [repeats.count("x") for _ in range(8)] == [1, 2, None, 4, None, None, None, 8]
    assert repeats.over("x")
    assert not repeats.over("x")
    assert repeats.count("x") == 1


def test_memory_is_bounded() -> None:
    """Messages that never come twice are forgotten, the oldest first."""
    repeats = Repeats()
    repeats.count("first")
    for number in range(5000):
        repeats.count(number)

    assert repeats.count("first") == 1
    assert repeats.count(4999) == 2
