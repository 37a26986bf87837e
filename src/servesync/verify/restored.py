"""Reads the names under which a graph restores its variables, as far as they are constants.

When the server loads a version, it runs the restore op, which fails if a name is not in `variables.index`.
That happens if `saved_model.pb` and `variables/` are of different exports.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

from servesync.verify.attributes import references
from servesync.verify.graph_def import Node, Scope, body_nodes, read_node, read_scope
from servesync.verify.meta_graph import read_entrances
from servesync.verify.parse_budget import Reader, TooMuch
from servesync.verify.reachability import CALLS
from servesync.verify.reads import node_of, reached
from servesync.verify.saved_model import opened


def restored_names(path: Path) -> set[str]:
    """Return the names that the restore op of the graph with the tag `serve` in a saved_model.pb reads.

    Only constants in the graph, and in functions that the restore op calls, are read. The result is empty for
    a graph that is too large to follow.

    Raises:
        Malformed: the graph is damaged.
        OSError: the file cannot be read.
    """
    with opened(path) as data:
        reader = Reader()
        try:
            return {name.decode(errors="backslashreplace") for name in _names(reader, data)}
        except TooMuch:
            return set()


def _names(reader: Reader, data: memoryview) -> set[bytes]:
    entrances = read_entrances(reader, data)
    if entrances is None:
        return set()
    scope = read_scope(reader, entrances.graphs)
    nodes = {name: scope.nodes[name] for name in reached(reader, scope, entrances.restore)}
    found = _restored(reader, nodes)
    for data_of_node in nodes.values():
        for body in _called(reader, scope, read_node(reader, data_of_node)):
            found |= _restored(
                reader, {read_node(reader, part).name: part for part in body_nodes(reader, body)}
            )
    return found


def _called(reader: Reader, scope: Scope, node: Node) -> Iterable[memoryview]:
    """Return the bodies of the functions that a node calls."""
    if node.operation not in CALLS:
        return []
    functions = [reference for reference in references(reader, node.attributes) if reference.is_called]
    return [body for function in functions for body in scope.functions.get(bytes(function.data), [])]


def _restored(reader: Reader, nodes: Mapping[bytes, memoryview]) -> set[bytes]:
    """Return the names that the RestoreV2 operations among some nodes read."""
    found: set[bytes] = set()
    for data in nodes.values():
        node = read_node(reader, data)
        if node.operation != b"RestoreV2":
            continue
        for tensor in node.data_inputs[1:2]:
            source = read_node(reader, nodes[node_of(tensor)]) if node_of(tensor) in nodes else None
            if source is not None and source.operation == b"Const":
                values = [value for value in source.attributes if value[0] == b"value"]
                found |= {bytes(name.data) for name in references(reader, values) if not name.is_function}
    return found
