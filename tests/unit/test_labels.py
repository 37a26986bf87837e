# ruff: noqa: E501 (a table is read by its rows)
"""Labels as a table: where they should point, what stands in the file, what the server says: what to write."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servesync.domain.versions import Model, Version
from servesync.planning.facts import Served, ServerState
from servesync.planning.labels import (
    Channel,
    EntryFacts,
    LabelFacts,
    Link,
    is_listed,
    next_labels,
    wanted_labels,
    would_be_taken,
)

UP = Served(ServerState.AVAILABLE)
START = Served(ServerState.START)
LOADING = Served(ServerState.LOADING)
GOING = Served(ServerState.UNLOADING)
ENDED = Served(ServerState.END)


@dataclass(frozen=True)
class Case:
    """One situation of the label `s`, or of several."""

    name: str
    wanted: dict[str, int | None]
    written: dict[str, int]
    served: dict[int, Served]
    expect: dict[str, int]
    waits: set[str] = field(default_factory=set)
    shelf: frozenset[int] = frozenset({1, 2})
    link: Link = Link.ANSWERS


CASES = [
    Case("a new label on what serves", {"s": 1}, {}, {1: UP}, {"s": 1}),
    Case("a new label waits for its version", {"s": 2}, {}, {1: UP, 2: LOADING}, {}, {"s"}),
    Case("a label in its place stays", {"s": 1}, {"s": 1}, {1: UP}, {"s": 1}),
    Case("a move waits while the target loads", {"s": 2}, {"s": 1}, {1: UP, 2: LOADING}, {"s": 1}, {"s"}),
    Case("a move waits for what the server has not seen", {"s": 2}, {"s": 1}, {1: UP}, {"s": 1}, {"s"}),
    Case("a move waits for what the server refused", {"s": 2}, {"s": 1}, {1: UP, 2: ENDED}, {"s": 1}, {"s"}),
    Case("a move once the target serves", {"s": 2}, {"s": 1}, {1: UP, 2: UP}, {"s": 2}),
    Case("a move from what no longer serves", {"s": 2}, {"s": 1}, {1: ENDED, 2: UP}, {"s": 2}),
    Case("a move back", {"s": 1}, {"s": 2}, {1: UP, 2: UP}, {"s": 1}),
    Case("neither place serves", {"s": 2}, {"s": 1}, {1: ENDED, 2: LOADING}, {}, {"s"}),
    Case("its version is on its way out", {"s": 1}, {"s": 1}, {1: GOING, 2: UP}, {}, {"s"}),
    Case("its version is loaded anew", {"s": 1}, {"s": 1}, {1: LOADING, 2: UP}, {"s": 1}),
    Case("its version starts anew", {"s": 1}, {"s": 1}, {1: START, 2: UP}, {"s": 1}),
    Case("the server has forgotten its version", {"s": 1}, {"s": 1}, {2: UP}, {}, {"s"}),
    Case("a target that has left the shelf", {"s": 2}, {"s": 1}, {1: UP, 2: UP}, {"s": 1}, {"s"}, frozenset({1})),
    Case("a channel that is not known", {"s": None}, {"s": 1}, {1: UP, 2: UP}, {"s": 1}, {"s"}),
    Case("a channel that was never known", {"s": None}, {}, {1: UP}, {}, {"s"}),
    Case("a label that nobody wants leaves", {}, {"s": 1}, {1: UP}, {}),
    Case("two labels, one moves", {"s": 1, "c": 2}, {"s": 1, "c": 1}, {1: UP, 2: UP}, {"s": 1, "c": 2}),
    Case("two labels on one version", {"s": 2, "c": 2}, {"s": 1, "c": 2}, {1: UP, 2: UP}, {"s": 2, "c": 2}),
    Case("two labels change places", {"s": 2, "c": 1}, {"s": 1, "c": 2}, {1: UP, 2: UP}, {"s": 2, "c": 1}),
    Case("silence moves nothing", {"s": 2}, {"s": 1}, {}, {"s": 1}, link=Link.SILENT),
    Case("silence gives nothing", {"s": 1}, {}, {}, {}, link=Link.SILENT),
    Case("silence takes nothing", {}, {"s": 1}, {}, {"s": 1}, link=Link.SILENT),
    Case("no server yet: labels before its first start", {"s": 1, "c": 2}, {}, {}, {"s": 1, "c": 2}, link=Link.DOWN),
    Case("no server: what is not on the shelf gets none", {"s": 9}, {}, {}, {}, {"s"}, link=Link.DOWN),
    Case("no server: a label stays where it served", {"s": 2}, {"s": 1}, {}, {"s": 1}, {"s"}, link=Link.DOWN),
    Case("no server: a label leaves what has left the shelf", {"s": 2}, {"s": 7}, {}, {"s": 2}, link=Link.DOWN),
    Case("no server: a label that nobody wants leaves", {}, {"s": 1}, {}, {}, link=Link.DOWN),
    Case("no server comes up: no labels", {"s": 1}, {"s": 1}, {}, {}, {"s"}, link=Link.LOST),
]  # fmt: skip


def facts_of(case: Case) -> LabelFacts:
    """Spell a case out."""
    return LabelFacts(
        wanted={label: None if v is None else Version(v) for label, v in case.wanted.items()},
        written={label: Version(v) for label, v in case.written.items()},
        shelf={Version(v) for v in case.shelf},
        link=case.link,
        served={Version(v): served for v, served in case.served.items()},
    )


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_labels(case: Case) -> None:
    """Each row says what is written, and which labels are said to wait."""
    found = next_labels(facts_of(case))

    assert found.labels == case.expect
    assert set(found.waiting) == case.waits
    assert all(found.waiting.values())


POSITIONS = st.dictionaries(st.sampled_from("abc"), st.integers(0, 4).map(Version))


@given(
    wanted=POSITIONS,
    written=POSITIONS,
    shelf=st.sets(st.integers(0, 4).map(Version)),
    link=st.sampled_from(list(Link)),
    served=st.dictionaries(
        st.integers(0, 4).map(Version), st.sampled_from([UP, START, LOADING, GOING, ENDED])
    ),
)
def test_no_label_comes_to_a_version_that_does_not_serve(
    wanted: dict[str, Version],
    written: dict[str, Version],
    shelf: set[Version],
    link: Link,
    served: dict[Version, Served],
) -> None:
    """Whatever the situation: a label that an answering server gets anew, or moves, is on an AVAILABLE version."""
    found = next_labels(LabelFacts(wanted, written, shelf, link, served)).labels
    changed = {label: version for label, version in found.items() if written.get(label) != version}

    assert link is not Link.SILENT or found == written
    assert all(wanted[label] == version for label, version in changed.items())
    if link is Link.ANSWERS:
        assert all(served[version] == UP and version in shelf for version in changed.values())
    again = next_labels(LabelFacts(wanted, found, shelf, link, served)).labels
    assert again == found


def test_where_labels_should_point() -> None:
    """To a version, to where a channel points, or, if nothing is said, as each followed channel does."""
    channels = {"stable": Version(3), "canary": Version(5)}
    targets: dict[str, Version | Channel] = {
        "live": Channel("stable"),
        "next": Channel("beta"),
        "old": Version(1),
    }

    assert wanted_labels(targets, {"stable"}, channels) == {"live": 3, "next": None, "old": 1}
    assert wanted_labels(None, {"stable", "gone"}, channels) == {"stable": 3, "gone": None}
    assert wanted_labels(None, frozenset(), channels) == {}
    assert wanted_labels({}, {"stable"}, channels) == {}


ENTRIES = [
    # a version has come
    (EntryFacts(listed=False, required=False, has_versions=True, link=Link.ANSWERS), True),
    # required, but it would hold up every later change of a server at work
    (EntryFacts(listed=False, required=True, has_versions=False, link=Link.ANSWERS), False),
    (EntryFacts(listed=False, required=True, has_versions=False, link=Link.SILENT), False),
    # the server is to start with it; and so with the first file
    (EntryFacts(listed=False, required=True, has_versions=False, link=Link.DOWN), True),
    (EntryFacts(listed=False, required=True, has_versions=False, link=Link.LOST), True),
    (EntryFacts(listed=False, required=True, has_versions=False, link=Link.SILENT, first=True), True),
    # nobody needs it: it may not hold up a start
    (EntryFacts(listed=False, required=False, has_versions=False, link=Link.SILENT, first=True), False),
    (EntryFacts(listed=False, required=False, has_versions=False, link=Link.DOWN), False),
    (EntryFacts(listed=True, required=False, has_versions=False, link=Link.DOWN), False),
    (EntryFacts(listed=True, required=False, has_versions=False, link=Link.ANSWERS), False),
    (EntryFacts(listed=True, required=True, has_versions=False, link=Link.DOWN), True),
    (EntryFacts(listed=True, required=True, has_versions=False, link=Link.ANSWERS), True),
    # nothing is known: nothing is unloaded
    (EntryFacts(listed=True, required=False, has_versions=False, link=Link.SILENT), True),
    # it serves though its directory is gone
    (EntryFacts(listed=True, required=False, has_versions=False, link=Link.ANSWERS, serves=True), True),
    (EntryFacts(listed=True, required=False, has_versions=True, link=Link.DOWN), True),
]


@pytest.mark.parametrize(("facts", "expect"), ENTRIES)
def test_which_models_stand_in_the_file(facts: EntryFacts, expect: bool) -> None:  # noqa: FBT001
    """A model without a version holds up the server; one that serves never leaves."""
    assert is_listed(facts) is expect


@pytest.mark.parametrize(
    ("labels", "served", "expect"),
    [
        ({}, {1: UP}, True),
        ({"s": 1}, {1: UP}, True),
        ({"s": 1}, {1: LOADING, 2: UP}, False),
        ({"s": 1}, {2: UP}, False),
        ({}, {1: LOADING}, False),
        ({}, {1: ENDED}, True),
        ({}, {}, False),
        ({}, None, False),
    ],
)
def test_what_a_server_takes(labels: dict[str, int], served: dict[int, Served] | None, expect: bool) -> None:  # noqa: FBT001
    """Every label on an AVAILABLE version, and a first version of every model decided."""
    m, n = Model("m"), Model("n")
    told = {m: {label: Version(v) for label, v in labels.items()}, n: {}}
    said = None if served is None else {Version(v): item for v, item in served.items()}

    assert would_be_taken(told, {m: said, n: {Version(1): UP}}) is expect
    assert would_be_taken({}, {})
