"""Which graphs are refused since a variable has no value, and which are spared; written byte by byte.

TensorFlow writes the ordinary ones, in `tests/contract/test_server_agrees.py`.
"""

from collections.abc import Iterable
from pathlib import Path

import pytest

import graph_bytes as gb
from servesync.errors import Reason, ReleaseRefused
from servesync.verify import verify_structure

HANDLE = gb.node("v", "VarHandleOp")
READ = gb.node("out", "ReadVariableOp", ["v"])
PLAIN = gb.node("plain", "Placeholder")
CALL = gb.node("out", "StatefulPartitionedCall", ["plain", "v"], {"f": gb.func("f")})


def body(*nodes: bytes, arguments: Iterable[str] = ("x", "handle"), returned: str = "r:value:0") -> bytes:
    """Return the function `f`, which returns one tensor."""
    return gb.function("f", nodes, arguments) + gb.entry(4, "y", returned.encode())


IN_BODY = gb.node("r", "ReadVariableOp", ["handle"])
REFUSED = {
    "read": gb.served([HANDLE, READ]),
    "gathered": gb.served([HANDLE, gb.node("out", "ResourceGather", ["v", "i"])]),
    "read beside a control input": gb.served(
        [HANDLE, PLAIN, gb.node("out", "ReadVariableOp", ["^plain", "v:0"])]
    ),
    "read in a function": gb.served([HANDLE, PLAIN, CALL], [body(IN_BODY)]),
    "read in a function of a function": gb.served(
        [HANDLE, PLAIN, CALL],
        [
            body(gb.node("r", "PartitionedCall", ["handle"], {"f": gb.func("g")})),
            gb.function("g", [IN_BODY], ["handle"]) + gb.entry(4, "y", b"r:value:0"),
        ],
    ),
    "a function that calls itself": gb.served(
        [HANDLE, PLAIN, CALL],
        [
            body(
                IN_BODY,
                gb.node("s", "PartitionedCall", ["x", "handle", "^r"], {"f": gb.func("f")}),
                returned="s:output:0",
            )
        ],
    ),
    "of the older form": gb.served([gb.node("v", "VariableV2"), gb.node("out", "Identity", ["v"])]),
}
GOOD = {
    "assigned by the request": gb.served(
        [
            HANDLE,
            PLAIN,
            gb.node("set", "AssignVariableOp", ["v", "plain"]),
            gb.node("out", "ReadVariableOp", ["v", "^set"]),
        ]
    ),
    "not read": gb.served([HANDLE, gb.node("out", "VarIsInitializedOp", ["v"])]),
    "only a default": gb.served(
        [HANDLE, gb.node("r", "ReadVariableOp", ["v"]), gb.node("out", "PlaceholderWithDefault", ["r"])]
    ),
    "not needed for the output": gb.served(
        [HANDLE, PLAIN, gb.node("r", "ReadVariableOp", ["v"]), gb.node("out", "Neg", ["plain"])]
    ),
    "not returned by the function": gb.served([HANDLE, PLAIN, CALL], [body(IN_BODY, returned="x")]),
    "another argument": gb.served([HANDLE, PLAIN, CALL], [body(IN_BODY, arguments=("handle", "x"))]),
    "a function that is not there": gb.served([HANDLE, PLAIN, CALL]),
    "too few arguments": gb.served([HANDLE, PLAIN, CALL], [body(IN_BODY, arguments=("handle",))]),
    "an operation that nobody knows": gb.served([HANDLE, gb.node("out", "OurOwnOp", ["v"])]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_variable_that_every_request_reads_must_have_a_value(name: str, tmp_path: Path) -> None:
    """Nothing sets it: neither a saver, nor an init op, nor the request."""
    assert refused(tmp_path, *REFUSED[name])


@pytest.mark.parametrize("name", GOOD)
def test_a_variable_is_spared_that_requests_may_do_without(name: str, tmp_path: Path) -> None:
    """No model is refused on a suspicion."""
    assert not refused(tmp_path, *GOOD[name])


@pytest.mark.parametrize("name", REFUSED)
def test_a_variable_that_the_init_op_leads_to_has_a_value(name: str, tmp_path: Path) -> None:
    """The init op may set it in any way."""
    start = gb.node("start", "NoOp", ["^set"])
    nodes = b"".join(gb.data(1, item) for item in (gb.node("set", "OurOwnOp", ["v"]), start))
    graph, signature = REFUSED[name]

    assert not refused(tmp_path, graph + nodes, signature, gb.init_collection("saved_model_main_op", "start"))


def test_a_variable_that_shares_the_name_of_a_set_one_has_a_value(tmp_path: Path) -> None:
    """The server keeps variables by their shared names."""
    shared = {"shared_name": gb.text("w")}
    nodes = [gb.node("v", "VarHandleOp", (), shared), READ, gb.node("other", "VarHandleOp", (), shared)]
    nodes.append(gb.node("start", "AssignVariableOp", ["other", "c"]))
    graph, signature = gb.served(nodes)

    assert not refused(tmp_path, graph, signature, gb.init_collection("saved_model_main_op", "start"))


def test_without_a_default_signature_one_that_answers_is_enough(tmp_path: Path) -> None:
    """A signature that no client asks may be broken: the server serves the others."""
    graph = gb.graph([HANDLE, READ, PLAIN, gb.node("again", "ReadVariableOp", ["v"])])
    first = gb.signature("first", "out:0")

    assert refused(tmp_path, graph, first, gb.signature("second", "again:0"))
    assert not refused(tmp_path, graph, first, gb.signature("second", "plain:0"))


def test_a_broken_default_signature_is_refused_beside_a_good_one(tmp_path: Path) -> None:
    """It is what a client asks that names none."""
    graph, signature = gb.served([HANDLE, READ, PLAIN])

    assert refused(tmp_path, graph, signature, gb.signature("other", "plain:0"))


def refused(root: Path, graph_def: bytes, *more: bytes) -> bool:
    """Whether the graph is refused for want of a variable."""
    (root / "saved_model.pb").write_bytes(gb.saved_model(graph_def, *more))
    try:
        verify_structure(root)
    except ReleaseRefused as error:
        return error.reason is Reason.VARIABLES_MISSING and "sets the variables " in str(error)
    return False
