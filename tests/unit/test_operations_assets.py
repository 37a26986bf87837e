"""A vocabulary is left out only if its path can be nothing but an asset of the model."""

import pytest

import graph_bytes as gb
from fixtures_models import Examine

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

    report = examine(graph, INIT, gb.asset("path:0", "words.txt"))

    assert [(finding.node, finding.place) for finding in report.findings] == [("load", "function f")]
