"""Variables of a graph that the server restores from no checkpoint: whether its init op gives them a value.

TensorFlow 1 keeps local variables out of checkpoints, and a graph that has no others is exported without a
saver and without `variables/`. The server then runs nothing but the init op before it serves.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from servesync.verify.attributes import text_of
from servesync.verify.bounded import Reader
from servesync.verify.graph_def import Scope, read_node, read_scope
from servesync.verify.meta_graph import read_entrances
from servesync.verify.saved_model import VARIABLE_OPS, opened

ASSIGNMENTS: Final = frozenset({b"Assign", b"AssignVariableOp"})


def uninitialized_variables(path: Path) -> list[str]:
    """Return the names of the variables that requests read and that nothing sets before, sorted.

    `path` is that of a saved_model.pb whose graph with the tag `serve` has no saver. A variable counts as set
    if the init op leads to it, or if the request itself assigns to it. Variables that a function makes are
    not looked at: they may be those of the graph under the same name.

    Raises:
        Malformed: the graph is none, or too much.
        OSError: the file cannot be read.
    """
    with opened(path) as data:
        reader = Reader()
        entrances = read_entrances(reader, data)
        if entrances is None:
            return []
        scope = read_scope(reader, entrances.graphs)
        outputs = [name for names in entrances.signatures.values() for name in names]
        used, assigned = _variables_before(reader, scope, outputs)
        initialized, _ = _variables_before(reader, scope, entrances.init)
        unset = {name for node, name in used.items() if node not in assigned} - set(initialized.values())
        return sorted(name.decode(errors="backslashreplace") for name in unset)


def _variables_before(
    reader: Reader, scope: Scope, tensors: Iterable[bytes]
) -> tuple[dict[bytes, bytes], set[bytes]]:
    """Return the variables among the nodes that lead to `tensors`, and which of these nodes are assigned to.

    The variables are the names under which the server keeps them, by the name of their node.
    """
    variables: dict[bytes, bytes] = {}
    assigned: set[bytes] = set()
    met: set[bytes] = set()
    to_visit = list(tensors)
    while to_visit:
        name = _node_of(to_visit.pop())
        if name in met or name not in scope.nodes:
            continue
        met.add(name)
        node = read_node(reader, scope.nodes[name])
        to_visit += node.inputs
        if node.operation in VARIABLE_OPS:
            shared = [text_of(reader, value) for key, value in node.attributes if key == b"shared_name"]
            variables[name] = next(filter(None, shared), name)
        elif node.operation in ASSIGNMENTS:
            assigned.update(map(_node_of, node.inputs[:1]))
    return variables, assigned


def _node_of(tensor: bytes) -> bytes:
    return tensor.removeprefix(b"^").partition(b":")[0]
