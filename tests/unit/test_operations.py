"""What a graph may do, told from bytes: all that is reached is found, and nothing else."""

from collections.abc import Callable

import pytest

import graph_bytes as gb
from fixtures_models import Examine
from servesync.errors import Reason, ReleaseRefused
from servesync.verify import (
    Danger,
    Finding,
    OperationsReport,
    check_operations,
)


def summary(report: OperationsReport) -> list[tuple[str, str]]:
    """Return operation and place of each finding."""
    return [(finding.operation, finding.place) for finding in report.findings]


@pytest.mark.parametrize("through", ["read", "read:0", "^read"])
def test_an_input_is_followed(through: str, examine: Examine) -> None:
    """Tensors and control edges lead to what must run before."""
    report = examine(
        *gb.served([gb.node("out", "Identity", ["step"]), gb.node("step", "NoOp", [through]), gb.READ])
    )

    assert report.findings == (
        Finding("ReadFile", Danger.READS_FILES, "read", "graph", "signature serving_default"),
    )
    assert report.total == 1
    assert report.reachable == 3


def test_what_no_entrance_leads_to_is_not_reported(examine: Examine) -> None:
    """Neither a node aside nor one further down is reached, nor a function that none calls."""
    nodes = [gb.node("out", "Const"), gb.READ, gb.node("after", "WriteFile", ["out", "read"])]

    assert examine(*gb.served(nodes, [gb.function("f", [gb.READ])])) == OperationsReport(1, (), 0)


@pytest.mark.parametrize(
    "caller",
    [
        gb.CALL_F,
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
    functions = [gb.function("f", [gb.READ]), gb.function("g", []), gb.function("calls_f", [gb.CALL_F])]

    assert summary(examine(*gb.served([caller], functions))) == [("ReadFile", "function f")]


def test_all_of_a_body_counts(examine: Examine) -> None:
    """TensorFlow runs what has side effects, even if no output of the function needs it."""
    body = [gb.node("result", "Const"), gb.node("aside", "WriteFile")]

    assert summary(examine(*gb.served([gb.CALL_F], [gb.function("f", body)]))) == [
        ("WriteFile", "function f")
    ]


def test_functions_that_call_one_another_end(examine: Examine) -> None:
    """A loop is walked once."""
    back = gb.node("back", "StatefulPartitionedCall", ["x"], {"f": gb.func("f")})
    functions = [gb.function("f", [gb.node("on", "g")]), gb.function("g", [back, gb.READ])]

    report = examine(*gb.served([gb.CALL_F], functions))

    assert summary(report) == [("ReadFile", "function g")]
    assert report.reachable == 4


def test_nodes_that_lead_to_one_another_end(examine: Examine) -> None:
    """A while loop of TensorFlow 1 is a loop of nodes."""
    merge = gb.node("out", "Merge", ["read", "next"])

    report = examine(*gb.served([merge, gb.node("next", "NextIteration", ["out"]), gb.READ]))

    assert summary(report) == [("ReadFile", "graph")]
    assert report.reachable == 3


def test_a_gradient_is_followed_if_one_is_asked_for(examine: Examine) -> None:
    """The gradient of a function runs only through SymbolicGradient."""
    functions = [
        gb.function("f", [gb.node("a", "inner")]),
        gb.function("inner", []),
        gb.function("grad", [gb.READ]),
    ]
    differentiates = gb.node("out", "SymbolicGradient", ["in"], {"f": gb.func("f")})
    default = gb.signature("serving_default", "out:0")

    plain = examine(gb.graph([gb.CALL_F], functions, {"inner": "grad"}), default)
    with_gradient = examine(gb.graph([differentiates], functions, {"inner": "grad"}), default)

    assert plain.total == 0
    assert summary(with_gradient) == [("ReadFile", "function grad")]


def test_an_alternative_is_followed(examine: Examine) -> None:
    """The optimizer may put a function in the place of another that implements the same."""
    same = {"api_implements": gb.text("lstm")}
    functions = [gb.function("f", [], attributes=same), gb.function("fast", [gb.READ], attributes=same)]

    assert summary(examine(*gb.served([gb.CALL_F], functions))) == [("ReadFile", "function fast")]


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

    report = examine(*gb.served([holder], [gb.function("f", [gb.READ])]))

    assert summary(report) == [("ReadFile", "function f"), ("WriteFile", "graph > graph in node out")]
    assert report.reachable == 4


def test_a_graph_behind_much_that_means_nothing(examine: Examine) -> None:
    """A field that no GraphDef has does not hide the rest."""
    inner = gb.data(15, b"x" * 70_000) + gb.graph([gb.READ])
    holder = gb.node("out", "Const", [], {"value": gb.text(inner)})

    assert summary(examine(*gb.served([holder]))) == [("ReadFile", "graph > graph in node out")]


def test_a_graph_with_its_own_functions(examine: Examine) -> None:
    """A function of the graph in the string is found there."""
    inner = gb.graph([gb.node("a", "f")], [gb.function("f", [gb.READ])])
    holder = gb.node("out", "Const", [], {"value": gb.text(inner)})

    assert summary(examine(*gb.served([holder]))) == [("ReadFile", "graph > graph in node out > function f")]


@pytest.mark.parametrize(
    "raw", [b"\n", b"\n\x03abc", b"a line\nand another\n" * 10, b"\n\x80" * 50, b"x" * 70_000]
)
def test_a_string_that_is_no_graph(raw: bytes, examine: Examine) -> None:
    """Other strings are left alone."""
    holder = gb.node("out", "Const", [], {"value": gb.text(raw), "more": gb.packed_tensor(raw, raw)})

    assert examine(*gb.served([holder])).total == 0


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
        gb.READ,
    ]

    report = examine(gb.graph(nodes), gb.saver("save:0", "restore"))

    assert [(finding.node, finding.root) for finding in report.findings] == [("read", "saver")]


def test_a_signature_that_writes_checkpoints(examine: Examine) -> None:
    """The saver's operations are reported if a request leads to them, whatever the saver does."""
    nodes = [gb.node("out", "SaveV2"), gb.node("restore", "NoOp", ["^out"])]

    report = examine(gb.graph(nodes), gb.saver("out", "restore"), gb.signature("s", "out:0"))

    assert [(finding.operation, finding.root) for finding in report.findings] == [("SaveV2", "signature s")]


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
    assert examine(*gb.served([gb.node("out", operation, [], attributes)])).total == expected


def test_at_most_a_hundred_are_kept(examine: Examine) -> None:
    """All are counted, and the first in order are kept."""
    nodes = [gb.node(f"n{index:03}", "ReadFile") for index in range(150)]
    end = gb.node("out", "NoOp", [f"^n{index:03}" for index in range(150)])

    report = examine(*gb.served([end, *nodes]))

    assert report.total == 150
    assert [finding.node for finding in report.findings] == [f"n{index:03}" for index in range(100)]


def test_the_policy_decides(examine: Examine) -> None:
    """Only `refuse` refuses, only if something was found, and it says what, where and what to do."""
    nodes = [gb.node(f"n{index}", "ReadFile") for index in range(7)]
    bad = examine(*gb.served([gb.node("out", "NoOp", [f"^n{index}" for index in range(7)]), *nodes]))
    good = examine(*gb.served([gb.node("out", "Const")]))

    check_operations(bad, "allow")
    check_operations(bad, "warn")
    check_operations(good, "refuse")
    with pytest.raises(ReleaseRefused) as caught:
        check_operations(bad, "refuse")

    assert caught.value.reason is Reason.UNSAFE_OPERATIONS
    assert "ReadFile (reads files) in node n0 of graph, reached from signature" in str(caught.value)
    assert "and 2 more; ask who published it" in str(caught.value)
    assert caught.value.facts == {"operations": ["ReadFile"]}
