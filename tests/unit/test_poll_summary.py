"""What a line of `poll_finished` tells: what is new, and never more than fits."""

import json

from servesync.agent.poll_summary import GONE, MOST_MODELS, MOST_VERSIONS, PollSummary
from servesync.domain.versions import Model, Version
from servesync.planning.facts import Role

M, OTHER = Model("m"), Model("other")
LONGEST_LINE = 4096


def roles(**models: dict[int, Role]) -> dict[Model, dict[Version, Role]]:
    """Spell the states of versions out."""
    return {Model(name): {Version(n): role for n, role in found.items()} for name, found in models.items()}


SERVING = roles(m={1: Role.RESERVED, 2: Role.SERVING}, other={5: Role.SERVING})


def test_the_first_line_counts_all() -> None:
    """Of each model how many versions are in which state."""
    assert PollSummary().changes(SERVING, {M: 2, OTHER: 1}) == {
        "versions": {"reserved": 1, "serving": 2},
        "states": {"m": {"reserved": 1, "serving": 1}, "other": {"serving": 1}},
        "in_store": {"m": 2, "other": 1},
    }


def test_later_lines_tell_what_is_new() -> None:
    """States that are others, versions that are new, and those that are gone; the highest first."""
    summary = PollSummary()
    summary.changes(SERVING, {M: 2, OTHER: 1})
    later = roles(m={2: Role.KEPT, 3: Role.SERVING}, other={5: Role.SERVING})
    found = summary.changes(later, {M: 3, OTHER: 1})
    assert found == {
        "versions": {"kept": 1, "serving": 2},
        "changed": {"m": {"3": "serving", "2": "kept", "1": GONE}},
        "in_store": {"m": 3},
    }
    assert list(found["changed"]["m"]) == ["3", "2", "1"]  # type: ignore[index]


def test_nothing_is_told_twice() -> None:
    """The same again is no news, nor what the caller does to its own mappings later."""
    summary = PollSummary()
    seen = roles(m={1: Role.SERVING})
    summary.changes(seen, {M: 1})
    seen[M][Version(2)] = Role.HELD
    assert summary.changes(roles(m={1: Role.SERVING}), {M: 1}) == {}
    assert "changed" in summary.changes(seen, {M: 1})
    assert summary.changes(seen, {M: 1}) == {}


def test_a_store_that_empties_itself_is_news() -> None:
    """Though no state is another one, the store offers less."""
    summary = PollSummary()
    summary.changes(SERVING, {M: 2, OTHER: 1})
    assert summary.changes(SERVING, {M: 0, OTHER: 1})["in_store"] == {"m": 0}


def test_models_that_come_and_go_are_news() -> None:
    """With all of their versions."""
    summary = PollSummary()
    assert summary.changes({}, {}) == {"versions": {}, "states": {}, "in_store": {}}
    assert summary.changes(SERVING, {M: 2, OTHER: 1})["changed"] == {
        "m": {"2": "serving", "1": "reserved"},
        "other": {"5": "serving"},
    }
    assert summary.changes(roles(other={5: Role.SERVING}), {OTHER: 1})["changed"] == {
        "m": {"2": GONE, "1": GONE}
    }


def test_what_is_amiss_is_named_first() -> None:
    """Of many models those that somebody has to look at."""
    many = {f"a{number:03}": {1: Role.SERVING} for number in range(100)}
    seen = roles(**many, y={1: Role.HELD}, z={1: Role.MISSING})
    found = PollSummary().changes(seen, {})
    assert list(found["states"])[:3] == ["y", "z", "a000"]  # type: ignore[call-overload]
    assert len(found["states"]) == MOST_MODELS  # type: ignore[arg-type]
    assert found["more_models"] == 102 - MOST_MODELS


def test_of_many_versions_the_highest_are_named() -> None:
    """The others are counted."""
    summary = PollSummary()
    summary.changes(roles(m={}), {M: 0})
    found = summary.changes(roles(m=dict.fromkeys(range(1, 1001), Role.SERVING)), {M: 1000})
    changed = found["changed"]["m"]  # type: ignore[index]
    assert list(changed) == [str(1000 - index) for index in range(MOST_VERSIONS)]
    assert found["more_versions"] == 1000 - MOST_VERSIONS


def test_no_line_is_longer_than_it_may_be() -> None:
    """A thousand models with the longest names and numbers, each with many versions in every state."""
    names = [f"{number:04}".ljust(100, "x") for number in range(1000)]
    states = list(Role)
    first, second = (
        roles(
            **{
                name: {2**63 - 1 - n: states[(n + shift) % len(states)] for n in range(2 * len(states))}
                for name in names
            }
        )
        for shift in (0, 1)
    )
    in_store = {Model(name): 1000 for name in names}
    summary = PollSummary()
    for seen in (first, second, {}):
        found = summary.changes(seen, in_store)
        named = [value for key, value in found.items() if key in {"states", "changed"}]
        assert 1 <= len(named[0]) <= MOST_MODELS  # type: ignore[arg-type]
        assert len(json.dumps(found)) < LONGEST_LINE
