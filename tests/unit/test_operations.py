"""What a graph may do, told from bytes: all that is reached is found, and nothing else."""

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graph_bytes as gb
from servesync.errors import Reason, ReleaseRefused
from servesync.verify import Danger, Finding, OperationsReport, check_operations, find_operations
from servesync.verify.bounded import Reader, TooMuch

Examine = Callable[..., OperationsReport]
READ = gb.node("read", "ReadFile", ["name"])
CALL_F = gb.node("out", "PartitionedCall", ["in"], {"f": gb.func("f")})


@pytest.fixture
def examine(tmp_path: Path) -> Examine:
    """Write a model of these parts, and report on it."""

    def report(graph_def: bytes, *more: bytes, tag: str = "serve") -> OperationsReport:
        (tmp_path / "saved_model.pb").write_bytes(gb.saved_model(graph_def, *more, tag=tag))
        return find_operations(tmp_path)

    return report


def served(nodes: Iterable[bytes], functions: Iterable[bytes] = ()) -> tuple[bytes, bytes]:
    """Return a graph, and a signature whose output is the node `out`."""
    return gb.graph(nodes, functions), gb.signature("serving_default", "out:0")


def summary(report: OperationsReport) -> list[tuple[str, str]]:
    """Return operation and place of each finding."""
    return [(finding.operation, finding.place) for finding in report.findings]


@pytest.mark.parametrize("through", ["read", "read:0", "^read"])
def test_an_input_is_followed(through: str, examine: Examine) -> None:
    """Tensors and control edges lead to what must run before."""
    report = examine(
        *served([gb.node("out", "Identity", ["step"]), gb.node("step", "NoOp", [through]), READ])
    )

    assert report.findings == (
        Finding("ReadFile", Danger.READS_FILES, "read", "graph", "signature serving_default"),
    )
    assert report.total == 1
    assert report.reachable == 3


def test_what_no_entrance_leads_to_is_not_reported(examine: Examine) -> None:
    """Neither a node aside nor one further down is reached, nor a function that none calls."""
    nodes = [gb.node("out", "Const"), READ, gb.node("after", "WriteFile", ["out", "read"])]

    assert examine(*served(nodes, [gb.function("f", [READ])])) == OperationsReport(1, (), 0)


@pytest.mark.parametrize(
    "caller",
    [
        CALL_F,
        gb.node("out", "f", ["in"]),
        gb.node("out", "Case", ["in"], {"branches": gb.func_list("g", "f")}),
        gb.node("out", "MapDataset", ["in"], {"g": gb.func("g", {"inner": gb.func("f")})}),
        gb.node("out", "PartitionedCall", ["in"], {"f": gb.func("calls_f")}),
        gb.node("out", "SomethingElse", ["in"], {"_initializer": gb.text("f")}),
    ],
    ids=["attribute", "operation", "list", "attribute of a function", "function in function", "string"],
)
def test_a_function_is_followed(caller: bytes, examine: Examine) -> None:
    """However a function is named, its body counts, and where the operation stands is said."""
    functions = [gb.function("f", [READ]), gb.function("g", []), gb.function("calls_f", [CALL_F])]

    assert summary(examine(*served([caller], functions))) == [("ReadFile", "function f")]


def test_all_of_a_body_counts(examine: Examine) -> None:
    """TensorFlow runs what has side effects, even if no output of the function needs it."""
    body = [gb.node("result", "Const"), gb.node("aside", "WriteFile")]

    assert summary(examine(*served([CALL_F], [gb.function("f", body)]))) == [("WriteFile", "function f")]


def test_functions_that_call_one_another_end(examine: Examine) -> None:
    """A loop is walked once."""
    back = gb.node("back", "StatefulPartitionedCall", ["x"], {"f": gb.func("f")})
    functions = [gb.function("f", [gb.node("on", "g")]), gb.function("g", [back, READ])]

    report = examine(*served([CALL_F], functions))

    assert summary(report) == [("ReadFile", "function g")]
    assert report.reachable == 4


def test_a_gradient_is_followed_if_one_is_asked_for(examine: Examine) -> None:
    """The gradient of a function runs only through SymbolicGradient."""
    functions = [
        gb.function("f", [gb.node("a", "inner")]),
        gb.function("inner", []),
        gb.function("grad", [READ]),
    ]
    differentiates = gb.node("out", "SymbolicGradient", ["in"], {"f": gb.func("f")})
    default = gb.signature("serving_default", "out:0")

    plain = examine(gb.graph([CALL_F], functions, {"inner": "grad"}), default)
    with_gradient = examine(gb.graph([differentiates], functions, {"inner": "grad"}), default)

    assert plain.total == 0
    assert summary(with_gradient) == [("ReadFile", "function grad")]


def test_an_alternative_is_followed(examine: Examine) -> None:
    """The optimizer may put a function in the place of another that implements the same."""
    same = {"api_implements": gb.text("lstm")}
    functions = [gb.function("f", [], attributes=same), gb.function("fast", [READ], attributes=same)]

    assert summary(examine(*served([CALL_F], functions))) == [("ReadFile", "function fast")]


@pytest.mark.parametrize("kind", ["chain", "control", "functions"])
def test_depth_costs_no_stack(kind: str, examine: Examine) -> None:
    """50,000 steps one behind the other are followed to the end."""
    depth = 50_000
    mark = "^" if kind == "control" else ""
    nodes = [gb.node(f"n{index}", "Identity", [f"{mark}n{index + 1}"]) for index in range(depth)]
    last = gb.node(f"n{depth}", "ReadFile")
    functions = []
    if kind == "functions":
        functions = [gb.function(f"f{index}", [gb.node("x", f"f{index + 1}")]) for index in range(depth)]
        nodes, last = [gb.node("n0", "f0")], gb.node("unused", "NoOp")
        functions.append(gb.function(f"f{depth}", [READ]))

    report = examine(gb.graph([*nodes, last], functions), gb.signature("s", "n0:0"))

    assert [finding.operation for finding in report.findings] == ["ReadFile"]
    assert report.reachable >= depth


@pytest.mark.parametrize(
    "wrapped",
    [
        gb.text,
        gb.string_tensor,
        lambda raw: gb.string_tensor(b"first", raw),
        lambda raw: gb.packed_tensor(b"first", raw, b""),
        gb.variant_tensor,
        lambda raw: gb.variant_tensor(b"", gb.number(1, 7) + gb.data(8, raw)),
        lambda raw: gb.data(1, gb.data(2, b"first") + gb.data(2, raw)),
    ],
    ids=["string", "tensor", "second of a tensor", "packed", "variant", "tensor in variant", "list"],
)
def test_a_graph_in_a_string_is_read(wrapped: Callable[[bytes], bytes], examine: Examine) -> None:
    """Each node of it counts, and functions of the graph around it may be called."""
    inner = gb.graph([gb.node("a", "WriteFile"), gb.node("b", "f")])
    holder = gb.node("out", "Const", [], {"value": wrapped(inner)})

    report = examine(*served([holder], [gb.function("f", [READ])]))

    assert summary(report) == [("ReadFile", "function f"), ("WriteFile", "graph > graph in node out")]
    assert report.reachable == 4


def test_a_graph_with_its_own_functions(examine: Examine) -> None:
    """A function of the graph in the string is found there."""
    inner = gb.graph([gb.node("a", "f")], [gb.function("f", [READ])])
    holder = gb.node("out", "Const", [], {"value": gb.text(inner)})

    assert summary(examine(*served([holder]))) == [("ReadFile", "graph > graph in node out > function f")]


@pytest.mark.parametrize(
    "raw", [b"\n", b"\n\x03abc", b"a line\nand another\n" * 10, b"\n\x80" * 50, b"x" * 70_000]
)
def test_a_string_that_is_no_graph(raw: bytes, examine: Examine) -> None:
    """Other strings are left alone."""
    holder = gb.node("out", "Const", [], {"value": gb.text(raw), "more": gb.packed_tensor(raw, raw)})

    assert examine(*served([holder])).total == 0


@pytest.mark.parametrize(("depth", "is_refused"), [(16, False), (17, True)])
def test_graphs_in_graphs_are_bounded(depth: int, *, is_refused: bool, examine: Examine) -> None:
    """No real model has as many levels."""
    inner = gb.graph([READ])
    for _ in range(depth):
        inner = gb.graph([gb.node("out", "Const", [], {"value": gb.text(inner)})])
    default = gb.signature("serving_default", "out:0")

    if is_refused:
        with pytest.raises(ReleaseRefused, match="deep"):
            examine(inner, default)
    else:
        assert examine(inner, default).total == 1


def test_every_entrance_is_named(examine: Examine) -> None:
    """Signatures with all their forms of outputs, both forms of init op, and the saver."""
    nodes = [gb.node(name, "WriteFile") for name in ("a", "b", "c", "d", "e", "f", "z")]
    sparse = gb.data(4, gb.data(1, "b:0"))
    composite = gb.data(5, gb.data(2, gb.data(1, "c:0")))
    signature = gb.entry(5, "s", gb.entry(2, "one", sparse) + gb.entry(2, "two", composite))
    init = gb.signature("__saved_model_init_op", "d") + gb.init_collection("legacy_init_op", "e")
    other = gb.init_collection("some_other_collection", "z")

    report = examine(gb.graph(nodes), gb.signature("r", "a:0"), signature, init, other, gb.saver("x", "f"))

    assert sorted((finding.node, finding.root) for finding in report.findings) == [
        ("a", "signature r"),
        ("b", "signature s"),
        ("c", "signature s"),
        ("d", "init op"),
        ("e", "init op"),
        ("f", "saver"),
    ]


def test_the_saver_reads_and_writes_checkpoints(examine: Examine) -> None:
    """Its own operations are not reported, others that it leads to are."""
    nodes = [
        gb.node("save", "Identity", ["write"]),
        gb.node("write", "SaveV2", ["^merge"]),
        gb.node("merge", "MergeV2Checkpoints"),
        gb.node("restore", "NoOp", ["^load", "^read"]),
        gb.node("load", "RestoreV2"),
        READ,
    ]

    report = examine(gb.graph(nodes), gb.saver("save:0", "restore"))

    assert [(finding.node, finding.root) for finding in report.findings] == [("read", "saver")]


def test_a_signature_that_writes_checkpoints(examine: Examine) -> None:
    """The saver's operations are reported if a request leads to them, whatever the saver does."""
    nodes = [gb.node("out", "SaveV2"), gb.node("restore", "NoOp", ["^out"])]

    report = examine(gb.graph(nodes), gb.saver("out", "restore"), gb.signature("s", "out:0"))

    assert [(finding.operation, finding.root) for finding in report.findings] == [("SaveV2", "signature s")]


INIT = gb.signature("__saved_model_init_op", "init")
TABLE = gb.node("init", "InitializeTableFromTextFileV2", ["table", "path"])


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([INIT, gb.asset("path:0", "words.txt")], 0),
        ([INIT, gb.asset("path", "words.txt")], 0),
        ([INIT], 1),
        ([INIT, gb.asset("other:0", "words.txt")], 1),
        ([INIT, gb.asset("path:0", "../../../etc/passwd")], 1),
        ([INIT, gb.asset("path:0", "")], 1),
        ([INIT, gb.asset("path:0", "words.txt"), gb.asset("path:0", "..")], 1),
        ([gb.signature("serving_default", "init"), gb.asset("path:0", "words.txt")], 1),
    ],
    ids=["asset", "short name", "none", "other", "outside", "no name", "twice", "request"],
)
def test_a_vocabulary_from_the_assets(parts: list[bytes], expected: int, examine: Examine) -> None:
    """It is left out only where the server itself gives the path, and the path stays in the version."""
    assert examine(gb.graph([TABLE, gb.node("path", "Const")]), *parts).total == expected


@pytest.mark.parametrize(("inputs", "expected"), [(["table", "path"], 0), (["path", "table"], 1)])
def test_a_vocabulary_through_functions(inputs: list[str], expected: int, examine: Examine) -> None:
    """The path is followed through calls and copies, by position."""
    copy = gb.node("copy", "Identity", ["p"])
    load = gb.node("load", "InitializeTableFromTextFileV2", ["t", "copy:output:0"])
    call = gb.node("call", "PartitionedCall", ["t", "p"], {"f": gb.func("inner")})
    functions = [gb.function("inner", [copy, load], ["t", "p"]), gb.function("outer", [call], ["t", "p"])]
    start = gb.node("init", "StatefulPartitionedCall", [*inputs, "^path"], {"f": gb.func("outer")})

    report = examine(
        gb.graph([start, gb.node("path", "Const")], functions), INIT, gb.asset("path:0", "words.txt")
    )

    assert report.total == expected


ASSET_VARIABLE = [
    gb.node("path", "Placeholder"),
    gb.node("v", "VarHandleOp", [], {"shared_name": gb.text("v")}),
    gb.node("known", "VarIsInitializedOp", ["v"]),
    gb.node("set", "AssignVariableOp", ["v", "path"]),
    gb.node("value", "ReadVariableOp", ["v", "^set"]),
    gb.node("init", "InitializeTableFromTextFileV2", ["table", "value"]),
]


@pytest.mark.parametrize(
    ("nodes", "functions", "expected"),
    [
        ([], [], 0),
        ([gb.node("also", "AssignVariableOp", ["v:0", "other"])], [], 1),
        ([gb.node("call", "f", ["v"])], [], 1),
        ([gb.node("w", "VarHandleOp", [], {"shared_name": gb.text("v")})], [], 1),
        ([], [gb.function("f", [gb.node("v", "VarHandleOp")])], 1),
    ],
    ids=["alone", "set twice", "lent", "shared", "shared with a function"],
)
def test_a_vocabulary_through_a_variable(
    nodes: list[bytes], functions: list[bytes], expected: int, examine: Examine
) -> None:
    """TensorFlow 2 keeps the path in a variable, which counts only if nothing else can set it."""
    graph = gb.graph([*ASSET_VARIABLE, *nodes], functions)

    assert examine(graph, INIT, gb.asset("path:0", "words.txt")).total == expected


def test_a_variable_that_nothing_sets(examine: Examine) -> None:
    """It may hold what a checkpoint says, so it is no asset."""
    nodes = [node for node in ASSET_VARIABLE if b"AssignVariableOp" not in node]

    assert examine(gb.graph(nodes), INIT, gb.asset("path:0", "words.txt")).total == 1


@pytest.mark.parametrize(("path", "expected"), [("words.txt", 0), ("../../words.txt", 1)])
def test_a_vocabulary_of_tensorflow_1(path: str, expected: int, examine: Examine) -> None:
    """TensorFlow 1 lists its assets in a collection."""
    asset = gb.data(1, gb.data(1, "path:0")) + gb.data(2, path)
    listed = gb.data(
        5, gb.data(1, gb.data(1, "type.googleapis.com/tensorflow.AssetFileDef") + gb.data(2, asset))
    )
    init = gb.init_collection("saved_model_main_op", "init")

    report = examine(
        gb.graph([TABLE, gb.node("path", "Const")]), init, gb.entry(4, "saved_model_assets", listed)
    )

    assert report.total == expected


def test_a_vocabulary_and_another_file_through_the_same_function(examine: Examine) -> None:
    """One good call does not excuse a bad one."""
    load = gb.node("load", "InitializeTableFromTextFileV2", ["t", "p"])
    calls = [gb.node(f"call{path}", "f", ["table", path]) for path in ("path", "other")]
    start = gb.node("init", "NoOp", ["^callpath", "^callother"])
    graph = gb.graph([start, *calls, gb.node("path", "Const")], [gb.function("f", [load], ["t", "p"])])

    assert summary(examine(graph, INIT, gb.asset("path:0", "words.txt"))) == [
        ("InitializeTableFromTextFileV2", "function f")
    ]


@pytest.mark.parametrize(
    ("operation", "attributes", "expected"),
    [
        ("PrintV2", {}, 0),
        ("PrintV2", {"output_stream": gb.text("stderr")}, 0),
        ("PrintV2", {"output_stream": gb.text("log(info)")}, 0),
        ("PrintV2", {"output_stream": gb.text("file:///tmp/x")}, 1),
        ("PrintV2", {"output_stream": gb.data(9, "stderr")}, 1),
        ("DecodeProtoV2", {"descriptor_source": gb.text("local://")}, 0),
        ("DecodeProtoV2", {"descriptor_source": gb.text("bytes://\n\x01")}, 0),
        ("DecodeProtoV2", {"descriptor_source": gb.text("/etc/passwd")}, 1),
        ("FixedUnigramCandidateSampler", {"vocab_file": gb.text("")}, 0),
        ("FixedUnigramCandidateSampler", {"vocab_file": gb.text("/etc/passwd")}, 1),
        ("EagerPyFunc", {}, 1),
        ("MyOwnCustomOperation", {}, 0),
    ],
)
def test_attributes_that_decide(
    operation: str, attributes: dict[str, bytes], expected: int, examine: Examine
) -> None:
    """Some operations touch a file only if an attribute names one; one filled in by a caller may."""
    assert examine(*served([gb.node("out", operation, [], attributes)])).total == expected


def test_at_most_a_hundred_are_kept(examine: Examine) -> None:
    """All are counted, and the first in order are kept."""
    nodes = [gb.node(f"n{index:03}", "ReadFile") for index in range(150)]
    end = gb.node("out", "NoOp", [f"^n{index:03}" for index in range(150)])

    report = examine(*served([end, *nodes]))

    assert report.total == 150
    assert [finding.node for finding in report.findings] == [f"n{index:03}" for index in range(100)]


def test_only_the_graph_that_is_served(tmp_path: Path) -> None:
    """The first graph with exactly the tag `serve` is read, and pieces of it that come later are too."""
    parts = served([gb.node("out", "Identity", ["read"])])
    training = gb.saved_model(*served([gb.node("out", "PyFunc")]), tag="train")
    serving = gb.saved_model(*parts, gb.data(2, gb.graph([READ])))
    second = gb.saved_model(*served([gb.node("out", "Abort")]))
    (tmp_path / "saved_model.pb").write_bytes(training + serving + second)

    assert [finding.operation for finding in find_operations(tmp_path).findings] == ["ReadFile"]


@pytest.mark.parametrize(
    ("graph", "match"),
    [
        (gb.graph([READ, READ]), "two nodes"),
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


def test_more_than_any_model_has(examine: Examine) -> None:
    """A bound ends the reading of what would take too much memory."""
    wide = gb.data(1, "out") + gb.data(2, "NoOp") + gb.data(3, "^a") * 500_001

    with pytest.raises(ReleaseRefused, match="more than 500000 inputs") as caught:
        examine(*served([wide]))

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
    graph = gb.graph([gb.node("out", "Identity", ["read", "weights"]), READ, large]) + end
    (tmp_path / "saved_model.pb").write_bytes(gb.saved_model(graph, gb.signature("s", "out")))

    if is_refused:
        with pytest.raises(ReleaseRefused, match="damaged"):
            find_operations(tmp_path)
    else:
        assert find_operations(tmp_path).total == 1


def test_no_graph_at_all(tmp_path: Path, examine: Examine) -> None:
    """No file, an empty one, and one for other purposes than serving."""
    with pytest.raises(ReleaseRefused) as missing:
        find_operations(tmp_path)
    with pytest.raises(ReleaseRefused) as no_tag:
        examine(*served([READ]), tag="train")
    (tmp_path / "saved_model.pb").write_bytes(b"")
    with pytest.raises(ReleaseRefused) as empty:
        find_operations(tmp_path)

    assert missing.value.reason is Reason.SAVED_MODEL_MISSING
    assert no_tag.value.reason is Reason.SAVED_MODEL_NO_SERVE_TAG
    assert empty.value.reason is Reason.SAVED_MODEL_CORRUPT


def test_the_policy_decides(examine: Examine) -> None:
    """Only `refuse` refuses, only if something was found, and it says what, where and what to do."""
    nodes = [gb.node(f"n{index}", "ReadFile") for index in range(7)]
    bad = examine(*served([gb.node("out", "NoOp", [f"^n{index}" for index in range(7)]), *nodes]))
    good = examine(*served([gb.node("out", "Const")]))

    check_operations(bad, "allow")
    check_operations(bad, "warn")
    check_operations(good, "refuse")
    with pytest.raises(ReleaseRefused) as caught:
        check_operations(bad, "refuse")

    assert caught.value.reason is Reason.UNSAFE_OPERATIONS
    assert "ReadFile (reads files) in node n0 of graph, reached from signature" in str(caught.value)
    assert "and 2 more; ask who published it" in str(caught.value)
    assert caught.value.facts == {"operations": ["ReadFile"]}


WHOLE = gb.saved_model(
    gb.graph(
        [CALL_F, gb.node("in", "Const", [], {"value": gb.string_tensor(gb.graph([READ]))})],
        [gb.function("f", [READ, gb.node("g", "Case", [], {"branches": gb.func_list("f")})], ["x"])],
        {"f": "f"},
    ),
    gb.signature("s", "out:0"),
    gb.saver("out", "out"),
    gb.asset("in:0", "words.txt"),
    INIT,
)


@given(content=st.one_of(st.binary(max_size=200), st.binary(max_size=200).map(gb.saved_model)))
@settings(max_examples=300, deadline=None)
def test_random_bytes(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    """They are refused, or a graph without anything."""
    assert outcome(content, tmp_path_factory) in {"refused", "report"}


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
    assert report.total >= len(report.findings)
    return "report"
