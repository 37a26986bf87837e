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
    ModelMemory,
    Remedy,
    Shortage,
    WhenShort,
    check_budget,
    estimate,
    weight_of,
)

KEEP, RETIRE = WhenShort.REFUSE, WhenShort.RETIRE_FIRST
REFUSED, RETIRING, UNLOADING = Remedy.REFUSED, Remedy.RETIRE, Remedy.UNLOADING


def versions(*numbers: int) -> frozenset[Version]:
    """Return version numbers as a share holds them."""
    return frozenset(Version(number) for number in numbers)


def model_memory(
    name: str,
    loaded: dict[int, int],
    candidate: tuple[int, int] | None = None,
    *,
    unloading: tuple[int, ...] = (),
    retirable: tuple[int, ...] = (),
    proven: bool = False,
) -> ModelMemory:
    """Spell one model out. `loaded`: number -> bytes; `coming`: number and bytes."""
    return ModelMemory(
        model=Model(name),
        loaded={Version(number): size for number, size in loaded.items()},
        unloading=versions(*unloading),
        retirable=versions(*retirable),
        candidate=None if candidate is None else Version(candidate[0]),
        candidate_bytes=0 if candidate is None else candidate[1],
        proven=proven,
    )


@dataclass(frozen=True)
class Case:
    """One situation. `expect`: model -> way, missing bytes, who retires; a model that fits is not in it."""

    name: str
    memories: list[ModelMemory]
    budget: int
    when: WhenShort
    expect: dict[str, tuple[Remedy, int, tuple[int, ...]]] = field(default_factory=dict)


OLD: Final = {1: 100}
CASES = [
    Case("nothing comes", [model_memory("a", OLD)], 50, KEEP),
    Case("nothing is anywhere", [], 0, KEEP),
    Case("the first of all fits", [model_memory("a", {}, (1, 100))], 100, KEEP),
    Case(
        "the first of all is too big", [model_memory("a", {}, (1, 101))], 100, KEEP, {"a": (REFUSED, 1, ())}
    ),
    Case(
        "too big alone: nothing to retire helps",
        [model_memory("a", OLD, (2, 300), retirable=(1,))],
        200,
        RETIRE,
        {"a": (REFUSED, 200, ())},
    ),
    Case("old and new fit to the byte", [model_memory("a", OLD, (2, 100), retirable=(1,))], 200, KEEP),
    Case(
        "one byte is missing",
        [model_memory("a", OLD, (2, 100), retirable=(1,))],
        199,
        KEEP,
        {"a": (REFUSED, 1, ())},
    ),
    Case(
        "one byte is missing: retire",
        [model_memory("a", OLD, (2, 100), retirable=(1,))],
        199,
        RETIRE,
        {"a": (RETIRING, 1, (1,))},
    ),
    Case("fits: nobody retires", [model_memory("a", OLD, (2, 100), retirable=(1,))], 200, RETIRE),
    Case(
        "no more retire than needed, the lowest first",
        [model_memory("a", {1: 10, 2: 100, 3: 100}, (4, 100), retirable=(1, 2, 3))],
        250,
        RETIRE,
        {"a": (RETIRING, 60, (1, 2))},
    ),
    Case(
        "one that is wanted still never retires",
        [model_memory("a", {1: 100, 2: 100}, (3, 100), retirable=(1,))],
        150,
        RETIRE,
        {"a": (REFUSED, 150, ())},
    ),
    Case(
        "other models never retire",
        [model_memory("a", OLD, (2, 100)), model_memory("b", {1: 500}, retirable=(1,))],
        600,
        RETIRE,
        {"a": (REFUSED, 100, ())},
    ),
    Case(
        "the sum is over all models",
        [model_memory("a", OLD, (2, 100), retirable=(1,)), model_memory("b", OLD), model_memory("c", OLD)],
        350,
        KEEP,
        {"a": (REFUSED, 50, ())},
    ),
    Case(
        "each model alone fits, all three together not old and new",
        [model_memory(name, OLD, (2, 100), retirable=(1,)) for name in "abc"],
        350,
        KEEP,
        dict.fromkeys("abc", (REFUSED, 50, ())),
    ),
    Case(
        "and each may retire its own",
        [model_memory(name, OLD, (2, 100), retirable=(1,)) for name in "abc"],
        350,
        RETIRE,
        dict.fromkeys("abc", (RETIRING, 50, (1,))),
    ),
    Case(
        "what is still unloading is waited for, whatever the policy",
        [model_memory("a", OLD, (2, 100), unloading=(1,))],
        150,
        KEEP,
        {"a": (UNLOADING, 50, ())},
    ),
    Case(
        "also what another model unloads",
        [model_memory("a", OLD, (2, 100), retirable=(1,)), model_memory("b", {7: 100}, unloading=(7,))],
        200,
        RETIRE,
        {"a": (UNLOADING, 100, ())},
    ),
    Case(
        "unloading is not enough, so retire, too",
        [model_memory("a", {1: 100, 2: 100}, (3, 100), unloading=(1,), retirable=(2,))],
        150,
        RETIRE,
        {"a": (RETIRING, 150, (2,))},
    ),
    Case(
        "unloading is not enough",
        [model_memory("a", {1: 100, 2: 100}, (3, 100), unloading=(1,), retirable=(2,))],
        150,
        KEEP,
        {"a": (REFUSED, 150, ())},
    ),
    Case("unloaded: it fits", [model_memory("a", {}, (2, 100), proven=True)], 150, RETIRE),
    Case(
        "a number that is still unloading comes back: it counts once",
        [model_memory("a", {1: 100, 2: 100}, (1, 100), unloading=(1,))],
        200,
        KEEP,
    ),
    Case("what is on the shelf already loads nothing more", [model_memory("a", OLD, (1, 100))], 10, KEEP),
    Case(
        "what is proven comes first, and its room is kept",
        [model_memory("a", OLD, (2, 100)), model_memory("z", {}, (2, 100), proven=True)],
        250,
        KEEP,
        {"a": (REFUSED, 50, ())},
    ),
    Case(
        "also while it waits for what it has retired",
        [model_memory("a", OLD, (2, 100)), model_memory("z", OLD, (2, 150), unloading=(1,), proven=True)],
        300,
        RETIRE,
        {"a": (REFUSED, 50, ()), "z": (UNLOADING, 50, ())},
    ),
    Case(
        "a proven one that is refused keeps nothing",
        [model_memory("a", OLD, (2, 100)), model_memory("z", OLD, (2, 900), proven=True)],
        300,
        KEEP,
        {"z": (REFUSED, 800, ())},
    ),
    Case(
        "two proven ones retire: the second counts the growth of the first",
        [
            model_memory("a", OLD, (2, 150), retirable=(1,), proven=True),
            model_memory("b", OLD, (2, 150), retirable=(1,), proven=True),
        ],
        250,
        RETIRE,
        {"a": (RETIRING, 100, (1,)), "b": (REFUSED, 150, ())},
    ),
    Case(
        "a budget below what is loaded takes nothing away",
        [model_memory("a", {1: 100, 2: 100}), model_memory("b", {}, (1, 1))],
        50,
        KEEP,
        {"b": (REFUSED, 151, ())},
    ),
    Case("no budget at all: only what weighs nothing", [model_memory("a", {}, (1, 0))], 0, KEEP),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_situation(case: Case) -> None:
    """Who is short, what follows, and by how much."""
    found = check_budget(case.memories, Budget(case.budget, "a test"), case.when)

    assert {
        str(model): (short.remedy, short.missing_bytes, tuple(int(v) for v in short.retire))
        for model, short in found.items()
    } == case.expect


def test_the_figures_in_words() -> None:
    """A reader can add up what is missing."""
    memories = [model_memory("a", OLD, (2, 120)), model_memory("b", {3: 70})]

    short = check_budget(memories, Budget(250, "memory.budget_bytes"), KEEP)[Model("a")]

    assert short.text == (
        "it needs 120 bytes of the server's memory, 170 are taken (a 1: 100, b 3: 70), and the budget is 250 "
        "(memory.budget_bytes): 40 bytes are missing"
    )


def test_many_versions_are_not_all_named() -> None:
    """A hundred models do not make a message of a hundred lines."""
    memories = [model_memory(f"m{n}", {1: n}) for n in range(100)] + [model_memory("new", {}, (1, 1))]

    short = check_budget(memories, Budget(10, "x"), KEEP)[Model("new")]

    assert short.text.count("m9") <= 10
    assert "and 92 more" in short.text


SIZES = st.integers(0, 1000)


@st.composite
def situations(draw: st.DrawFn) -> tuple[list[ModelMemory], int, WhenShort]:
    """Return any situation of up to four models."""
    memories = []
    for name in draw(st.sets(st.sampled_from("abcd"))):
        loaded = draw(st.dictionaries(st.integers(1, 4), SIZES, max_size=4))
        unloading = tuple(draw(st.sets(st.sampled_from(sorted(loaded))))) if loaded else ()
        rest = sorted(loaded.keys() - set(unloading))
        retirable = tuple(draw(st.sets(st.sampled_from(rest)))) if rest else ()
        candidate = draw(st.none() | st.tuples(st.integers(5, 6), SIZES))
        proven = draw(st.booleans())
        memories.append(
            model_memory(name, loaded, candidate, unloading=unloading, retirable=retirable, proven=proven)
        )
    return memories, draw(st.integers(0, 4000)), draw(st.sampled_from(WhenShort))


@pytest.mark.slow
@given(situations())
def test_what_is_admitted_fits_and_what_retires_was_asked_for(
    situation: tuple[list[ModelMemory], int, WhenShort],
) -> None:
    """Whoever comes alone next stays within the budget; nobody retires in vain, or beyond what may."""
    memories, budget, when = situation
    found: dict[Model, Shortage] = check_budget(memories, Budget(budget, "x"), when)

    taken = sum(item.loaded_bytes for item in memories)
    unloading = sum(item.unloading_bytes for item in memories)
    for item in memories:
        short = found.get(item.model)
        if item.candidate is not None and short is None:
            assert taken + item.candidate_bytes <= budget
        if short is None or short.remedy is Remedy.REFUSED:
            continue
        assert short.missing_bytes > 0
        freed = unloading + sum(item.loaded[version] for version in short.retire)
        assert taken - freed + item.candidate_bytes <= budget
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
