"""Damaged, hostile and huge graphs end in a refusal or a report, in bounded time, stack and memory."""

import os
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graph_bytes as gb
from fixtures_models import Examine
from servesync.errors import Reason, ReleaseRefused
from servesync.verify import find_operations, verify_structure
from servesync.verify.operations import MAX_FINDINGS
from servesync.verify.parse_budget import Reader, TooMuch

LONG = os.environ.get("LONG_TESTS") == "1"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["chain", "control", "functions"])
def test_depth_costs_no_stack(kind: str, examine: Examine) -> None:
    """Many more steps one behind the other than Python calls may go deep are followed to the end."""
    depth = 50_000 if LONG else 10_000
    assert depth > 5 * sys.getrecursionlimit()
    mark = "^" if kind == "control" else ""
    nodes = [gb.node(f"n{index}", "Identity", [f"{mark}n{index + 1}"]) for index in range(depth)]
    last = gb.node(f"n{depth}", "ReadFile")
    functions = []
    if kind == "functions":
        functions = [gb.function(f"f{index}", [gb.node("x", f"f{index + 1}")]) for index in range(depth)]
        nodes, last = [gb.node("n0", "f0")], gb.node("unused", "NoOp")
        functions.append(gb.function(f"f{depth}", [gb.READ]))

    report = examine(gb.graph([*nodes, last], functions), gb.signature("s", "n0:0"))

    assert [finding.operation for finding in report.findings] == ["ReadFile"]
    assert report.reachable >= depth


@pytest.mark.parametrize(("depth", "is_refused"), [(16, False), (17, True)])
def test_graphs_in_graphs_are_bounded(depth: int, *, is_refused: bool, examine: Examine) -> None:
    """No real model has as many levels."""
    inner = gb.graph([gb.READ])
    for _ in range(depth):
        inner = gb.graph([gb.node("out", "Const", [], {"value": gb.text(inner)})])
    default = gb.signature("serving_default", "out:0")

    if is_refused:
        with pytest.raises(ReleaseRefused, match="deep"):
            examine(inner, default)
    else:
        assert examine(inner, default).total == 1


def test_only_the_graph_that_is_served(tmp_path: Path) -> None:
    """The first graph with exactly the tag `serve` is read, and pieces of it that come later are too."""
    parts = gb.served([gb.node("out", "Identity", ["read"])])
    training = gb.saved_model(*gb.served([gb.node("out", "PyFunc")]), tag="train")
    serving = gb.saved_model(*parts, gb.data(2, gb.graph([gb.READ])))
    second = gb.saved_model(*gb.served([gb.node("out", "Abort")]))
    (tmp_path / "saved_model.pb").write_bytes(training + serving + second)

    assert [finding.operation for finding in find_operations(tmp_path).findings] == ["ReadFile"]


@pytest.mark.parametrize(
    ("graph", "match"),
    [
        (gb.graph([gb.READ, gb.READ]), "two nodes"),
        (gb.graph([gb.data(1, "nameless operation")]), "without a name"),
        (gb.graph([gb.number(1, 5)]), "number where a message belongs"),
        (b"\x0a\xff\x01", "are left"),
    ],
)
def test_a_damaged_graph(graph: bytes, match: str, examine: Examine) -> None:
    """What TensorFlow refuses is refused, with the reason for a damaged graph."""
    with pytest.raises(ReleaseRefused, match=match) as caught:
        examine(graph, gb.signature("s", "read"))

    assert caught.value.reason is Reason.SAVED_MODEL_CORRUPT


@pytest.mark.slow
def test_more_than_any_model_has(examine: Examine) -> None:
    """A bound ends the reading of what would take too much memory."""
    wide = gb.data(1, "out") + gb.data(2, "NoOp") + gb.data(3, "^a") * 500_001

    with pytest.raises(ReleaseRefused, match="more than 500000 inputs") as caught:
        examine(*gb.served([wide]))

    assert caught.value.reason is Reason.SAVED_MODEL_CORRUPT


def test_a_reader_stops_at_its_bounds() -> None:
    """Fields that are read and things that are kept are counted."""
    reader = Reader(max_fields=3, max_kept=1)
    message = memoryview(gb.number(1, 1) * 2)

    assert len(list(reader.fields(message))) == 2
    reader.keep()
    with pytest.raises(TooMuch, match="more than 3 fields"):
        list(reader.fields(message))
    with pytest.raises(TooMuch, match="more than 1 nodes"):
        reader.keep()


@pytest.mark.parametrize(("end", "is_refused"), [(b"", False), (b"\xff", True)])
def test_a_file_that_is_mapped(end: bytes, *, is_refused: bool, tmp_path: Path) -> None:
    """A large graph is not read into memory; damage in it is told the same way."""
    large = gb.node(
        "weights", "Const", [], {"value": gb.data(8, gb.number(1, 1) + gb.data(4, bytes(65 << 20)))}
    )
    graph = gb.graph([gb.node("out", "Identity", ["read", "weights"]), gb.READ, large]) + end
    (tmp_path / "saved_model.pb").write_bytes(gb.saved_model(graph, gb.signature("s", "out")))

    if is_refused:
        for check in (find_operations, verify_structure):
            with pytest.raises(ReleaseRefused, match="damaged"):
                check(tmp_path)
    else:
        assert find_operations(tmp_path).total == 1


def test_no_graph_at_all(tmp_path: Path, examine: Examine) -> None:
    """No file, an empty one, and one for other purposes than serving."""
    with pytest.raises(ReleaseRefused) as missing:
        find_operations(tmp_path)
    with pytest.raises(ReleaseRefused) as no_tag:
        examine(*gb.served([gb.READ]), tag="train")
    (tmp_path / "saved_model.pb").write_bytes(b"")
    with pytest.raises(ReleaseRefused) as empty:
        find_operations(tmp_path)

    assert missing.value.reason is Reason.SAVED_MODEL_MISSING
    assert no_tag.value.reason is Reason.SAVED_MODEL_NO_SERVE_TAG
    assert empty.value.reason is Reason.SAVED_MODEL_CORRUPT


WHOLE = gb.saved_model(
    gb.graph(
        [gb.CALL_F, gb.node("in", "Const", [], {"value": gb.string_tensor(gb.graph([gb.READ]))})],
        [gb.function("f", [gb.READ, gb.node("g", "Case", [], {"branches": gb.func_list("f")})], ["x"])],
        {"f": "f"},
    ),
    gb.signature("s", "out:0"),
    gb.saver("out", "out"),
    gb.asset("in:0", "words.txt"),
    gb.signature("__saved_model_init_op", "init"),
)


@given(content=st.one_of(st.binary(max_size=200), st.binary(max_size=200).map(gb.saved_model)))
@settings(max_examples=300, deadline=None)
def test_random_bytes(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    """They are refused, or a graph without anything."""
    assert outcome(content, tmp_path_factory) in {"refused", "report"}


@pytest.mark.slow
@given(data=st.data())
@settings(max_examples=500, deadline=None)
def test_mutations(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Edits anywhere end in a refusal or a report."""
    content = bytearray(WHOLE)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))

    assert outcome(bytes(content), tmp_path_factory) in {"refused", "report"}


def outcome(content: bytes, folders: pytest.TempPathFactory) -> str:
    """Return what came of some bytes; any other exception passes."""
    path = folders.getbasetemp() / "saved_model.pb"
    path.write_bytes(content)
    try:
        report = find_operations(path.parent)
    except ReleaseRefused:
        return "refused"
    assert len(report.findings) == min(report.total, MAX_FINDINGS)
    return "report"
