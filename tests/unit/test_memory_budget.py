"""Whether one version more fits into the server's memory: a table of situations, in bytes."""

from dataclasses import dataclass, field
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servesync.domain.versions import Model, Version
from servesync.planning.memory import (
    GRAPH_COPIES,
    Budget,
    Share,
    Shortage,
    Way,
    WhenShort,
    estimate,
    judge,
    weight_of,
)

KEEP, RETIRE = WhenShort.REFUSE, WhenShort.RETIRE_FIRST
REFUSED, RETIRING, UNLOADING = Way.REFUSED, Way.RETIRE, Way.UNLOADING


def versions(*numbers: int) -> frozenset[Version]:
    """Return version numbers as a share holds them."""
    return frozenset(Version(number) for number in numbers)


def share(
    name: str,
    loaded: dict[int, int],
    coming: tuple[int, int] | None = None,
    *,
    leaving: tuple[int, ...] = (),
    retirable: tuple[int, ...] = (),
    proven: bool = False,
) -> Share:
    """Spell one model out. `loaded`: number -> bytes; `coming`: number and bytes."""
    return Share(
        model=Model(name),
        loaded={Version(number): size for number, size in loaded.items()},
        leaving=versions(*leaving),
        retirable=versions(*retirable),
        coming=None if coming is None else Version(coming[0]),
        coming_bytes=0 if coming is None else coming[1],
        proven=proven,
    )


@dataclass(frozen=True)
class Case:
    """One situation. `expect`: model -> way, missing bytes, who retires; a model that fits is not in it."""

    name: str
    shares: list[Share]
    budget: int
    when: WhenShort
    expect: dict[str, tuple[Way, int, tuple[int, ...]]] = field(default_factory=dict)


OLD: Final = {1: 100}
CASES = [
    Case("nothing comes", [share("a", OLD)], 50, KEEP),
    Case("nothing is anywhere", [], 0, KEEP),
    Case("the first of all fits", [share("a", {}, (1, 100))], 100, KEEP),
    Case("the first of all is too big", [share("a", {}, (1, 101))], 100, KEEP, {"a": (REFUSED, 1, ())}),
    Case(
        "too big alone: nothing to retire helps",
        [share("a", OLD, (2, 300), retirable=(1,))],
        200,
        RETIRE,
        {"a": (REFUSED, 200, ())},
    ),
    Case("old and new fit to the byte", [share("a", OLD, (2, 100), retirable=(1,))], 200, KEEP),
    Case(
        "one byte is missing",
        [share("a", OLD, (2, 100), retirable=(1,))],
        199,
        KEEP,
        {"a": (REFUSED, 1, ())},
    ),
    Case(
        "one byte is missing: retire",
        [share("a", OLD, (2, 100), retirable=(1,))],
        199,
        RETIRE,
        {"a": (RETIRING, 1, (1,))},
    ),
    Case("fits: nobody retires", [share("a", OLD, (2, 100), retirable=(1,))], 200, RETIRE),
    Case(
        "no more retire than needed, the lowest first",
        [share("a", {1: 10, 2: 100, 3: 100}, (4, 100), retirable=(1, 2, 3))],
        250,
        RETIRE,
        {"a": (RETIRING, 60, (1, 2))},
    ),
    Case(
        "one that is wanted still never retires",
        [share("a", {1: 100, 2: 100}, (3, 100), retirable=(1,))],
        150,
        RETIRE,
        {"a": (REFUSED, 150, ())},
    ),
    Case(
        "other models never retire",
        [share("a", OLD, (2, 100)), share("b", {1: 500}, retirable=(1,))],
        600,
        RETIRE,
        {"a": (REFUSED, 100, ())},
    ),
    Case(
        "the sum is over all models",
        [share("a", OLD, (2, 100), retirable=(1,)), share("b", OLD), share("c", OLD)],
        350,
        KEEP,
        {"a": (REFUSED, 50, ())},
    ),
    Case(
        "each model alone fits, all three together not old and new",
        [share(name, OLD, (2, 100), retirable=(1,)) for name in "abc"],
        350,
        KEEP,
        dict.fromkeys("abc", (REFUSED, 50, ())),
    ),
    Case(
        "and each may retire its own",
        [share(name, OLD, (2, 100), retirable=(1,)) for name in "abc"],
        350,
        RETIRE,
        dict.fromkeys("abc", (RETIRING, 50, (1,))),
    ),
    Case(
        "what is still unloading is waited for, whatever the policy",
        [share("a", OLD, (2, 100), leaving=(1,))],
        150,
        KEEP,
        {"a": (UNLOADING, 50, ())},
    ),
    Case(
        "also what another model unloads",
        [share("a", OLD, (2, 100), retirable=(1,)), share("b", {7: 100}, leaving=(7,))],
        200,
        RETIRE,
        {"a": (UNLOADING, 100, ())},
    ),
    Case(
        "unloading is not enough, so retire, too",
        [share("a", {1: 100, 2: 100}, (3, 100), leaving=(1,), retirable=(2,))],
        150,
        RETIRE,
        {"a": (RETIRING, 150, (2,))},
    ),
    Case(
        "unloading is not enough",
        [share("a", {1: 100, 2: 100}, (3, 100), leaving=(1,), retirable=(2,))],
        150,
        KEEP,
        {"a": (REFUSED, 150, ())},
    ),
    Case("unloaded: it fits", [share("a", {}, (2, 100), proven=True)], 150, RETIRE),
    Case(
        "a number that is still unloading comes back: it counts once",
        [share("a", {1: 100, 2: 100}, (1, 100), leaving=(1,))],
        200,
        KEEP,
    ),
    Case("what is on the shelf already loads nothing more", [share("a", OLD, (1, 100))], 10, KEEP),
    Case(
        "what is proven comes first, and its room is kept",
        [share("a", OLD, (2, 100)), share("z", {}, (2, 100), proven=True)],
        250,
        KEEP,
        {"a": (REFUSED, 50, ())},
    ),
    Case(
        "also while it waits for what it has retired",
        [share("a", OLD, (2, 100)), share("z", OLD, (2, 150), leaving=(1,), proven=True)],
        300,
        RETIRE,
        {"a": (REFUSED, 50, ()), "z": (UNLOADING, 50, ())},
    ),
    Case(
        "a proven one that is refused keeps nothing",
        [share("a", OLD, (2, 100)), share("z", OLD, (2, 900), proven=True)],
        300,
        KEEP,
        {"z": (REFUSED, 800, ())},
    ),
    Case(
        "two proven ones retire: the second counts the growth of the first",
        [
            share("a", OLD, (2, 150), retirable=(1,), proven=True),
            share("b", OLD, (2, 150), retirable=(1,), proven=True),
        ],
        250,
        RETIRE,
        {"a": (RETIRING, 100, (1,)), "b": (REFUSED, 150, ())},
    ),
    Case(
        "a budget below what is loaded takes nothing away",
        [share("a", {1: 100, 2: 100}), share("b", {}, (1, 1))],
        50,
        KEEP,
        {"b": (REFUSED, 151, ())},
    ),
    Case("no budget at all: only what weighs nothing", [share("a", {}, (1, 0))], 0, KEEP),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_situation(case: Case) -> None:
    """Who is short, what follows, and by how much."""
    found = judge(case.shares, Budget(case.budget, "a test"), case.when)

    assert {
        str(model): (short.way, short.missing_bytes, tuple(int(v) for v in short.retire))
        for model, short in found.items()
    } == case.expect


def test_the_figures_in_words() -> None:
    """A reader can add up what is missing."""
    shares = [share("a", OLD, (2, 120)), share("b", {3: 70})]

    short = judge(shares, Budget(250, "memory.budget_bytes"), KEEP)[Model("a")]

    assert short.text == (
        "it needs 120 bytes of the server's memory, 170 are taken (a 1: 100, b 3: 70), and the budget is 250 "
        "(memory.budget_bytes): 40 bytes are missing"
    )


def test_many_versions_are_not_all_named() -> None:
    """A hundred models do not make a message of a hundred lines."""
    shares = [share(f"m{n}", {1: n}) for n in range(100)] + [share("new", {}, (1, 1))]

    short = judge(shares, Budget(10, "x"), KEEP)[Model("new")]

    assert short.text.count("m9") <= 10
    assert "and 92 more" in short.text


SIZES = st.integers(0, 1000)


@st.composite
def situations(draw: st.DrawFn) -> tuple[list[Share], int, WhenShort]:
    """Return any situation of up to four models."""
    shares = []
    for name in draw(st.sets(st.sampled_from("abcd"))):
        loaded = draw(st.dictionaries(st.integers(1, 4), SIZES, max_size=4))
        leaving = tuple(draw(st.sets(st.sampled_from(sorted(loaded))))) if loaded else ()
        rest = sorted(loaded.keys() - set(leaving))
        retirable = tuple(draw(st.sets(st.sampled_from(rest)))) if rest else ()
        coming = draw(st.none() | st.tuples(st.integers(5, 6), SIZES))
        proven = draw(st.booleans())
        shares.append(share(name, loaded, coming, leaving=leaving, retirable=retirable, proven=proven))
    return shares, draw(st.integers(0, 4000)), draw(st.sampled_from(WhenShort))


@pytest.mark.slow
@given(situations())
def test_what_is_admitted_fits_and_what_retires_was_asked_for(
    situation: tuple[list[Share], int, WhenShort],
) -> None:
    """Whoever comes alone next stays within the budget; nobody retires in vain, or beyond what may."""
    shares, budget, when = situation
    found: dict[Model, Shortage] = judge(shares, Budget(budget, "x"), when)

    taken = sum(item.loaded_bytes for item in shares)
    leaving = sum(item.leaving_bytes for item in shares)
    for item in shares:
        short = found.get(item.model)
        if item.coming is not None and short is None:
            assert taken + item.coming_bytes <= budget
        if short is None or short.way is Way.REFUSED:
            continue
        assert short.missing_bytes > 0
        freed = leaving + sum(item.loaded[version] for version in short.retire)
        assert taken - freed + item.coming_bytes <= budget
        assert set(short.retire) <= item.retirable
        assert when is RETIRE or not short.retire


FILES = [
    ("saved_model.pb", 10),
    ("variables/variables.index", 5),
    ("variables/variables.data-00000-of-00001", 1000),
    ("assets/vocabulary.txt", 70),
    ("assets.extra/tf_serving_warmup_requests", 900),
    ("fingerprint.pb", 1),
]


def test_what_a_version_weighs() -> None:
    """Tensors by the index, assets, and the graph with its copies."""
    assert weight_of(FILES, tensor_bytes=980) == 980 + 70 + 10 * GRAPH_COPIES + 1


def test_without_an_index_the_shards_stand_for_the_tensors() -> None:
    """So a directory's listing tells the weight before the first byte."""
    assert weight_of(FILES) == 1000 + 70 + 10 * GRAPH_COPIES + 1


@pytest.mark.parametrize(
    ("observed", "expect"), [(0.0, 1200), (1.0, 1200), (2.5, 2500), (3.6, 3600), (50.0, 3600)]
)
def test_an_observation_raises_the_estimate_within_bounds(observed: float, expect: int) -> None:
    """It never lowers it: memory that is used again looks like none."""
    assert estimate(1000, 1.2, observed) == expect
