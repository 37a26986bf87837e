"""The split of users over the arms of a test: shares, constancy, and who moves when something changes."""

from collections import Counter

import pytest

from ab_test import Arm, order, parse_arm
from rest_client import Target

USERS = [f"user-{number}" for number in range(10_000)]


def arms(**weights: float) -> list[Arm]:
    """Return an arm for each label."""
    return [Arm(Target("m", label=name), weight) for name, weight in weights.items()]


def assigned(arms: list[Arm], experiment: str = "e") -> dict[str, str]:
    """Return each user's own arm."""
    return {user: order(experiment, arms, user)[0].name for user in USERS}


def test_the_shares_are_the_weights() -> None:
    """Within what 10,000 users allow."""
    counts = Counter(assigned(arms(a=70, b=20, c=10)).values())

    assert counts["a"] == pytest.approx(7000, abs=150)
    assert counts["b"] == pytest.approx(2000, abs=150)
    assert counts["c"] == pytest.approx(1000, abs=150)


def test_a_user_stays_whatever_the_order_of_the_arms() -> None:
    """Every process that knows the arms comes to the same."""
    one, other = arms(a=9, b=1), arms(b=1, a=9)

    assert assigned(one) == assigned(other) == assigned(one)


def test_a_larger_weight_takes_users_and_gives_none_away() -> None:
    """From 10 to 30 percent: nobody who had b loses it."""
    before, after = assigned(arms(a=90, b=10)), assigned(arms(a=70, b=30))

    moved = {(before[user], after[user]) for user in USERS if before[user] != after[user]}
    assert moved == {("a", "b")}


def test_the_users_of_an_arm_that_is_gone_spread_and_the_others_stay() -> None:
    """The second choice is that of the same test without the arm."""
    three, two = arms(a=50, b=30, c=20), arms(a=50, b=30)
    before, after = assigned(three), assigned(two)

    orphans = [user for user in USERS if before[user] == "c"]
    assert all(before[user] == after[user] for user in USERS if user not in set(orphans))
    assert all(order("e", three, user)[1].name == after[user] for user in orphans)
    assert {after[user] for user in orphans} == {"a", "b"}


def test_another_experiment_shuffles_anew() -> None:
    """Else the same users would be the guinea pigs of every test."""
    first, second = assigned(arms(a=1, b=1), "first"), assigned(arms(a=1, b=1), "second")

    assert 4000 < sum(first[user] == second[user] for user in USERS) < 6000


@pytest.mark.parametrize(
    ("text", "target"),
    [("3=10", Target("m", version=3)), ("canary=0.5", Target("m", label="canary"))],
)
def test_an_arm_is_a_number_or_a_label(text: str, target: Target) -> None:
    """Digits are a version."""
    assert parse_arm("m", text).target == target


@pytest.mark.parametrize("text", ["3", "=1", "3=", "3=many", "3=0", "3=-1", "3=nan"])
def test_what_is_no_arm(text: str) -> None:
    """A weight must be above zero."""
    with pytest.raises(ValueError, match=r"weight|float"):
        parse_arm("m", text)
