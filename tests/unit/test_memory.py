"""What the agent remembers between looks, in made-up time."""

from servesync.agent.memory import Attempts, Repeats
from servesync.errors import Reason, StoreError, TransferError
from servesync.plan.versions import Model, Version

M, V = Model("m"), Version(1)
ERROR = TransferError(Reason.TRANSFER_BROKEN, "connection reset")


def test_pauses_double_up_to_five_minutes() -> None:
    """A failing version is tried less and less often, but never given up."""
    attempts = Attempts()

    pauses = [attempts.failed((M, V), "id", ERROR, float(i)) for i in range(9)]

    assert pauses == [5, 10, 20, 40, 80, 160, 300, 300, 300]


def test_a_failure_holds_one_identity_until_its_pause_is_over() -> None:
    """The same bytes wait; other bytes under the number are tried at once."""
    attempts = Attempts()
    attempts.failed((M, V), "id", ERROR, 100.0)

    assert list(attempts.holds(M, {V: "id"}, 104.0)) == [V]
    assert attempts.holds(M, {V: "id"}, 105.5) == {}
    assert attempts.holds(M, {V: "new"}, 104.0) == {}
    assert attempts.next_due(103.0) == 2.0


def test_a_failure_passes_until_it_has_come_five_times() -> None:
    """Then the next good version is due; another version's failure changes nothing about it."""
    attempts = Attempts()
    passing = []
    for number in range(6):
        attempts.failed((M, V), "id", ERROR, number * 1000.0)
        passing.append(attempts.holds(M, {V: "id"}, number * 1000.0)[V].passing)

    assert passing == [True, True, True, True, False, False]


def test_a_failing_store_gives_the_whole_model_a_moment() -> None:
    """The next version would meet the same; other models are not concerned."""
    attempts = Attempts()
    down = StoreError(Reason.STORE_UNREACHABLE, "refused")
    attempts.failed((M, V), "id", down, 0.0)
    other = Version(2)

    assert set(attempts.holds(M, {V: "id", other: "x"}, 4.0)) == {V, other}
    assert attempts.holds(M, {other: "x"}, 4.0)[other].passing
    assert attempts.holds(M, {other: "x"}, 5.5) == {}
    assert attempts.holds(Model("n"), {other: "x"}, 1.0) == {}


def test_the_pause_of_an_action_holds_for_that_action_only() -> None:
    """A failed prune is not tried again at once; it keeps no fetch away."""
    attempts = Attempts()
    attempts.failed((M, V), "Prune", ERROR, 100.0)

    assert attempts.is_paused((M, V), "Prune", 104.0)
    assert not attempts.is_paused((M, V), "Prune", 106.0)
    assert not attempts.is_paused((M, V), "Confirm", 104.0)
    assert attempts.count((M, V), "Prune") == 1
    assert attempts.holds(M, {V: "id"}, 104.0) == {}


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
