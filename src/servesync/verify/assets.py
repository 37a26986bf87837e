"""Finds the tensors that can only be paths of the model's own asset files while the server loads it.

The server sets some tensors to paths below `assets/`. Exports of TensorFlow 2 store each path in a variable
and read it from there. Such a variable counts only if nothing else can set it.
"""

from collections.abc import Iterator

from servesync.verify.attributes import text_of
from servesync.verify.graph_def import Node, Scope, body_nodes, read_node
from servesync.verify.parse_budget import Reader


def asset_tensors(reader: Reader, scope: Scope, assets: set[bytes]) -> set[bytes]:
    """Return `assets`, and the tensors that are read from variables which can hold nothing else.

    Raises:
        Malformed: the graph is damaged or too large.
    """
    if not assets:
        return set()
    variables = _variables(reader, scope)
    is_set: set[bytes] = set()
    is_spoilt: set[bytes] = set()
    reads: list[tuple[bytes, bytes]] = []
    for node in _main_nodes(reader, scope):
        inputs = [full_name(name) for name in node.data_inputs]
        for name in variables.intersection(inputs):
            if node.operation == b"ReadVariableOp":
                reader.keep()
                reads.append((name, node.name + b":0"))
            elif (
                node.operation == b"AssignVariableOp" and inputs[0] == name and assets.issuperset(inputs[1:])
            ):
                is_set.add(name)
            elif node.operation != b"VarIsInitializedOp":
                is_spoilt.add(name)
    return assets | {tensor for name, tensor in reads if name in is_set - is_spoilt}


def full_name(tensor: bytes) -> bytes:
    """Return a tensor's name with the number of its output, which an input may leave out if it is 0."""
    return tensor if b":" in tensor else tensor + b":0"


def _variables(reader: Reader, scope: Scope) -> set[bytes]:
    """Return the handles of the variables that have only one handle, counting those in functions."""
    handles: dict[bytes, list[bytes]] = {}
    for node in _main_nodes(reader, scope):
        _add_handle(reader, handles, node)
    for bodies in scope.functions.values():
        for body in bodies:
            for data in body_nodes(reader, body):
                _add_handle(reader, handles, read_node(reader, data))
    return {full_name(names[0]) for names in handles.values() if len(names) == 1}


def _add_handle(reader: Reader, handles: dict[bytes, list[bytes]], node: Node) -> None:
    if node.operation == b"VarHandleOp":
        reader.keep()
        values = [text_of(reader, value) for key, value in node.attributes if key == b"shared_name"]
        shared = values[-1] if values else b""
        handles.setdefault(shared or node.name, []).append(node.name)


def _main_nodes(reader: Reader, scope: Scope) -> Iterator[Node]:
    return (read_node(reader, data) for data in scope.nodes.values())
